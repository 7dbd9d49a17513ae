//! `ossia eval`, end to end, on random weights: what it reports, that company changes nothing, and what it refuses.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn ossia(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ossia"));
    command.args(args).env_remove("OSSIA_MODEL").output().expect("the program runs")
}

/// The run must succeed; what it printed.
#[track_caller]
fn stdout(args: &[&str]) -> String {
    let output = ossia(&[&["eval", "-m", "synth:nano"], args].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("stdout is UTF-8")
}

/// The run must fail with `status`, print nothing, and say every part.
#[track_caller]
fn fails(args: &[&str], status: i32, parts: &[&str]) {
    let output = ossia(&[&["eval"], args].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{said}");
    assert!(output.stdout.is_empty(), "{said}");
    parts.iter().for_each(|part| assert!(said.contains(part), "no {part:?} in: {said}"));
}

const SMALL: [&str; 6] = ["--family", "tool_call", "--family", "addition_5_digits", "-n", "4"];

#[test]
fn company_and_chunks_change_nothing_but_the_speed() {
    let object = |more: &[&str]| -> Value {
        let text = stdout(&[&SMALL[..], &["--json"], more].concat());
        assert_eq!(text.lines().count(), 1, "one line: {text}");
        let mut object: Value = serde_json::from_str(&text).expect("stdout is JSON");
        for changes in ["batch", "seconds", "tok_s"] {
            assert!(object[changes].take().as_f64().is_some_and(|number| number > 0.0), "{changes}: {text}");
        }
        object
    };
    let alone = object(&["--batch", "1"]);
    assert_eq!(object(&["--batch", "32"]), alone);
    assert_eq!(object(&["--batch", "3", "--chunk", "5", "--threads", "1"]), alone);
    assert_ne!(object(&["--batch", "1", "--seed", "2"]), alone);
}

#[test]
fn a_report_holds_families_and_what_lies_beyond() {
    let folder = tempfile::tempdir().expect("a folder");
    let answers = folder.path().join("answers.jsonl");
    let answers = answers.to_str().expect("a plain path");
    let text = stdout(&[&SMALL[..], &["--json", "--effort", "mixed", "--answers", answers]].concat());
    let object: Value = serde_json::from_str(&text).expect("stdout is JSON");
    let lines = std::fs::read_to_string(answers).expect("answers");
    assert_eq!(lines.lines().count(), 8);
    for line in lines.lines() {
        let line: Value = serde_json::from_str(line).expect("a line is JSON");
        assert!(line["prompt"].as_str().is_some_and(|prompt| prompt.ends_with("<|start|>assistant")), "{line}");
        assert!(line["correct"] == false && !line["wanted"].is_null() && line["answer"].is_string(), "{line}");
    }
    let (family, beyond) = (&object["families"]["tool_call"], &object["beyond"]["addition_5_digits"]);
    for set in [family, beyond] {
        // Random weights say nothing right.
        assert_eq!((&set["n"], &set["correct"], &set["share"]), (&4.into(), &0.into(), &0.0.into()), "{object}");
        assert!(set["low"] == 0.0 && set["high"].as_f64().is_some_and(|high| (0.48..0.5).contains(&high)), "{set}");
        let efforts = ["low", "medium", "high"].map(|name| set["efforts"][name]["n"].as_u64().expect("a count"));
        assert_eq!(efforts.iter().sum::<u64>(), 4);
    }
    assert_eq!((&object["macro"], &object["tool_calls"]["correct"]), (&0.0.into(), &0.into()));
    assert!(object["tool_calls"]["asked"].as_u64().is_some_and(|asked| asked > 0), "{object}");
    let fixed = stdout(&["--family", "dates", "-n", "2", "--effort", "high", "--json"]);
    let fixed: Value = serde_json::from_str(&fixed).expect("stdout is JSON");
    assert_eq!(fixed["families"]["dates"]["efforts"]["high"]["n"], 2);
    assert_eq!((&fixed["effort"], &fixed["beyond"]), (&serde_json::json!(["high"]), &serde_json::json!({})));
}

#[test]
fn people_get_a_table() {
    let table = stdout(&[&SMALL[..], &["--effort", "mixed"]].concat());
    for part in
        ["tool_call ", "mean of families", "addition_5_digits", "0.0 to 49.0 %", "tool calls", "tok/s", "medium"]
    {
        assert!(table.contains(part), "no {part:?} in:\n{table}");
    }
    assert!(!stdout(&["--family", "dates", "-n", "1", "--effort", "low"]).contains("medium"));
}

#[test]
fn what_cannot_be_evaluated_is_refused() {
    fails(&["-m", "synth:nano", "--family", "poetry"], 2, &["poetry", "addition, subtraction", "sorting_7_numbers"]);
    let nowhere = ["-m", "synth:nano", "--family", "dates", "-n", "1", "--answers", "/nowhere/a.jsonl"];
    fails(&nowhere, 1, &["/nowhere/a.jsonl"]);
    fails(&["-m", "synth:nano", "-n", "0"], 2, &["-n"]);
    fails(&["-m", "synth:nano", "--family", "dates", "-n", "2", "--ctx", "300"], 1, &["ends at 300", "--ctx"]);
    let nano = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ossia-model/tests/data/nano");
    let nano = nano.to_str().expect("the tests' own paths are plain");
    fails(&["-m", nano, "-n", "1"], 1, &["there is no tokenizer.json"]);
}

/// A user's own file: everything that the assistant says is asked for, and counted on a line of its own.
#[test]
fn a_file_is_an_examination() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("test.jsonl");
    let call = r#"{"function": {"name": "f", "arguments": "{}"}}"#;
    let line = format!(
        r#"{{"messages": [{{"role": "user", "content": "q"}}, {{"role": "assistant", "tool_calls": [{call}]}},
        {{"role": "tool", "content": "r"}}, {{"role": "assistant", "content": "a"}}]}}"#
    );
    let line = line.replace('\n', " ");
    std::fs::write(&file, format!("{line}\n{line}\n")).expect("a file");
    let path = file.to_str().expect("a plain path");
    let object: Value = serde_json::from_str(&stdout(&["--data", path, "--max-tokens", "8", "--json"])).expect("JSON");
    assert_eq!(object["beyond"]["data"]["n"], 4);
    assert_eq!((&object["macro"], &object["families"]), (&Value::Null, &serde_json::json!({})));
    assert!(object["tokens"].as_u64().is_some_and(|tokens| (4..=32).contains(&tokens)), "{object}");
    assert!(stdout(&["--data", path, "--max-tokens", "8"]).contains("\ndata "), "a line in the table");
    std::fs::write(&file, format!("{line}\n{{\n")).expect("a file");
    fails(&["-m", "synth:nano", "--data", path], 1, &["test.jsonl:2: is not JSON"]);
    fails(&["-m", "synth:nano", "--data", path, "--family", "addition"], 2, &["cannot be used with"]);
    fails(&["-m", "synth:nano", "--data", path, "--adapter", path], 1, &["test.jsonl"]);
}
