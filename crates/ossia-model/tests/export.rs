//! Exported models against their sources: logits and values, files of the reference writer, and places that refuse.

mod common;
#[path = "export/merging.rs"]
mod merging;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{Golden, data, options};
use ossia_kernels::quantize_mxfp4::fake_quantize;
use ossia_kernels::{Bytes, DType, Matrix, Precision};
use ossia_model::checkpoint::{Checkpoint, GgufValue, Metadata, RawTensor};
use ossia_model::gpt_oss::config::Config;
use ossia_model::gpt_oss::export::{Dense, Format, Summary, export};
use ossia_model::kv_cache::Held;
use ossia_model::{Logits, Model, Work};

/// A new empty folder of this call alone.
fn scratch() -> PathBuf {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("export/{call}"));
    if dir.exists() {
        std::fs::remove_dir_all(&dir).unwrap();
    }
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

fn open(path: &Path) -> Checkpoint {
    Checkpoint::open(path).unwrap()
}

/// Exports, and reports; the progress must end with everything.
fn write(from: &Checkpoint, format: Format, out: &Path) -> Summary {
    let config = Config::from_checkpoint(from).unwrap();
    let mut last = (0, 1);
    let summary = export(from, &config, format, out, None, &mut |done, all| last = (done, all)).unwrap();
    assert_eq!(last, (summary.bytes, summary.bytes));
    let again = Config::from_checkpoint(&open(out)).unwrap();
    assert_eq!(Config { dialect: config.dialect, ..again }, config);
    summary
}

/// Exports to a place of its own and opens that.
fn exported(from: &Checkpoint, format: Format) -> (Checkpoint, Summary) {
    let name = if matches!(format, Format::Gguf(_)) { "model.gguf" } else { "model" };
    let out = scratch().join(name);
    let summary = write(from, format, &out);
    (open(&out), summary)
}

fn logits(checkpoint: &Checkpoint, name: &str) -> Vec<f32> {
    let mut model = Model::load(checkpoint, options(Precision::F32, 2), None, &mut |_, _| {}).unwrap();
    let tokens = Golden::read(name).tokens;
    let mut held = Held::default();
    model.step(&mut [Work { held: &mut held, tokens: &tokens, logits: Logits::All }]).unwrap().host().to_vec()
}

#[track_caller]
fn same_bits(got: &[f32], want: &[f32]) {
    let different = got.iter().zip(want).filter(|(g, w)| g.to_bits() != w.to_bits()).count();
    assert_eq!((got.len(), different), (want.len(), 0));
}

/// Every tensor of `got` is in `want`, with the same type, shape and bytes, and the other way round.
#[track_caller]
fn same_tensors(got: &Checkpoint, want: &Checkpoint) {
    assert_eq!(got.tensors().count(), want.tensors().count());
    for tensor in got.tensors() {
        let other = want.get(&tensor.name).unwrap_or_else(|| panic!("{} is no tensor", tensor.name));
        assert_eq!((tensor.dtype, &tensor.shape), (other.dtype, &other.shape), "{}", tensor.name);
        assert!(*tensor.bytes == *other.bytes, "{}", tensor.name);
    }
}

const FORMATS: [Format; 6] = [
    Format::Mxfp4,
    Format::Bf16,
    Format::F32,
    Format::Gguf(Dense::F32),
    Format::Gguf(Dense::Bf16),
    Format::Gguf(Dense::Q8),
];

#[test]
fn every_layout_gives_the_same_model_in_every_format() {
    for (path, name) in [("nano", "nano"), ("nano/original", "nano"), ("nano/model.gguf", "nano"), ("tiny", "tiny")] {
        let source = open(&data(path));
        let want = logits(&source, name);
        for format in FORMATS {
            let (model, summary) = exported(&source, format);
            assert_eq!(summary.num_tensors, model.tensors().count());
            if format == Format::Gguf(Dense::Q8) {
                assert_eq!(summary.rounded.iter().map(|r| r.format).collect::<Vec<_>>(), [DType::Q8_0]);
                continue;
            }
            assert!(summary.rounded.is_empty(), "{path} {format:?}: {:?}", summary.rounded);
            same_bits(&logits(&model, name), &want);
        }
    }
}

