//! What the ops' tests share: a small deterministic source of numbers, runtimes, and weights of every kind.

use crate::arena::Arena;
use crate::cpu::isa::Isa;
use crate::matrix::{Kind, Matrix};
use crate::pool::Pool;
use crate::{Bytes, DType, Precision, Runtime, Tensor};

/// A 64-bit counter behind a mixing function (splitmix64).
pub struct Numbers(pub u64);

impl Numbers {
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Uniform in [-1, 1).
    pub fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.bits() % n as u64) as usize
    }

    pub fn vec(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.unit()).collect()
    }

    pub fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.bits() as u8).collect()
    }

    /// A matrix of `kind` with plausible scales.
    pub fn matrix(&mut self, kind: Kind, rows: usize, cols: usize) -> Matrix {
        let groups = rows * cols / 32;
        let f16 = |x: f32| half::f16::from_f32(x).to_le_bytes();
        match kind {
            Kind::F32 => {
                floats(DType::F32, rows, cols, self.vec(rows * cols).iter().flat_map(|v| v.to_le_bytes()).collect())
            }
            Kind::F16 => floats(DType::F16, rows, cols, self.vec(rows * cols).iter().flat_map(|&v| f16(v)).collect()),
            Kind::BF16 => {
                let bytes = self.vec(rows * cols).iter().flat_map(|&v| half::bf16::from_f32(v).to_le_bytes()).collect();
                floats(DType::BF16, rows, cols, bytes)
            }
            Kind::Q8 => {
                let block = |n: &mut Self| [f16(0.02 * n.unit()).to_vec(), n.bytes(32)].concat();
                floats(DType::Q8_0, rows, cols, (0..groups).flat_map(|_| block(self)).collect())
            }
            Kind::Mxfp4Halves => {
                let block = |n: &mut Self| [vec![118 + n.below(4) as u8], n.bytes(16)].concat();
                floats(DType::Mxfp4, rows, cols, (0..groups).flat_map(|_| block(self)).collect())
            }
            Kind::Mxfp4Pairs => {
                let scales =
                    (0..groups).map(|i| if i % 17 == 3 { 0 } else { 118 + self.below(4) as u8 }).collect::<Vec<_>>();
                Matrix::mxfp4(rows, cols, Bytes::new(self.bytes(groups * 16)), Bytes::new(scales)).unwrap()
            }
        }
    }
}

fn floats(dtype: DType, rows: usize, cols: usize, bytes: Vec<u8>) -> Matrix {
    Matrix::new(dtype, rows, cols, Bytes::new(bytes)).unwrap()
}

pub const KINDS: [Kind; 6] = [Kind::F32, Kind::F16, Kind::BF16, Kind::Q8, Kind::Mxfp4Pairs, Kind::Mxfp4Halves];

pub fn runtime(isa: Isa, threads: usize, precision: Precision) -> Runtime {
    Runtime::on_cpu(Pool::new(threads), Arena::new(64 << 20), isa, precision)
}

/// Every instruction set, with one and with three threads, in both precisions.
pub fn runtimes() -> Vec<Runtime> {
    let mut all = Vec::new();
    for isa in Isa::all() {
        for threads in [1, 3] {
            all.push(runtime(isa, threads, Precision::F32));
            all.push(runtime(isa, threads, Precision::Fast));
        }
    }
    all
}

pub fn tensor(runtime: &Runtime, rows: usize, cols: usize, values: &[f32]) -> Tensor {
    let mut t = Tensor::scratch(&runtime.arena, rows, cols).unwrap();
    t.host_mut().copy_from_slice(values);
    t
}

/// Asserts |got - want| <= tolerance * max(|want|) elementwise.
pub fn close(got: &[f32], want: &[f64], tolerance: f64, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    let largest = want.iter().fold(0.0f64, |m, v| m.max(v.abs())).max(1e-30);
    for (i, (&g, &w)) in got.iter().zip(want).enumerate() {
        let error = (f64::from(g) - w).abs() / largest;
        assert!(error <= tolerance, "{what}: element {i} is {g}, wanted {w} (error {error:.2e} of the largest)");
    }
}

/// Asserts the same bits.
pub fn same_bits(got: &[f32], want: &[f32], what: &str) {
    let bits = |v: &[f32]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(got), bits(want), "{what}");
}

/// Plain f64 numbers in [-1, 1).
pub fn f64s(numbers: &mut Numbers, n: usize) -> Vec<f64> {
    numbers.vec(n).into_iter().map(f64::from).collect()
}

/// To f32, for the fast versions.
pub fn f32s(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&v| v as f32).collect()
}

/// The gradient of `loss` at `x` by differences of fourth order.
pub fn differences(x: &[f64], mut loss: impl FnMut(&[f64]) -> f64) -> Vec<f64> {
    const H: f64 = 1e-3;
    let mut at = x.to_vec();
    let mut element = |i: usize| {
        let mut moved = |by: f64| {
            at[i] = x[i] + by;
            let value = loss(&at);
            at[i] = x[i];
            value
        };
        (8.0 * (moved(H) - moved(-H)) - (moved(2.0 * H) - moved(-2.0 * H))) / (12.0 * H)
    };
    (0..x.len()).map(&mut element).collect()
}

/// Asserts that an analytic gradient equals the differences to 1e-6 of the largest.
pub fn equals_differences(gradient: &[f64], x: &[f64], what: &str, loss: impl FnMut(&[f64]) -> f64) {
    let want = differences(x, loss);
    let largest = want.iter().fold(1e-3f64, |m, v| m.max(v.abs()));
    for (i, (g, w)) in gradient.iter().zip(&want).enumerate() {
        assert!((g - w).abs() <= 1e-6 * largest, "{what}: element {i} is {g}, the differences say {w}");
    }
    assert_eq!(gradient.len(), want.len(), "{what}");
}

/// A step of training over documents of these lengths, laid end to end.
pub fn training_step<'a>(runtime: &'a Runtime, lengths: &[usize], none: &'a crate::kv::PageTable) -> crate::Step<'a> {
    let mut start = 0;
    let sequences = lengths
        .iter()
        .map(|n| {
            start += n;
            crate::Sequence { rows: start - n..start, start: 0, full: none, sliding: none, adapter: None }
        })
        .collect();
    crate::Step { runtime, phase: crate::Phase::Training, sequences, kv: &mut [], logits_rows: vec![], tap: None }
}
