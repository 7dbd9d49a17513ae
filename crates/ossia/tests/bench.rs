//! `ossia bench`, end to end, on random weights: what it reports, never how fast it is.

use std::process::Command;

use serde_json::Value;

fn bench(args: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ossia"));
    let output = command.args(["bench", "-m", "synth:nano", "-r", "1"]).args(args).output().expect("the program runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("stdout is UTF-8")
}

#[test]
fn the_ops_share_all_of_the_time() {
    let text = bench(&["-p", "9", "-n", "3", "-d", "5", "-b", "2", "--chunk", "4", "--ops", "--json"]);
    let object: Value = serde_json::from_str(&text).expect("stdout is JSON");
    assert_eq!([&object["depth"], &object["prompt"], &object["decoded"], &object["batch"]], [5, 9, 3, 2]);
    assert!(object["decode_tok_s"].as_f64().is_some_and(|speed| speed > 0.0), "{object}");
    assert!(object["bandwidth_share"].is_null(), "{object}");
    for phase in ["prefill", "decode"] {
        let ops = object["ops"][phase].as_object().expect("an object");
        let shares: f64 = ops.values().filter_map(|op| op["share"].as_f64()).sum();
        assert!((shares - 1.0).abs() < 1e-9, "{shares}: {object}");
        for op in ["qkv", "attention_out", "router", "experts", "unembedding"] {
            assert!(ops[op]["operations_s"].as_f64().is_some_and(|speed| speed > 0.0), "{op}: {object}");
        }
        assert!(ops["attention"]["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0), "{object}");
    }
}

#[test]
fn people_get_a_table() {
    let table = bench(&["-p", "4", "-n", "2", "--ops"]);
    for part in ["prefill ", "decode ", "% of it used", "unembedding", "GOP/s"] {
        assert!(table.contains(part), "no {part:?} in:\n{table}");
    }
    assert!(!bench(&["-p", "4", "-n", "2"]).contains("unembedding"));
}

/// Lists are measured one after the other; one length serves all.
#[test]
fn lists_are_measured_in_turn() {
    let lines = bench(&["-p", "4,5", "-n", "2", "-b", "1,3", "--json"]);
    let found = lines.lines().map(|line| {
        let object: Value = serde_json::from_str(line).expect("a line is JSON");
        ["prompt", "decoded", "batch"].map(|key| object[key].as_u64().expect("a number"))
    });
    assert_eq!(found.collect::<Vec<_>>(), [[4, 2, 1], [5, 2, 3]]);
    let mut command = Command::new(env!("CARGO_BIN_EXE_ossia"));
    let output = command.args(["bench", "-m", "synth:nano", "-p", "4,5", "-n", "1,2,3"]).output().expect("it runs");
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("as many of each, or one"));
}
