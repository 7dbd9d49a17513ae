//! The launchers; the kernels are in `kernel.cu` and `train.cu`.

use crate::cuda::{Gpu, Shape};
use crate::{Matrix, Result, Step, Tensor};

pub(super) fn forward(gpu: &Gpu, step: &Step, tokens: &[u32], table: &Matrix) -> Result<Tensor> {
    let key = table.elements().at(0, 0).as_ptr().cast();
    let weights = match gpu.seen_halves(key) {
        Some(seen) => seen,
        None => (&gpu.bf16_rows(key, &step.runtime.pool, table)?).into(),
    };
    let x = Tensor::on_gpu(gpu, tokens.len(), table.cols())?;
    let shape = Shape { grid: (tokens.len(), 1, 1), threads: 256, shared: 0 };
    let arguments = [weights, gpu.tables().tokens(), x.device().into(), table.cols().into()];
    // SAFETY: (table, tokens, x, cols), and tokens lie inside the table.
    unsafe { gpu.launch("embed", "embed", shape, &arguments)? };
    Ok(x)
}

/// Rows of the table grow by those of dx that named them.
pub(super) fn backward(gpu: &Gpu, dx: &Tensor, d_table: &[f32]) -> Result<()> {
    let documents = gpu.documents();
    let [ids, starts, order] = documents.tokens_at();
    let shape = Shape { grid: (documents.tokens, 1, 1), threads: 256, shared: 0 };
    let arguments = [ids, starts, order, dx.device().into(), gpu.part(d_table), dx.cols().into()];
    // SAFETY: (ids, starts, order, dx, table, cols), and tokens lie inside the table.
    unsafe { gpu.launch("embed.train", "embed_backward", shape, &arguments) }
}
