//! GGUF models whose keys or tensors do not fit together: each class of tensor, once in each wrong way.

use std::path::{Path, PathBuf};

use super::gguf::{BF16, F32, Gguf, MXFP4, Q8_0};
use super::program::{data, model_fails, model_works, scratch};

/// One name of each class of tensor, and a format that it cannot have (none where every format serves).
const NAMES: [(&str, Option<u32>); 20] = [
    ("token_embd.weight", None),
    ("output_norm.weight", Some(Q8_0)),
    ("output.weight", None),
    ("blk.1.attn_norm.weight", Some(MXFP4)),
    ("blk.1.attn_q.weight", None),
    ("blk.1.attn_q.bias", Some(Q8_0)),
    ("blk.1.attn_k.weight", None),
    ("blk.1.attn_k.bias", Some(MXFP4)),
    ("blk.1.attn_v.weight", None),
    ("blk.1.attn_output.weight", None),
    ("blk.1.attn_output.bias", Some(Q8_0)),
    ("blk.1.attn_sinks.weight", None),
    ("blk.1.post_attention_norm.weight", Some(Q8_0)),
    ("blk.1.ffn_gate_inp.weight", None),
    ("blk.1.ffn_gate_inp.bias", None),
    ("blk.1.ffn_gate_exps.weight", None),
    ("blk.1.ffn_up_exps.weight", None),
    ("blk.1.ffn_down_exps.weight", None),
    ("blk.1.ffn_gate_exps.bias", Some(MXFP4)),
    ("blk.1.ffn_down_exps.bias", Some(Q8_0)),
];

/// A file that can be changed again and again.
struct Damaged {
    file: PathBuf,
    whole: Gguf,
}

impl Damaged {
    fn new() -> Self {
        Self { file: scratch("gguf").join("model.gguf"), whole: Gguf::read(&data("nano/model.gguf")) }
    }

    fn with(&self, edit: impl FnOnce(&mut Gguf)) -> &Path {
        let mut changed = self.whole.clone();
        edit(&mut changed);
        changed.write(&self.file);
        &self.file
    }
}

#[test]
fn rewriting_changes_nothing() {
    assert_eq!(model_works(Damaged::new().with(|_| ())), model_works(&data("nano/model.gguf")));
}

#[test]
fn a_missing_tensor_is_named() {
    let model = Damaged::new();
    for (name, _) in NAMES {
        let file = model.with(|g| g.tensors.retain(|t| t.name != name));
        model_fails(file, &[&format!("model.gguf: tensor {name}: wanted "), "found no tensor"]);
    }
}

#[test]
fn a_wrong_shape_is_named() {
    let model = Damaged::new();
    for (name, _) in NAMES {
        let file = model.with(|g| {
            let tensor = g.get(name);
            let mut dims = tensor.dims.clone();
            *dims.last_mut().unwrap() += 1;
            tensor.reform(tensor.kind, &dims);
        });
        // The embedding table's own rows are what says how large the vocabulary is.
        let blamed = if name == "token_embd.weight" { "output.weight" } else { name };
        model_fails(file, &[&format!("model.gguf: tensor {blamed}: wanted shape ["), "found shape ["]);
        let file = model.with(|g| {
            let tensor = g.get(name);
            let dims = [&tensor.dims[..], &[1]].concat();
            tensor.reform(tensor.kind, &dims);
        });
        model_fails(file, &["model.gguf", "wanted", "found"]);
    }
}

#[test]
fn a_wrong_format_is_named() {
    let model = Damaged::new();
    for (name, wrong) in NAMES {
        let Some(kind) = wrong else { continue };
        let file = model.with(|g| {
            let dims = g.get(name).dims.clone();
            g.get(name).reform(kind, &dims);
        });
        model_fails(file, &[&format!("model.gguf: tensor {name}: wanted "), "F32", "found"]);
    }
    // A type that no reader of ours knows.
    let file = model.with(|_| ());
    let mut bytes = std::fs::read(file).unwrap();
    let name = b"blk.0.attn_sinks.weight";
    let at = bytes.windows(name.len()).position(|w| w == name).unwrap() + name.len() + 4 + 8;
    bytes[at..at + 4].copy_from_slice(&12u32.to_le_bytes());
    std::fs::write(file, bytes).unwrap();
    model_fails(file, &["model.gguf", "tensor blk.0.attn_sinks.weight", "wanted", "type 12 (Q4_K)"]);
}

