//! y = W x + b, and y += W x + b onto the residual stream.
//!
//! Shapes: x [T, K], W [N, K], b [N], y [T, N]. W may be stacked from parts (q, k and v of a checkpoint that keeps
//! them apart), so that the input is prepared once. The arithmetic is that of `cpu::dot`. Adapters that are attached are
//! added last (`ops::low_rank`), to the rows of those sequences that go through them.

mod backward;
mod cpu;
pub(crate) mod cuda;
pub(crate) mod cuda_train;
#[cfg(test)]
pub(crate) mod reference;
#[cfg(test)]
mod tests;

use crate::cpu::dot::quantize;
use crate::cpu::dot::{Lists, Panels};
use crate::cpu::isa::Isa;
use crate::cuda::{Device, Gpu};
use crate::ops::low_rank::{self, LowRank, Share, Slots};
use crate::{Matrix, Phase, Precision, Result, Runtime, Step, Tensor};

pub(crate) use backward::gradients;
pub use backward::{LinearGrad, Write, backward};

/// Some rows of a linear layer.
pub struct Part {
    /// W [rows, K].
    pub weight: Matrix,
    /// b [rows], or nothing.
    pub bias: Option<Vec<f32>>,
}

/// A linear layer: parts of one format, one under the other.
pub struct Linear {
    parts: Vec<Part>,
    adapters: Slots<Vec<LowRank>>,
}

impl Linear {
    /// Stacks `parts`.
    ///
    /// # Panics
    /// Where widths, formats or bias lengths differ: the reader of the checkpoint has checked shapes.
    pub fn new(parts: Vec<Part>) -> Self {
        let first = &parts.first().expect("a linear layer has rows").weight;
        for part in &parts {
            assert!(part.weight.cols() == first.cols() && part.weight.kind() == first.kind(), "linear: unlike parts");
            assert!(part.bias.as_ref().is_none_or(|b| b.len() == part.weight.rows()), "linear: bias length");
        }
        Self { parts, adapters: Slots::default() }
    }

    /// Attaches the parts of an adapter in `slot`, for ranges of outputs that do not overlap.
    ///
    /// # Panics
    /// Where widths differ, or ranges overlap or lie outside.
    pub fn attach(&mut self, slot: usize, adapter: Vec<LowRank>) {
        let mut end = 0;
        for low_rank in &adapter {
            let outputs = low_rank.outputs();
            assert!(low_rank.cols() == self.cols() && outputs.start >= end, "linear: adapters fit, in order");
            end = outputs.end;
        }
        assert!(end <= self.rows(), "linear: adapters fit");
        self.adapters.put(slot, adapter);
    }

    /// Whether anything is attached.
    pub(crate) fn is_adapted(&self) -> bool {
        !self.adapters.is_empty()
    }

    /// Takes away what is attached in `slot`.
    pub fn detach(&mut self, slot: usize) {
        self.adapters.clear(slot);
    }

    /// The parts of the adapter in `slot`; none for the base.
    pub fn adapter(&self, slot: Option<usize>) -> &[LowRank] {
        self.adapters.get(slot).map_or(&[], Vec::as_slice)
    }

    /// The parts, top to bottom.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// N.
    pub fn rows(&self) -> usize {
        self.parts.iter().map(|p| p.weight.rows()).sum()
    }

    /// K.
    pub fn cols(&self) -> usize {
        self.parts[0].weight.cols()
    }

    /// Bytes that one pass over the weights reads.
    pub fn bytes(&self) -> usize {
        self.parts.iter().map(|p| p.weight.bytes()).sum()
    }
}

/// y = W x + b.
pub fn forward(step: &mut Step, x: &Tensor, linear: &Linear) -> Result<Tensor> {
    assert_eq!(x.cols(), linear.cols(), "linear: the input is as wide as the weights");
    let y = match &step.runtime.device {
        Device::Cpu => {
            let mut y = Tensor::scratch(&step.runtime.arena, x.rows(), linear.rows())?;
            apply(step, x.host(), linear, y.host_mut(), Write::Set)?;
            y
        }
        Device::Cuda(gpu) => {
            let y = Tensor::on_gpu(gpu, x.rows(), linear.rows())?;
            on_gpu(gpu, step, x, linear, &y, Write::Set)?;
            y
        }
    };
    step.made("linear", &y);
    Ok(y)
}

/// y += W x + b.
pub fn add_forward(step: &mut Step, x: &Tensor, linear: &Linear, y: &mut Tensor) -> Result<()> {
    assert!(x.cols() == linear.cols() && y.cols() == linear.rows() && x.rows() == y.rows(), "linear: shapes");
    match &step.runtime.device {
        Device::Cpu => apply(step, x.host(), linear, y.host_mut(), Write::Add)?,
        Device::Cuda(gpu) => on_gpu(gpu, step, x, linear, y, Write::Add)?,
    }
    step.made("linear_add", y);
    Ok(())
}

fn on_gpu(gpu: &Gpu, step: &Step, x: &Tensor, linear: &Linear, y: &Tensor, write: Write) -> Result<()> {
    match step.phase {
        Phase::Inference => cuda::apply(gpu, step, x, linear, y, write),
        Phase::Training => cuda_train::forward(gpu, x, linear, y, write),
    }
}

/// Bytes of scratch for an input of `tokens` rows of `cols`, besides the output.
pub fn scratch_bytes(isa: Isa, precision: Precision, threads: usize, tokens: usize, cols: usize) -> usize {
    let fast = || quantize::scratch_bytes(tokens, cols) + Lists::scratch_bytes(isa, 1, tokens, cols);
    let quantized = if precision == Precision::Fast { fast() } else { 0 };
    quantized + Panels::scratch_bytes(threads, cols)
}

/// The products, for ops that have a linear layer inside too.
pub(crate) fn apply(step: &Step, x: &[f32], linear: &Linear, y: &mut [f32], write: Write) -> Result<()> {
    match step.phase {
        Phase::Inference => {
            cpu::forward(step.runtime, x, linear, y, write)?;
            add_adapters(step, x, linear, y)
        }
        Phase::Training => backward::apply(step.runtime, x, linear, step.adapter(), y, write),
    }
}

/// y += what each row's adapter says.
fn add_adapters(step: &Step, x: &[f32], linear: &Linear, y: &mut [f32]) -> Result<()> {
    if linear.adapters.is_empty() {
        return Ok(());
    }
    let slots = step.slots(x.len() / linear.cols());
    let rows_of = |slot: usize| (0..slots.len() as u32).filter(|&row| slots[row as usize] == Some(slot)).collect();
    let used: Vec<(&Vec<LowRank>, Vec<u32>)> =
        linear.adapters.used().map(|(slot, adapter)| (adapter, rows_of(slot))).collect();
    let shares: Vec<Share> = used
        .iter()
        .filter(|(_, rows)| !rows.is_empty())
        .flat_map(|(adapter, rows)| adapter.iter().map(move |low_rank| Share { low_rank, rows }))
        .collect();
    low_rank::add(step.runtime, x, &shares, y, linear.rows())
}

/// The products of training for plain numbers, for ops that have no step at hand.
pub(crate) fn apply_training(
    runtime: &Runtime,
    x: &[f32],
    linear: &Linear,
    adapter: Option<usize>,
    y: &mut [f32],
) -> Result<()> {
    backward::apply(runtime, x, linear, adapter, y, Write::Set)
}
