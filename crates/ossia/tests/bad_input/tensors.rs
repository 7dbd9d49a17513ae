//! Safetensors models whose tensors do not fit the config: each class of tensor, in both layouts, once in each wrong way.

use std::path::{Path, PathBuf};

use super::program::{copy_of, data, model_fails, model_works};
use super::safetensors::{Safetensors, Tensor};

/// One name of each class of tensor, by layout.
const HUGGING_FACE: [&str; 19] = [
    "model.embed_tokens.weight",
    "model.norm.weight",
    "lm_head.weight",
    "model.layers.1.input_layernorm.weight",
    "model.layers.1.self_attn.q_proj.weight",
    "model.layers.1.self_attn.q_proj.bias",
    "model.layers.1.self_attn.k_proj.weight",
    "model.layers.1.self_attn.v_proj.bias",
    "model.layers.1.self_attn.o_proj.weight",
    "model.layers.1.self_attn.o_proj.bias",
    "model.layers.1.self_attn.sinks",
    "model.layers.1.post_attention_layernorm.weight",
    "model.layers.1.mlp.router.weight",
    "model.layers.1.mlp.router.bias",
    "model.layers.1.mlp.experts.gate_up_proj_bias",
    "model.layers.1.mlp.experts.down_proj_bias",
    GATE_UP_BLOCKS,
    "model.layers.1.mlp.experts.down_proj_blocks",
    "model.layers.1.mlp.experts.gate_up_proj_scales",
];
const ORIGINAL: [&str; 17] = [
    "embedding.weight",
    "norm.scale",
    "unembedding.weight",
    "block.1.attn.norm.scale",
    "block.1.attn.qkv.weight",
    "block.1.attn.qkv.bias",
    "block.1.attn.out.weight",
    "block.1.attn.out.bias",
    "block.1.attn.sinks",
    "block.1.mlp.norm.scale",
    "block.1.mlp.gate.weight",
    "block.1.mlp.gate.bias",
    "block.1.mlp.mlp1_bias",
    "block.1.mlp.mlp2_bias",
    "block.1.mlp.mlp1_weight.blocks",
    "block.1.mlp.mlp2_weight.blocks",
    "block.1.mlp.mlp2_weight.scales",
];
const GATE_UP_BLOCKS: &str = "model.layers.1.mlp.experts.gate_up_proj_blocks";
const GATE_UP_SCALES: &str = "model.layers.1.mlp.experts.gate_up_proj_scales";

/// A copy of a model whose tensors can be changed again and again.
struct Damaged {
    folder: PathBuf,
    whole: Safetensors,
}

impl Damaged {
    fn new(name: &str) -> Self {
        let whole = Safetensors::read(&data(name).join("model.safetensors"));
        Self { folder: copy_of(name), whole }
    }

    /// The model with its tensors changed by `edit`.
    fn with(&self, edit: impl FnOnce(&mut Safetensors)) -> &Path {
        let mut tensors = self.whole.clone();
        edit(&mut tensors);
        tensors.write(&self.folder.join("model.safetensors"));
        &self.folder
    }
}

fn both() -> [(Damaged, &'static [&'static str]); 2] {
    [(Damaged::new("nano"), &HUGGING_FACE), (Damaged::new("nano/original"), &ORIGINAL)]
}

#[test]
fn rewriting_changes_nothing() {
    for (model, _) in both() {
        let wanted =
            model_works(&data(if model.folder.join("dtypes.json").exists() { "nano/original" } else { "nano" }));
        assert_eq!(model_works(model.with(|_| ())), wanted);
        assert_eq!(model_works(model.with(|t| t.0.reverse())), wanted, "the order in the file means nothing");
    }
}

#[test]
fn a_missing_tensor_is_named() {
    for (model, names) in both() {
        for name in names {
            let folder = model.with(|t| drop(t.remove(name)));
            model_fails(folder, &[folder.to_str().unwrap(), &format!("tensor {name}: wanted "), "found no tensor"]);
        }
    }
}

