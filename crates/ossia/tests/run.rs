//! `ossia run` and a piped `ossia chat`, end to end, on random weights.

use std::io::{Read, Write};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// Runs the program with `input` on stdin.
fn ossia(args: &[&str], input: &[u8]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ossia"));
    command.args(args).env_remove("OSSIA_MODEL");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    // A program that refuses its arguments reads nothing: then this fails, as it may.
    let _ = child.stdin.take().expect("stdin is piped").write_all(input);
    child.wait_with_output().expect("the program ends")
}

fn run(args: &[&str], input: &[u8]) -> Output {
    ossia(&[&["run", "-m", "synth:nano", "-n", "24", "--seed", "1"], args].concat(), input)
}

fn stdout(output: &Output) -> &str {
    assert!(output.status.success(), "{}", stderr(output));
    std::str::from_utf8(&output.stdout).expect("stdout is UTF-8")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn object(args: &[&str], input: &[u8]) -> Value {
    let output = run(&[&["--json"], args].concat(), input);
    let text = stdout(&output);
    assert_eq!(text.lines().count(), 1, "one line: {text}");
    serde_json::from_str(text).expect("stdout is JSON")
}

#[test]
fn the_same_seed_says_the_same() {
    let (first, again) = (run(&["hello"], b""), run(&["hello"], b""));
    assert_eq!(stdout(&first), stdout(&again));
    assert!(!first.stdout.is_empty() && first.stdout.ends_with(b"\n"));
    let other = ossia(&["run", "-m", "synth:nano", "-n", "24", "--seed", "2", "hello"], b"");
    assert_ne!(stdout(&first), stdout(&other));
}

#[test]
fn the_size_of_a_prefill_step_changes_nothing() {
    let whole = stdout(&run(&["hello"], b"")).to_owned();
    assert_eq!(stdout(&run(&["--chunk", "7", "--threads", "1", "hello"], b"")), whole);
}

#[test]
fn other_shapes_answer() {
    for model in ["synth:tiny", "synth:mini"] {
        let output = ossia(&["run", "-m", model, "-n", "5", "--seed", "1", "hello"], b"");
        assert!(!stdout(&output).is_empty(), "{model}");
    }
}

#[test]
fn json_holds_the_whole_turn() {
    let object = object(&["--logprobs", "2", "hello"], b"");
    let keys: Vec<&str> = object.as_object().expect("an object").keys().map(String::as_str).collect();
    let wanted = ["answer", "analysis", "preamble", "tool_calls", "finish_reason", "tokens", "ttft_s", "prefill_tok_s"];
    assert_eq!(keys[..8], wanted);
    assert_eq!(keys[8..], ["decode_tok_s", "logprobs"]);
    assert_eq!(object["finish_reason"], "length");
    assert_eq!(object["tokens"]["completion"], 24);
    assert!(object["tokens"]["prompt"].as_u64().is_some_and(|n| n > 24), "{object}");
    assert!(object["decode_tok_s"].as_f64().is_some_and(|speed| speed > 0.0), "{object}");
    assert_eq!(object["logprobs"].as_array().map(Vec::len), Some(24));
    assert_eq!(object["logprobs"][0]["top"].as_array().map(Vec::len), Some(2));
    assert_eq!(format!("{}\n", object["answer"].as_str().expect("text").trim_end_matches('\n')), {
        let streamed = run(&["hello"], b"");
        format!("{}\n", stdout(&streamed).trim_end_matches('\n'))
    });
}

#[test]
fn a_stop_token_ends_the_answer() {
    let ids = object(&["--logprobs", "0", "hello"], b"");
    // <|return|> is favoured above everything else.
    let bias = format!("{}=100", return_id());
    let stopped = object(&["--logit-bias", &bias, "--greedy", "hello"], b"");
    assert_eq!(stopped["finish_reason"], "stop");
    assert_eq!(stopped["tokens"]["completion"], 1);
    assert_eq!(ids["finish_reason"], "length");
}

/// Of the byte-level vocabulary that synth:nano has.
fn return_id() -> u32 {
    let vocab = ossia_model::gpt_oss::config::Config::preset("nano", None).expect("a preset").vocab_size;
    let json = ossia_text::byte_level_tokenizer_json(vocab).expect("a size that has room");
    let tokenizer = ossia_text::Tokenizer::from_json(&json).expect("a tokenizer");
    tokenizer.specials().return_.expect("it has harmony's tokens")
}

#[test]
fn a_prompt_from_stdin_is_the_prompt() {
    assert_eq!(object(&["-"], b"two\nlines\n")["answer"], object(&["two\nlines"], b"")["answer"]);
    let output = ossia(&["run", "-m", "synth:mini", "-n", "2", "--json", "-"], "Grüße\n".as_bytes());
    assert!(stdout(&output).starts_with('{'));
}

#[test]
fn a_parameter_out_of_range_fails_before_the_model_is_loaded() {
    let output = run(&["hello", "--temperature", "101"], b"");
    let said = stderr(&output);
    assert!(!output.status.success() && said.contains("temperature") && !said.contains("memory"), "{said}");
}

#[test]
fn effort_and_instructions_reach_the_model() {
    let tokens = |args: &[&str]| object(args, b"")["tokens"]["prompt"].as_u64().expect("a count");
    let plain = tokens(&["hello"]);
    assert!(tokens(&["--system", "be brief", "hello"]) > plain);
    assert_ne!(object(&["--effort", "low", "hello"], b"")["answer"], object(&["hello"], b"")["answer"]);
}

#[test]
fn what_cannot_be_is_one_line_and_a_status() {
    let cases: [(&[&str], &[u8], i32, &str); 10] = [
        (&[""], b"", 2, "prompt is empty"),
        (&["gpt-oss-20b"], b"", 2, "ossia run -m gpt-oss-20b"),
        (&["-"], b" \n", 2, "prompt is empty"),
        (&["-"], b"abc\xff", 1, "byte 3"),
        (&["hello", "--temperature", "warm"], b"", 2, "temperature"),
        (&["Grüße"], b"", 1, "vocabulary is too small"),
        (&["hello", "--logprobs", "1"], b"", 2, "--json"),
        (&["hello", "--ctx", "16"], b"", 1, "--ctx"),
        (&["hello", "--ctx", "131072"], b"", 2, "--ctx"),
        (&["hello", "--chunk", "0"], b"", 2, "--chunk"),
    ];
    for (args, input, status, word) in cases {
        let output = run(args, input);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(status), "{args:?}: {said}");
        assert!(said.contains(word), "{args:?}: {said}");
        assert!(!said.contains("panicked") && output.stdout.is_empty(), "{args:?}: {said}");
    }
}

