//! A task is some tiles of rows with all tokens.

use std::ops::Range;

use super::{Linear, Part, Write};
use crate::cpu::disjoint::Disjoint;
use crate::cpu::dot::{Input, Lists, MOST_TOKENS, Panels, Scratch, TILE};
use crate::{Result, Runtime};

/// Bytes of weights of a task. A tile's kernel asks for the tile after it, which another thread would have where tasks
/// were single tiles: everything would be read twice.
const BYTES: usize = 1 << 19;

/// Tasks for each thread at least, so that a disturbed one does not hold up the others for long.
const SHARES: usize = 4;

/// Multiplications below which waking a thread costs more than it gains.
const GRAIN: usize = 1 << 16;

pub fn forward(runtime: &Runtime, x: &[f32], linear: &Linear, y: &mut [f32], write: Write) -> Result<()> {
    let (cols, stride) = (linear.cols(), linear.rows());
    let tokens: Vec<u32> = (0..(x.len() / cols) as u32).collect();
    let input = Input::new(runtime, x, cols, linear.parts()[0].weight.kind())?;
    let lists = Lists::new(runtime, &input, cols, tokens.chunks(MOST_TOKENS).collect())?;
    let mut panels = Panels::new(&runtime.arena, runtime.pool.threads(), cols)?;
    let panels = panels.split();
    let y = Disjoint::new(y);
    let least = (GRAIN / (TILE * cols * tokens.len().max(1))).clamp(1, 32);
    let shares = shares(linear, runtime.pool.threads(), least);
    runtime.pool.run(shares.len(), &|task, thread| {
        let Share { part, first, tiles } = &shares[task];
        let mut scratch = panels[thread].lock().unwrap_or_else(|e| e.into_inner());
        let Scratch { panel, out: [out, _] } = &mut *scratch;
        for (list, tokens) in tokens.chunks(MOST_TOKENS).enumerate() {
            for tiles in lists.runs(list, tiles) {
                lists.tiles(list, &part.weight, tiles.clone(), panel, out);
                for (tile, out) in tiles.zip(&**out) {
                    // SAFETY: a tile's rows of the output belong to this task.
                    unsafe { store(part, tile * TILE, *first, stride, tokens, out, &y, write) };
                }
            }
        }
    });
    Ok(())
}

/// Some tiles of a part, whose rows begin at `first` in the output.
struct Share<'a> {
    part: &'a Part,
    first: usize,
    tiles: Range<usize>,
}

/// Cuts the tiles of all parts into tasks, of `least` tiles at least. One run takes them all: keys and values are small, and where a
/// run begins, what is read was not asked for ahead.
fn shares(linear: &Linear, threads: usize, least: usize) -> Vec<Share<'_>> {
    let tiles_of = |part: &Part| part.weight.rows().div_ceil(TILE);
    let all: usize = linear.parts().iter().map(tiles_of).sum();
    let bytes: usize = linear.parts().iter().map(|part| part.weight.bytes()).sum();
    let wanted = (BYTES * all).div_ceil(bytes.max(1));
    let per_task = wanted.min(all / (SHARES * threads)).max(least);
    let (mut shares, mut first) = (Vec::new(), 0);
    for part in linear.parts() {
        let tiles = tiles_of(part);
        let cut = (0..tiles).step_by(per_task).map(|start| start..tiles.min(start + per_task));
        shares.extend(cut.map(|tiles| Share { part, first, tiles }));
        first += part.weight.rows();
    }
    shares
}

/// # Safety
/// No other task writes these rows.
#[allow(clippy::too_many_arguments)]
unsafe fn store(
    part: &Part,
    row: usize,
    first: usize,
    stride: usize,
    tokens: &[u32],
    out: &[[f32; TILE]],
    y: &Disjoint<f32>,
    write: Write,
) {
    let rows = TILE.min(part.weight.rows() - row);
    for (&token, out) in tokens.iter().zip(out) {
        let at = token as usize * stride + first + row;
        // SAFETY: promised by the caller.
        let y = unsafe { y.part(at..at + rows) };
        for r in 0..rows {
            let value = out[r] + part.bias.as_ref().map_or(0.0, |b| b[row + r]);
            y[r] = if write == Write::Set { value } else { y[r] + value };
        }
    }
}
