//! The launchers; the kernels are in `kernel.cu`. Weights become bf16 on the device, whatever they are in the file.

use std::sync::Arc;

use super::{Linear, Write};
use crate::cuda::pack::{self, PARTS, TILE, TOKENS};
use crate::cuda::{Argument, Gpu, Memory, Shape, Slice};
use crate::pool::Pool;
use crate::{Error, Result, Step, Tensor};

pub(super) fn apply(gpu: &Gpu, step: &Step, x: &Tensor, linear: &Linear, y: &Tensor, write: Write) -> Result<()> {
    if !linear.adapters.is_empty() {
        let found = "one that is attached".to_owned();
        return Err(Error::CudaUnsupported { what: "adapters are not computed", wanted: "no adapter", found });
    }
    let weights = packed(gpu, &step.runtime.pool, linear)?;
    let bias = biases(gpu, linear)?;
    let (tokens, rows, cols) = (x.rows(), linear.rows(), linear.cols());
    let tiles = rows.div_ceil(TILE);
    // Where the tokens lie, how many tiles of rows and of tokens a block takes.
    let (kernel, at_once) = match tokens {
        0..=8 => ("linear_few_8", (1, 1)),
        9..=16 => ("linear_few_16", (1, 2)),
        17..=32 => ("linear_few_32", (1, 4)),
        33..=64 => ("linear_few_64", (2, 8)),
        _ => ("linear_many", (8, 8)),
    };
    let groups = tokens.div_ceil(TOKENS * at_once.1);
    let packed = if tokens > TOKENS { Some(pack_tokens(gpu, x, groups * at_once.1)?) } else { None };
    let many = kernel == "linear_many";
    let shape = Shape {
        grid: (tiles.div_ceil(at_once.0), groups, 1),
        threads: if many { 128 } else { PARTS * 32 },
        shared: if many { 0 } else { PARTS * at_once.0 * TILE * at_once.1 * TOKENS * 4 },
    };
    let input: Argument = packed.as_ref().map_or(x.device().into(), Argument::from);
    let add = usize::from(matches!(write, Write::Add));
    let bias = bias.as_ref().map_or(Argument::NULL, Argument::from);
    let arguments =
        [(&weights).into(), bias, input, y.device().into(), rows.into(), cols.into(), tokens.into(), add.into()];
    // SAFETY: (w, bias, x, y, rows, cols, tokens, add); packed tokens are as many tiles as the grid has.
    unsafe { gpu.launch("linear", kernel, shape, &arguments) }
}

/// x as bf16 in the order of the kernels, `tiles` tiles of eight tokens.
fn pack_tokens(gpu: &Gpu, x: &Tensor, tiles: usize) -> Result<Slice> {
    let steps = x.cols() / 16;
    let packed = gpu.take(tiles * steps * 64)?;
    let shape = Shape { grid: (steps.div_ceil(8), tiles, 1), threads: 256, shared: 0 };
    let arguments = [x.device().into(), (&packed).into(), x.cols().into(), x.rows().into()];
    // SAFETY: (x, packed, cols, tokens).
    unsafe { gpu.launch("linear", "linear_pack", shape, &arguments)? };
    Ok(packed)
}

/// All parts, one under the other, in tiles.
fn packed(gpu: &Gpu, pool: &Pool, linear: &Linear) -> Result<Arc<Memory>> {
    gpu.weight(linear.parts.as_ptr().cast(), "bf16 tiles", || {
        let row = |row: usize, out: &mut [f32]| {
            let mut first = 0;
            for part in &linear.parts {
                let rows = part.weight.rows();
                if row < first + rows {
                    return part.weight.row_into(row - first, out);
                }
                first += rows;
            }
        };
        Ok(pack::bf16_tiles(pool, linear.rows(), linear.cols(), &row))
    })
}

fn biases(gpu: &Gpu, linear: &Linear) -> Result<Option<Arc<Memory>>> {
    if linear.parts.iter().all(|part| part.bias.is_none()) {
        return Ok(None);
    }
    let bytes = || {
        let of = |part: &super::Part| part.bias.clone().unwrap_or_else(|| vec![0.0; part.weight.rows()]);
        Ok(linear.parts.iter().flat_map(of).flat_map(f32::to_le_bytes).collect())
    };
    gpu.weight(linear.parts.as_ptr().cast(), "biases", bytes).map(Some)
}
