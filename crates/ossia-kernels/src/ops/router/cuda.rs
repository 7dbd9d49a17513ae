//! The launchers; the kernels are in `kernel.cu`.

use crate::cuda::{Gpu, Shape, Slice};
use crate::ops::linear::Linear;
use crate::{Error, Result, Step, Tensor};

/// Which experts each token goes to [T, k], and their weights, on the device.
pub(crate) struct Routes {
    pub experts: Slice,
    pub weights: Slice,
}

/// The most experts and experts of a token that the kernels take.
const MOST: (usize, usize) = (1024, 16);

pub(super) fn forward(
    gpu: &Gpu,
    step: &Step,
    t: &Tensor,
    router: &Linear,
    k: usize,
) -> Result<(super::Routes, Tensor)> {
    let (tokens, experts, cols) = (t.rows(), router.rows(), router.cols());
    if experts > MOST.0 || k > MOST.1 {
        let (wanted, found) = ("at most 1024 experts, 16 of a token", format!("{experts}, {k} of a token"));
        return Err(Error::CudaUnsupported { what: "routes are chosen", wanted, found });
    }
    let [part] = router.parts() else { unreachable!("a router has one part") };
    let key = router.parts().as_ptr().cast();
    let weights = gpu.weight(key, "f32 rows", || {
        let mut row = vec![0.0; cols];
        let mut bytes = Vec::with_capacity(experts * cols * 4);
        for expert in 0..experts {
            part.weight.row_into(expert, &mut row);
            bytes.extend(row.iter().flat_map(|v| v.to_le_bytes()));
        }
        Ok(bytes)
    })?;
    let bias = part.bias.as_ref().expect("a router has a bias");
    let bias = gpu.floats(bias)?;
    let logits = Tensor::on_gpu(gpu, tokens, experts)?;
    let shape = Shape { grid: (experts.div_ceil(8), tokens, 1), threads: 256, shared: 0 };
    let arguments =
        [(&weights).into(), (&bias).into(), t.device().into(), logits.device().into(), experts.into(), cols.into()];
    // SAFETY: (w, bias, t, logits, experts, cols).
    unsafe { gpu.launch("router", "router_logits", shape, &arguments)? };
    let routes = Routes { experts: gpu.take(tokens * k)?, weights: gpu.take(tokens * k)? };
    let arguments =
        [logits.device().into(), (&routes.experts).into(), (&routes.weights).into(), experts.into(), k.into()];
    let shape = Shape { grid: (tokens, 1, 1), threads: 32, shared: 0 };
    // SAFETY: (logits, chosen, weights, experts, k).
    unsafe { gpu.launch("router", "router_choose", shape, &arguments)? };
    let arena = &step.runtime.arena;
    let host = super::Routes { per_token: k, experts: arena.take(0)?, weights: arena.take(0)?, device: Some(routes) };
    Ok((host, logits))
}
