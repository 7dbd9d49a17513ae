//! Files that were changed at random: never a panic, never more kept than there is, the same result every time; and files
//! that are large: the same memory.

use std::io::Write;

use serde_json::{Value, json};

use super::super::*;
use super::support::{Files, documents, settings};

/// A small seeded generator (splitmix64).
struct Rng(u64);

impl Rng {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }
}

fn examples() -> Vec<Value> {
    let user = json!({"role": "user", "content": "q"});
    let call = json!({"role": "assistant", "content": "p", "thinking": "t", "weight": 0,
        "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{\"a\": [1, 2.5e3, null]}"}}]});
    let result = json!({"role": "tool", "tool_call_id": "1", "content": [{"type": "text", "text": "r"}]});
    let answer = json!({"role": "assistant", "content": "<think>x</think>a"});
    let tool = json!({"type": "function", "function": {"name": "f", "description": "d", "parameters":
        {"type": "object", "properties": {"a": {"type": "array", "items": {"enum": [1, "b"]}}}}}});
    vec![
        json!({"messages": [user, call, result, answer], "tools": [tool], "reasoning_effort": "low"}),
        json!({"messages": [user, answer], "response_format": {"type": "json_schema",
            "json_schema": {"name": "n", "schema": {"type": "object"}}}}),
        json!({"input": {"messages": [user]}, "preferred_output": [answer], "non_preferred_output": [call]}),
        json!({"prompt": "p", "chosen": [user, answer], "rejected": "c"}),
        json!({"messages": [user], "answer": {"x": [1]}}),
        json!({"conversations": [{"from": "human", "value": "q"}, {"from": "function_call",
            "value": "{\"name\": \"f\", \"arguments\": {}}"}, {"from": "observation", "value": "r"},
            {"from": "gpt", "value": "a"}], "system": "s", "tools": "[]"}),
        json!({"instruction": "i", "input": "j", "output": "o", "history": [["a", "b"]]}),
    ]
}

/// Texts that a mutation puts somewhere.
const PIECES: [&str; 16] = [
    "null",
    "\"\"",
    "[]",
    "{}",
    "-1",
    "1e999",
    "\"role\"",
    "\"assistant\"",
    "\\u0000",
    "\\ud83d",
    "\"messages\":",
    "<|end|>",
    "\u{feff}",
    "\n",
    "[[[[",
    "\"weight\":1",
];

fn mutate(rng: &mut Rng, bytes: &mut Vec<u8>) {
    let at = rng.below(bytes.len().max(1));
    match rng.below(6) {
        0 => bytes.truncate(at),
        1 => drop(bytes.drain(at..(at + 1 + rng.below(20)).min(bytes.len()))),
        2 => drop(bytes.splice(at..at, PIECES[rng.below(PIECES.len())].bytes())),
        3 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = rng.below(256) as u8),
        4 => {
            let piece: Vec<u8> = bytes[at..(at + rng.below(60)).min(bytes.len())].to_vec();
            let to = rng.below(bytes.len().max(1));
            drop(bytes.splice(to..to, piece));
        }
        _ => {
            let word = PIECES[rng.below(PIECES.len())].as_bytes();
            let end = (at + word.len()).min(bytes.len());
            drop(bytes.splice(at..end, word.iter().copied()));
        }
    }
}

#[test]
fn changed_files_never_panic() {
    let examples = examples();
    let forms = [Format::Auto, Format::Chat, Format::Preference, Format::ShareGpt, Format::Alpaca, Format::Items];
    let mut rng = Rng(11);
    let (mut num_kept, mut num_failed) = (0, 0);
    for round in 0..600 {
        let mut bytes = Vec::new();
        let usual = rng.below(examples.len());
        for _ in 0..1 + rng.below(4) {
            let place = if rng.below(5) == 0 { rng.below(examples.len()) } else { usual };
            bytes.extend(examples[place].to_string().bytes());
            bytes.push(b'\n');
        }
        for _ in 0..rng.below(4) {
            mutate(&mut rng, &mut bytes);
        }
        let files = Files::new(&bytes);
        let settings = DataSettings {
            format: if rng.below(3) == 0 { forms[rng.below(forms.len())] } else { Format::Auto },
            on_bad: if round % 4 == 0 { OnBad::Fail } else { OnBad::Skip },
            validation: if round % 3 == 0 { Validation::Share(0.3) } else { Validation::None },
            ..settings()
        };
        match files.prepare(&settings) {
            Ok(prepared) => {
                let report = prepared.report.clone();
                assert_eq!(report.read, report.kept + report.validation + report.num_skipped);
                let num_items = prepared.train_items.len() as u64;
                let again = files.prepare(&settings).unwrap();
                assert_eq!(again.report, report);
                let documents = documents(prepared);
                assert_eq!(documents.len() as u64 + num_items, report.documents);
                assert!(documents.iter().all(|document| document.classes.iter().any(|&class| class != 0)));
                num_kept += report.kept;
            }
            Err(error) => {
                let error = error.to_string();
                assert!(!error.contains('\n'), "{error}");
                num_failed += 1;
            }
        }
    }
    assert!(num_kept > 200 && num_failed > 50, "both ways were taken: {num_kept} {num_failed}");
}

/// The most memory that this process has held, bytes, where the system says it.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib << 10)
}

/// Run alone, over a file of any size: `OSSIA_TEST_BYTES=10000000000 cargo test --release -p ossia-train -- --ignored
/// a_large_file_takes_the_same_memory`.
#[test]
#[ignore = "writes a large file"]
fn a_large_file_takes_the_same_memory() {
    let num_bytes: u64 = std::env::var("OSSIA_TEST_BYTES").ok().and_then(|n| n.parse().ok()).unwrap_or(200_000_000);
    let files = Files::new("");
    let mut out = std::io::BufWriter::new(std::fs::File::create(&files.file).unwrap());
    let (mut written, mut number) = (0, 0u64);
    while written < num_bytes {
        let answer = format!("number {number}, {}", "some words of an answer ".repeat(40));
        let line = json!({"messages": [{"role": "user", "content": format!("question {number}")},
            {"role": "assistant", "content": answer}]});
        let line = format!("{line}\n");
        out.write_all(line.as_bytes()).unwrap();
        written += line.len() as u64;
        number += 1;
    }
    out.flush().unwrap();
    let before = peak_memory().unwrap();
    let prepared = files.prepare(&settings()).unwrap();
    let grown = peak_memory().unwrap() - before;
    println!("{written} bytes, {} tokens, {number} examples: {} MiB more", prepared.report.tokens, grown >> 20);
    assert_eq!(prepared.report.kept, number);
    assert!(grown < 200 << 20, "{grown} bytes more than before");
}
