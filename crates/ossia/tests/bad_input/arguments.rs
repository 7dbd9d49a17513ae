//! Token ids, files of tokens, contexts and names on the command line that cannot be: 2 where the command line alone is
//! wrong or asks the model for what it has not, 1 where a file is.

use std::path::PathBuf;

use super::program::{assert_failed, command, data, fails, ossia, scratch, text};
use super::safetensors::{Safetensors, Tensor};

/// `ossia ARGS` is refused with status 2, and stderr holds every part.
#[track_caller]
fn refused(args: &[&str], parts: &[&str]) {
    let output = ossia(args);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(output.stdout.is_empty() && !said.contains("panicked"), "{said}");
    parts.iter().for_each(|part| assert!(said.contains(part), "no {part:?} in: {said}"));
}

#[track_caller]
fn generate_refused(more: &[&str], parts: &[&str]) {
    refused(&[&["generate", "-m", text(&data("nano"))], more].concat(), parts);
}

#[test]
fn ids_that_are_none() {
    for tokens in ["", "1,,2", "-1", "x", "4294967296", "1;2"] {
        generate_refused(&["--tokens", tokens], &["--tokens"]);
    }
    generate_refused(&[], &["--tokens"]);
    let nano = data("nano");
    for tokens in ["128", "1,2,4294967295", "0,127,128"] {
        let wrong = tokens.rsplit(',').next().unwrap();
        let output = ossia(&["generate", "--tokens", tokens, "-n", "1", "--json", "-m", text(&nano)]);
        assert_failed(&output, 2, &[&format!("token id {wrong} is outside"), "vocabulary of 128"]);
    }
}

#[test]
fn contexts_that_are_none() {
    generate_refused(&["--tokens", "1", "--ctx", "0"], &["--ctx"]);
    generate_refused(&["--tokens", "1", "--ctx", "131073"], &["--ctx"]);
    generate_refused(&["--tokens", "1", "--ctx", "2049", "--json"], &["--ctx 2049", "2048 tokens"]);
    let nano = data("nano");
    let more = ["-m", text(&nano), "--json"];
    fails(&[&["generate", "--tokens", "1,2,3", "--ctx", "2"][..], &more].concat(), &["context is full", "--ctx"]);
    // A wish without end is only as long as the context.
    let endless = usize::MAX.to_string();
    let output = ossia(&[&["generate", "--tokens", "1", "-n", &endless, "--ctx", "9", "--greedy"][..], &more].concat());
    let made = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && made.matches(',').count() == 8, "{made}");
    refused(&[&["bench", "-p", "4294967295"][..], &more].concat(), &["4294967359 tokens in all", "2048 tokens"]);
    refused(&[&["bench", "-p", "10", "-n", "10", "--ctx", "16"][..], &more].concat(), &["20", "16"]);
}

#[test]
fn options_that_are_none() {
    for more in [&["--precision", "f64"][..], &["--dense", "q4"], &["--threads", "0"], &["--chunk", "0"], &["--nope"]] {
        generate_refused(&[&["--tokens", "1"], more].concat(), &[more[0]]);
    }
    for more in
        [&["--temperature", "-1"][..], &["--top-p", "x"], &["--logit-bias", "5"], &["--greedy", "--temperature", "1"]]
    {
        generate_refused(&[&["--tokens", "1"], more].concat(), &["--"]);
    }
    let nowhere = ossia(&["run", "hello", "-m", "nowhere/x.gguf"]);
    assert_failed(&nowhere, 1, &["there is no file nowhere/x.gguf"]);
    let nano = data("nano");
    for (name, value) in [("temperature", "101"), ("top-p", "2"), ("min-p", "NaN"), ("repetition-penalty", "0")] {
        let args = ["generate", "-m", text(&nano), "--tokens", "1", "--json", &format!("--{name}"), value];
        assert_failed(&ossia(&args), 2, &[&name.replace('-', "_"), "wanted", "found"]);
    }
}

#[test]
fn a_kernel_version_that_is_none() {
    let nano = data("nano");
    let args = ["generate", "-m", text(&nano), "--tokens", "1", "--json"];
    let output = command("OSSIA_ISA=bogus; export OSSIA_ISA;", &args).output().unwrap();
    assert_failed(&output, 2, &["OSSIA_ISA=bogus", "scalar"]);
}

#[test]
fn models_that_are_none() {
    refused(&["inspect", "synth:7b"], &["7b", "nano, tiny"]);
    refused(&["inspect", "synth:"], &["nano, tiny"]);
    for name in ["/nowhere/at/all", "no such model", "a/b/c", ""] {
        fails(&["inspect", name], &[]);
    }
}

#[test]
fn an_emptied_variable_names_no_model() {
    let output = command("OSSIA_MODEL=; export OSSIA_MODEL;", &["inspect"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// A safetensors file with one tensor.
fn tokens_file(name: &str, dtype: &str, shape: &[u64], values: &[i32]) -> PathBuf {
    let file = scratch("tokens").join("tokens.safetensors");
    let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    Safetensors(vec![Tensor { name: name.into(), dtype: dtype.into(), shape: shape.to_vec(), bytes }]).write(&file);
    file
}

#[test]
fn files_of_tokens_that_are_none() {
    let nano = data("nano");
    let out = scratch("out").join("logits.safetensors");
    let logits = |file: &PathBuf, parts: &[&str]| {
        fails(&["logits", "-m", text(&nano), "--json", "--tokens", text(file), "--out", text(&out)], parts);
        assert_eq!(std::fs::read_dir(out.parent().unwrap()).unwrap().count(), 0, "nothing is left behind");
    };
    for (name, dtype, shape, values, found) in [
        ("token", "I32", &[3][..], &[1, 2, 3][..], "none of that name"),
        ("tokens", "F32", &[3], &[1, 2, 3], "F32 [3]"),
        ("tokens", "I32", &[1, 3], &[1, 2, 3], "I32 [1, 3]"),
        ("tokens", "I32", &[], &[1], "I32 []"),
        ("tokens", "I32", &[0], &[], "I32 [0]"),
        ("tokens", "I32", &[3], &[1, -2, 3], "a negative id"),
    ] {
        let file = tokens_file(name, dtype, shape, values);
        logits(&file, &["tokens.safetensors: wanted an I32 tensor `tokens` [T]", found]);
    }
    let file = tokens_file("tokens", "I32", &[3], &[1, 128, 3]);
    logits(&file, &["tokens.safetensors", "token id 128 is outside", "vocabulary of 128"]);
    let file = tokens_file("tokens", "I32", &[2049], &[1; 2049]);
    logits(&file, &["context", "2048"]);
    let whole = std::fs::read(&file).unwrap();
    for length in [0, 7, 8, 60, whole.len() - 1] {
        std::fs::write(&file, &whole[..length]).unwrap();
        logits(&file, &["tokens.safetensors", "wanted", "found"]);
    }
    logits(&PathBuf::from("/nowhere/tokens.safetensors"), &["/nowhere/tokens.safetensors", "cannot open"]);
}
