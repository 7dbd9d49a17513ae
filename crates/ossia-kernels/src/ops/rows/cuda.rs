//! The launcher; the kernel is in `kernel.cu`.

use crate::cuda::{Gpu, Shape};
use crate::{Result, Tensor};

pub(super) fn wanted(gpu: &Gpu, x: &Tensor, rows: usize) -> Result<Tensor> {
    let y = Tensor::on_gpu(gpu, rows, x.cols())?;
    let arguments = [gpu.tables().logits_rows(), x.device().into(), y.device().into(), x.cols().into()];
    let shape = Shape { grid: (rows, 1, 1), threads: 256, shared: 0 };
    // SAFETY: (rows, x, y, cols), and the step's rows lie inside x.
    unsafe { gpu.launch("rows", "wanted_rows", shape, &arguments)? };
    Ok(y)
}
