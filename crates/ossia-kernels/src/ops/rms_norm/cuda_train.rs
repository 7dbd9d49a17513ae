//! The launcher of training; the kernels are in `train.cu`.

use super::Norm;
use crate::cuda::{Argument, Gpu, Shape};
use crate::{Result, Tensor};

/// The file of kernels.
const FILE: &str = "rms_norm.train";

/// Of all rows, or of the step's rows that want logits.
pub(super) fn backward(
    gpu: &Gpu,
    x: &Tensor,
    norm: &Norm,
    dy: &Tensor,
    d_norm: Option<&[f32]>,
    dx: &Tensor,
    logits_rows: bool,
) -> Result<()> {
    let (count, cols) = (dy.rows(), dy.cols());
    assert!(cols == norm.weight.len() && d_norm.is_none_or(|g| g.len() == cols), "rms_norm: shapes");
    let rows = if logits_rows { gpu.tables().logits_rows() } else { Argument::NULL };
    let (x, dy, scales) = (x.device().into(), dy.device().into(), gpu.take(count)?);
    let weight = gpu.floats(&norm.weight)?;
    let arguments = [x, weight, norm.eps.into(), rows, dy, dx.device().into(), (&scales).into(), cols.into()];
    // SAFETY: (x, weight, eps, rows, dy, dx, scales, cols), and the step's rows lie inside x.
    unsafe {
        gpu.launch(FILE, "rms_norm_backward", Shape { grid: (count, 1, 1), threads: 256, shared: 0 }, &arguments)?;
    }
    let Some(d_norm) = d_norm else { return Ok(()) };
    let arguments = [x, rows, dy, (&scales).into(), gpu.part(d_norm), count.into(), cols.into()];
    let shape = Shape { grid: (cols.div_ceil(32), 1, 1), threads: 1024, shared: 0 };
    // SAFETY: (x, rows, dy, scales, out, count, cols).
    unsafe { gpu.launch(FILE, "rms_norm_weight", shape, &arguments) }
}
