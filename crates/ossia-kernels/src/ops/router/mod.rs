//! r = Wr t + br; the k largest logits, lowest index first where they tie; softmax over those k (SPEC 5.3).
//!
//! Shapes: t [T, D], r [T, E], routes [T, k] best first.

mod backward;
mod cpu;
pub(crate) mod cuda;
mod cuda_train;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use crate::arena::{Arena, Slice};
use crate::cuda::Device;
use crate::ops::linear::{self, Linear};
use crate::ops::rms_norm::{self, Norm};
use crate::{Phase, Result, Step, Tensor};

pub use backward::{Balance, backward};

/// Which experts each token goes to, and with what weight.
pub struct Routes {
    /// k.
    pub per_token: usize,
    /// Expert ids [T, k], best first.
    pub experts: Slice<u32>,
    /// Softmax over the chosen logits [T, k].
    pub weights: Slice<f32>,
    /// Both where they are on a device; those on the host are empty then.
    pub(crate) device: Option<cuda::Routes>,
}

/// t = rmsnorm(x), and where its tokens go: one kernel on a GPU.
pub fn norm_forward(step: &mut Step, x: &Tensor, norm: &Norm, router: &Linear, k: usize) -> Result<(Tensor, Routes)> {
    let may_fuse = step.phase == Phase::Inference && step.may_fuse();
    if let (Device::Cuda(gpu), true) = (&step.runtime.device, may_fuse) {
        let (routes, logits, t) = cuda::forward(gpu, step, cuda::Input::Normalised(x, norm), router, k)?;
        step.made("router", &logits);
        return Ok((t.expect("made with the routes"), routes));
    }
    let t = rms_norm::forward(step, x, norm)?;
    let routes = forward(step, &t, router, k)?;
    Ok((t, routes))
}

/// Routes every token to `k` experts.
pub fn forward(step: &mut Step, t: &Tensor, router: &Linear, k: usize) -> Result<Routes> {
    Ok(forward_saving(step, t, router, k)?.0)
}

/// The same with the logits [T, E], for [`backward`].
pub fn forward_saving(step: &mut Step, t: &Tensor, router: &Linear, k: usize) -> Result<(Routes, Tensor)> {
    if let Device::Cuda(gpu) = &step.runtime.device {
        let (routes, logits, _) = cuda::forward(gpu, step, cuda::Input::Tokens(t), router, k)?;
        step.made("router", &logits);
        return Ok((routes, logits));
    }
    let arena = &step.runtime.arena;
    let mut logits = Tensor::scratch(arena, t.rows(), router.rows())?;
    linear::apply(step, t.host(), router, logits.host_mut(), linear::Write::Set)?;
    let mut routes =
        Routes { per_token: k, experts: arena.take(t.rows() * k)?, weights: arena.take(t.rows() * k)?, device: None };
    cpu::choose(logits.host(), router.rows(), &mut routes);
    step.made("router", &logits);
    Ok((routes, logits))
}

/// How often each expert is among the `k` best of `logits` [T, E], and the sum of each expert's probability, the softmax
/// over all experts (SPEC 7.1): what the auxiliary loss is made of. Also the sum of squares of the log-sum-exp.
pub fn load(logits: &[f32], experts: usize, k: usize) -> Load {
    cpu::load(logits, experts, k)
}

/// See [`load`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Load {
    /// c_e [E].
    pub counts: Vec<f64>,
    /// Sums of p_e [E].
    pub probability: Vec<f64>,
    /// Sum of lse².
    pub square: f64,
}

/// Bytes of scratch for the routes of `tokens`.
pub fn scratch_bytes(tokens: usize, experts: usize, k: usize) -> usize {
    Arena::size_of::<f32>(tokens * experts) + 2 * Arena::size_of::<f32>(tokens * k)
}
