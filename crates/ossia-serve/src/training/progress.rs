//! What a child writes while it trains: its own words (`said.jsonl`), and the run's log (`metrics.jsonl`), one JSON object a
//! line. Both are read a piece at a time, and nothing in them is trusted: a line that is none is passed over.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// The longest line that is read.
const MOST_LINE: usize = 4 << 20;
/// The most that is read at once.
const MOST_PIECE: u64 = 8 << 20;
/// Characters of a message that are kept.
const MOST_MESSAGE: usize = 1000;

/// A file that grows, read from where the last reading ended.
#[derive(Debug)]
pub struct Growing {
    path: PathBuf,
    at: u64,
    /// A line that has no end yet.
    rest: Vec<u8>,
}

impl Growing {
    /// From its beginning; it need not be there yet.
    pub fn new(path: PathBuf) -> Self {
        Self { path, at: 0, rest: Vec::new() }
    }

    /// Whole new lines that are JSON. A file that has become shorter is read anew.
    pub fn lines(&mut self) -> io::Result<Vec<Value>> {
        let mut file = match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            file => file?,
        };
        if file.metadata()?.len() < self.at {
            (self.at, self.rest) = (0, Vec::new());
        }
        file.seek(SeekFrom::Start(self.at))?;
        let mut piece = Vec::new();
        self.at += file.take(MOST_PIECE).read_to_end(&mut piece)? as u64;
        let mut lines = Vec::new();
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            self.rest.extend_from_slice(part);
            if part.ends_with(b"\n") {
                lines.extend(serde_json::from_slice(&std::mem::take(&mut self.rest)).ok());
            } else if self.rest.len() > MOST_LINE {
                // What is left is no JSON, whatever follows.
                self.rest = vec![b'!'];
            }
        }
        Ok(lines)
    }
}

/// What a child says of itself.
#[derive(Debug, Clone, PartialEq)]
pub enum Said {
    /// Everything is checked; updates begin.
    Begins {
        /// Updates in all.
        steps: i64,
        /// Of which so many are done already.
        step: i64,
        /// How often the data are seen.
        epochs: Option<f64>,
        /// Examples to learn from.
        examples: Option<i64>,
    },
    /// All is done.
    Complete,
    /// It was asked to end, and can go on.
    Stopped,
    /// It cannot be done; why, in one line.
    Failed(String),
}

impl Said {
    /// What a line means, if it means something here.
    pub fn read(line: &Value) -> Option<Self> {
        match line["event"].as_str()? {
            "begins" => Some(Self::Begins {
                steps: line["steps"].as_i64()?,
                step: line["step"].as_i64().unwrap_or(0),
                epochs: line["epochs"].as_f64(),
                examples: line["examples"].as_i64(),
            }),
            "ended" if line["why"] == "stopped" => Some(Self::Stopped),
            "ended" => Some(Self::Complete),
            "failed" => Some(Self::Failed(public(line["error"].as_str().unwrap_or_default()))),
            _ => None,
        }
    }
}

/// One line of the log.
#[derive(Debug, Clone, PartialEq)]
pub struct Numbers {
    /// Updates done; 0 is what was measured before the first.
    pub step: i64,
    /// Tokens read since the beginning.
    pub tokens: i64,
    /// Seconds since the beginning.
    pub elapsed_s: f64,
    /// By the names of the API.
    pub shown: Value,
}

/// The log's names, and the API's.
const NAMES: [(&str, &str); 11] = [
    ("/loss", "train_loss"),
    ("/valid_loss", "valid_loss"),
    ("/lr", "learning_rate"),
    ("/grad_norm", "grad_norm"),
    ("/tok_s", "tokens_per_second"),
    ("/preference/accuracy", "train_accuracy"),
    ("/preference/margin", "train_margin"),
    ("/valid_preference/accuracy", "valid_accuracy"),
    ("/valid_preference/margin", "valid_margin"),
    ("/policy/reward", "train_mean_reward"),
    ("/valid_reward", "valid_mean_reward"),
];

impl Numbers {
    /// Of a line of the log.
    pub fn read(line: &Value) -> Option<Self> {
        let step = line["step"].as_i64().filter(|step| *step >= 0)?;
        let mut shown = json!({ "step": step });
        for (place, name) in NAMES {
            match line.pointer(place) {
                // Before the first update there is none.
                Some(value) if value.is_number() && (step > 0 || name.starts_with("valid")) => {
                    shown[name] = value.clone();
                }
                _ => {}
            }
        }
        let (tokens, elapsed_s) = (line["tokens"].as_i64().unwrap_or(0), line["elapsed_s"].as_f64().unwrap_or(0.0));
        Some(Self { step, tokens, elapsed_s, shown })
    }

    /// A line for people.
    pub fn line(&self, steps: i64) -> String {
        let number = |name: &str| self.shown[name].as_f64();
        let mut line = format!("Step {}/{steps}:", self.step);
        for (name, words) in [
            ("train_loss", "training loss"),
            ("train_mean_reward", "mean reward"),
            ("valid_loss", "validation loss"),
            ("valid_mean_reward", "validation reward"),
        ] {
            if let Some(number) = number(name) {
                line.push_str(&format!(" {words}={number:.4},"));
            }
        }
        line.trim_end_matches([',', ':']).to_owned()
    }
}