#[test]
fn a_wrong_shape_is_named() {
    for (model, names) in both() {
        for name in names {
            let mut original = model.whole.clone();
            let shape = original.get(name).shape.clone();
            let more = [&[shape[0] + 1], &shape[1..]].concat();
            let flat = vec![shape.iter().product()];
            for wrong in [more, flat, [&shape[..], &[1]].concat(), shape.iter().rev().copied().collect()] {
                if wrong == shape {
                    continue;
                }
                let folder = model.with(|t| {
                    let tensor = t.get(name);
                    tensor.reform(&tensor.dtype.clone(), &wrong);
                });
                let parts = [format!("model.safetensors: tensor {name}: wanted"), format!("shape {wrong:?}")];
                model_fails(folder, &[&parts[0], &parts[1]]);
            }
        }
    }
}

#[test]
fn a_wrong_dtype_is_named() {
    for (model, names) in both() {
        for name in names {
            let mut original = model.whole.clone();
            let tensor = original.get(name);
            let wrong: &[&str] = if tensor.dtype == "U8" { &["I32", "F32"] } else { &["U8", "I32"] };
            for dtype in wrong {
                let folder = model.with(|t| t.get(name).reform(dtype, &tensor.shape));
                model_fails(folder, &[&format!("model.safetensors: tensor {name}: wanted "), "found", dtype]);
            }
        }
    }
}

#[test]
fn a_tensor_too_many_is_named() {
    for (model, _) in both() {
        for name in ["x", "model.layers.2.input_layernorm.weight", "block.2.attn.sinks", "lm_head.bias"] {
            let extra = Tensor { name: name.into(), dtype: "BF16".into(), shape: vec![4], bytes: vec![0; 8] };
            let folder = model.with(|t| t.0.push(extra));
            model_fails(
                folder,
                &[&format!("model.safetensors: tensor {name}: wanted only"), "found BF16 of shape [4]"],
            );
        }
    }
}

#[test]
fn names_cannot_break_the_line() {
    let model = Damaged::new("nano");
    let name = format!("a\nb\u{1b}[2J\u{202e}{}", "x".repeat(400));
    let extra = Tensor { name, dtype: "BF16".into(), shape: vec![4], bytes: vec![0; 8] };
    model_fails(model.with(|t| t.0.push(extra)), &["model.safetensors", r"tensor a\nb\u{1b}[2J\u{202e}xxx"]);
}

#[test]
fn blocks_and_scales_must_fit_each_other() {
    let model = Damaged::new("nano");
    let shapes = [vec![3, 128, 1], vec![4, 127, 1], vec![4, 128, 2], vec![4, 128], vec![512]];
    for shape in shapes {
        let folder = model.with(|t| t.get(GATE_UP_SCALES).reform("U8", &shape));
        model_fails(folder, &[GATE_UP_SCALES, "wanted shape [4, 128, 1]", &format!("found shape {shape:?}")]);
        let blocks = [&shape[..], &[16]].concat();
        let folder = model.with(|t| t.get(GATE_UP_BLOCKS).reform("U8", &blocks));
        model_fails(folder, &[GATE_UP_BLOCKS, &format!("{blocks:?}")]);
    }
}

#[test]
fn a_scale_that_is_no_number_is_named_with_its_place() {
    let [(hugging_face, _), (original, _)] = both();
    for (model, name) in [(hugging_face, GATE_UP_SCALES), (original, "block.1.mlp.mlp2_weight.scales")] {
        for at in [0, 137, 255] {
            let folder = model.with(|t| t.get(name).bytes[at] = 255);
            model_fails(folder, &["model.safetensors", name, "0 to 254", &format!("255 (NaN) at scale {at}")]);
        }
    }
}

