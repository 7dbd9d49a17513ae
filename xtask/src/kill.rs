//! `cargo xtask kill`: a training run that is killed again and again must leave the bytes of one that was not; so must a
//! fine-tuning run (`cargo xtask kill finetune`).
//!
//! The program is started on a small recipe, or on nano and generated conversations, and killed with SIGKILL, by turns of a seeded coin: while data are made, at
//! any time of the steps, while a checkpoint is written. The same command is started again until the run is done;
//! then weights, moments and the place in the data are compared. What a kill has hit is told from what it left. A heavy
//! check, so no part of `cargo xtask check`.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A model of some hundred thousand weights: an unbroken run takes some ten seconds, a checkpoint some hundredths.
const RECIPE: &str = r#"
name = "kill"
seed = 5

[model]
num_hidden_layers = 4
hidden_size = 64
intermediate_size = 64
num_attention_heads = 4
num_key_value_heads = 2
head_dim = 16
num_local_experts = 8
num_experts_per_tok = 2
sliding_window = 32
max_position_embeddings = 512
rope_theta = 150000.0
rope_scaling = { rope_type = "yarn", factor = 4.0, original_max_position_embeddings = 128 }

[data]
source = "generated"
documents = 60000
vocabulary = 512
max_len = 256
weights = { context = 0.05 }

[training]
steps = 100
batch_tokens = 2048
micro_tokens = 1024
optimizer = "muon"
lr = 0.01
schedule = "wsd"
warmup = 0.05
weight_decay = 0.05

[quantize]
from = 0.5

[checkpoints]
every = 3
keep = 2

[validation]
every = 30
documents = 60
"#;

/// An adapter on nano: an unbroken run takes some ten seconds.
const FINETUNE: &str = r#"
[finetune]
steps = 40
[finetune.adapter]
rank = 4
[finetune.data]
max_len = 256
[finetune.training]
batch_tokens = 1024
[finetune.validation]
every = 10
[finetune.checkpoints]
every = 2
"#;
/// Its conversations.
const CONVERSATIONS: u64 = 2000;

const USAGE: &str =
    "usage: cargo xtask kill [finetune] [KILLS [SEED]]   (30 kills, seed 1; needs cargo build --release -p ossia)";
/// What a checkpoint's numbers are in.
const MODEL: &str = "model.safetensors";
const ADAPTER: &str = "adapter_model.safetensors";
/// How long to wait between two looks at the run's folder.
const LOOK: Duration = Duration::from_micros(200);
/// No run takes as long: a run that hangs is a failure.
const PATIENCE: Duration = Duration::from_secs(600);

/// Where a kill is aimed, and what it has hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Data,
    Steps,
    Save,
}

/// Kills runs until `args`' number of kills is reached, and compares each run that is done with an unbroken one.
pub fn run(root: &Path, args: &[&str]) -> Result<(), String> {
    let (finetunes, args) = match args {
        ["finetune", rest @ ..] => (true, rest),
        all => (false, all),
    };
    let number = |at: usize, or: u64| args.get(at).map_or(Ok(or), |text| text.parse().map_err(|_| USAGE.to_owned()));
    let (kills, mut rng) = (number(0, 30)?, Rng(number(1, 1)?));
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let program = target.join("release").join("ossia");
    if kills == 0 || args.len() > 2 || !program.is_file() {
        return Err(USAGE.to_owned());
    }
    let place = target.join("kill");
    empty(&place)?;
    let recipe = place.join("kill.toml");
    std::fs::write(&recipe, if finetunes { FINETUNE } else { RECIPE }).map_err(said(&recipe))?;
    let data = place.join("kill.jsonl");
    std::fs::write(&data, conversations()).map_err(said(&data))?;
    let runs = Runs { program, recipe, data: finetunes.then_some(data) };
    let (times, wanted) = runs.unbroken(&place.join("unbroken"))?;
    println!("unbroken: {:.1} s, of which data {:.1} s", times.all.as_secs_f64(), times.data.as_secs_f64());
    let (mut done, mut equal, mut compared, mut hits) = (0, 0, 0, Vec::new());
    while done < kills {
        let folder = place.join(format!("broken-{compared}"));
        let hit = runs.broken(&folder, &times, kills - done, &mut rng)?;
        let differs = wanted.difference(&Left::by(&folder)?);
        done += hit.len() as u64;
        compared += 1;
        equal += u64::from(differs.is_none()) * hit.len() as u64;
        println!("{done}/{kills} kills, {hit:?}: {}", differs.as_deref().unwrap_or("equal"));
        hits.extend(hit);
        std::fs::remove_dir_all(&folder).map_err(said(&folder))?;
    }
    let count = |part| hits.iter().filter(|&&hit| hit == part).count();
    let [data, steps, save] = [Part::Data, Part::Steps, Part::Save].map(count);
    println!("hit: data {data}, steps {steps}, checkpoints being written {save}; {compared} runs");
    wanted.files.iter().for_each(|(name, _)| println!("{name} {}", wanted.hash(name)));
    println!("{equal}/{done} equal");
    if equal == done { Ok(()) } else { Err(format!("{} kills changed a run", done - equal)) }
}

