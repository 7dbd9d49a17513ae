//! The launchers of training; the kernels are in `train.cu`.

use super::cuda::weights;
use super::{Balance, Routes};
use crate::cuda::{Argument, Gpu, Shape};
use crate::ops::linear::cuda_train as linear;
use crate::ops::linear::{Linear, LinearGrad};
use crate::{Result, Tensor};

/// The file of kernels.
const FILE: &str = "router.train";

/// Adds to the gradients of the router and of t.
#[allow(clippy::too_many_arguments)]
pub(super) fn backward(
    gpu: &Gpu,
    t: &Tensor,
    router: &Linear,
    (routes, logits): (&Routes, &Tensor),
    d_weights: &Tensor,
    balance: &Balance,
    grad: &LinearGrad,
    dt: &Tensor,
) -> Result<()> {
    let routed = routes.device.as_ref().expect("routes are where the tokens are");
    let (tokens, experts, cols) = (t.rows(), router.rows(), t.cols());
    let launch = |kernel: &str, grid, threads, arguments: &[Argument]| {
        // SAFETY: each list below is its kernel's, of the sizes that are said.
        unsafe { gpu.launch(FILE, kernel, Shape { grid, threads, shared: 0 }, arguments) }
    };
    let (load, d) = (gpu.uploaded(balance.load)?, gpu.take(tokens * experts)?);
    let arguments = [
        logits.device().into(),
        (&routed.experts).into(),
        (&routed.weights).into(),
        d_weights.device().into(),
        (&load).into(),
        balance.z.into(),
        (&d).into(),
        tokens.into(),
        experts.into(),
        routes.per_token.into(),
    ];
    launch("router_logits", (tokens.div_ceil(8), 1, 1), 256, &arguments)?;
    if let Some(weight) = grad.weight.as_deref() {
        assert!(weight.len() == experts * cols, "router: gradient sizes");
        let arguments = [(&d).into(), t.device().into(), gpu.part(weight), tokens.into(), experts.into(), cols.into()];
        launch("router_weights", (cols.div_ceil(32), experts, 1), 1024, &arguments)?;
    }
    if let Some(bias) = grad.bias.as_deref() {
        assert!(bias.len() == experts, "router: gradient sizes");
        linear::add_rows(gpu, ((&d).into(), Argument::NULL), (tokens, experts), None, gpu.part(bias))?;
    }
    let arguments = [(&d).into(), weights(gpu, router)?, dt.device().into(), experts.into(), cols.into()];
    launch("router_input", (tokens, 1, 1), 256, &arguments)
}
