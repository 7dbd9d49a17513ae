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
//! Shapes: qkv [T, (H + 2K) d] after RoPE, sinks [H], o [T, H d].

#[cfg(target_arch = "x86_64")]
mod avx2;
mod cpu;
#[cfg(test)]
mod reference;
mod scalar;
#[cfg(test)]
mod tests;

use crate::arena::Arena;
use crate::kv::PAGE;
use crate::ops::rope::Heads;
use crate::{Result, Step, Tensor};

/// What one layer's attention looks like.
pub struct Shape {
    /// Heads and channels.
    pub heads: Heads,
    /// W of a sliding layer.
    pub window: Option<usize>,
    /// Which of the step's key/value stores.
    pub layer: usize,
}

/// Attends from every new token; keys and values must have been written by the rope op.
pub fn forward(step: &mut Step, qkv: &Tensor, sinks: &[f32], shape: &Shape) -> Result<Tensor> {
    assert!(qkv.cols() == shape.heads.row() && sinks.len() == shape.heads.query, "attention: shapes");
    let mut o = Tensor::scratch(&step.runtime.arena, qkv.rows(), shape.heads.query * shape.heads.dim)?;
    cpu::forward(step, qkv.host(), sinks, shape, o.host_mut())?;
    step.made("attention", &o);
    Ok(o)
}

/// Bytes of scratch besides the output.
pub fn scratch_bytes(threads: usize, heads: Heads) -> usize {
    Arena::size_of::<f32>(threads * cpu::tile_len(heads)) + PAGE
}