#[test]
fn every_format_of_a_matrix_serves() {
    let model = Damaged::new();
    for kind in [F32, BF16, Q8_0, MXFP4] {
        let file = model.with(|g| {
            for tensor in g.tensors.iter_mut().filter(|t| t.dims.len() > 1 && t.name.ends_with("weight")) {
                let dims = tensor.dims.clone();
                tensor.reform(kind, &dims);
            }
        });
        model_works(file);
    }
}

#[test]
fn mixed_formats_that_share_an_input_are_named() {
    let model = Damaged::new();
    for (name, kind) in [("blk.0.attn_v.weight", Q8_0), ("blk.1.ffn_up_exps.weight", Q8_0)] {
        let file = model.with(|g| {
            let dims = g.get(name).dims.clone();
            g.get(name).reform(kind, &dims);
        });
        model_fails(file, &["model.gguf", name, "one format", "found"]);
    }
}

#[test]
fn a_tensor_too_many_is_named() {
    let model = Damaged::new();
    let file = model.with(|g| {
        let mut extra = g.tensors[1].clone();
        extra.name = "blk.2.attn_norm.weight".into();
        g.tensors.push(extra);
    });
    model_fails(file, &["model.gguf: tensor blk.2.attn_norm.weight: wanted only", "found F32 of shape [32]"]);
}

#[test]
fn a_scale_that_is_no_number_is_named_with_its_place() {
    let model = Damaged::new();
    for at in [0, 100] {
        let file = model.with(|g| g.get("blk.1.ffn_down_exps.weight").bytes[17 * at] = 255);
        let place = format!("255 (NaN) at scale {at}");
        model_fails(file, &["model.gguf", "tensor blk.1.ffn_down_exps.weight", "0 to 254", &place]);
    }
}

#[test]
fn offsets_that_lie_are_refused() {
    let model = Damaged::new();
    let name = "blk.0.attn_q.weight";
    for (offset, found) in [(0, "overlap"), (1 << 40, "offset"), (u64::MAX - 31, "offset"), (33, "multiple of 32")] {
        model.whole.write_with(&model.file, |n, place| if n == name { offset } else { place });
        model_fails(&model.file, &["model.gguf", "tensor", found]);
    }
    for dims in [vec![1 << 62, 2], vec![u64::MAX, 64], vec![1 << 32, 1 << 32]] {
        model.with(|_| ());
        let mut bytes = std::fs::read(&model.file).unwrap();
        let at = bytes.windows(name.len()).position(|w| w == name.as_bytes()).unwrap() + name.len() + 4;
        dims.iter().enumerate().for_each(|(i, d)| bytes[at + 8 * i..at + 8 * i + 8].copy_from_slice(&d.to_le_bytes()));
        std::fs::write(&model.file, bytes).unwrap();
        model_fails(&model.file, &["model.gguf", "tensor blk.0.attn_q.weight", "wanted", "found"]);
    }
}

#[test]
fn keys_that_cannot_be_are_named() {
    let model = Damaged::new();
    let (u32_type, f32_type, string_type) = (4, 6, 8);
    for (key, kind, value, found) in [
        ("gpt-oss.expert_count", u32_type, 0u32.to_le_bytes().to_vec(), "found 0"),
        ("gpt-oss.expert_used_count", u32_type, 5u32.to_le_bytes().to_vec(), "found 5"),
        ("gpt-oss.block_count", u32_type, u32::MAX.to_le_bytes().to_vec(), "found 4294967295"),
        ("gpt-oss.embedding_length", 10, u64::MAX.to_le_bytes().to_vec(), "found 18446744073709551615"),
        ("gpt-oss.rope.freq_base", f32_type, f32::NAN.to_le_bytes().to_vec(), "NaN"),
        ("gpt-oss.expert_count", string_type, super::gguf::string("4"), "found the string"),
        ("general.architecture", string_type, super::gguf::string("llama"), "found llama"),
    ] {
        model_fails(model.with(|g| g.set(key, kind, &value)), &["model.gguf", key, "wanted", found]);
    }
    let file = model.with(|g| g.set("gpt-oss.block_count", u32_type, &3u32.to_le_bytes()));
    model_fails(file, &["model.gguf", "blk.2.", "found no tensor"]);
    let file = model.with(|g| g.set("gpt-oss.expert_count", u32_type, &3u32.to_le_bytes()));
    model_fails(file, &["model.gguf", "tensor blk.0.ffn_gate_inp.weight", "[3, 32]", "[4, 32]"]);
}
