//! The launchers of training; the kernels are in `train.cu`.

use super::Shape as Attention;
use crate::cuda::{Argument, Gpu, Shape};
use crate::ops::rope::cuda::DIMS;
use crate::{Error, Result, Tensor};

/// The file of kernels.
const FILE: &str = "attention.train";

/// (heads, kv_heads, window, row, scale), and the end of the kernels' names.
fn heads(shape: &Attention) -> Result<([Argument; 5], usize)> {
    let heads = shape.heads;
    if !DIMS.contains(&heads.dim) {
        let found = format!("{} channels", heads.dim);
        return Err(Error::CudaUnsupported { what: "heads are computed", wanted: "16, 32 or 64 channels", found });
    }
    let scale = 1.0 / (heads.dim as f32).sqrt();
    let window = shape.window.unwrap_or(0);
    Ok(([heads.query.into(), heads.kv.into(), window.into(), heads.row().into(), scale.into()], heads.dim))
}

/// o [T, H d] and lse [T, H].
pub(super) fn forward(gpu: &Gpu, qkv: &Tensor, sinks: &[f32], shape: &Attention) -> Result<(Tensor, Tensor)> {
    let (heads, dim) = heads(shape)?;
    let documents = gpu.documents();
    let o = Tensor::on_gpu(gpu, qkv.rows(), shape.heads.query * dim)?;
    let lse = Tensor::on_gpu(gpu, qkv.rows(), shape.heads.query)?;
    let sinks = gpu.floats(sinks)?;
    let mut arguments = vec![qkv.device().into(), sinks, documents.tiles_at(), o.device().into(), lse.device().into()];
    arguments.extend(heads);
    let grid = (documents.tiles, shape.heads.query, 1);
    // SAFETY: (qkv, sinks, tiles, o, lse, heads); tiles lie inside the rows.
    unsafe {
        gpu.launch(FILE, &format!("attention_train_{dim}"), Shape { grid, threads: 128, shared: 0 }, &arguments)?;
    }
    Ok((o, lse))
}

/// What the backward pass reads besides qkv.
pub(super) struct Saved<'a> {
    pub o: &'a Tensor,
    pub lse: &'a Tensor,
    pub d_o: &'a Tensor,
}

/// All of d_qkv, and what is added to the sinks' gradients.
pub(super) fn backward(
    gpu: &Gpu,
    qkv: &Tensor,
    sinks: &[f32],
    shape: &Attention,
    saved: &Saved,
    d_qkv: &Tensor,
    d_sinks: Option<&[f32]>,
) -> Result<()> {
    let (heads, dim) = heads(shape)?;
    let (tokens, query) = (qkv.rows(), shape.heads.query);
    let (lse, d_o): (Argument, Argument) = (saved.lse.device().into(), saved.d_o.device().into());
    let dots = gpu.take(tokens * query)?;
    let row_dots = (&dots).into();
    let arguments = [saved.o.device().into(), d_o, row_dots, (tokens * query).into(), dim.into()];
    let launch = |kernel: &str, grid, threads, arguments: &[Argument]| {
        // SAFETY: each list below is its kernel's; tiles lie inside the rows.
        unsafe { gpu.launch(FILE, kernel, Shape { grid, threads, shared: 0 }, arguments) }
    };
    launch("attention_dots", ((tokens * query).div_ceil(8), 1, 1), 256, &arguments)?;
    if let Some(d_sinks) = d_sinks {
        let arguments = [gpu.floats(sinks)?, lse, row_dots, gpu.part(d_sinks), tokens.into(), query.into()];
        launch("attention_sinks", (query, 1, 1), 256, &arguments)?;
    }
    let documents = gpu.documents();
    let mut arguments = vec![qkv.device().into(), documents.tiles_at(), lse, row_dots, d_o, d_qkv.device().into()];
    arguments.extend(heads);
    launch(&format!("attention_queries_{dim}"), (documents.tiles, query, 1), 128, &arguments)?;
    launch(&format!("attention_keys_{dim}"), (documents.tiles, shape.heads.kv, 1), 128, &arguments)
}
