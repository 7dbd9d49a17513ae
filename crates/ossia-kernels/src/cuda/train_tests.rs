//! Holds training on a device to the ops' references and to the processor, over ragged shapes and documents.
//!
//! A run of numbers that bf16 holds is what both see; what is written over begins as not-a-number, what grows as ones.

mod blocks;
mod products;
mod updates;

use half::bf16;

use super::tests::runtime_of;
use super::{Device, Gpu, InMemory};
use crate::arena::Arena;
use crate::cpu::isa::Isa;
use crate::kv::PageTable;
use crate::matrix::Matrix;
use crate::ops::embed;
use crate::ops::rms_norm::{self, Norm};
use crate::ops::rope::{self, Heads, Rope};
use crate::ops::stored::{self, Form, Stored};
use crate::pool::Pool;
use crate::testing::{Numbers, close, same_bits, training_step};
use crate::{DType, Floats, Precision, Runtime, Step, Tensor};

/// A device with the kernels of training.
fn device() -> Option<Runtime> {
    runtime_of(Gpu::open_for_training(0, &InMemory))
}

fn cpu() -> Runtime {
    Runtime::on_cpu(Pool::new(1), Arena::new(64 << 20), Isa::detect(), Precision::F32)
}

fn rounded(values: &[f32]) -> Vec<f32> {
    values.iter().map(|&v| bf16::from_f32(v).to_f32()).collect()
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&v| f64::from(v)).collect()
}

/// The root of the mean square of the difference, over that of `want`.
fn rms(got: &[f32], want: &[f32]) -> f64 {
    assert_eq!(got.len(), want.len());
    let sum = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>();
    let difference = sum(&mut got.iter().zip(want).map(|(g, w)| f64::from(*g) - f64::from(*w)));
    (difference / sum(&mut want.iter().map(|w| f64::from(*w))).max(1e-30)).sqrt()
}

fn near(got: &[f32], want: &[f32], most: f64, what: &str) {
    let rms = rms(got, want);
    println!("{what}: {rms:.1e}");
    assert!(rms <= most, "{what}: rms of the difference {rms:.2e}");
}

/// Weights that are trained, and where their gradients grow.
struct Case<'a> {
    runtime: &'a Runtime,
    seen: &'a Floats,
    tensors: &'a [Stored],
    /// As the tensors lie.
    gradients: &'a mut [f32],
}

impl Case<'_> {
    /// Tensor `which` as a matrix.
    fn matrix(&self, which: usize, cols: usize) -> Matrix {
        let range = self.tensors[which].range.clone();
        let bytes = self.seen.bytes().slice(4 * range.start..4 * range.end).unwrap();
        Matrix::new(DType::F32, range.len() / cols, cols, bytes).unwrap()
    }

    /// Copies of tensors, as a model has them, with the names that they need.
    fn vectors<const N: usize>(&self, which: [usize; N]) -> [Vec<f32>; N] {
        let places = which.map(|which| &self.seen[self.tensors[which].range.clone()]);
        let copies = places.map(<[f32]>::to_vec);
        let names: Vec<(&[f32], &[f32])> = copies.iter().zip(places).map(|(copy, place)| (&copy[..], place)).collect();
        self.runtime.name(&names);
        copies
    }

    fn tensor(&self, cols: usize, values: &[f32]) -> Tensor {
        match &self.runtime.device {
            Device::Cpu => crate::testing::tensor(self.runtime, values.len() / cols, cols, values),
            Device::Cuda(gpu) => Tensor::from_host(gpu, values.len() / cols, cols, values).unwrap(),
        }
    }

    /// What is to be written over.
    fn poisoned(&self, rows: usize, cols: usize) -> Tensor {
        self.tensor(cols, &vec![f32::NAN; rows * cols])
    }

    /// A step over documents of these lengths, of tokens or of none in particular.
    fn step<'s>(&'s self, lengths: &[usize], none: &'s PageTable, tokens: &[u32], logits_rows: &[u32]) -> Step<'s> {
        let mut step = training_step(self.runtime, lengths, none);
        step.logits_rows = logits_rows.to_vec();
        let some = vec![0; lengths.iter().sum()];
        step.begin(if tokens.is_empty() { &some } else { tokens }).unwrap();
        step
    }
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.values().unwrap().into_owned()
}

/// What an op has made, one list for each result.
type Outputs = Vec<Vec<f32>>;

