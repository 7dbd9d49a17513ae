//! Models with an adapter merged into them: their logits, their numbers, and that threads change none of these.

use ossia_kernels::quantize_mxfp4::fake_quantize;
use ossia_kernels::{DType, Floats, Matrix, Precision};
use ossia_model::checkpoint::Checkpoint;
use ossia_model::gpt_oss::adapter::{AdapterConfig, AdapterParameters, ExpertSharing, Targets};
use ossia_model::gpt_oss::config::Config;
use ossia_model::gpt_oss::export::{Dense, Format, Merge, Target, export_to};
use ossia_model::kv_cache::Held;
use ossia_model::{Logits, Model, Work};

use super::common::{self, Golden, data, options};
use super::{FORMATS, exported, logits, open, same_bits, same_tensors, scratch, trained};

/// Factors of which none is zero.
fn adapter(config: &Config, targets: Targets) -> (AdapterParameters, Vec<f32>) {
    let parameters = AdapterParameters::of(config, &AdapterConfig { rank: 4, alpha: 8.0, targets });
    let mut values = parameters.init(3);
    let noise = |i: usize| ((i * 2_654_435_761) % 1_000_003) as f32 / 5e7 - 0.01;
    for tensor in parameters.tensors().iter().filter(|t| t.name.ends_with("lora_B.weight")) {
        tensor.range.clone().for_each(|i| values[i] = noise(i));
    }
    (parameters, values)
}

const DENSE: Targets = Targets { attention: true, router: true, unembedding: true, experts: None };

fn merged(from: &Checkpoint, format: Format, (parameters, values): &(AdapterParameters, Vec<f32>)) -> Checkpoint {
    let config = Config::from_checkpoint(from).unwrap();
    let out = scratch().join(if matches!(format, Format::Gguf(_)) { "model.gguf" } else { "model" });
    let merge = Some(Merge { parameters, values });
    let target = Target { format, out: &out, tokenizer_json: None, merge, threads: 2 };
    export_to(from, &config, &target, &mut |_, _| ()).unwrap();
    open(&out)
}

/// Logits of a model through an adapter, over its own file.
fn adapted_logits(
    checkpoint: &Checkpoint,
    name: &str,
    (parameters, values): &(AdapterParameters, Vec<f32>),
) -> Vec<f32> {
    let options = options(Precision::F32, 2).with_adapter(parameters);
    let mut model = Model::load(checkpoint, options, None, &mut |_, _| {}).unwrap();
    let slot = model.attach(parameters, &Floats::new(values.clone())).unwrap();
    let tokens = Golden::read(name).tokens;
    let mut held = Held { adapter: Some(slot), ..Held::default() };
    model.step(&mut [Work { held: &mut held, tokens: &tokens, logits: Logits::All }]).unwrap().host().to_vec()
}

#[test]
fn merged_models_answer_as_base_and_adapter() {
    for (path, name) in [("nano", "nano"), ("nano/original", "nano"), ("nano/model.gguf", "nano"), ("tiny", "tiny")] {
        let source = open(&data(path));
        let config = Config::from_checkpoint(&source).unwrap();
        let experts = Targets { experts: Some(ExpertSharing::SharedOuter), ..DENSE };
        let (dense, all) = (adapter(&config, DENSE), adapter(&config, experts));
        // What f32 holds is the sum itself; BF16 rounds it. Four bits move logits further than a small adapter does, so
        // what they hold is compared number by number below.
        let cases = [(Format::Gguf(Dense::F32), &dense, 1e-5), (Format::F32, &all, 1e-5), (Format::Bf16, &all, 2e-2)];
        for (format, adapter, most) in cases {
            let want = adapted_logits(&source, name, adapter);
            let error = common::largest_error(&logits(&merged(&source, format, adapter), name), &want);
            assert!(error <= most, "{path} {format:?}: {error:.2e}");
            let base = common::largest_error(&logits(&source, name), &want);
            assert!(base > 3.0 * error, "{path} {format:?}: the base is {base:.2e} away, the merged model {error:.2e}");
        }
    }
}

