//! The experts of a block: x += sum over a token's k experts of w_e (D_e act + c_e) (SPEC 5.4).
//!
//! ```text
//! gate = min(G t + g, limit)    up = clamp(U t + u, -limit, limit)
//! act  = gate * sigmoid(alpha gate) * (up + 1)
//! ```
//!
//! Tokens are gathered by expert, so an expert's weights are read once for all of its tokens. Sums over experts run
//! best route first. The dot products are those of `cpu::dot`. Adapters add to gate, up and the output of each expert
//! (`adapter.rs`).
//!
//! Shapes: t, x [T, D]; G, U [I, D]; D_e [D, I]; act [T k, I], its rows called pairs (token * k + slot).

mod adapter;
#[cfg(test)]
mod adapter_tests;
mod cpu;
mod cuda;
mod cuda_train;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;
mod train;
#[cfg(test)]
mod train_tests;

use crate::arena::Arena;
use crate::cpu::dot::quantize;
use crate::cpu::dot::{Lists, Panels};
use crate::cpu::isa::Isa;
use crate::cuda::Device;
use crate::ops::low_rank::Slots;
use crate::ops::router::Routes;
use crate::{Matrix, Phase, Precision, Result, Step, Tensor};

pub use adapter::{ExpertsAdapter, ExpertsAdapterGrad, Pair};
pub use cuda::scratch_len as gpu_scratch_len;
pub use cuda_train::{hidden_len as gpu_hidden_len, train_scratch_len as gpu_train_scratch_len};
use train::Kept;
pub use train::{ExpertGrad, ExpertsGrad, Hidden, backward, train_scratch_bytes};

/// One expert. Gate and up rows lie interleaved in some layouts and apart in others; as matrices they are two views.
pub struct Expert {
    /// G [I, D].
    pub gate: Matrix,
    /// U [I, D].
    pub up: Matrix,
    /// D_e [D, I].
    pub down: Matrix,
    /// g [I].
    pub gate_bias: Vec<f32>,
    /// u [I].
    pub up_bias: Vec<f32>,
    /// c_e [D].
    pub down_bias: Vec<f32>,
}

/// All experts of a block.
pub struct Experts {
    /// By id.
    pub experts: Vec<Expert>,
    /// Clamp of gate (from above) and up (on both sides).
    pub limit: f32,
    /// 1.702.
    pub alpha: f32,
    /// What is attached, by slot.
    pub adapters: Slots<ExpertsAdapter>,
}

impl Experts {
    /// Without adapters.
    pub fn new(experts: Vec<Expert>, limit: f32, alpha: f32) -> Self {
        Self { experts, limit, alpha, adapters: Slots::default() }
    }

    /// Attaches an adapter in `slot`.
    ///
    /// # Panics
    /// Where its sizes are not those of the experts.
    pub fn attach(&mut self, slot: usize, adapter: ExpertsAdapter) {
        adapter.check(self.experts.len(), self.experts[0].down.rows(), self.experts[0].gate.rows());
        self.adapters.put(slot, adapter);
    }
}

/// x += the routed experts of t.
pub fn add_forward(step: &mut Step, t: &Tensor, routes: &Routes, experts: &Experts, x: &mut Tensor) -> Result<()> {
    let first = &experts.experts[0];
    assert!(t.cols() == first.gate.cols() && x.cols() == first.down.rows() && t.rows() == x.rows(), "experts: shapes");
    match (&step.runtime.device, step.phase) {
        (Device::Cuda(gpu), Phase::Inference) => cuda::add_forward(gpu, step, t, routes, experts, x)?,
        (Device::Cuda(gpu), Phase::Training) => drop(cuda_train::add_forward(gpu, t, routes, experts, x)?),
        (Device::Cpu, Phase::Inference) => {
            let slots = if experts.adapters.is_empty() { Vec::new() } else { step.slots(t.rows()) };
            cpu::add_forward(step.runtime, t.host(), routes, experts, &slots, x.host_mut())?;
        }
        (Device::Cpu, Phase::Training) => {
            drop(train::add_forward(step.runtime, t.host(), routes, (experts, step.adapter()), x.host_mut())?);
        }
    }
    step.made("experts", x);
    Ok(())
}

/// The same in training, with what [`backward`] would otherwise compute again.
pub fn add_forward_saving(
    step: &mut Step,
    t: &Tensor,
    routes: &Routes,
    experts: &Experts,
    x: &mut Tensor,
) -> Result<Hidden> {
    let hidden = match &step.runtime.device {
        Device::Cpu => train::add_forward(step.runtime, t.host(), routes, (experts, step.adapter()), x.host_mut())?,
        Device::Cuda(gpu) => Hidden(Kept::Cuda(cuda_train::add_forward(gpu, t, routes, experts, x)?)),
    };
    step.made("experts", x);
    Ok(hidden)
}

/// Bytes of scratch for `tokens` with `k` of `e` experts each.
pub fn scratch_bytes(
    isa: Isa,
    precision: Precision,
    threads: usize,
    tokens: usize,
    (e, k): (usize, usize),
    d: usize,
    i: usize,
) -> usize {
    let pairs = tokens * k;
    let fast = |rows, cols| quantize::scratch_bytes(rows, cols) + Lists::scratch_bytes(isa, e, pairs, cols);
    let int8 = |rows, cols| if precision == Precision::Fast { fast(rows, cols) } else { 0 };
    let first = int8(tokens, d) + Panels::scratch_bytes(threads, d);
    let second = int8(pairs, i) + Panels::scratch_bytes(threads, i) + Arena::size_of::<f32>(pairs * d);
    Arena::size_of::<f32>(pairs * i) + first.max(second)
}

/// Bytes of scratch besides those for adapters of at most `rank`, in either phase.
pub fn adapter_scratch_bytes(tokens: usize, k: usize, rank: usize) -> usize {
    2 * Arena::size_of::<f32>(tokens * k * rank)
}
