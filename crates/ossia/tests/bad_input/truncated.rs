//! Every file of a model cut off at fifty places. The only cuts that may be survived take nothing away that counts: a
//! JSON file's final newline, and the padding behind a GGUF file's last tensor.

use std::path::Path;

use super::program::{copy_of, data, fails, model_fails, model_works, scratch, text};
use super::safetensors::Safetensors;

/// Fifty lengths of a cut file of `whole` bytes, the empty one and all but the last byte among them.
fn cuts(whole: usize) -> Vec<usize> {
    (0..49).map(|i| whole * i / 49).chain([whole - 1]).collect()
}

/// Cuts `file` at fifty places; `check` must see each fail.
#[track_caller]
fn cut_everywhere(file: &Path, check: impl Fn()) {
    let whole = std::fs::read(file).unwrap();
    let end = whole.trim_ascii_end().len();
    for length in cuts(end) {
        std::fs::write(file, &whole[..length]).unwrap();
        check();
    }
    std::fs::write(file, &whole[..end]).unwrap();
}

#[test]
fn safetensors() {
    for name in ["nano", "nano/original", "tiny"] {
        let model = copy_of(name);
        let whole = std::fs::read(model.join("model.safetensors")).unwrap();
        for length in cuts(whole.len()) {
            std::fs::write(model.join("model.safetensors"), &whole[..length]).unwrap();
            model_fails(&model, &["model.safetensors", "wanted", "found"]);
        }
    }
}

#[test]
fn gguf() {
    let file = scratch("cut").join("model.gguf");
    for name in ["nano", "tiny"] {
        let whole = std::fs::read(data(name).join("model.gguf")).unwrap();
        for length in cuts(whole.len()) {
            std::fs::write(&file, &whole[..length]).unwrap();
            model_fails(&file, &["model.gguf", "wanted", "found"]);
        }
    }
}

#[test]
fn configs() {
    for name in ["nano", "nano/original"] {
        let model = copy_of(name);
        let works = model_works(&model);
        cut_everywhere(&model.join("config.json"), || model_fails(&model, &["config.json", "wanted", "found"]));
        assert_eq!(model_works(&model), works, "a final newline may go");
    }
}

/// nano in two files with an index.
pub fn sharded() -> std::path::PathBuf {
    let model = copy_of("nano");
    let mut first = Safetensors::read(&model.join("model.safetensors"));
    std::fs::remove_file(model.join("model.safetensors")).unwrap();
    let second = Safetensors(first.0.split_off(20));
    let mut map = serde_json::Map::new();
    for (name, shard) in [("a.safetensors", first), ("b.safetensors", second)] {
        shard.write(&model.join(name));
        map.extend(shard.0.iter().map(|t| (t.name.clone(), name.into())));
    }
    let index = serde_json::json!({ "metadata": {}, "weight_map": map });
    std::fs::write(model.join("model.safetensors.index.json"), format!("{index:#}\n")).unwrap();
    model
}

#[test]
fn an_index_and_its_files() {
    let model = sharded();
    let works = model_works(&model);
    assert_eq!(works, model_works(&data("nano")));
    let index = model.join("model.safetensors.index.json");
    cut_everywhere(&index, || model_fails(&model, &["model.safetensors.index.json", "wanted", "found"]));
    assert_eq!(model_works(&model), works, "a final newline may go");
    let whole = std::fs::read(model.join("b.safetensors")).unwrap();
    for length in cuts(whole.len()) {
        std::fs::write(model.join("b.safetensors"), &whole[..length]).unwrap();
        model_fails(&model, &["b.safetensors", "wanted", "found"]);
    }
}

#[test]
fn tokenizers() {
    let model = copy_of("nano");
    let file = model.join("tokenizer.json");
    std::fs::write(&file, ossia_text::byte_level_tokenizer_json(128).unwrap()).unwrap();
    let run = ["run", "hello", "-n", "1", "--threads", "2", "-m", text(&model)];
    cut_everywhere(&file, || fails(&run, &["tokenizer.json: "]));
    assert!(super::program::ossia(&run).status.success());
}
