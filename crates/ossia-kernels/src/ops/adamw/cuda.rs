//! The launcher; the kernel is in `train.cu`.

use super::Settings;
use crate::Result;
use crate::cuda::{Argument, Gpu, Shape};

/// Parts of runs that the device holds.
pub(super) fn update(gpu: &Gpu, p: &[f32], g: &[f32], (m, v): (&[f32], &[f32]), s: &Settings) -> Result<()> {
    let (c1, c2) = s.corrections();
    let mut arguments = [p, g, m, v].map(|part| gpu.part(part)).to_vec();
    arguments.push(Argument::long(p.len()));
    arguments.extend([s.lr, s.betas.0, s.betas.1, s.eps, s.decay, s.scale, c1, c2].map(Argument::from));
    let shape = Shape { grid: (p.len().div_ceil(256), 1, 1), threads: 256, shared: 0 };
    // SAFETY: (p, g, m, v, n, lr, b1, b2, eps, decay, scale, c1, c2).
    unsafe { gpu.launch("adamw.train", "adamw", shape, &arguments) }
}
