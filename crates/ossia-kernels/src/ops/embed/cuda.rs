//! The launcher; the kernel is in `kernel.cu`.

use crate::cuda::{Gpu, Shape};
use crate::{Matrix, Result, Step, Tensor};

pub(super) fn forward(gpu: &Gpu, step: &Step, tokens: &[u32], table: &Matrix) -> Result<Tensor> {
    let key = table.elements().at(0, 0).as_ptr().cast();
    let weights = gpu.bf16_rows(key, &step.runtime.pool, table)?;
    let x = Tensor::on_gpu(gpu, tokens.len(), table.cols())?;
    let shape = Shape { grid: (tokens.len(), 1, 1), threads: 256, shared: 0 };
    let arguments = [(&weights).into(), gpu.tables().tokens(), x.device().into(), table.cols().into()];
    // SAFETY: (table, tokens, x, cols), and tokens lie inside the table.
    unsafe { gpu.launch("embed", "embed", shape, &arguments)? };
    Ok(x)
}
