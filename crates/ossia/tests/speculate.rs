//! `--speculate`: the same tokens and the same log probabilities as without it, whatever is guessed.

use std::process::Command;

fn generate(model: &str, args: &[&str]) -> String {
    // Much of it repeats, so that there is something to guess from the start.
    let prompt = (0..120).map(|i| (i % 23 + 40).to_string()).collect::<Vec<_>>().join(",");
    let mut command = Command::new(env!("CARGO_BIN_EXE_ossia"));
    let output = command
        .args(["generate", "-m", model, "--tokens", &prompt, "--json", "--logprobs", "2"])
        .args(args)
        .output()
        .expect("the program runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("stdout is UTF-8")
}

#[track_caller]
fn guessing_changes_nothing(model: &str, args: &[&str]) {
    let plain = generate(model, args);
    assert!(plain.len() > 100, "{plain}");
    assert_eq!(generate(model, &[args, &["--speculate"]].concat()), plain);
}

#[test]
fn greedy_answers_are_the_same() {
    // Random weights soon go round in circles, which are guessed; the answer is longer than any window.
    guessing_changes_nothing("synth:nano", &["-n", "400", "--greedy"]);
    guessing_changes_nothing("synth:tiny", &["-n", "300", "--greedy", "--precision", "f32"]);
}

#[test]
fn sampled_answers_are_the_same() {
    guessing_changes_nothing("synth:nano", &["-n", "200", "--seed", "5"]);
    let biased = ["--logit-bias", "50=14", "--logit-bias", "51=14", "--logit-bias", "52=13"];
    guessing_changes_nothing("synth:nano", &[&["-n", "300", "--seed", "6"], &biased[..]].concat());
    let penalties = ["--repetition-penalty", "1.1", "--frequency-penalty", "0.1"];
    guessing_changes_nothing("synth:nano", &[&["-n", "150", "--seed", "7"], &penalties[..]].concat());
}

#[test]
fn an_answer_ends_where_it_would_have() {
    guessing_changes_nothing("synth:nano", &["-n", "40", "--ctx", "140", "--greedy"]);
    guessing_changes_nothing("synth:nano", &["-n", "120", "--greedy", "--chunk", "3"]);
    let one = generate("synth:nano", &["-n", "60", "--greedy"]);
    let tokens: serde_json::Value = serde_json::from_str(&one).expect("JSON");
    let stop = tokens["tokens"][45].to_string();
    guessing_changes_nothing("synth:nano", &["-n", "120", "--greedy", "--stop", &stop]);
}
