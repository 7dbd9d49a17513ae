//! `ossia finetune` as a program: what it says to people and programs, signals, other settings, and no network.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use super::program::text;

const SETTINGS: &str = r#"
[finetune]
steps = 3
[finetune.adapter]
rank = 4
[finetune.data]
max_len = 256
[finetune.checkpoints]
every = 1
"#;

/// A folder with data and settings.
fn place(settings: &str) -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    let line = |index: usize| {
        let messages = json!([
            { "role": "user", "content": format!("Where is cairn {index}?") },
            { "role": "assistant", "content": format!("By tarn {}.", index * 7 % 100) },
        ]);
        json!({ "messages": messages }).to_string() + "\n"
    };
    std::fs::write(place.path().join("train.jsonl"), (0..60).map(line).collect::<String>()).unwrap();
    std::fs::write(place.path().join("f.toml"), settings).unwrap();
    place
}

/// The program, told where the place is.
fn command(place: &Path, program: &str, before: &[&str]) -> Command {
    let [data, config, out] = ["train.jsonl", "f.toml", "run"].map(|name| place.join(name));
    let mut command = Command::new(program);
    command.args(before).args(["finetune", "-m", "nano", "--threads", "2", "--data", text(&data)]);
    command.args(["--config", text(&config), "--out", text(&out)]).stdin(Stdio::null());
    command
}

const PROGRAM: &str = env!("CARGO_BIN_EXE_ossia");

/// The events on stdout.
#[track_caller]
fn events(output: &Output) -> Vec<Value> {
    let lines = std::str::from_utf8(&output.stdout).unwrap().lines();
    lines.map(|line| serde_json::from_str(line).expect("a JSON object on each line")).collect()
}

#[test]
fn programs_are_told_of_beginning_end_and_failure() {
    let place = place(SETTINGS);
    let output = command(place.path(), PROGRAM, &[]).arg("--json").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let events = events(&output);
    assert_eq!(
        [&events[0]["event"], &events[0]["step"], &events[0]["steps"]],
        [&json!("begins"), &json!(0), &json!(3)]
    );
    assert_eq!(
        [&events[1]["event"], &events[1]["why"], &events[1]["step"]],
        [&json!("ended"), &json!("complete"), &json!(3)]
    );
    let adapter = Path::new(events[1]["finished"].as_str().unwrap());
    assert!(adapter.join("adapter_config.json").is_file() && adapter.join("adapter_model.safetensors").is_file());
    // A run with other settings does not go on in the same place.
    let failed = command(place.path(), PROGRAM, &[]).args(["--json", "--rank", "8"]).output().unwrap();
    assert_eq!(failed.status.code(), Some(1));
    let event: Value = serde_json::from_slice(&failed.stdout).unwrap();
    assert_eq!(event["event"], "failed");
    assert!(event["error"].as_str().unwrap().contains("finetune.adapter.rank was 4"), "{event}");
}

#[test]
fn a_signal_saves_and_the_same_command_goes_on() {
    let place = place(&SETTINGS.replace("steps = 3", "steps = 100000"));
    let mut child = command(place.path(), PROGRAM, &[]).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let head: Vec<String> = lines.by_ref().take_while(|line| !line.contains("left")).collect();
    let has = |part: &str| head.iter().any(|line| line.contains(part));
    for part in [
        "sft on nano: trained are 72 tensors",
        "self_attn.q_proj: 12 tensors",
        "auxiliary loss off",
        "memory:",
        "before training",
    ] {
        assert!(has(part), "no {part:?} in {head:?}");
    }
    let kill = format!("kill -TERM {}", child.id());
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    let last = lines.last().unwrap();
    assert!(last.contains("saved; the same command goes on from there"), "{last}");
    assert_eq!(child.wait().unwrap().code(), Some(75));
    let newest = std::fs::read_to_string(place.path().join("run/checkpoints/latest.json")).unwrap();
    let mut again = command(place.path(), PROGRAM, &[]).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(again.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("going on after step")), "{newest}");
    again.kill().unwrap();
    again.wait().unwrap();
}

/// Where the kernel lends a namespace without a network; elsewhere there is nothing to see.
#[test]
fn a_run_needs_no_network() {
    let can = Command::new("unshare").args(["-rn", "true"]).output();
    if !can.is_ok_and(|output| output.status.success()) {
        eprintln!("passed over: no namespaces here");
        return;
    }
    let place = place(SETTINGS);
    let output = command(place.path(), "unshare", &["-rn", PROGRAM]).arg("--json").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(events(&output)[1]["why"], "complete");
}