#[test]
fn packed_folders_have_the_bytes_of_the_released_layout() {
    let want = open(&data("nano"));
    for path in ["nano", "nano/original", "nano/model.gguf"] {
        same_tensors(&exported(&open(&data(path)), Format::Mxfp4).0, &want);
    }
}

#[test]
fn gguf_files_have_the_tensors_and_keys_of_the_reference_writer() {
    for name in ["nano", "tiny"] {
        let want = open(&data(&format!("{name}/model.gguf")));
        let got = exported(&open(&data(name)), Format::Gguf(Dense::Bf16)).0;
        same_tensors(&got, &want);
        let order = |c: &Checkpoint| c.tensors().map(|t| t.name.clone()).collect::<Vec<_>>();
        assert_eq!(order(&got), order(&want));
        let (Metadata::Gguf(got), Metadata::Gguf(want)) = (got.metadata(), want.metadata()) else { panic!("GGUF") };
        let ours = |key: &str| !key.starts_with("tokenizer.") && key != "general.name";
        let all = |m: &ossia_model::checkpoint::GgufMetadata| {
            m.iter().filter(|(key, _)| ours(key)).map(|(k, v)| (k.to_owned(), format!("{v:?}"))).collect::<Vec<_>>()
        };
        let texts = |m: &ossia_model::checkpoint::GgufMetadata, key: &str| m.str(key).unwrap().unwrap().to_owned();
        assert_eq!(all(got), all(want));
        assert_eq!(texts(got, "general.architecture"), texts(want, "general.architecture"));
        assert_eq!(texts(got, "gpt-oss.rope.scaling.type"), "yarn");
        for key in ["eos", "padding"].map(|k| format!("tokenizer.ggml.{k}_token_id")) {
            assert_eq!(got.u64(&key).unwrap(), want.u64(&key).unwrap());
        }
    }
}

#[test]
fn a_gguf_file_hands_its_tokenizer_on() {
    let source = open(&data("nano/model.gguf"));
    let (again, summary) = exported(&source, Format::Gguf(Dense::Bf16));
    assert!(summary.has_tokenizer);
    same_tensors(&again, &source);
    let (Metadata::Gguf(got), Metadata::Gguf(want)) = (again.metadata(), source.metadata()) else { panic!("GGUF") };
    for key in ["tokens", "token_type", "merges"].map(|k| format!("tokenizer.ggml.{k}")) {
        match (got.get(&key), want.get(&key)) {
            (Some(GgufValue::Array { bytes: g, .. }), Some(GgufValue::Array { bytes: w, .. })) => assert_eq!(**g, **w),
            other => panic!("{key}: {other:?}"),
        }
    }
}

