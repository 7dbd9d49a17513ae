//! Examples for `--method grpo` and `--method dpo` in docs/training.md: questions about a text that answers them, and as
//! many that it does not answer, where nano quotes another person's sentence half of the time.
//!
//! `cargo run --release -p ossia-train --example refusals -- FOLDER [NUM]` writes `items.jsonl` (NUM questions with their
//! answers, 4,000 if not said), `pairs.jsonl` (NUM pairs of answers) and `pairs-test.jsonl` (400 pairs about tasks that are
//! held out from all training).

#[path = "shared/chat.rs"]
mod chat;

use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use ossia_text::harmony::Effort;
use ossia_train::generate::{self, Expected, Family, Sample, Split};
use serde_json::{Value, json};

const NUM: usize = 4000;
const NUM_TEST: usize = 400;
/// What is asked: every second question has no answer.
const FAMILIES: [Family; 4] = [Family::Refusal, Family::Context1, Family::Refusal, Family::Context2];
/// What is looked up, and how a sentence says it.
const RELATIONS: &[(&str, &str)] = &[
    ("home", " lives in "),
    ("pet", " has a "),
    ("job", " works as a "),
    ("color", " likes "),
    ("food", " eats "),
    ("vehicle", " drives a "),
];
const NOT_THERE: &str = "That is not in the text.";

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("wanted a folder to write to")?;
    let num = arguments.next().map_or(Ok(NUM), |number| number.parse())?;
    let folder = Path::new(&folder);
    std::fs::create_dir_all(folder)?;
    write(&folder.join("items.jsonl"), samples(Split::Train, 3).filter_map(|sample| item(&sample)).take(num))?;
    write(&folder.join("pairs.jsonl"), samples(Split::Train, 4).filter_map(|sample| pair(&sample)).take(num))?;
    write(
        &folder.join("pairs-test.jsonl"),
        samples(Split::HeldOut, 5).filter_map(|sample| pair(&sample)).take(NUM_TEST),
    )
}

fn write(path: &Path, lines: impl Iterator<Item = Value>) -> Result<(), Box<dyn Error>> {
    let mut out = BufWriter::new(File::create(path)?);
    for line in lines {
        writeln!(out, "{line}")?;
    }
    out.flush()?;
    Ok(())
}

fn samples(split: Split, seed: u64) -> impl Iterator<Item = Sample> {
    (0u64..).map(move |index| {
        let family = FAMILIES[(index % FAMILIES.len() as u64) as usize];
        generate::sample_with_effort(family, split, Effort::Medium, seed, index)
    })
}

/// The question, and what a grader compares with.
fn item(sample: &Sample) -> Option<Value> {
    let (mut line, _) = question(sample)?;
    let Expected::Final(answer) = &sample.expected else { return None };
    line["answer"] = json!(answer);
    Some(line)
}

/// The question with a right answer and a wrong one: a fact of somebody else, or a refusal where the text does say it.
/// Nothing where it takes two sentences.
fn pair(sample: &Sample) -> Option<Value> {
    let (input, right) = question(sample)?;
    let looked_up = right["reasoning_content"].as_str()?;
    let (what, found) = looked_up.split_once(": ")?;
    let (slot, _) = what.split_once(" of ")?;
    let infix = RELATIONS.iter().find_map(|(name, infix)| (*name == slot).then_some(*infix))?;
    let (sentence, answer) = match found {
        "none" => another(&input, infix)?,
        _ => ("none".to_owned(), NOT_THERE.to_owned()),
    };
    let wrong = json!({"role": "assistant", "reasoning_content": format!("{what}: {sentence}"), "content": answer});
    Some(json!({"input": input, "preferred_output": [right], "non_preferred_output": [wrong]}))
}

/// The first sentence of the text that says such a thing of anybody, and what it says.
fn another(input: &Value, infix: &str) -> Option<(String, String)> {
    let texts = input["messages"].as_array()?.iter().filter_map(|message| message["content"].as_str());
    let text = texts.collect::<Vec<_>>().join("\n");
    let at = text.find(infix)?;
    let person = text[..at].rsplit(|c: char| !c.is_alphabetic()).next()?;
    let value = text[at + infix.len()..].split('.').next()?;
    Some((format!("{person}{infix}{value}."), value.to_owned()))
}

/// The conversation without its last message, and that message.
fn question(sample: &Sample) -> Option<(Value, Value)> {
    let mut line = chat::conversation(sample);
    let last = line["messages"].as_array_mut()?.pop()?;
    Some((line, last))
}
