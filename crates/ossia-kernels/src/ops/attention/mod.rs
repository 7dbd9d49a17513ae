//! Causal attention over the pages, grouped heads, a learned sink for each query head, optionally a window (SPEC 5.2).
//!
//! s_j = q · k_j / sqrt(d) for every position j that is visible from i: j <= i and, with a window W, i - j < W (the
//! query itself counts). p = softmax over the s_j and the sink; o = sum_j p_j v_j (the sink has no value).
//!
//! **Order of sums**: pages in ascending order; within a page a score is one chain of fma over the channels; maximum,
//! then exponentials, their sum in eight lanes (slot modulo 8) added pairwise; o is one chain of fma over the slots,
//! rescaled at each page. The state starts with the sink: m = sink, Z = 1, o = 0. Pages begin at multiples of 64
//! whatever the chunks were, so a query's result does not depend on them.
//!
//! In training (`Phase::Training`) a step holds whole documents, each from position 0, and keys and values come straight
//! from qkv; `training` has the order of sums. With lse_i = ln(sum_j exp(s_ij) + exp(sink)) kept, the gradients are, for
//! the gradient do of o:
//!
//! p_ij = exp(s_ij - lse_i); row_i = do_i · o_i; ds_ij = p_ij (do_i · v_j - row_i); dq_i = sum_j ds_ij k_j / sqrt(d);
//! dk_j = sum_i ds_ij q_i / sqrt(d); dv_j = sum_i p_ij do_i (both over the query heads of the group);
//! dsink = - sum_i exp(sink - lse_i) row_i, a partial sum for each document, added in their order.
//!
//! Shapes: qkv [T, (H + 2K) d] after RoPE, sinks [H], o [T, H d], lse [T, H]; gradients as what they belong to.

mod cpu;
mod cuda;
mod cuda_train;
#[cfg(test)]
mod reference;
mod scalar;
#[cfg(test)]
mod tests;
mod training;
#[cfg(target_arch = "x86_64")]
mod vector;

use crate::arena::Arena;
use crate::cuda::Device;
use crate::kv::PAGE;
use crate::ops::rope::Heads;
use crate::{Phase, Result, Step, Tensor};

pub use cuda::scratch_len as gpu_scratch_len;

/// What one layer's attention looks like.
pub struct Shape {
    /// Heads and channels.
    pub heads: Heads,
    /// W of a sliding layer.
    pub window: Option<usize>,
    /// Which of the step's key/value stores.
    pub layer: usize,
}

/// Attends from every new token; at inference keys and values must have been written by the rope op.
pub fn forward(step: &mut Step, qkv: &Tensor, sinks: &[f32], shape: &Shape) -> Result<Tensor> {
    check(step, qkv, sinks, shape);
    if let Device::Cuda(gpu) = &step.runtime.device {
        let o = match step.phase {
            Phase::Inference => cuda::forward(gpu, step, qkv, sinks, shape)?,
            Phase::Training => cuda_train::forward(gpu, qkv, sinks, shape)?.0,
        };
        step.made("attention", &o);
        return Ok(o);
    }
    let mut o = Tensor::scratch(&step.runtime.arena, qkv.rows(), shape.heads.query * shape.heads.dim)?;
    match step.phase {
        Phase::Inference => cpu::forward(step, qkv.host(), sinks, shape, o.host_mut())?,
        Phase::Training => training::forward(step, qkv.host(), sinks, shape, o.host_mut(), None)?,
    }
    step.made("attention", &o);
    Ok(o)
}

/// The same in training, with what the backward pass needs: o [T, H d] and lse [T, H].
pub fn forward_saving(step: &mut Step, qkv: &Tensor, sinks: &[f32], shape: &Shape) -> Result<(Tensor, Tensor)> {
    assert!(step.phase == Phase::Training, "attention: gradients are for training");
    check(step, qkv, sinks, shape);
    if let Device::Cuda(gpu) = &step.runtime.device {
        let (o, lse) = cuda_train::forward(gpu, qkv, sinks, shape)?;
        step.made("attention", &o);
        return Ok((o, lse));
    }
    let arena = &step.runtime.arena;
    let mut o = Tensor::scratch(arena, qkv.rows(), shape.heads.query * shape.heads.dim)?;
    let mut lse = Tensor::scratch(arena, qkv.rows(), shape.heads.query)?;
    training::forward(step, qkv.host(), sinks, shape, o.host_mut(), Some(lse.host_mut()))?;
    step.made("attention", &o);
    Ok((o, lse))
}

/// Gradients from that of o: `d_qkv` is overwritten, all of it, and `d_sinks` added to unless they are frozen.
#[allow(clippy::too_many_arguments)]
pub fn backward(
    step: &Step,
    qkv: &Tensor,
    sinks: &[f32],
    shape: &Shape,
    o: &Tensor,
    lse: &Tensor,
    d_o: &Tensor,
    d_qkv: &mut Tensor,
    d_sinks: Option<&mut [f32]>,
) -> Result<()> {
    assert!(step.phase == Phase::Training, "attention: gradients are for training");
    check(step, qkv, sinks, shape);
    let Heads { query, dim, .. } = shape.heads;
    let is = |tensor: &Tensor, cols: usize| tensor.rows() == qkv.rows() && tensor.cols() == cols;
    assert!(is(o, query * dim) && is(d_o, query * dim) && is(lse, query), "attention: shapes of o, d_o, lse");
    assert!(is(d_qkv, qkv.cols()) && d_sinks.as_ref().is_none_or(|d| d.len() == query), "attention: gradients");
    if let Device::Cuda(gpu) = &step.runtime.device {
        let saved = cuda_train::Saved { o, lse, d_o };
        return cuda_train::backward(gpu, qkv, sinks, shape, &saved, d_qkv, d_sinks.as_deref());
    }
    let saved = (o.host(), lse.host(), d_o.host());
    training::backward(step, (qkv.host(), sinks), shape, saved, d_qkv.host_mut(), d_sinks)
}

fn check(step: &Step, qkv: &Tensor, sinks: &[f32], shape: &Shape) {
    assert!(qkv.cols() == shape.heads.row() && sinks.len() == shape.heads.query, "attention: shapes");
    if step.phase == Phase::Training {
        let mut end = 0;
        for document in &step.sequences {
            assert!(document.start == 0 && document.rows.start == end, "attention: documents are whole, end to end");
            end = document.rows.end;
        }
        assert!(qkv.rows() == end && shape.heads.query.is_multiple_of(shape.heads.kv), "attention: shapes");
    }
}

/// Bytes of scratch besides the output.
pub fn scratch_bytes(threads: usize, heads: Heads) -> usize {
    Arena::size_of::<f32>(threads * cpu::tile_len(heads)) + PAGE
}

/// The same for training, in both directions.
pub fn train_scratch_bytes(threads: usize, heads: Heads) -> usize {
    Arena::size_of::<f32>(threads * training::scratch_len(heads)) + Arena::size_of::<f32>(training::shares_len(heads))
}
