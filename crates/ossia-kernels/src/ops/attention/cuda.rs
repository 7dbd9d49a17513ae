//! The launchers; the kernels are in `kernel.cu`.

use super::Shape;
use crate::cuda::{Argument, COLUMNS, FEW_COLUMNS, Gpu, SPAN, Shape as Launch, Tables};
use crate::kv::PAGE;
use crate::ops::rope::Heads;
use crate::ops::rope::cuda::DIMS;
use crate::{Error, Result, Step, Tensor};

/// The last block of a tile joins so many spans; more are shared out to blocks of a kernel of their own.
const MOST_JOINED: usize = 32;
/// Warps of a block.
const WARPS: usize = 4;

pub(super) fn forward(gpu: &Gpu, step: &Step, qkv: &Tensor, sinks: &[f32], shape: &Shape) -> Result<Tensor> {
    let Heads { query, kv, dim } = shape.heads;
    if !DIMS.contains(&dim) || query / kv > COLUMNS {
        let found = format!("{dim} channels, {query} heads over {kv}");
        let wanted = "16, 32 or 64 channels, at most 64 heads over one";
        return Err(Error::CudaUnsupported { what: "attention is computed", wanted, found });
    }
    let tables = gpu.tables();
    let (tiles, spans, starts) = (tables.tiles, tables.spans, tables.starts());
    let call = call(gpu, step, qkv, sinks, shape)?;
    let with = |more: &[Argument]| [&call[..], more].concat();
    let o = Tensor::on_gpu(gpu, qkv.rows(), query * dim)?;
    let (threads, shared) = (32 * WARPS, shared(&tables, dim));
    // A block goes through four pages at once: a window of a span is not worth two kernels.
    let is_short = spans == 1 || shape.window.is_some_and(|window| window <= SPAN);
    if is_short || !is_split(gpu, tiles * kv) {
        let launch = Launch { grid: (tiles, kv, 1), threads, shared };
        let arguments = with(&[starts, o.device().into()]);
        // SAFETY: (call, starts, out).
        unsafe { gpu.launch("attention", &format!("attention_all_{dim}"), launch, &arguments)? };
        return Ok(o);
    }
    let states = gpu.take(qkv.rows() * query * spans * 2)?;
    let said = gpu.take(qkv.rows() * query * spans * dim)?;
    let launch = Launch { grid: (tiles, kv, spans), threads, shared };
    let joins = spans <= MOST_JOINED;
    let counters = if joins { gpu.counters(tiles * kv) } else { Argument::NULL };
    let arguments = with(&[starts, (&states).into(), (&said).into(), o.device().into(), counters]);
    // SAFETY: (call, starts, states, said, out, counters).
    unsafe { gpu.launch("attention", &format!("attention_span_{dim}"), launch, &arguments)? };
    if joins {
        return Ok(o);
    }
    let launch = Launch { grid: (qkv.rows(), query, 1), threads: dim, shared: 0 };
    let arguments = with(&[(&states).into(), (&said).into(), spans.into(), o.device().into()]);
    // SAFETY: (call, states, said, spans, out).
    unsafe { gpu.launch("attention", &format!("attention_join_{dim}"), launch, &arguments)? };
    Ok(o)
}

/// Bytes of shared memory: pages of keys and values (one a warp for few columns, two in turn for many), queries as two f16,
/// every row filled up by eight numbers.
fn shared(tables: &Tables, dim: usize) -> usize {
    let rows = |pages: usize, columns: usize| 2 * (dim + 8) * (pages * 2 * PAGE + 2 * columns);
    let (few, many) = tables.few_and_many;
    let few = if few { rows(WARPS, FEW_COLUMNS) } else { 0 };
    few.max(if many { rows(2, COLUMNS) } else { 0 })
}

/// Whether so few blocks would leave processors idle, so that each span gets one of its own.
fn is_split(gpu: &Gpu, blocks: usize) -> bool {
    blocks < 2 * gpu.about().processors
}

/// Numbers of four bytes of scratch besides the output, for `tokens` with at most `context` positions.
pub fn scratch_len(tokens: usize, heads: Heads, context: usize, processors: usize) -> usize {
    // Split only while blocks are few, each of at least one row.
    let rows = tokens.min(2 * processors * COLUMNS / heads.query);
    rows * heads.query * context.div_ceil(SPAN).next_power_of_two() * (heads.dim + 2)
}

/// What all kernels are told.
fn call(gpu: &Gpu, step: &Step, qkv: &Tensor, sinks: &[f32], shape: &Shape) -> Result<Vec<Argument>> {
    let (keys, values) = step.kv[shape.layer].device();
    let sinks = gpu.floats(sinks)?;
    let tables = gpu.tables();
    let pages = tables.pages(shape.window);
    Ok(vec![
        qkv.device().into(),
        (&sinks).into(),
        keys.into(),
        values.into(),
        tables.positions(),
        tables.sequences(),
        pages.pages,
        pages.firsts,
        pages.width.into(),
        shape.heads.query.into(),
        shape.heads.kv.into(),
        shape.window.unwrap_or(0).into(),
    ])
}