/// Of an unbroken run.
struct Times {
    data: Duration,
    all: Duration,
}

struct Runs {
    program: PathBuf,
    recipe: PathBuf,
    /// What is learned, where the run fine-tunes.
    data: Option<PathBuf>,
}

/// Questions and answers, one conversation a line.
fn conversations() -> String {
    let line = |at: u64| {
        let (question, answer) = (format!("Where is cairn {at}?"), format!("By tarn {}.", at * 7 % 1000));
        format!(
            "{{\"messages\":[{{\"role\":\"user\",\"content\":\"{question}\"}},{{\"role\":\"assistant\",\"content\":\"{answer}\"}}]}}\n"
        )
    };
    (0..CONVERSATIONS).map(line).collect()
}

impl Runs {
    fn start(&self, folder: &Path) -> Result<Child, String> {
        let mut command = Command::new(&self.program);
        match &self.data {
            None => command.arg("train").arg(&self.recipe),
            Some(data) => {
                command.args(["finetune", "-m", "nano", "--data"]).arg(data).arg("--config").arg(&self.recipe)
            }
        };
        command.arg("--out").arg(folder).args(["--threads", "2", "--json"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().map_err(said(&self.program))
    }

    fn unbroken(&self, folder: &Path) -> Result<(Times, Left), String> {
        let start = Instant::now();
        let mut child = self.start(folder)?;
        let ended = until(&mut child, PATIENCE, &mut || folder.join("checkpoints/latest.json").exists())?;
        let data = start.elapsed();
        if !ended {
            finish(&mut child)?;
        }
        Ok((Times { data, all: start.elapsed() }, Left::by(folder)?))
    }

    /// Kills at most `most` times, one aim after the other, until the run is done; what was hit.
    fn broken(&self, folder: &Path, times: &Times, most: u64, rng: &mut Rng) -> Result<Vec<Part>, String> {
        let mut hits = Vec::new();
        loop {
            let mut child = self.start(folder)?;
            if hits.len() as u64 == most {
                finish(&mut child)?;
                return Ok(hits);
            }
            let has_data = folder.join("checkpoints/latest.json").exists();
            // Data are made once, so half of the starts that make them are spent on that.
            let aims = if has_data { [Part::Steps, Part::Save] } else { [Part::Data, Part::Steps] };
            let aim = aims[(rng.next() % 2) as usize];
            let ended = match aim {
                Part::Data => until(&mut child, rng.below(times.data), &mut || false)?,
                Part::Steps => until(&mut child, rng.below(times.all), &mut || false)?,
                Part::Save => {
                    let wait = rng.below(times.all / 2);
                    until(&mut child, wait, &mut || false)?
                        || until(&mut child, PATIENCE, &mut || is_saving(folder))?
                        || until(&mut child, rng.below(Duration::from_millis(30)), &mut || false)?
                }
            };
            if ended {
                return Ok(hits);
            }
            child.kill().and_then(|()| child.wait()).map_err(|e| format!("cannot kill the run: {e}"))?;
            hits.push(what_was_hit(folder));
        }
    }
}

/// Waits until the run has ended (true), the time is over or something has happened (false).
fn until(child: &mut Child, time: Duration, happened: &mut dyn FnMut() -> bool) -> Result<bool, String> {
    let start = Instant::now();
    while start.elapsed() < time && !happened() {
        match child.try_wait().map_err(|e| format!("cannot wait for the run: {e}"))? {
            Some(status) if status.success() => return Ok(true),
            Some(status) => return Err(format!("the run failed ({status}), see above")),
            None => std::thread::sleep(LOOK),
        }
    }
    Ok(false)
}

fn finish(child: &mut Child) -> Result<(), String> {
    match until(child, PATIENCE, &mut || false)? {
        true => Ok(()),
        false => Err(format!("the run has not ended after {} s; it is process {}", PATIENCE.as_secs(), child.id())),
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn is_saving(folder: &Path) -> bool {
    names(&folder.join("checkpoints")).iter().any(|name| name.starts_with('.'))
}

fn what_was_hit(folder: &Path) -> Part {
    let newest = names(&folder.join("checkpoints")).into_iter().filter(|name| name.starts_with("step-")).max();
    let pointer = std::fs::read_to_string(folder.join("checkpoints/latest.json")).unwrap_or_default();
    let is_pointed_at = newest.as_ref().is_some_and(|name| pointer.contains(name.as_str()));
    match (is_saving(folder) || (newest.is_some() && !is_pointed_at), is_pointed_at) {
        (true, _) => Part::Save,
        (false, true) => Part::Steps,
        (false, false) => Part::Data,
    }
}

/// What a run leaves.
struct Left {
    files: Vec<(&'static str, Vec<u8>)>,
    state: String,
}

impl Left {
    /// The newest checkpoint of the run in `folder`. Its hashes were made from the files when they were written; the
    /// files themselves are compared too.
    fn by(folder: &Path) -> Result<Self, String> {
        let checkpoints = folder.join("checkpoints");
        let newest = names(&checkpoints).into_iter().filter(|name| name.starts_with("step-")).max();
        let last = checkpoints.join(newest.unwrap_or_default());
        let read = |name: &'static str| {
            let file = last.join(name);
            std::fs::read(&file).map(|bytes| (name, bytes)).map_err(said(&file))
        };
        let weights = if last.join(ADAPTER).exists() { ADAPTER } else { MODEL };
        let files = [weights, "optimizer.safetensors"].map(read).into_iter().collect::<Result<_, _>>()?;
        let state = std::fs::read_to_string(last.join("state.json")).map_err(said(&last.join("state.json")))?;
        Ok(Self { files, state })
    }

    /// The state's value of `key`, as far as the bracket or quote that ends it.
    fn value(&self, key: &str, end: char) -> &str {
        let rest = self.state.split_once(&format!("\"{key}\":")).map_or("", |(_, rest)| rest);
        rest.trim_start_matches([' ', '"']).split(end).next().unwrap_or_default()
    }

    /// The SHA-256 that the state has of a file.
    fn hash(&self, name: &str) -> &str {
        self.value(name, '"')
    }

    fn difference(&self, other: &Self) -> Option<String> {
        let pairs = self.files.iter().zip(&other.files);
        let file = pairs.into_iter().find(|(a, b)| a != b).map(|((name, _), _)| format!("{name} differs"));
        let names = self.files.iter().map(|(name, _)| *name);
        let same = names.into_iter().all(|name| self.hash(name).len() == 64 && self.hash(name) == other.hash(name));
        let cursor = self.value("cursor", '}');
        let place = !cursor.is_empty() && cursor == other.value("cursor", '}');
        file.or_else(|| (!same).then(|| "the hashes differ".into()))
            .or_else(|| (!place).then(|| "the place differs".into()))
    }
}

fn empty(folder: &Path) -> Result<(), String> {
    if folder.exists() {
        std::fs::remove_dir_all(folder).map_err(said(folder))?;
    }
    std::fs::create_dir_all(folder).map_err(said(folder))
}

fn said(path: &Path) -> impl FnOnce(std::io::Error) -> String {
    move |error| format!("{}: {error}", path.display())
}

/// splitmix64.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A time from nothing to `most`.
    fn below(&mut self, most: Duration) -> Duration {
        most.mul_f64(self.next() as f64 / u64::MAX as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(weights: &[u8], cursor: u32) -> Left {
        let hashes = format!("\"model.safetensors\": \"{:064}\", \"optimizer.safetensors\": \"{:064}\"", 1, 2);
        let state = format!("{{ \"step\": 9, \"cursor\": {{ \"position\": {cursor} }}, \"hashes\": {{ {hashes} }} }}");
        Left { files: vec![("model.safetensors", weights.into())], state }
    }

    #[test]
    fn differences_are_seen() {
        let wanted = left(b"abc", 7);
        assert_eq!(wanted.difference(&left(b"abc", 7)), None);
        assert_eq!(wanted.difference(&left(b"abd", 7)).as_deref(), Some("model.safetensors differs"));
        assert_eq!(wanted.difference(&left(b"abc", 8)).as_deref(), Some("the place differs"));
        let unknown = Left { state: String::new(), ..left(b"abc", 7) };
        assert_eq!(unknown.difference(&left(b"abc", 7)).as_deref(), Some("the hashes differ"));
    }
}
