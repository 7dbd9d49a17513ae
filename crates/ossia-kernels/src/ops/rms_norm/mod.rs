//! y = x / sqrt(mean(x^2) + eps) * g, all of it in f32 (SPEC 4).
//!
//! Shapes: x [T, D], g [D], y [T, D].

mod backward;
mod cpu;
mod cuda;
mod cuda_train;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use crate::cuda::Device;
use crate::{Result, Step, Tensor};

pub use backward::{backward, backward_logits_rows};
pub(crate) use cuda::is_finite;

/// A norm's weights.
pub struct Norm {
    /// g [D].
    pub weight: Vec<f32>,
    /// Added to the mean square.
    pub eps: f32,
}

/// Normalises every row.
pub fn forward(step: &mut Step, x: &Tensor, norm: &Norm) -> Result<Tensor> {
    assert_eq!(x.cols(), norm.weight.len(), "rms_norm: the norm is as wide as its input");
    let y = match &step.runtime.device {
        Device::Cpu => {
            let mut y = Tensor::scratch(&step.runtime.arena, x.rows(), x.cols())?;
            cpu::forward(step.runtime, x.host(), norm, y.host_mut());
            y
        }
        Device::Cuda(gpu) => cuda::forward(gpu, x, norm, None)?,
    };
    step.made("rms_norm", &y);
    Ok(y)
}

/// Normalises the rows `step.logits_rows` only: the others need no logits.
pub fn forward_logits_rows(step: &mut Step, x: &Tensor, norm: &Norm) -> Result<Tensor> {
    if let Device::Cuda(gpu) = &step.runtime.device {
        let y = cuda::forward(gpu, x, norm, Some(step.logits_rows.len()))?;
        step.made("rms_norm", &y);
        return Ok(y);
    }
    let rows = std::mem::take(&mut step.logits_rows);
    let mut chosen = Tensor::scratch(&step.runtime.arena, rows.len(), x.cols())?;
    for (&row, out) in rows.iter().zip(chosen.host_mut().chunks_exact_mut(x.cols())) {
        out.copy_from_slice(x.row(row as usize));
    }
    step.logits_rows = rows;
    forward(step, &chosen, norm)
}