#[test]
fn no_escape_code_leaves_but_to_a_terminal() {
    let output = run(&["--thinking", "show", "hello"], b"");
    assert!(!output.stderr.contains(&0x1b), "{}", stderr(&output));
}

#[test]
fn a_full_context_is_said() {
    let prompt = object(&["hello"], b"")["tokens"]["prompt"].as_u64().expect("a count");
    let ctx = (prompt + 4).to_string();
    let output = ossia(&["run", "-m", "synth:nano", "--seed", "1", "--ctx", &ctx, "hello"], b"");
    stdout(&output);
    assert!(stderr(&output).contains("the context is full"), "{}", stderr(&output));
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ossia"));
    command.args(["run", "-m", "synth:nano", "--seed", "1", "-n", "4000", "hello"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
    let mut first = [0];
    let mut pipe = child.stdout.take().expect("stdout is piped");
    pipe.read_exact(&mut first).expect("a first byte");
    drop(pipe);
    let output = child.wait_with_output().expect("the program ends");
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(!stderr(&output).contains("panicked"), "{}", stderr(&output));
}

fn chat(input: &str) -> Output {
    ossia(&["chat", "-m", "synth:nano", "-n", "12", "--seed", "1"], input.as_bytes())
}

#[test]
fn a_piped_chat_answers_line_by_line() {
    let output = chat("hello\n/effort low\nand\\\nmore\n/exit\nnever\n");
    let said = stderr(&output);
    assert!(stdout(&output).lines().count() >= 2, "two answers");
    assert_eq!(said.matches("12 tokens").count(), 2, "{said}");
    assert!(said.contains("noise") && said.contains("effort: low"), "{said}");
    assert!(!output.stdout.contains(&0x1b) && !output.stderr.contains(&0x1b));
    // The first answer is what `run` gives: a chat's first turn is a run.
    let one = ossia(&["run", "-m", "synth:nano", "-n", "12", "--seed", "1", "hello"], b"");
    assert!(stdout(&output).starts_with(stdout(&one)));
}

#[test]
fn a_chat_is_saved_and_goes_on_as_if_it_had_not_been_away() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("talk.json");
    let file = file.to_str().expect("a plain name");
    let whole = chat("one\ntwo\n");
    let (first, rest) = (chat(&format!("one\n/save {file}\n")), chat(&format!("/load {file}\ntwo\n")));
    assert_eq!(format!("{}{}", stdout(&first), stdout(&rest)), stdout(&whole));
    let refused = chat(&format!("/save {file}\n"));
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("/save!"), "{}", stderr(&refused));
}

#[test]
fn a_reset_chat_begins_anew() {
    let once = chat("one\n");
    let again = chat("one\n/reset\none\n");
    assert_eq!(stdout(&again), stdout(&once).repeat(2));
}

#[test]
fn a_chat_that_fails_in_a_pipe_fails() {
    for (input, word) in [("/nope\n", "/help"), ("/load /nowhere/at/all\n", "/nowhere/at/all")] {
        let output = chat(input);
        assert_eq!(output.status.code(), Some(1), "{input}");
        assert!(stderr(&output).contains(word), "{}", stderr(&output));
    }
}
