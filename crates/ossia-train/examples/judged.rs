//! Examples for `--method grpo` and `--method dpo` in docs/training.md.
//!
//! `cargo run --release -p ossia-train --example judged -- FOLDER` writes
//! - `items.jsonl`: lists of two numbers to be sorted (nano was shown three to five, and makes three of two) and, in turn,
//!   of three to five, with the answers for a grader; `items-test.jsonl` has other lists of two, as conversations;
//! - `pairs.jsonl`: a thought with a check is preferred to the same without one; `pairs-test.jsonl` has pairs about tasks
//!   that are held out from all training.

#[path = "shared/chat.rs"]
mod chat;
#[path = "shared/rng.rs"]
mod rng;

use std::error::Error;
use std::path::Path;

use ossia_text::harmony::Effort;
use ossia_train::generate::{self, Expected, Family, Sample, Split};
use rng::Rng;
use serde_json::{Value, json};

const NUM: usize = 4000;
const NUM_TEST: usize = 300;
/// One list in so many is kept for the test.
const TEST_ONE_IN: u64 = 5;

const SORT_UP: &[&str] =
    &["Sort {c}.", "Sort {l} from smallest to largest.", "Order {l} from low to high.", "Please sort these: {c}."];
const SORT_DOWN: &[&str] = &[
    "Sort descending: {c}.",
    "Sort {l} from largest to smallest.",
    "Order {l} from high to low.",
    "Sort {c}, largest first.",
];

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args().nth(1).ok_or("wanted a folder to write to")?;
    let folder = Path::new(&folder);
    std::fs::create_dir_all(folder)?;
    let items = lists(1, false).enumerate().flat_map(|(index, (asked, answer))| {
        [Some(json!({"messages": [{"role": "user", "content": asked}], "answer": answer})), longer(index as u64)]
    });
    chat::write(&folder.join("items.jsonl"), items.flatten().take(NUM))?;
    chat::write(
        &folder.join("items-test.jsonl"),
        lists(2, true).map(|(asked, answer)| talk(&asked, &answer)).take(NUM_TEST),
    )?;
    let pairs = |split, seed| (0..).filter_map(move |index| pair(split, seed, index));
    chat::write(&folder.join("pairs.jsonl"), pairs(Split::Train, 4).take(NUM))?;
    chat::write(&folder.join("pairs-test.jsonl"), pairs(Split::HeldOut, 5).take(NUM_TEST))
}

/// Questions and answers about lists that are kept for the test, or about all others.
fn lists(seed: u64, is_test: bool) -> impl Iterator<Item = (String, String)> {
    let mut rng = Rng(seed);
    std::iter::repeat_with(move || {
        let digits = 1 + rng.below(3) as u32;
        let [a, b] = [0; 2].map(|_| 1 + rng.below(10u64.pow(digits) - 1));
        let (least, most) = (a.min(b), a.max(b));
        let (templates, answer) = match rng.below(2) {
            0 => (SORT_UP, format!("{least}, {most}")),
            _ => (SORT_DOWN, format!("{most}, {least}")),
        };
        let asked = rng.pick(templates).replace("{c}", &format!("{a}, {b}")).replace("{l}", &format!("{a} and {b}"));
        let is_kept = Rng(1000 * least + most).next().is_multiple_of(TEST_ONE_IN);
        (least < most && is_kept == is_test).then_some((asked, answer))
    })
    .flatten()
}

/// A list of three to five numbers, and what a grader compares with.
fn longer(index: u64) -> Option<Value> {
    let sample = generate::sample_with_effort(Family::Sorting, Split::Train, Effort::Medium, 3, index);
    let Expected::Final(answer) = &sample.expected else { return None };
    let (mut line, _) = question(&sample)?;
    line["answer"] = json!(answer);
    Some(line)
}

fn talk(asked: &str, answer: &str) -> Value {
    json!({"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]})
}

/// A question at medium effort, the answer after a thought as long as high effort has, and the usual one.
fn pair(split: Split, seed: u64, index: u64) -> Option<Value> {
    let family = Family::ALL[(index % Family::ALL.len() as u64) as usize];
    let at = |effort| question(&generate::sample_with_effort(family, split, effort, seed, index));
    let ((input, usual), (_, checked)) = (at(Effort::Medium)?, at(Effort::High)?);
    (usual != checked).then(|| json!({"input": input, "preferred_output": [checked], "non_preferred_output": [usual]}))
}

/// The conversation without its last message, and that message.
fn question(sample: &Sample) -> Option<(Value, Value)> {
    let mut line = chat::conversation(sample);
    let last = line["messages"].as_array_mut()?.pop()?;
    Some((line, last))
}
