//! A file of examples as an examination: everywhere that the assistant speaks, the prompt and what it is to say.

use std::path::Path;

use ossia_text::harmony::{ANALYSIS, Effort, FINAL};
use ossia_text::{Conversation, Harmony, Message, RenderOptions, Role};
use serde_json::Value;

use super::error::{Bad, Error, Result};
use super::reading::{guess, parse, talk};
use super::records::Records;
use super::report::MOST_NAMED;
use super::talk::Told;
use super::{Format, Manner, OnBad, Report, Skipped};
use crate::generate::Expected;

/// One thing to be said.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    /// The tokens from which the model answers.
    pub prompt: Vec<u32>,
    /// How much is thought.
    pub effort: Effort,
    /// The final text, or the first call, that the example has there.
    pub expected: Expected,
}

/// Reads every answer and every first call of a file's examples that is not marked as context (`weight` 0): what the
/// assistant is to say at the beginning of a turn and after each result of a tool. Examples that cannot be used are an
/// error, or are counted in the report.
pub fn asked(path: &Path, on_bad: OnBad, manner: &Manner, harmony: &Harmony) -> Result<(Vec<Asked>, Report)> {
    let mut records = Records::open(path)?;
    let (mut all, mut report) = (Vec::new(), Report::default());
    while let Some(record) = records.next()? {
        report.read += 1;
        let found = parse(&record).and_then(|value| {
            let example = value.as_object().ok_or("wanted a JSON object, an example a line")?;
            if report.format == Format::Auto {
                report.format = guess(example)?;
            }
            let talk = talk(example, report.format)?;
            // The same day for the same example in every examination.
            let told = talk.told(manner, report.read);
            let effort = talk.effort.unwrap_or(manner.effort);
            all_of(&told, effort, harmony)
        });
        match found {
            Ok(found) => {
                report.kept += 1;
                all.extend(found);
            }
            Err(bad) => pass_over(&mut report, path, record.line, bad, on_bad)?,
        }
    }
    if all.is_empty() {
        let why = format!("{} examples were read, {} passed over", report.read, report.num_skipped);
        return Err(Error::Empty { files: path.display().to_string(), why });
    }
    Ok((all, report))
}

fn pass_over(report: &mut Report, path: &Path, line: u64, bad: Bad, on_bad: OnBad) -> Result<()> {
    let why = bad.text().replace(char::is_control, " ");
    if on_bad == OnBad::Fail {
        return Err(Error::Line { path: path.to_owned(), line, problem: why });
    }
    report.num_skipped += 1;
    if report.skipped.len() < MOST_NAMED {
        report.skipped.push(Skipped { file: path.to_owned(), line, why });
    }
    Ok(())
}

fn all_of(told: &Told, effort: Effort, harmony: &Harmony) -> std::result::Result<Vec<Asked>, Bad> {
    let mut all = Vec::new();
    for (place, message) in told.messages.iter().enumerate() {
        let before = place.checked_sub(1).and_then(|before| told.messages.get(before));
        // A second call beside the first is not asked for, and a thought goes on by itself.
        let is_asked = message.author.role == Role::Assistant
            && before.is_none_or(|before| before.author.role != Role::Assistant || is_final(before));
        if !is_asked {
            continue;
        }
        let ends = |message: &&Message| message.recipient.is_some() || is_final(message);
        let says = told.messages[place..].iter().zip(&told.learned[place..]).find(|(message, _)| ends(message));
        let Some((says, &true)) = says else { continue };
        let conversation = Conversation::from(told.messages[..place].to_vec());
        let prompt = harmony.render_for_completion(&conversation, &RenderOptions::default());
        let prompt = prompt.map_err(|error| error.to_string())?;
        all.push(Asked { prompt, effort, expected: expected(says) });
    }
    Ok(all)
}

fn is_final(message: &Message) -> bool {
    message.channel.as_deref() == Some(FINAL)
}

fn expected(message: &Message) -> Expected {
    debug_assert_ne!(message.channel.as_deref(), Some(ANALYSIS));
    let text = message.content_text();
    match message.recipient.as_deref().and_then(|to| to.strip_prefix("functions.")) {
        // A custom tool's text is no JSON, and never equal to a call's arguments.
        Some(name) => {
            let arguments = serde_json::from_str(&text).unwrap_or(Value::String(text));
            Expected::Call { name: name.to_owned(), arguments }
        }
        None => Expected::Final(text),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::support::{Files, harmony};
    use super::*;

    #[test]
    fn everything_that_is_said_is_asked_for() {
        let call = |name: &str| json!({"function": {"name": name, "arguments": "{\"x\": 1}"}});
        let files = Files::of(&[
            json!({"messages": [
                {"role": "user", "content": "a"},
                {"role": "assistant", "thinking": "t", "content": "p", "tool_calls": [call("f"), call("g")]},
                {"role": "tool", "content": "1"},
                {"role": "tool", "content": "2"},
                {"role": "assistant", "thinking": "u", "content": "done"},
                {"role": "user", "content": "b"},
                {"role": "assistant", "content": "given", "weight": 0},
                {"role": "user", "content": "c"},
                {"role": "assistant", "content": "last"},
            ], "reasoning_effort": "low"}),
            json!({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}),
        ]);
        let (all, report) = asked(&files.file, OnBad::Fail, &Manner::default(), harmony()).unwrap();
        let expected: Vec<&Expected> = all.iter().map(|asked| &asked.expected).collect();
        let arguments = json!({"x": 1});
        let says = |text: &str| Expected::Final(text.to_owned());
        let wanted = [&Expected::Call { name: "f".into(), arguments }, &says("done"), &says("last"), &says("b")];
        assert_eq!(expected, wanted);
        assert_eq!((all[0].effort, all[3].effort, report.kept), (Effort::Low, Effort::Medium, 2));
        let text = |place: usize| String::from_utf8(harmony().tokenizer().decode(&all[place].prompt)).unwrap();
        assert!(text(0).ends_with("user<|message|>a<|end|><|start|>assistant"));
        assert!(text(1).contains("<|message|>2<|end|><|start|>assistant") && text(1).contains("analysis<|message|>t"));
        assert!(text(2).contains("given<|end|>") && !text(2).contains("<|message|>t<|end|>"));
    }

    #[test]
    fn bad_examples_are_named() {
        let good = json!({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]});
        let files = Files::new(format!("{good}\n{{\n"));
        let read = |on_bad| asked(&files.file, on_bad, &Manner::default(), harmony());
        assert!(read(OnBad::Fail).unwrap_err().to_string().contains("train.jsonl:2: is not JSON"));
        let (all, report) = read(OnBad::Skip).unwrap();
        assert_eq!((all.len(), report.num_skipped, report.skipped[0].line), (1, 1, 2));
        assert!(asked(&Files::new("").file, OnBad::Skip, &Manner::default(), harmony()).is_err());
    }
}