#[test]
fn floats_that_keep_every_number_are_wide_only_where_they_must() {
    let source = trained(|_, _| ());
    let (kept, summary) = exported(&source, Format::F32);
    assert!(summary.rounded.is_empty(), "{:?}", summary.rounded);
    same_bits(&logits(&kept, "nano"), &logits(&source, "nano"));
    let source = open(&data("nano"));
    let experts = Targets { experts: Some(ExpertSharing::Each), ..Targets::default() };
    let adapter = adapter(&Config::from_checkpoint(&source).unwrap(), experts);
    let wide = |name: &str| name.ends_with("experts.gate_up_proj") || name.ends_with("experts.down_proj");
    for tensor in merged(&source, Format::F32, &adapter).tensors() {
        assert_eq!(tensor.dtype == DType::F32, wide(&tensor.name), "{}", tensor.name);
    }
}

#[test]
fn threads_change_no_byte() {
    let source = open(&data("tiny"));
    let config = Config::from_checkpoint(&source).unwrap();
    let targets = Targets { experts: Some(ExpertSharing::SharedOuter), ..DENSE };
    let (parameters, values) = adapter(&config, targets);
    for format in FORMATS {
        let out = |threads| {
            let out = scratch().join(if matches!(format, Format::Gguf(_)) { "model.gguf" } else { "model" });
            let merge = Some(Merge { parameters: &parameters, values: &values });
            let target = Target { format, out: &out, tokenizer_json: None, merge, threads };
            let summary = export_to(&source, &config, &target, &mut |_, _| ()).unwrap();
            (open(&out), format!("{:?}", summary.rounded))
        };
        let (one, three) = (out(1), out(3));
        same_tensors(&three.0, &one.0);
        assert_eq!(three.1, one.1);
    }
}

#[test]
fn merged_experts_are_the_quantised_sums() {
    let source = open(&data("tiny"));
    let config = Config::from_checkpoint(&source).unwrap();
    let targets = Targets { experts: Some(ExpertSharing::Each), ..Targets::default() };
    let (parameters, values) = adapter(&config, targets);
    let written = merged(&source, Format::Mxfp4, &(parameters.clone(), values.clone()));
    let (e, d, i) = (config.num_experts, config.hidden_size, config.intermediate_size);
    let matrix = |c: &Checkpoint, stem: &str, rows: usize, cols: usize| {
        let get = |end: &str| c.get(&format!("model.layers.1.mlp.experts.{stem}{end}")).unwrap().bytes.clone();
        Matrix::mxfp4(e * rows, cols, get("_blocks"), get("_scales")).unwrap()
    };
    for (stem, rows, cols) in [("gate_up_proj", 2 * i, d), ("down_proj", d, i)] {
        let (before, after) = (matrix(&source, stem, rows, cols), matrix(&written, stem, rows, cols));
        let factor = |which: &str| {
            &values[parameters.get(&format!("model.layers.1.mlp.experts.{stem}.{which}.weight")).unwrap().range.clone()]
        };
        let (a, b) = (factor("lora_A"), factor("lora_B"));
        for row in 0..e * rows {
            let (mut want, mut got) = (vec![0.0; cols], vec![0.0; cols]);
            before.row_into(row, &mut want);
            after.row_into(row, &mut got);
            let a = &a[row / rows * 4 * cols..];
            for (col, want) in want.iter_mut().enumerate() {
                *want += (0..4).map(|j| 2.0 * b[row * 4 + j] * a[j * cols + col]).fold(0.0, |sum, v| sum + v);
            }
            fake_quantize(&mut want);
            let different = want.iter().zip(&got).filter(|(w, g)| (*w - *g).abs() > 1e-6).count();
            // A sum at the border of two codes may fall to either side.
            assert!(different <= cols / 32, "{stem} row {row}: {different} of {cols}");
        }
    }
}

#[test]
fn an_adapter_that_adds_nothing_changes_no_byte() {
    let source = open(&data("nano"));
    let config = Config::from_checkpoint(&source).unwrap();
    let targets = Targets { experts: Some(ExpertSharing::Each), ..DENSE };
    let (parameters, _) = adapter(&config, targets);
    let values = parameters.init(5);
    for format in [Format::Mxfp4, Format::Gguf(Dense::Bf16)] {
        same_tensors(&merged(&source, format, &(parameters.clone(), values.clone())), &exported(&source, format).0);
    }
}
