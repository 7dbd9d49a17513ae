//! What the model's tests share.
#![allow(dead_code)]

use std::path::{Path, PathBuf};

use ossia_kernels::{DType, Precision};
use ossia_model::checkpoint::{Checkpoint, RawTensor, safetensors};
use ossia_model::{Model, Options};

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
