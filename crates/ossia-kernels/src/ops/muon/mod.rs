//! Muon (Jordan and others, 2024): momentum whose matrix is brought near to an orthogonal one before it is applied.
//!
//! ```text
//! m = β m + g      u = g + β m (Nesterov)      O = newton_schulz(u)
//! p = p - lr (0.2 sqrt(max(R, C)) O + decay p)
//! ```
//!
//! `newton_schulz` divides u by its Frobenius norm and repeats X = a X + (b A + c A²) X, A = X Xᵀ, five times, which
//! brings all singular values into about 0.7 to 1.2. The factor 0.2 sqrt(max(R, C)) gives updates the size of AdamW's
//! (Liu and others, 2025), so both can share a learning rate. Shapes: p, g, m [R, C].

mod cpu;
mod cuda;
#[cfg(test)]
pub(crate) mod reference;
#[cfg(test)]
mod tests;

use crate::cuda::Device;
use crate::{Result, Runtime};

pub use cuda::scratch_len as gpu_scratch_len;

/// a, b, c of the iteration.
pub(crate) const COEFFICIENTS: (f32, f32, f32) = (3.4445, -4.7750, 2.0315);
/// Rounds of it.
pub(crate) const ROUNDS: usize = 5;

/// One matrix to be updated.
pub struct Parameter<'a> {
    /// p [R, C].
    pub value: &'a mut [f32],
    /// g [R, C].
    pub gradient: &'a [f32],
    /// m [R, C].
    pub momentum: &'a mut [f32],
    /// R.
    pub rows: usize,
    /// C.
    pub cols: usize,
}

/// What an update does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Learning rate.
    pub lr: f32,
    /// β.
    pub momentum: f32,
    /// Decoupled weight decay.
    pub decay: f32,
    /// Factor on the gradients, from clipping.
    pub scale: f32,
}

/// Updates all matrices and their momenta: parts of runs that are held, where the runtime is a device's.
pub fn update(runtime: &Runtime, parameters: &mut [Parameter], settings: &Settings) -> Result<()> {
    for p in parameters.iter() {
        let n = p.rows * p.cols;
        assert!(p.value.len() == n && p.gradient.len() == n && p.momentum.len() == n, "muon: shapes");
    }
    match &runtime.device {
        Device::Cpu => cpu::update(runtime, parameters, settings),
        Device::Cuda(gpu) => parameters.iter().try_for_each(|p| cuda::update(gpu, p, settings)),
    }
}

/// Bytes of scratch for matrices whose largest is [rows, cols].
pub fn scratch_bytes(threads: usize, rows: usize, cols: usize) -> usize {
    cpu::scratch_bytes(threads, rows, cols)
}
