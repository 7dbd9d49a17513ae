//! config.json and the index through the program: values that cannot be, values that the tensors contradict, files that
//! are no files, paths that leave the folder.

use std::path::Path;

use serde_json::{Value, json};

use super::program::{copy_of, model_fails, scratch};
use super::safetensors::Safetensors;
use super::truncated::sharded;

/// Changes one value of a config.
pub fn set(folder: &Path, pointer: &str, value: Value) {
    let file = folder.join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    *config.pointer_mut(pointer).unwrap() = value;
    std::fs::write(file, config.to_string()).unwrap();
}

#[test]
fn values_that_cannot_be() {
    for (pointer, value, key, found) in [
        ("/num_local_experts", json!(0), "num_local_experts", "found 0"),
        ("/num_local_experts", json!(1), "experts_per_tok", "at most the number of experts, 1"),
        ("/vocab_size", json!(u64::MAX), "vocab_size", "18446744073709551615"),
        ("/hidden_size", json!(1u64 << 62), "hidden_size", "4611686018427387904"),
        ("/num_hidden_layers", json!(-2), "num_hidden_layers", "-2"),
        ("/head_dim", json!("16"), "head_dim", "\"16\""),
        ("/rope_scaling", json!({}), "rope_scaling", "nothing"),
        ("/model_type", json!("llama\n"), "model_type", "llama"),
    ] {
        let folder = copy_of("nano");
        set(&folder, pointer, value);
        model_fails(&folder, &["config.json", key, "wanted", found]);
    }
    let folder = copy_of("nano");
    for key in ["/num_experts_per_tok", "/experts_per_token"] {
        set(&folder, key, json!(5));
    }
    model_fails(&folder, &["config.json", "experts_per_tok", "at most the number of experts, 4", "found 5"]);
}

#[test]
fn values_that_the_tensors_contradict() {
    for (pointer, value, tensor) in [
        ("/vocab_size", json!(1 << 20), "embed_tokens"),
        ("/hidden_size", json!(64), "tensor"),
        ("/intermediate_size", json!(32), "gate_up_proj"),
        ("/num_local_experts", json!(3), "router"),
        ("/num_attention_heads", json!(2), "q_proj"),
        ("/num_key_value_heads", json!(1), "k_proj"),
    ] {
        let folder = copy_of("nano");
        set(&folder, pointer, value);
        model_fails(&folder, &["model.safetensors", tensor, "wanted shape", "found shape"]);
    }
    let folder = copy_of("nano");
    set(&folder, "/num_hidden_layers", json!(1));
    set(&folder, "/layer_types", json!(["sliding_attention"]));
    model_fails(&folder, &["model.safetensors", "tensor model.layers.1.", "wanted only", "more like it"]);
}

#[test]
fn huge_and_deep_and_endless_files() {
    let folder = copy_of("nano");
    let config = folder.join("config.json");
    for (text, found) in [
        ("[".repeat(900_000), "recursion"),
        ("{\"a\":".repeat(100_000), "recursion"),
        ("[]".into(), "another JSON value"),
        (String::new(), "EOF"),
        ("\u{feff}{}".into(), "valid JSON"),
    ] {
        std::fs::write(&config, text).unwrap();
        model_fails(&folder, &["config.json", "wanted", found]);
    }
    std::fs::write(&config, vec![b' '; 100 << 20]).unwrap();
    model_fails(&folder, &["config.json", "at most 1048576 bytes", "more"]);
    std::fs::remove_file(&config).unwrap();
    // A link to itself: what goes round in a circle on a disk.
    std::os::unix::fs::symlink(&config, &config).unwrap();
    model_fails(&folder, &["config.json"]);
    std::fs::remove_file(&config).unwrap();
    std::os::unix::fs::symlink("/dev/zero", &config).unwrap();
    model_fails(&folder, &["config.json"]);
    std::fs::remove_dir_all(folder).unwrap();
}

/// Replaces the index of a model in two files.
fn index_fails(folder: &Path, index: &str, parts: &[&str]) {
    std::fs::write(folder.join("model.safetensors.index.json"), index).unwrap();
    model_fails(folder, &[&["model.safetensors.index.json", "wanted", "found"], parts].concat());
}

#[test]
fn an_index_that_names_what_it_must_not() {
    let folder = sharded();
    let whole = std::fs::read_to_string(folder.join("model.safetensors.index.json")).unwrap();
    index_fails(&folder, &whole.replacen("b.safetensors", "c.safetensors", 1), &["c.safetensors", "no such file"]);
    let outside = scratch("outside").join("b.safetensors");
    std::fs::copy(folder.join("b.safetensors"), &outside).unwrap();
    let outside = outside.to_str().unwrap();
    for path in
        ["../b.safetensors", "/etc/passwd", "./b.safetensors", "x/../b.safetensors", "b.safetensors\\u0000", outside]
    {
        index_fails(&folder, &whole.replace("b.safetensors", path), &["plain", "file names"]);
    }
    index_fails(&folder, &whole.replacen("lm_head.weight", "lm_hoax.weight", 1), &["lm_head.weight"]);
    index_fails(&folder, &whole.replacen("a.safetensors", "b.safetensors", 1), &["a.safetensors", "b.safetensors"]);
    index_fails(&folder, &"{\"weight_map\":".repeat(100_000), &["weight_map"]);
    std::fs::write(folder.join("model.safetensors.index.json"), vec![b' '; (64 << 20) + 1]).unwrap();
    model_fails(&folder, &["model.safetensors.index.json", "at most 67108864 bytes"]);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_shard_that_holds_what_another_holds() {
    let folder = sharded();
    std::fs::remove_file(folder.join("model.safetensors.index.json")).unwrap();
    let mut second = Safetensors::read(&folder.join("b.safetensors"));
    second.0.extend(Safetensors::read(&folder.join("a.safetensors")).0.into_iter().take(1));
    second.write(&folder.join("b.safetensors"));
    model_fails(&folder, &["b.safetensors", "tensor lm_head.weight", "once", "a.safetensors"]);
}

#[test]
fn what_is_no_model() {
    let empty = scratch("empty");
    model_fails(&empty, &["empty", "wanted config.json", "found nothing"]);
    model_fails(&empty.join("absent"), &["absent"]);
    let folder = copy_of("nano");
    model_fails(&folder.join("model.safetensors"), &["model.safetensors"]);
    std::fs::remove_file(folder.join("model.safetensors")).unwrap();
    model_fails(&folder, &["model", "safetensors", "config.json"]);
    std::fs::create_dir(folder.join("model.safetensors")).unwrap();
    model_fails(&folder, &["model.safetensors", "regular file", "a folder"]);
    let pretender = empty.join("x.gguf");
    std::fs::write(&pretender, "GGML and more").unwrap();
    model_fails(&pretender, &["x.gguf", "GGUF"]);
}
