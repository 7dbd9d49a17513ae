//! Rotary positions with YaRN on q and k, in place, and the write of k and v to their pages (SPEC 5.1); and with the norm and
//! the product before ([`project`]), which a GPU does in one kernel.
//!
//! With a, b the halves of a head: a' = a cos - b sin, b' = b cos + a sin, angles pos * inv_freq. The concentration
//! multiplies cos and sin, of q and of k. References take the angle as a product of f32, and so do we: an exact table
//! is a different model far out.
//!
//! Shapes: qkv [T, (H + 2K) d], one head after the other; inv_freq [d / 2].

mod cpu;
pub(crate) mod cuda;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

pub use cpu::rotate;

use crate::cuda::Device;
use crate::ops::linear::{self, Linear};
use crate::ops::rms_norm::{self, Norm};
use crate::{Phase, Result, Step, Tensor};

/// The frequencies, fixed for all positions.
pub struct Rope {
    /// [d / 2].
    pub inv_freq: Vec<f32>,
    /// 0.1 ln(factor) + 1.
    pub concentration: f32,
}

impl Rope {
    /// The frequencies for heads of `head_dim` channels: those below `ramp.0` as they are, those above `ramp.1` divided
    /// by `factor`, in between a mixture. A factor of 1 is plain RoPE.
    pub fn new(theta: f64, factor: f64, ramp: (f64, f64), head_dim: usize) -> Self {
        let base = |i: usize| theta.powf(-2.0 * i as f64 / head_dim as f64);
        let share = |i: usize| ((i as f64 - ramp.0) / (ramp.1 - ramp.0)).clamp(0.0, 1.0);
        let stretched = |i: usize| (base(i) * (1.0 - share(i)) + base(i) / factor * share(i)) as f32;
        let plain = factor <= 1.0;
        let inv_freq = (0..head_dim / 2).map(|i| if plain { base(i) as f32 } else { stretched(i) }).collect();
        Self { inv_freq, concentration: if plain { 1.0 } else { (0.1 * factor.ln() + 1.0) as f32 } }
    }
}

/// Heads of a layer's qkv rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// H, query heads.
    pub query: usize,
    /// K, key/value heads.
    pub kv: usize,
    /// d, channels of a head.
    pub dim: usize,
}

impl Heads {
    /// Columns of a qkv row.
    pub fn row(&self) -> usize {
        (self.query + 2 * self.kv) * self.dim
    }
}

/// What makes q, k and v of a layer.
#[derive(Clone, Copy)]
pub struct Projection<'a> {
    /// g.
    pub norm: &'a Norm,
    /// Wq, Wk, Wv with biases.
    pub linear: &'a Linear,
    /// The rotation.
    pub rope: &'a Rope,
    /// Heads.
    pub heads: Heads,
    /// Which of the step's key/value stores.
    pub layer: usize,
    /// W of a sliding layer.
    pub window: Option<usize>,
}

/// qkv = W rmsnorm(x) + b, then [`forward`].
pub fn project(step: &mut Step, x: &Tensor, projection: &Projection) -> Result<Tensor> {
    let Projection { norm, linear, rope, heads, layer, window } = *projection;
    assert!(x.cols() == linear.cols() && linear.rows() == heads.row(), "rope: shapes");
    // Adapters come between the product and the rotation.
    let may_fuse = step.phase == Phase::Inference && step.may_fuse() && !linear.is_adapted();
    if let (Device::Cuda(gpu), true) = (&step.runtime.device, may_fuse) {
        let qkv = cuda::project(gpu, step, x, projection)?;
        step.made("rope", &qkv);
        return Ok(qkv);
    }
    let t = rms_norm::forward(step, x, norm)?;
    let mut qkv = match (&step.runtime.device, step.phase) {
        (Device::Cpu, _) | (_, Phase::Training) => linear::forward(step, &t, linear)?,
        (Device::Cuda(gpu), Phase::Inference) => {
            let qkv = cuda::product_of(gpu, step, &t, projection)?;
            step.made("linear", &qkv);
            qkv
        }
    };
    forward(step, &mut qkv, rope, heads, layer, window)?;
    Ok(qkv)
}

/// Rotates q and k and writes k and v of `layer` to the pages of their sequences.
pub fn forward(
    step: &mut Step,
    qkv: &mut Tensor,
    rope: &Rope,
    heads: Heads,
    layer: usize,
    window: Option<usize>,
) -> Result<()> {
    assert!(qkv.cols() == heads.row() && rope.inv_freq.len() * 2 == heads.dim, "rope: shapes");
    match (&step.runtime.device, step.phase) {
        (Device::Cpu, Phase::Inference) => cpu::forward(step, qkv.host_mut(), rope, heads, layer, window),
        (Device::Cpu, Phase::Training) => cpu::rotate_all(step, qkv.host_mut(), rope, heads, 1.0),
        (Device::Cuda(gpu), Phase::Inference) => cuda::forward(gpu, step, qkv, rope, heads, layer, window)?,
        (Device::Cuda(gpu), Phase::Training) => cuda::rotate_all(gpu, qkv, rope, heads, 1.0)?,
    }
    step.made("rope", qkv);
    Ok(())
}

/// The gradients of q and k before the rotation, in place of those after it: a = a' cos + b' sin, b = b' cos - a' sin
/// (SPEC 7.2).
pub fn backward(step: &mut Step, d_qkv: &mut Tensor, rope: &Rope, heads: Heads) -> Result<()> {
    assert!(d_qkv.cols() == heads.row() && rope.inv_freq.len() * 2 == heads.dim, "rope: shapes");
    match &step.runtime.device {
        Device::Cpu => {
            cpu::rotate_all(step, d_qkv.host_mut(), rope, heads, -1.0);
            Ok(())
        }
        Device::Cuda(gpu) => cuda::rotate_all(gpu, d_qkv, rope, heads, -1.0),
    }
}
