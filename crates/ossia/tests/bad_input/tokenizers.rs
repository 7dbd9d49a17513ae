//! Tokenizers that do not belong to their model, or are none. Commands that take token ids do not look at them.

use std::path::{Path, PathBuf};

use super::gguf::{Gguf, strings};
use super::program::{copy_of, data, fails, model_works, ossia, scratch, text};

/// The commands that need text, on `model`.
fn text_fails(model: &Path, parts: &[&str]) {
    fails(&["run", "hello", "-n", "1", "--threads", "2", "-m", text(model)], parts);
}

/// nano with this tokenizer.json.
fn with_tokenizer(json: &str) -> PathBuf {
    let model = copy_of("nano");
    std::fs::write(model.join("tokenizer.json"), json).unwrap();
    model
}

#[test]
fn a_vocabulary_smaller_than_the_tokenizers() {
    let model = with_tokenizer(&ossia_text::byte_level_tokenizer_json(129).unwrap());
    let parts = [text(&model), "ids up to 128", "128 rows", "wanted", "at most 128 ids"];
    text_fails(&model, &parts);
    fails(&["verify", text(&model)], &parts);
    model_works(&model);
    let output = ossia(&["inspect", text(&model)]);
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && shown.contains("ids up to 128"), "{shown}");
}

#[test]
fn no_tokenizer_at_all() {
    let model = copy_of("nano");
    text_fails(&model, &[text(&model), "no tokenizer.json", "generate"]);
    model_works(&model);
    let output = ossia(&["verify", text(&model)]);
    assert!(output.status.success() && String::from_utf8(output.stdout).unwrap().contains("no tokenizer.json"));
}

#[test]
fn a_file_that_is_no_tokenizer() {
    let whole = ossia_text::byte_level_tokenizer_json(128).unwrap();
    for (json, found) in [
        ("[".repeat(200_000), "sequence"),
        (format!("{{\"x\":{}", "[".repeat(200_000)), "not a tokenizer"),
        (
            format!("{}{}", "{\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":", "[".repeat(200_000)),
            "not a tokenizer",
        ),
        (r#"{"pre_tokenizer":"#.to_owned() + &r#"{"type":"Sequence","pretokenizers":["#.repeat(50_000), "recursion"),
        ("null".into(), "not a tokenizer"),
        (whole.replace("\"BPE\"", "\"Unigram\""), "Unigram"),
        (whole.replace("ByteLevel", "Whitespace"), "ByteLevel"),
        (whole.replace("127", "4294967295"), "4294967295"),
    ] {
        assert_ne!(json, whole);
        let model = with_tokenizer(&json);
        let file = model.join("tokenizer.json");
        text_fails(&model, &[text(&file), found]);
        fails(&["verify", text(&model)], &[text(&file), found]);
    }
}

#[test]
fn a_huge_tokenizer_is_not_read() {
    let model = with_tokenizer("");
    let file = std::fs::File::create(model.join("tokenizer.json")).unwrap();
    file.set_len(100 << 20).unwrap();
    text_fails(&model, &["tokenizer.json", "limit of 33554432"]);
    std::fs::remove_dir_all(model).unwrap();
}

/// nano's GGUF file with this value for a key of its tokenizer.
fn gguf_with(key: &str, kind: u32, value: &[u8]) -> PathBuf {
    let mut gguf = Gguf::read(&data("nano/model.gguf"));
    gguf.set(&format!("tokenizer.ggml.{key}"), kind, value);
    let file = scratch("tokenizer").join("model.gguf");
    gguf.write(&file);
    file
}

#[test]
fn a_gguf_files_tokenizer_that_is_wrong() {
    let many: Vec<String> = (0..129).map(|i| format!("{i}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    for (key, kind, value, found) in [
        ("tokens", 9, strings(&many), "128 entries for 129 tokens"),
        ("tokens", 8, super::gguf::string("a"), "tokenizer.ggml.tokens"),
        ("model", 8, super::gguf::string("llama"), "\"llama\""),
        ("pre", 8, super::gguf::string("other\n"), "\"other\\n\""),
        ("token_type", 9, [&5u32.to_le_bytes()[..], &1u64.to_le_bytes(), &[1, 0, 0, 0]].concat(), "1 entries"),
        ("token_type", 4, vec![0; 4], "tokenizer.ggml.token_type"),
    ] {
        let file = gguf_with(key, kind, &value);
        text_fails(&file, &[text(&file), found]);
        fails(&["verify", text(&file)], &[text(&file), found]);
        model_works(&file);
    }
}

#[test]
fn a_gguf_files_tokenizer_that_is_larger_than_the_embedding() {
    let mut gguf = Gguf::read(&data("nano/model.gguf"));
    let gone = ["token_type", "eos_token_id", "padding_token_id"].map(|end| format!("tokenizer.ggml.{end}"));
    gguf.keys.retain(|(key, ..)| !gone.contains(key));
    gguf.get("token_embd.weight").reform(super::gguf::BF16, &[32, 127]);
    gguf.get("output.weight").reform(super::gguf::BF16, &[32, 127]);
    let file = scratch("tokenizer").join("model.gguf");
    gguf.write(&file);
    text_fails(&file, &[text(&file), "ids up to 127", "127 rows", "at most 127 ids"]);
    model_works(&file);
}

#[test]
fn a_tokenizer_without_harmonys_tokens() {
    let whole = ossia_text::byte_level_tokenizer_json(128).unwrap();
    let model = with_tokenizer(&whole.replace("<|call|>", "<|cell|>"));
    text_fails(&model, &["no <|call|>", "raw token ids"]);
    model_works(&model);
}

#[test]
fn a_gguf_files_list_of_tokens_without_end() {
    for (key, kind, len, bytes) in [
        ("tokens", 8u32, 6_000_000u64, 48_000_000),
        ("tokens", 8, 600_000, 4_800_000),
        ("merges", 8, 4_000_000, 32_000_000),
        ("token_type", 0, 4_000_000, 4_000_000),
    ] {
        let list = [&kind.to_le_bytes()[..], &len.to_le_bytes(), &vec![0; bytes]].concat();
        let file = gguf_with(key, 9, &list);
        let key = format!("key tokenizer.ggml.{key}: wanted at most 524288 entries");
        text_fails(&file, &[text(&file), &key, &format!("{len} entries")]);
        std::fs::remove_file(file).unwrap();
    }
}

#[test]
fn a_message_does_not_grow_with_the_file() {
    let long = "x".repeat(1 << 20);
    let model = with_tokenizer(&format!("{{\"model\": \"{long}\"}}"));
    text_fails(&model, &["tokenizer.json"]);
    let file = gguf_with("pre", 8, &super::gguf::string(&long));
    text_fails(&file, &["tokenizer.ggml.pre"]);
}