/// A table of all numbers for people: comma-separated, a line for each update.
pub fn table(metrics: &Path) -> io::Result<Vec<u8>> {
    let names: Vec<&str> = NAMES.iter().map(|(_, name)| *name).collect();
    let mut text = format!("step,{}\n", names.join(","));
    let mut log = Growing::new(metrics.to_owned());
    loop {
        let before = log.at;
        for numbers in log.lines()?.iter().filter_map(Numbers::read) {
            text.push_str(&numbers.step.to_string());
            for name in &names {
                text.push(',');
                if let Some(number) = numbers.shown.get(name) {
                    text.push_str(&number.to_string());
                }
            }
            text.push('\n');
        }
        if log.at == before {
            return Ok(text.into_bytes());
        }
    }
}

/// A message for those who may not know the machine: one line, of paths only the last part.
pub fn public(message: &str) -> String {
    let word = |word: &str| -> String {
        let start = word.find('/').filter(|at| word[..*at].chars().all(|c| !c.is_alphanumeric()));
        match (start, word.rsplit_once('/')) {
            (Some(start), Some((_, last))) => format!("{}{last}", &word[..start]),
            _ => word.to_owned(),
        }
    };
    let first = message.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let words: Vec<String> = first.split_whitespace().map(word).collect();
    words.join(" ").chars().filter(|c| !c.is_control()).take(MOST_MESSAGE).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use serde_json::json;

    use super::{Growing, Numbers, Said, public, table};

    #[test]
    fn a_file_is_read_as_it_grows() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut growing = Growing::new(path.clone());
        assert!(growing.lines().unwrap().is_empty(), "not there yet");
        let mut file = std::fs::File::create(&path).unwrap();
        file.write_all(b"{\"a\":1}\n{\"a\":").unwrap();
        assert_eq!(growing.lines().unwrap(), [json!({ "a": 1 })]);
        file.write_all(b"2}\nnonsense\n\xff\xfe\n\n3\n").unwrap();
        assert_eq!(growing.lines().unwrap(), [json!({ "a": 2 }), json!(3)]);
        std::fs::write(&path, "{\"a\":4}\n").unwrap();
        assert_eq!(growing.lines().unwrap(), [json!({ "a": 4 })], "a shorter file is another one");
    }

    #[test]
    fn a_line_without_an_end_takes_no_room() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        std::fs::write(&path, vec![b'1'; 20 << 20]).unwrap();
        let mut growing = Growing::new(path);
        for _ in 0..4 {
            assert!(growing.lines().unwrap().is_empty());
            assert!(growing.rest.len() <= 1);
        }
    }

    #[test]
    fn what_a_child_says() {
        let begins = json!({ "event": "begins", "steps": 9, "epochs": 3.0, "examples": 12, "more": [] });
        let wanted = Said::Begins { steps: 9, step: 0, epochs: Some(3.0), examples: Some(12) };
        assert_eq!(Said::read(&begins), Some(wanted));
        for (line, wanted) in [
            (json!({ "event": "ended", "why": "complete" }), Some(Said::Complete)),
            (json!({ "event": "ended", "why": "patience" }), Some(Said::Complete)),
            (json!({ "event": "ended", "why": "stopped" }), Some(Said::Stopped)),
            (json!({ "event": "failed", "error": "no" }), Some(Said::Failed("no".into()))),
            (json!({ "event": "failed" }), Some(Said::Failed(String::new()))),
            (json!({ "event": "begins", "steps": "x" }), None),
            (json!({ "event": 7 }), None),
            (json!([1]), None),
        ] {
            assert_eq!(Said::read(&line), wanted, "{line}");
        }
    }

    #[test]
    fn numbers_have_the_names_of_the_api() {
        let line = json!({ "step": 2, "tokens": 100, "loss": 1.5, "valid_loss": 1.25, "lr": 1e-4, "elapsed_s": 3.0,
            "preference": { "accuracy": 0.75 }, "expert_load": [[1.0]], "grad_norm": null });
        let numbers = Numbers::read(&line).unwrap();
        let shown = json!({ "step": 2, "train_loss": 1.5, "valid_loss": 1.25, "learning_rate": 1e-4,
            "train_accuracy": 0.75 });
        assert_eq!((numbers.step, numbers.tokens, &numbers.shown), (2, 100, &shown));
        assert_eq!(numbers.line(9), "Step 2/9: training loss=1.5000, validation loss=1.2500");
        let first = Numbers::read(&json!({ "step": 0, "loss": 2.0, "valid_loss": 2.0 })).unwrap();
        assert_eq!(first.shown, json!({ "step": 0, "valid_loss": 2.0 }), "nothing is learned yet");
        assert_eq!(Numbers::read(&json!({ "step": -1 })), None);
        assert_eq!(Numbers::read(&json!({})), None);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        std::fs::write(&path, format!("{line}\n")).unwrap();
        let text = String::from_utf8(table(&path).unwrap()).unwrap();
        let (head, row) = text.split_once('\n').unwrap();
        assert!(head.starts_with("step,train_loss,valid_loss,learning_rate,"), "{text}");
        assert_eq!(row, "2,1.5,1.25,0.0001,,,0.75,,,,,\n");
    }

    #[test]
    fn messages_tell_nothing_of_the_machine() {
        for (message, wanted) in [
            ("training_file.jsonl: line 7: wanted JSON", "training_file.jsonl: line 7: wanted JSON"),
            ("/home/ada/x/config.toml: wrong", "config.toml: wrong"),
            ("cannot read \"/data/a b/c\": no", "cannot read \"a b/c\": no"),
            ("\n\n  first\u{7} line\nsecond", "first line"),
            ("3 tokens/s and a/b", "3 tokens/s and a/b"),
        ] {
            assert_eq!(public(message), wanted);
        }
        assert_eq!(public(&"ä".repeat(5000)).chars().count(), 1000);
    }
}
