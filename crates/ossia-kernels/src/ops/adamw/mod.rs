//! AdamW (Loshchilov and Hutter, 2019), in place.
//!
//! ```text
//! m = β1 m + (1 - β1) g      v = β2 v + (1 - β2) g²
//! p = p - lr (m / (1 - β1^t) / (sqrt(v / (1 - β2^t)) + eps) + decay p)
//! ```
//!
//! Shapes: p, g, m, v of one length, element by element.

mod cpu;
mod cuda;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use crate::cuda::Device;
use crate::{Result, Runtime};

/// What an update does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Learning rate.
    pub lr: f32,
    /// β1, β2.
    pub betas: (f32, f32),
    /// Added to the root of v.
    pub eps: f32,
    /// Decoupled weight decay.
    pub decay: f32,
    /// t, counted from 1.
    pub step: u64,
    /// Factor on the gradients, from clipping.
    pub scale: f32,
}

impl Settings {
    /// 1 / (1 - β1^t) and 1 / (1 - β2^t).
    fn corrections(&self) -> (f32, f32) {
        let correction = |beta: f32| (1.0 / (1.0 - f64::from(beta).powf(self.step as f64))) as f32;
        (correction(self.betas.0), correction(self.betas.1))
    }
}

/// Updates p and the moments m and v: parts of runs that are held, where the runtime is a device's.
pub fn update(
    runtime: &Runtime,
    p: &mut [f32],
    g: &[f32],
    (m, v): (&mut [f32], &mut [f32]),
    settings: &Settings,
) -> Result<()> {
    assert!(p.len() == g.len() && p.len() == m.len() && p.len() == v.len(), "adamw: one length");
    match &runtime.device {
        Device::Cpu => {
            cpu::update(runtime, p, g, (m, v), settings);
            Ok(())
        }
        Device::Cuda(gpu) => cuda::update(gpu, p, g, (m, v), settings),
    }
}
