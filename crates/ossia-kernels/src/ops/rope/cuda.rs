//! The launcher; the kernel is in `kernel.cu`.

use super::{Heads, Rope};
use crate::cuda::{Gpu, Shape};
use crate::{Result, Step, Tensor};

pub(super) fn forward(
    gpu: &Gpu,
    step: &Step,
    qkv: &Tensor,
    rope: &Rope,
    heads: Heads,
    layer: usize,
    window: Option<usize>,
) -> Result<()> {
    let (keys, values) = step.kv[layer].device();
    let frequencies = gpu.floats(&rope.inv_freq)?;
    let tables = gpu.tables();
    let pages = tables.pages(window);
    let arguments = [
        qkv.device().into(),
        (&frequencies).into(),
        rope.concentration.into(),
        tables.positions(),
        tables.sequences(),
        pages.pages,
        pages.firsts,
        pages.width.into(),
        keys.into(),
        values.into(),
        heads.query.into(),
        heads.kv.into(),
        heads.dim.into(),
    ];
    let shape = Shape { grid: (qkv.rows(), heads.query + 2 * heads.kv, 1), threads: heads.dim / 2, shared: 0 };
    // SAFETY: (qkv, inv_freq, concentration, positions, sequences, tables, firsts, width, keys, values, heads, kv_heads,
    // dim); the pages that tables name lie inside the stores.
    unsafe { gpu.launch("rope", "rope", shape, &arguments) }
}
