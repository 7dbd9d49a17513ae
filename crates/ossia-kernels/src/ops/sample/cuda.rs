//! The launcher; the kernel is in `kernel.cu`.

use crate::cuda::{Gpu, Shape};
use crate::{Result, Tensor};

/// Blocks of a row.
const BLOCKS: usize = 32;

/// Numbers of four bytes of scratch for so many rows.
pub const fn scratch_len(rows: usize) -> usize {
    rows * (2 * BLOCKS + 1)
}

/// See [`super::best`].
pub(super) fn best(gpu: &Gpu, logits: &Tensor) -> Result<Vec<Option<u32>>> {
    let (rows, vocab) = (logits.rows(), logits.cols());
    let (ranks, best) = (gpu.take(2 * BLOCKS * rows)?, gpu.take(rows)?);
    let shape = Shape { grid: (BLOCKS, rows, 1), threads: 256, shared: 0 };
    let arguments = [logits.device().into(), vocab.into(), (&ranks).into(), (&best).into(), gpu.counters(rows)];
    // SAFETY: (logits, vocab, ranks, best, counters).
    unsafe { gpu.launch("sample", "sample_best", shape, &arguments)? };
    let ids = gpu.heard(&best)?.into_iter();
    Ok(ids.map(|id| (id != u32::MAX).then_some(id)).collect())
}