/// What `work` gives on the processor and on a device, and the gradients; on the device twice, to the same bits. Tensors have so
/// many numbers, and those that are `exact` are f32 on the device.
fn both(seed: u64, tensors: &[(usize, bool)], work: impl Fn(&mut Case) -> Outputs) -> Option<(Outputs, Outputs)> {
    let mut end = 0;
    let stored = |&(len, exact): &(usize, bool)| {
        end += len;
        Stored { range: end - len..end, exact }
    };
    let tensors: Vec<Stored> = tensors.iter().map(stored).collect();
    let weights = rounded(&Numbers(seed).vec(end));
    let run = |runtime: Runtime| {
        let (mut seen, mut gradients) = (Floats::new(weights.clone()), vec![1.0; end]);
        runtime.hold(&weights).unwrap();
        runtime.send(&weights).unwrap();
        runtime.hold(&gradients).unwrap();
        runtime.send(&gradients).unwrap();
        stored::hold(&runtime, &seen, &tensors).unwrap();
        stored::look(&runtime, &weights, seen.change(), &tensors, &|_| Form::Whole).unwrap();
        let mut all = work(&mut Case { runtime: &runtime, seen: &seen, tensors: &tensors, gradients: &mut gradients });
        runtime.fetch(&mut gradients).unwrap();
        all.push(gradients);
        all
    };
    let (want, got, again) = (run(cpu()), run(device()?), run(device()?));
    got.iter().zip(&again).for_each(|(a, b)| same_bits(a, b, "again"));
    Some((want, got))
}

fn all_close(want: &[Vec<f32>], got: &[Vec<f32>], tolerance: f64, what: &str) {
    want.iter().zip(got).for_each(|(want, got)| close(got, &wide(want), tolerance, what));
}

#[test]
fn norms() {
    let none = PageTable::default();
    for (tokens, d, rows) in [(1, 32, vec![0]), (70, 288, vec![0, 3, 40, 69]), (5, 1056, vec![])] {
        let mut numbers = Numbers(11);
        let (x, dy, before) = (numbers.vec(tokens * d), numbers.vec(tokens * d), numbers.vec(tokens * d));
        let made = both(21, &[(d, true)], |case| {
            let [weight] = case.vectors([0]);
            let norm = Norm { weight, eps: 1e-5 };
            let (x, d_y) = (case.tensor(d, &x), case.tensor(d, &dy));
            let (mut dx, mut dx_rows) = (case.tensor(d, &before), case.tensor(d, &before));
            let gradient = std::mem::take(&mut case.gradients);
            let mut step = case.step(&[tokens], &none, &[], &rows);
            let y = values(&rms_norm::forward(&mut step, &x, &norm).unwrap());
            rms_norm::backward(&mut step, &x, &norm, &d_y, Some(gradient), &mut dx).unwrap();
            if !rows.is_empty() {
                let d_y = case.tensor(d, &dy[..rows.len() * d]);
                rms_norm::backward_logits_rows(&mut step, &x, &norm, &d_y, Some(gradient), &mut dx_rows).unwrap();
            }
            vec![y, values(&dx), values(&dx_rows)]
        });
        let Some((want, got)) = made else { return };
        all_close(&want, &got, 1e-5, &format!("{tokens} x {d}"));
    }
}

#[test]
fn rotations() {
    let none = PageTable::default();
    for dim in [16, 32, 64] {
        let heads = Heads { query: 6, kv: 2, dim };
        let rope = Rope::new(10_000.0, 4.0, (1.0, 6.0), dim);
        let x = Numbers(12).vec(75 * heads.row());
        let made = both(22, &[(1, true)], |case| {
            let (mut qkv, mut d_qkv) = (case.tensor(heads.row(), &x), case.tensor(heads.row(), &x));
            let mut step = case.step(&[3, 70, 2], &none, &[], &[]);
            rope::forward(&mut step, &mut qkv, &rope, heads, 0, None).unwrap();
            rope::backward(&mut step, &mut d_qkv, &rope, heads).unwrap();
            vec![values(&qkv), values(&d_qkv)]
        });
        let Some((want, got)) = made else { return };
        all_close(&want, &got, 1e-5, &format!("{dim} channels"));
    }
}

/// The same bits as on the processor: both add tokens in their order.
#[test]
fn embeddings() {
    let none = PageTable::default();
    let mut numbers = Numbers(13);
    for (tokens, vocab, d) in [(1, 3, 32), (67, 9, 288)] {
        let ids: Vec<u32> = (0..tokens).map(|_| numbers.below(vocab) as u32).collect();
        let dx = numbers.vec(tokens * d);
        let made = both(23, &[(vocab * d, false)], |case| {
            let (table, dx) = (case.matrix(0, d), case.tensor(d, &dx));
            let gradient = std::mem::take(&mut case.gradients);
            let mut step = case.step(&[tokens], &none, &ids, &[]);
            let x = values(&embed::forward(&mut step, &ids, &table).unwrap());
            embed::backward(&mut step, &ids, &dx, gradient).unwrap();
            vec![x]
        });
        let Some((want, got)) = made else { return };
        want.iter().zip(&got).for_each(|(want, got)| same_bits(got, want, &format!("{tokens} tokens")));
    }
}