#[test]
fn a_tokenizer_goes_along() {
    let json = r#"{"added_tokens": [{"id": 125, "content": "<|startoftext|>", "special": true}],
        "model": {"vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}}"#;
    let source = open(&data("nano"));
    let config = Config::from_checkpoint(&source).unwrap();
    let dir = scratch();
    let run = |format, out: &Path| export(&source, &config, format, out, Some(json), &mut |_, _| ()).unwrap();
    assert!(run(Format::Mxfp4, &dir.join("folder")).has_tokenizer);
    assert_eq!(std::fs::read_to_string(dir.join("folder/tokenizer.json")).unwrap(), json);
    let generation =
        |p: PathBuf| ossia_model::checkpoint::read_json(&p.join("generation_config.json"), 1 << 20).unwrap();
    assert_eq!(generation(dir.join("folder")), generation(data("nano")));
    assert!(run(Format::Gguf(Dense::Bf16), &dir.join("x.gguf")).has_tokenizer);
    let file = open(&dir.join("x.gguf"));
    let Metadata::Gguf(keys) = file.metadata() else { panic!("GGUF") };
    let tokens = keys.strings("tokenizer.ggml.tokens").unwrap().unwrap();
    assert_eq!((tokens.len(), tokens[2], tokens[3], tokens[125]), (128, "ab", "[PAD3]", "<|startoftext|>"));
    let types = keys.integers("tokenizer.ggml.token_type").unwrap().unwrap();
    assert_eq!((types[0], types[3], types[125]), (1, 5, 3));
    assert_eq!(keys.strings("tokenizer.ggml.merges").unwrap().unwrap(), ["a b"]);
    assert_eq!(keys.u64("tokenizer.ggml.bos_token_id").unwrap(), Some(125));
    assert_eq!(keys.str("tokenizer.ggml.pre").unwrap(), Some("gpt-4o"));
}

#[test]
fn dequantized_and_packed_again_is_the_same_model() {
    let source = open(&data("tiny"));
    let (floats, _) = exported(&source, Format::Bf16);
    let config = match floats.metadata() {
        Metadata::Json { value, .. } => value.clone(),
        Metadata::Gguf(_) => panic!("a folder"),
    };
    assert_eq!((config.get("quantization_config"), &config["torch_dtype"]), (None, &"bfloat16".into()));
    for format in [Format::Mxfp4, Format::Gguf(Dense::Bf16)] {
        let (again, summary) = exported(&floats, format);
        assert!(summary.rounded.is_empty(), "{:?}", summary.rounded);
        same_bits(&logits(&again, "tiny"), &logits(&source, "tiny"));
    }
}

/// The tensors of nano as a trainer keeps them: f32, a matrix for each expert, off the grid by a little noise. `keep`
/// changes what is stored: (name, numbers).
fn trained(mut keep: impl FnMut(&str, &mut [f32])) -> Checkpoint {
    let source = open(&data("nano"));
    let config = Config::from_checkpoint(&source).unwrap();
    let file: Arc<Path> = Path::new("trained").into();
    let mut tensors = Vec::new();
    let mut add = |name: String, shape: Vec<usize>, mut values: Vec<f32>| {
        for (i, v) in values.iter_mut().enumerate() {
            *v *= 1.0 + 1e-3 * ((i * 7919 + name.len()) as f32).sin();
        }
        keep(&name, &mut values);
        let bytes = Bytes::new(values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>());
        tensors.push(RawTensor { name, dtype: DType::F32, shape, bytes, file: file.clone() });
    };
    for tensor in source.tensors() {
        let name = tensor.name.as_str();
        let floats = || tensor.bytes.as_chunks().0.iter().map(|&b| half::bf16::from_le_bytes(b).to_f32());
        if let Some(stem) = name.strip_suffix("_blocks") {
            let scales = source.get(&format!("{stem}_scales")).unwrap();
            let [e, n, groups] = scales.shape[..] else { panic!("{name}") };
            let all = Matrix::mxfp4(e * n, groups * 32, tensor.bytes.clone(), scales.bytes.clone()).unwrap();
            for expert in 0..e {
                let mut values = vec![0.0; n * groups * 32];
                let rows = values.chunks_exact_mut(groups * 32);
                rows.enumerate().for_each(|(row, out)| all.row_into(expert * n + row, out));
                add(format!("{stem}s.{expert}.weight"), vec![n, groups * 32], values);
            }
        } else if let Some(stem) = name.strip_suffix("_bias") {
            let n = tensor.shape[1];
            let all: Vec<f32> = floats().collect();
            for (expert, values) in all.chunks_exact(n).enumerate() {
                add(format!("{stem}s.{expert}.bias"), vec![n], values.to_vec());
            }
        } else if !name.ends_with("_scales") {
            add(name.into(), tensor.shape.clone(), floats().collect());
        }
    }
    let metadata = Metadata::Json { value: config.to_hf_json(), file: "config.json".into() };
    Checkpoint::from_parts("trained".into(), metadata, tensors).unwrap()
}

fn is_expert(name: &str) -> bool {
    name.contains(".experts.") && name.ends_with(".weight")
}

fn round(values: &mut [f32]) {
    values.iter_mut().for_each(|v| *v = half::bf16::from_f32(*v).to_f32());
}

#[test]
fn a_training_checkpoint_becomes_what_fake_quantizing_promised() {
    let source = trained(|_, _| ());
    let (model, summary) = exported(&source, Format::Mxfp4);
    let promised = trained(|name, values| if is_expert(name) { fake_quantize(values) } else { round(values) });
    same_bits(&logits(&model, "nano"), &logits(&promised, "nano"));
    let [bf16, mxfp4] = &summary.rounded[..] else { panic!("{:?}", summary.rounded) };
    assert_eq!((bf16.format, mxfp4.format), (DType::BF16, DType::Mxfp4));
    assert!(bf16.inexact > 0 && bf16.inexact <= bf16.values, "{bf16:?}");
    assert!(bf16.max_relative_error > 1e-3 && bf16.max_relative_error <= 2f64.powi(-8), "{bf16:?}");
    assert_eq!(mxfp4.values, 2 * 4 * 3 * 32 * 64);
    assert!(mxfp4.worst_tensor.ends_with("_blocks"), "{mxfp4:?}");
    // The noise is at most 0.1 %, but it moves some group's largest value over a scale's bound.
    assert!(mxfp4.max_relative_error > 0.0 && mxfp4.max_relative_error <= 0.2, "{mxfp4:?}");
    assert!(mxfp4.rms_relative_error > 1e-4 && mxfp4.rms_relative_error < 0.12, "{mxfp4:?}");
    let only_gguf_experts = trained(|name, values| {
        if is_expert(name) {
            fake_quantize(values)
        }
    });
    let (gguf, summary) = exported(&source, Format::Gguf(Dense::F32));
    same_bits(&logits(&gguf, "nano"), &logits(&only_gguf_experts, "nano"));
    assert_eq!(summary.rounded.len(), 1);
    let (bf16, _) = exported(&source, Format::Bf16);
    same_bits(&logits(&bf16, "nano"), &logits(&trained(|_, values| round(values)), "nano"));
}

#[test]
fn q8_is_within_half_a_step_and_is_handed_on() {
    let source = trained(|_, _| ());
    let (model, summary) = exported(&source, Format::Gguf(Dense::Q8));
    let of = |format| summary.rounded.iter().find(|r| r.format == format).unwrap().max_relative_error;
    // Half a step, and the rounding of the scale to F16.
    assert!(of(DType::Q8_0) > 0.003 && of(DType::Q8_0) < 0.501 / 127.0 + 2f64.powi(-11), "{}", of(DType::Q8_0));
    let q8 = model.tensors().filter(|t| t.dtype == DType::Q8_0).count();
    assert_eq!(q8, 2 + 2 * 4);
    let (again, summary) = exported(&model, Format::Gguf(Dense::Q8));
    assert!(summary.rounded.is_empty(), "{:?}", summary.rounded);
    same_tensors(&again, &model);
}

/// The error of exporting `from` to `out` must be one line that holds every part.
#[track_caller]
fn fails(from: &Checkpoint, format: Format, out: &Path, parts: &[&str]) {
    let config = Config::from_checkpoint(from).unwrap();
    fails_as(from, &config, format, out, parts);
}

#[track_caller]
fn fails_as(from: &Checkpoint, config: &Config, format: Format, out: &Path, parts: &[&str]) {
    let line = export(from, config, format, out, None, &mut |_, _| ()).unwrap_err().to_string();
    assert!(!line.contains('\n') && line.len() < 2000, "{line}");
    for part in parts {
        assert!(line.contains(part), "no {part:?} in: {line}");
    }
}

#[test]
fn numbers_that_cannot_be_written_are_refused_by_name() {
    let name = "model.layers.1.mlp.experts.down_projs.2.weight";
    for (bad, format) in
        [(f32::NAN, Format::Mxfp4), (f32::INFINITY, Format::Bf16), (f32::MAX, Format::Gguf(Dense::F32))]
    {
        let source = trained(|n, values| {
            if n == name {
                values[700] = bad
            }
        });
        let out = scratch().join("out");
        fails(&source, format, &out, &["trained", name, "finite", "row 10", "columns 32 on"]);
        assert!(!out.join("config.json").exists() && !out.is_file());
    }
    let out = scratch().join("out");
    let vector = trained(|n, values| {
        if n == "model.norm.weight" {
            values[3] = f32::NAN
        }
    });
    fails(&vector, Format::Mxfp4, &out, &["model.norm.weight", "finite", "element 3"]);
    assert!(!out.exists());
}

#[test]
fn what_the_source_lacks_is_said_before_anything_is_written() {
    let out = scratch().join("out");
    let source = open(&data("nano"));
    let config = Config::from_checkpoint(&source).unwrap();
    let more = Config { num_layers: 3, ..config.clone() };
    fails_as(&source, &more, Format::Mxfp4, &out, &["model.layers.2.input_layernorm.weight", "no tensor"]);
    let fewer = Config { num_layers: 1, ..config.clone() };
    fails_as(&source, &fewer, Format::Mxfp4, &out, &["model.layers.1.", "more like it"]);
    let wider = Config { intermediate_size: 96, ..config.clone() };
    fails_as(&source, &wider, Format::Bf16, &out, &["gate_up_proj_blocks", "[4, 192, 1, 16]", "[4, 128, 1, 16]"]);
    let limit = Config { swiglu_limit: 5.0, ..config };
    fails_as(&source, &limit, Format::Gguf(Dense::F32), &out, &["swiglu_limit", "wanted 7", "found 5"]);
    assert!(!out.exists());
}

#[test]
fn places_that_cannot_be_written() {
    let source = open(&data("nano"));
    let dir = scratch();
    let file = dir.join("file");
    std::fs::write(&file, "mine").unwrap();
    let gguf = Format::Gguf(Dense::Bf16);
    fails(&source, Format::Mxfp4, &file, &["file", "cannot create"]);
    fails(&source, Format::Bf16, &file.join("below"), &["below", "cannot create"]);
    fails(&source, gguf, &file, &["file", "GGUF file to replace", "another kind"]);
    let short = dir.join("short");
    std::fs::write(&short, "x").unwrap();
    fails(&source, gguf, &short, &["short", "another kind"]);
    fails(&source, gguf, &dir.join("none/x.gguf"), &["none", "cannot create"]);
    fails(&source, gguf, &dir, &["a folder"]);
    assert_eq!(std::fs::read(&file).unwrap(), b"mine");
    fails(&source, Format::Mxfp4, &data("nano"), &["nano", "another place"]);
    let own = open(&data("nano/model.gguf"));
    fails(&own, gguf, &data("nano/model.gguf"), &["model.gguf", "another place"]);
}

#[test]
fn other_models_files_are_neither_mixed_in_nor_lost() {
    let source = open(&data("nano"));
    let dir = scratch();
    write(&source, Format::Mxfp4, &dir);
    write(&source, Format::Bf16, &dir);
    for other in ["model-00000-of-00001.safetensors", "model.safetensors.index.json", "tokenizer.json"] {
        std::fs::write(dir.join(other), "x").unwrap();
        fails(&source, Format::Mxfp4, &dir, &["another", other]);
        std::fs::remove_file(dir.join(other)).unwrap();
    }
    write(&source, Format::Mxfp4, &dir);
    let file = scratch().join("x.gguf");
    (0..2).for_each(|_| drop(write(&source, Format::Gguf(Dense::Bf16), &file)));
}