/// The packed experts called `stem` as floats [E, K, N]: SPEC 3.
fn dequantize(tensors: &mut Safetensors, stem: &str) -> Tensor {
    const VALUES: [f32; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
    let blocks = tensors.remove(&format!("{stem}_blocks"));
    let scales = tensors.remove(&format!("{stem}_scales"));
    let [e, n, groups] = scales.shape[..] else { panic!("scales [E, N, K/32]") };
    let (n, k) = (n as usize, groups as usize * 32);
    let mut floats = vec![0.0f32; e as usize * n * k];
    for (at, byte) in blocks.bytes.iter().enumerate() {
        let scale = f32::from(scales.bytes[at / 16]) - 127.0;
        for (half, code) in [byte & 15, byte >> 4].into_iter().enumerate() {
            let value = VALUES[usize::from(code & 7)] * scale.exp2() * if code & 8 == 0 { 1.0 } else { -1.0 };
            let (row, column) = ((2 * at + half) / k, (2 * at + half) % k);
            floats[(row / n) * n * k + column * n + row % n] = value;
        }
    }
    let bytes = floats.iter().flat_map(|v| v.to_le_bytes()).collect();
    Tensor { name: stem.into(), dtype: "F32".into(), shape: vec![e, k as u64, n as u64], bytes }
}

const STEMS: [&str; 4] = [
    "model.layers.0.mlp.experts.gate_up_proj",
    "model.layers.0.mlp.experts.down_proj",
    "model.layers.1.mlp.experts.gate_up_proj",
    "model.layers.1.mlp.experts.down_proj",
];

#[test]
fn dequantized_experts_work_under_either_name() {
    let model = Damaged::new("nano");
    let wanted = model_works(&data("nano"));
    for end in ["", "_blocks"] {
        let floats = |t: &mut Safetensors| {
            for stem in STEMS {
                let mut tensor = dequantize(t, stem);
                tensor.name += end;
                t.0.push(tensor);
            }
        };
        assert_eq!(model_works(model.with(floats)), wanted);
    }
}

#[test]
fn dequantized_experts_that_are_broken_are_named() {
    let model = Damaged::new("nano");
    let stem = STEMS[3];
    let with = |edit: &dyn Fn(&mut Safetensors, Tensor)| {
        model.with(|t| {
            let tensor = dequantize(t, stem);
            edit(t, tensor);
        })
    };
    let named = format!("tensor {stem}_blocks: wanted");
    let packed = |t: &mut Safetensors, mut tensor: Tensor| {
        tensor.name += "_blocks";
        t.0.push(tensor);
        t.0.len() - 1
    };
    // Not transposed, with an expert too few, of bytes, of rank four.
    for (dtype, shape) in
        [("F32", &[4, 32, 64][..]), ("BF16", &[3, 64, 32]), ("U8", &[4, 64, 32]), ("F16", &[4, 32, 2, 16])]
    {
        let folder = with(&|t, tensor| {
            let at = packed(t, tensor);
            t.0[at].reform(dtype, shape);
        });
        model_fails(folder, &["model.safetensors", &named, &format!("shape {shape:?}")]);
    }
    // Both forms at once, and scales that nothing uses.
    let folder = with(&|t, tensor| {
        let mut twin = tensor.clone();
        twin.name += "_blocks";
        t.0.extend([tensor, twin]);
    });
    model_fails(folder, &[&format!("tensor {stem}: wanted only")]);
    let folder = with(&|t, tensor| {
        packed(t, tensor);
        let mut scales = t.get(GATE_UP_SCALES).clone();
        scales.name = format!("{stem}_scales");
        t.0.push(scales);
    });
    model_fails(folder, &[&format!("tensor {stem}_scales: wanted only")]);
}

/// The experts called `stem` as a matrix [N, K] and a bias for each.
fn singles(t: &mut Safetensors, stem: &str) {
    let floats = dequantize(t, stem);
    let biases = t.remove(&format!("{stem}_bias"));
    let [experts, k, n] = [0, 1, 2].map(|i| floats.shape[i] as usize);
    for e in 0..experts {
        let source = &floats.bytes[e * k * n * 4..][..k * n * 4];
        let at = |i: usize| source[((i % k) * n + i / k) * 4..][..4].to_vec();
        let bytes = (0..n * k).flat_map(at).collect();
        let single = |end: &str, dtype: &str, shape: &[usize], bytes: Vec<u8>| Tensor {
            name: format!("{stem}s.{e}.{end}"),
            dtype: dtype.into(),
            shape: shape.iter().map(|&n| n as u64).collect(),
            bytes,
        };
        t.0.push(single("weight", "F32", &[n, k], bytes));
        t.0.push(single("bias", "BF16", &[n], biases.bytes[e * n * 2..][..n * 2].to_vec()));
    }
}

#[test]
fn a_matrix_for_each_expert_works_and_a_wrong_one_is_named() {
    let model = Damaged::new("nano");
    let with = |edit: &dyn Fn(&mut Safetensors)| {
        model.with(|t| {
            STEMS.iter().for_each(|stem| singles(t, stem));
            edit(t);
        })
    };
    assert_eq!(model_works(with(&|_| ())), model_works(&data("nano")));
    for which in 0..2 {
        let name = format!("{}s.2.weight", STEMS[which]);
        model_fails(with(&|t| drop(t.remove(&name))), &[&name, "no tensor"]);
        model_fails(with(&|t| t.get(&name).reform("F32", &[32, 32])), &[&name, "shape [32, 32]"]);
        let shape = [[128, 32], [32, 64]][which];
        // Formats of floats may differ from expert to expert.
        model_works(with(&|t| t.get(&name).reform("BF16", &shape)));
        model_fails(with(&|t| t.get(&name).reform("U8", &shape)), &[&name, "U8 of shape"]);
        let bias = format!("{}s.2.bias", STEMS[which]);
        model_fails(with(&|t| t.get(&bias).regrow(31)), &[&bias, "shape [31]"]);
    }
}

#[test]
fn q_k_and_v_of_two_formats_are_named() {
    let model = Damaged::new("nano");
    let name = "model.layers.0.self_attn.k_proj.weight";
    let folder = model.with(|t| t.get(name).reform("F32", &[32, 32]));
    model_fails(folder, &["model.safetensors", name, "one format", "F32", "BF16"]);
}

#[test]
fn offsets_that_lie_are_refused() {
    let model = Damaged::new("nano");
    let name = "model.layers.0.self_attn.sinks";
    for (offsets, found) in [
        (serde_json::json!([0, 8]), "overlap"),
        (serde_json::json!([1u64 << 40, (1u64 << 40) + 8]), "tensor"),
        (serde_json::json!([u64::MAX - 7, u64::MAX]), "tensor"),
        (serde_json::json!([8, 0]), "ascending"),
    ] {
        let file = model.folder.join("model.safetensors");
        model.whole.write_with(&file, |header| header[name]["data_offsets"] = offsets);
        model_fails(&model.folder, &["model.safetensors", "tensor", "wanted", found]);
    }
    for shape in [vec![u64::MAX, 2], vec![1 << 63], vec![1 << 32, 1 << 32]] {
        let file = model.folder.join("model.safetensors");
        model.whole.write_with(&file, |header| header[name]["shape"] = shape.into());
        model_fails(&model.folder, &["model.safetensors", name, "fits into memory"]);
    }
}

#[test]
fn a_header_length_of_four_gigabytes_is_not_believed() {
    let model = Damaged::new("nano");
    let file = model.with(|_| ()).join("model.safetensors");
    let mut whole = std::fs::read(&file).unwrap();
    for length in [1u64 << 32, u64::MAX, 100_000_001] {
        whole[..8].copy_from_slice(&length.to_le_bytes());
        std::fs::write(&file, &whole).unwrap();
        model_fails(&model.folder, &["model.safetensors", "at most 100000000 bytes", &length.to_string()]);
    }
}
