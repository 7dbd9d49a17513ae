//! Gradients of the router. For the chosen experts dr_s = w_s (dw_s - sum w dw), zero for the others; balancing adds to
//! every expert p (g - sum p g), p the softmax over all of a token's logits, and the z-loss 2 z lse p (SPEC 7.2).

use super::{Routes, cuda_train};
use crate::cpu::disjoint::Disjoint;
use crate::cuda::Device;
use crate::ops::linear::{self, Linear, LinearGrad, Write};
use crate::{Result, Step, Tensor};

/// What the losses on the router itself ask for.
pub struct Balance<'a> {
    /// g [E]: the gradient of the auxiliary loss for the probability p_e of one token.
    pub load: &'a [f32],
    /// Coefficient of lse², the square of the log-sum-exp of a token's logits, for one token.
    pub z: f32,
}

/// Adds the gradients of the router's weights to `grad` and that of its input t [T, D] to dt, where `logits` [T, E] were
/// routed to `routes` and `d_weights` [T, k] comes back for their weights.
#[allow(clippy::too_many_arguments)]
pub fn backward(
    step: &mut Step,
    t: &Tensor,
    router: &Linear,
    (routes, logits): (&Routes, &Tensor),
    d_weights: &Tensor,
    balance: &Balance,
    grad: &mut LinearGrad,
    dt: &mut Tensor,
) -> Result<()> {
    let (experts, k) = (router.rows(), routes.per_token);
    assert!(d_weights.rows() == t.rows() && d_weights.cols() == k && logits.cols() == experts, "router: shapes");
    assert!(balance.load.len() == experts, "router: a gradient for each expert");
    if let Device::Cuda(gpu) = &step.runtime.device {
        return cuda_train::backward(gpu, t, router, (routes, logits), d_weights, balance, grad, dt);
    }
    let mut d_logits = step.runtime.arena.take::<f32>(t.rows() * experts)?;
    let out = Disjoint::new(&mut d_logits);
    step.runtime.pool.run_ranges(t.rows(), 128, |range, _| {
        for i in range {
            // SAFETY: one row for each token.
            let d = unsafe { out.part(i * experts..(i + 1) * experts) };
            let chosen = &routes.experts[i * k..(i + 1) * k];
            let weights = &routes.weights[i * k..(i + 1) * k];
            balanced(logits.row(i), balance, d);
            choice(chosen, weights, d_weights.row(i), d);
        }
    });
    let io = (t.host(), &*d_logits);
    linear::gradients(step.runtime, io, router, step.adapter(), grad, dt.host_mut(), Write::Add)
}

/// What the balancing and the z-loss say of one token's logits.
fn balanced(logits: &[f32], balance: &Balance, d: &mut [f32]) {
    let max = logits.iter().fold(f32::NEG_INFINITY, |m, &v| m.max(v));
    for (d, &v) in d.iter_mut().zip(logits) {
        *d = (v - max).exp();
    }
    let sum: f32 = d.iter().sum();
    let mean = d.iter().zip(balance.load).map(|(p, g)| p / sum * g).sum::<f32>();
    let z = 2.0 * balance.z * (max + sum.ln());
    for (d, g) in d.iter_mut().zip(balance.load) {
        *d = *d / sum * (g - mean + z);
    }
}

/// Adds what the chosen experts' weights say.
fn choice(chosen: &[u32], weights: &[f32], d_weights: &[f32], d: &mut [f32]) {
    let mean: f32 = weights.iter().zip(d_weights).map(|(w, dw)| w * dw).sum();
    for ((&expert, w), dw) in chosen.iter().zip(weights).zip(d_weights) {
        d[expert as usize] += w * (dw - mean);
    }
}
