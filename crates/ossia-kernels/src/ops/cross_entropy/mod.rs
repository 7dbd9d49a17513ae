//! The loss of the unembedding, and its gradient, without ever holding all logits.
//!
//! ```text
//! l = U t    nll = ln sum exp(l) - l[target]    loss = sum over rows of w (nll + z lse²)
//! dl = w (p - onehot(target) + 2 z lse p)       dU += dlᵀ t       dt = dl U
//! ```
//!
//! Rows are taken in chunks, so that the logits of one chunk stay small whatever the vocabulary is. Shapes: t [R, D],
//! U [V, D], targets and weights w [R], nll [R].

mod cpu;
mod cuda;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use crate::arena::Arena;
use crate::cuda::Device;
use crate::ops::linear::{Linear, LinearGrad};
use crate::{Error, Result, Step, Tensor};

pub use cuda::scratch_len as gpu_scratch_len;

/// What the rows are to predict.
#[derive(Clone, Copy)]
pub struct Targets<'a> {
    /// The next token of each row [R].
    pub ids: &'a [u32],
    /// How much each row counts [R].
    pub weights: &'a [f32],
    /// Coefficient of lse², which keeps logits from growing without bound.
    pub z: f32,
}

/// Adds the gradient of U to `grad` and gives nll [R] (unweighted, in nats) and dt [R, D].
pub fn backward(
    step: &mut Step,
    t: &Tensor,
    unembedding: &Linear,
    targets: Targets,
    grad: &mut LinearGrad,
) -> Result<(Vec<f32>, Tensor)> {
    check(t, unembedding, targets.ids)?;
    assert_eq!(targets.weights.len(), t.rows(), "cross_entropy: a weight for each row");
    let mut dt = Tensor::new(step.runtime, t.rows(), t.cols())?;
    if let Device::Cuda(gpu) = &step.runtime.device {
        let nll = cuda::rows(gpu, t, unembedding, targets, Some((grad, &dt)))?;
        return Ok((nll, dt));
    }
    let nll = cpu::backward(step.runtime, t.host(), (unembedding, step.adapter()), targets, grad, dt.host_mut())?;
    Ok((nll, dt))
}

/// nll [R] alone, in nats.
pub fn forward(step: &mut Step, t: &Tensor, unembedding: &Linear, ids: &[u32]) -> Result<Vec<f32>> {
    check(t, unembedding, ids)?;
    if let Device::Cuda(gpu) = &step.runtime.device {
        return cuda::rows(gpu, t, unembedding, Targets { ids, weights: &[], z: 0.0 }, None);
    }
    cpu::forward(step.runtime, t.host(), (unembedding, step.adapter()), ids)
}

fn check(t: &Tensor, unembedding: &Linear, ids: &[u32]) -> Result<()> {
    assert!(t.cols() == unembedding.cols() && ids.len() == t.rows(), "cross_entropy: shapes");
    let vocab = unembedding.rows();
    let wrong = ids.iter().find(|&&id| id as usize >= vocab);
    wrong.map_or(Ok(()), |&id| Err(Error::TokenId { id, vocab }))
}

/// Bytes of scratch besides dt [R, D].
pub fn scratch_bytes(vocab: usize) -> usize {
    Arena::size_of::<f32>(cpu::chunk_rows(vocab) * vocab)
}
