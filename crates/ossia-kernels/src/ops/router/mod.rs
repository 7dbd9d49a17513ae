//! r = Wr t + br; the k largest logits, lowest index first where they tie; softmax over those k (SPEC 5.3).
//!
//! Shapes: t [T, D], r [T, E], routes [T, k] best first.

mod cpu;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use crate::arena::{Arena, Slice};
use crate::ops::linear::{self, Linear};
use crate::{Result, Step, Tensor};

/// Which experts each token goes to, and with what weight.
pub struct Routes {
    /// k.
    pub per_token: usize,
    /// Expert ids [T, k], best first.
    pub experts: Slice<u32>,
    /// Softmax over the chosen logits [T, k].
    pub weights: Slice<f32>,
}

/// Routes every token to `k` experts.
pub fn forward(step: &mut Step, t: &Tensor, router: &Linear, k: usize) -> Result<Routes> {
    let arena = &step.runtime.arena;
    let mut logits = Tensor::scratch(arena, t.rows(), router.rows())?;
    linear::apply(step, t.host(), router, logits.host_mut(), linear::Write::Set)?;
    let mut routes = Routes { per_token: k, experts: arena.take(t.rows() * k)?, weights: arena.take(t.rows() * k)? };
    cpu::choose(logits.host(), router.rows(), &mut routes);
    step.made("router", &logits);
    Ok(routes)
}

/// Bytes of scratch for the routes of `tokens`.
pub fn scratch_bytes(tokens: usize, experts: usize, k: usize) -> usize {
    Arena::size_of::<f32>(tokens * experts) + 2 * Arena::size_of::<f32>(tokens * k)
}
