//! x_t = E[token_t]: rows of the embedding table, exactly, whatever its format. No scaling (SPEC 5).
//!
//! Shapes: E [V, D], x [T, D].

mod cpu;
mod cuda;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use crate::cuda::Device;
use crate::{Error, Matrix, Result, Step, Tensor};

/// The rows of `table` that `tokens` name.
pub fn forward(step: &mut Step, tokens: &[u32], table: &Matrix) -> Result<Tensor> {
    if let Some(&id) = tokens.iter().find(|&&id| id as usize >= table.rows()) {
        return Err(Error::TokenId { id, vocab: table.rows() });
    }
    let x = match &step.runtime.device {
        Device::Cpu => {
            let mut x = Tensor::scratch(&step.runtime.arena, tokens.len(), table.cols())?;
            cpu::forward(step.runtime, tokens, table, x.host_mut());
            x
        }
        Device::Cuda(gpu) => cuda::forward(gpu, step, tokens, table)?,
    };
    step.made("embed", &x);
    Ok(x)
}

/// Adds to dE [V, D], the gradient of the table, where dx [T, D] comes back.
pub fn backward(step: &mut Step, tokens: &[u32], dx: &Tensor, d_table: &mut [f32]) -> Result<()> {
    assert!(dx.rows() == tokens.len() && d_table.len().is_multiple_of(dx.cols()), "embed: shapes");
    match &step.runtime.device {
        Device::Cpu => {
            cpu::backward(step.runtime, tokens, dx.host(), dx.cols(), d_table);
            Ok(())
        }
        Device::Cuda(gpu) => cuda::backward(gpu, dx, d_table),
    }
}
