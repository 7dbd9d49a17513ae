//! The launcher; the kernel is in `kernel.cu`.

use super::Norm;
use crate::cuda::{Argument, Gpu, Shape};
use crate::{Result, Tensor};

/// All rows, or so many of the step's rows that want logits.
pub(super) fn forward(gpu: &Gpu, x: &Tensor, norm: &Norm, logits_rows: Option<usize>) -> Result<Tensor> {
    let weight = gpu.floats(&norm.weight)?;
    let rows = logits_rows.unwrap_or(x.rows());
    let which = if logits_rows.is_some() { gpu.tables().logits_rows() } else { Argument::NULL };
    let y = Tensor::on_gpu(gpu, rows, x.cols())?;
    let arguments = [x.device().into(), (&weight).into(), which, y.device().into(), x.cols().into(), norm.eps.into()];
    let shape = Shape { grid: (rows, 1, 1), threads: 256, shared: 0 };
    // SAFETY: (x, weight, rows, y, cols, eps), and the step's rows lie inside x.
    unsafe { gpu.launch("rms_norm", "rms_norm", shape, &arguments)? };
    Ok(y)
}

/// Whether all values of a tensor are finite.
pub(crate) fn is_finite(gpu: &Gpu, x: &Tensor) -> Result<bool> {
    let bad = gpu.told(&[0])?;
    let count = x.rows() * x.cols();
    let shape = Shape { grid: (count.div_ceil(256 * 8).min(1024), 1, 1), threads: 256, shared: 0 };
    let arguments = [x.device().into(), Argument::long(count), (&bad).into()];
    // SAFETY: (x, n, bad).
    unsafe { gpu.launch("rms_norm", "find_bad", shape, &arguments)? };
    Ok(gpu.heard(&bad)? == [0])
}
