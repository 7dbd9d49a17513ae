//! y = the rows of x that want logits. After a model's last attention nothing else is ever looked at.
//!
//! Shapes: x [T, D], y [R, D].

mod cuda;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use crate::cuda::Device;
use crate::{Result, Step, Tensor};

/// Picks the rows `step.logits_rows`; where these are all of them, x is y.
pub fn wanted(step: &mut Step, x: Tensor) -> Result<Tensor> {
    assert_eq!(x.rows(), step.tokens(), "rows: all of the batch");
    if step.logits_rows.len() == x.rows() {
        return Ok(x);
    }
    match &step.runtime.device {
        Device::Cpu => {
            let mut y = Tensor::scratch(&step.runtime.arena, step.logits_rows.len(), x.cols())?;
            for (&row, y) in step.logits_rows.iter().zip(y.host_mut().chunks_exact_mut(x.cols())) {
                y.copy_from_slice(x.row(row as usize));
            }
            Ok(y)
        }
        Device::Cuda(gpu) => cuda::wanted(gpu, &x, step.logits_rows.len()),
    }
}
