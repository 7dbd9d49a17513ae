//! The launcher; the kernels are in `kernel.cu`.

use crate::cuda::{Argument, Gpu, MOST_SHARED, Shape, Slice};
use crate::ops::linear::{self, Linear};
use crate::ops::rms_norm::Norm;
use crate::{Error, Result, Step, Tensor};

/// Which experts each token goes to [T, k], and their weights, on the device.
pub(crate) struct Routes {
    pub experts: Slice,
    pub weights: Slice,
}

/// The most experts and experts of a token that the kernels take.
const MOST: (usize, usize) = (1024, 16);

/// What comes in: tokens as they are, or x to be normalised first.
#[derive(Clone, Copy)]
pub(super) enum Input<'a> {
    Tokens(&'a Tensor),
    Normalised(&'a Tensor, &'a Norm),
}

/// Up to so many tokens have a block for each expert.
const FEW_TOKENS: usize = 8;
/// The widest rows that have a block for each expert and token.
const MOST_COLUMNS: usize = 4096;

/// Routes, logits, and the normalised tokens where there is a norm.
pub(super) fn forward(
    gpu: &Gpu,
    step: &Step,
    input: Input,
    router: &Linear,
    k: usize,
) -> Result<(super::Routes, Tensor, Option<Tensor>)> {
    let (x, norm) = match input {
        Input::Tokens(x) => (x, None),
        Input::Normalised(x, norm) => (x, Some(norm)),
    };
    let (tokens, experts, cols) = (x.rows(), router.rows(), router.cols());
    let bias = router.parts()[0].bias.as_ref().expect("a router has a bias");
    let (kernel, grid, shared) = if tokens <= FEW_TOKENS && cols <= MOST_COLUMNS {
        ("router_one", (experts, tokens, 1), 0)
    } else {
        // As many tokens read weights together as leave every processor a block.
        let blocks = |together: usize| tokens.div_ceil(together) >= gpu.about().processors;
        let (kernel, together) = match (blocks(4), blocks(2)) {
            (true, _) => ("router_4", 4),
            (_, true) => ("router_2", 2),
            _ => ("router_1", 1),
        };
        (kernel, (tokens.div_ceil(together), 1, 1), together * cols * 4)
    };
    let shape = Shape { grid, threads: 256, shared };
    if experts > MOST.0 || k > MOST.1 || shape.shared > MOST_SHARED {
        let (wanted, found) =
            ("at most 1024 experts, 16 of a token", format!("{experts}, {k} of a token, {cols} wide"));
        return Err(Error::CudaUnsupported { what: "routes are chosen", wanted, found });
    }
    let (weights, bias) = (weights(gpu, router)?, gpu.floats(bias)?);
    let scale = norm.map(|norm| gpu.floats(&norm.weight)).transpose()?;
    let t = norm.map(|_| Tensor::on_gpu(gpu, tokens, cols)).transpose()?;
    let logits = Tensor::on_gpu(gpu, tokens, experts)?;
    let routes = Routes { experts: gpu.take(tokens * k)?, weights: gpu.take(tokens * k)? };
    let arguments = [
        (&weights).into(),
        (&bias).into(),
        x.device().into(),
        scale.unwrap_or(Argument::NULL),
        norm.map_or(0.0, |norm| norm.eps).into(),
        t.as_ref().map_or(Argument::NULL, |t| t.device().into()),
        logits.device().into(),
        (&routes.experts).into(),
        (&routes.weights).into(),
        gpu.counters(tokens.min(FEW_TOKENS)),
        experts.into(),
        cols.into(),
        k.into(),
        tokens.into(),
    ];
    // SAFETY: (w, bias, x, norm, eps, t, logits, chosen, weights, counters, experts, cols, k, tokens).
    unsafe { gpu.launch("router", kernel, shape, &arguments)? };
    if router.is_adapted() {
        linear::cuda::add_adapters(gpu, t.as_ref().unwrap_or(x), router, &logits)?;
        let choice = [(&routes.experts).into(), (&routes.weights).into(), experts.into(), k.into(), tokens.into()];
        let arguments = [&[logits.device().into()], &choice[..]].concat();
        let shape = Shape { grid: (tokens.div_ceil(8), 1, 1), threads: 256, shared: 0 };
        // SAFETY: (logits, chosen, weights, experts, k, tokens).
        unsafe { gpu.launch("router", "router_choose", shape, &arguments)? };
    }
    let arena = &step.runtime.arena;
    let host = super::Routes { per_token: k, experts: arena.take(0)?, weights: arena.take(0)?, device: Some(routes) };
    Ok((host, logits, t))
}

/// In f32, row by row.
pub(super) fn weights(gpu: &Gpu, router: &Linear) -> Result<Argument> {
    let [part] = router.parts() else { unreachable!("a router has one part") };
    if let Some(seen) = gpu.seen_exact(part.weight.elements().at(0, 0).as_ptr().cast()) {
        return Ok(seen);
    }
    let copy = gpu.weight(router.parts().as_ptr().cast(), "f32 rows", || {
        let mut row = vec![0.0; router.cols()];
        let mut bytes = Vec::with_capacity(router.rows() * router.cols() * 4);
        for expert in 0..router.rows() {
            part.weight.row_into(expert, &mut row);
            bytes.extend(row.iter().flat_map(|v| v.to_le_bytes()));
        }
        Ok(bytes)
    })?;
    Ok((&copy).into())
}
