//! What the model's tests share.
#![allow(dead_code)]

use std::path::{Path, PathBuf};

use ossia_kernels::{DType, Precision};
use ossia_model::checkpoint::{Checkpoint, RawTensor, safetensors};
use ossia_model::kv_cache::Held;
use ossia_model::{Logits, Model, Options, Work};

pub fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

pub fn options(precision: Precision, threads: usize) -> Options {
    Options { precision, threads, context: 1024, chunk: 512, logits_rows: 512, ..Options::default() }
}

pub fn load(path: &Path, options: Options) -> Model {
    Model::load(&Checkpoint::open(path).unwrap(), options, None, &mut |_, _| {}).unwrap()
}

/// Outputs of the published implementation for one checkpoint.
pub struct Golden {
    tensors: Vec<RawTensor>,
    pub tokens: Vec<u32>,
}

impl Golden {
    pub fn read(name: &str) -> Self {
        let tensors = safetensors::open(&data(&format!("{name}.golden.safetensors"))).unwrap();
        let mut golden = Self { tensors, tokens: Vec::new() };
        golden.tokens = golden.integers("tokens").iter().map(|&t| t as u32).collect();
        golden
    }

    fn get(&self, name: &str) -> &RawTensor {
        self.tensors.iter().find(|t| t.name == name).unwrap()
    }

    pub fn floats(&self, name: &str) -> Vec<f32> {
        assert_eq!(self.get(name).dtype, DType::F32);
        self.get(name).bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect()
    }

    pub fn integers(&self, name: &str) -> Vec<i64> {
        let tensor = self.get(name);
        assert_eq!(tensor.dtype, DType::I32, "{name}");
        tensor.bytes.as_chunks().0.iter().map(|&b| i64::from(i32::from_le_bytes(b))).collect()
    }
}

/// max |got - want| / max |want|.
pub fn largest_error(got: &[f32], want: &[f32]) -> f64 {
    assert_eq!(got.len(), want.len());
    let largest = want.iter().fold(0.0f64, |m, &w| m.max(f64::from(w).abs()));
    got.iter().zip(want).fold(0.0f64, |m, (&g, &w)| m.max((f64::from(g) - f64::from(w)).abs())) / largest
}

/// Token ids below 120.
pub fn prompt(seed: usize, len: usize) -> Vec<u32> {
    (0..len).map(|i| ((i * i * 31 + i * 7 + seed * 13) % 120) as u32).collect()
}

/// Logits of every position, the sequences fed side by side in chunks.
pub fn run(model: &mut Model, sequences: &[Vec<u32>], chunk: usize) -> Vec<Vec<f32>> {
    let mut helds: Vec<Held> = sequences.iter().map(|_| Held::default()).collect();
    let mut all: Vec<Vec<f32>> = vec![Vec::new(); sequences.len()];
    let longest = sequences.iter().map(Vec::len).max().unwrap();
    for start in (0..longest).step_by(chunk) {
        let mut members = Vec::new();
        let mut work: Vec<Work> = Vec::new();
        for (s, held) in helds.iter_mut().enumerate().filter(|(s, _)| start < sequences[*s].len()) {
            let tokens = &sequences[s][start..(start + chunk).min(sequences[s].len())];
            members.push((s, tokens.len()));
            work.push(Work { held, tokens, logits: Logits::All });
        }
        let logits = model.step(&mut work).unwrap();
        let mut rows = logits.host().chunks_exact(logits.cols());
        for (s, n) in members {
            rows.by_ref().take(n).for_each(|row| all[s].extend_from_slice(row));
        }
    }
    helds.iter_mut().for_each(|held| model.release(held));
    all
}

/// What two runs must have in common.
pub fn bits(rows: &[f32]) -> Vec<u32> {
    rows.iter().map(|v| v.to_bits()).collect()
}
