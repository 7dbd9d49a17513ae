//! o and ln of the sums, block by block: scores, running softmax, products with the values.
//!
//! The state of a row starts with the sink: m = sink, Z = 1, o = 0.

use std::ops::Range;

use super::Outputs;
use super::product::{Size, product};
use super::tile::{Block, Document, Tiles, clear, left, out, pack, right, rows_of, transpose};
use crate::cpu::vector::Lanes;

/// One task.
///
/// # Safety
/// The machine has V's instruction set, d is a multiple of its lanes, the buffers have the op's shapes, and no other
/// thread writes the task's part of them.
#[inline(always)]
pub unsafe fn run<V: Lanes>(document: &Document, tiles: Tiles, outputs: Outputs) {
    for block in document.blocks() {
        // SAFETY: promised by the caller; the tiles are the thread's own and have room for the block.
        unsafe {
            start::<V>(document, &block, tiles);
            for keys in document.tiles(&block) {
                add_tile::<V>(document, &block, keys, tiles);
            }
            finish(document, &block, tiles, outputs);
        }
    }
}

/// Packs the queries and sets the states.
///
/// # Safety
/// As `run`.
#[inline(always)]
unsafe fn start<V: Lanes>(document: &Document, block: &Block, tiles: Tiles) {
    let (dim, group) = (document.dim, document.group);
    let [max, sum, _] = tiles.state;
    // SAFETY: promised by the caller.
    unsafe {
        pack::<V>(document.queries(block.tokens.start), block.tokens.len(), group * dim, document.scale, tiles.q);
        transpose(tiles.q, block, dim, tiles.q_across);
        clear::<V>(tiles.sums, block.rows * dim);
        for lane in 0..block.lanes {
            *max.add(lane) = if lane < block.rows { document.sinks[lane % group] } else { 0.0 };
            *sum.add(lane) = 1.0;
        }
    }
}

/// Adds some keys to the states.
///
/// # Safety
/// As `run`.
#[inline(always)]
unsafe fn add_tile<V: Lanes>(document: &Document, block: &Block, keys: Range<usize>, tiles: Tiles) {
    let (dim, lanes, count) = (document.dim, block.lanes, keys.len());
    let [_, _, correction] = tiles.state;
    // SAFETY: promised by the caller.
    unsafe {
        let size = Size { m: count, n: lanes, depth: dim };
        let k = rows_of(document.keys(keys.start));
        product::<V, false, false>(k, right(tiles.q_across, lanes), out(tiles.p, lanes), size);
        document.mask::<V>(block, keys.clone(), tiles.p);
        softmax::<V>(count, lanes, tiles);
        for row in 0..block.rows {
            let factor = *correction.add(row);
            if factor != 1.0 {
                for c in 0..dim {
                    *tiles.sums.add(row * dim + c) *= factor;
                }
            }
        }
        let size = Size { m: block.rows, n: dim, depth: count };
        let v = document.values(keys.start);
        product::<V, true, true>(left(tiles.p, block), v, out(tiles.sums, dim), size);
    }
}

/// Scores to exponentials, with the rows' maxima, sums and corrections.
///
/// # Safety
/// As `run`.
#[inline(always)]
unsafe fn softmax<V: Lanes>(count: usize, lanes: usize, tiles: Tiles) {
    for lane in (0..lanes).step_by(V::LANES) {
        // SAFETY: promised by the caller.
        unsafe {
            let [max, sum, correction] = tiles.state.map(|numbers| numbers.add(lane));
            let at = |key: usize| tiles.p.add(key * lanes + lane);
            let before = V::load(max);
            // Four chains, because a maximum has a latency of four and does not depend on the order.
            let mut largest = [before; 4];
            let fours = count / 4 * 4;
            for key in (0..fours).step_by(4) {
                for i in 0..4 {
                    largest[i] = V::load(at(key + i)).max(largest[i]);
                }
            }
            for key in fours..count {
                largest[0] = V::load(at(key)).max(largest[0]);
            }
            let largest = largest[0].max(largest[1]).max(largest[2].max(largest[3]));
            let factor = before.sub(largest).exp();
            let mut total = V::load(sum).mul(factor);
            for key in 0..count {
                let p = V::load(at(key)).sub(largest).exp();
                p.store(at(key));
                total = total.add(p);
            }
            largest.store(max);
            total.store(sum);
            factor.store(correction);
        }
    }
}

/// Writes o / Z and m + ln Z.
///
/// # Safety
/// As `run`.
#[inline(always)]
unsafe fn finish(document: &Document, block: &Block, tiles: Tiles, outputs: Outputs) {
    let (dim, group, num_heads) = (document.dim, document.group, document.heads.query);
    let [max, sum, _] = tiles.state;
    for row in 0..block.rows {
        let token = document.first + block.tokens.start + row / group;
        let at = token * num_heads + document.head * group + row % group;
        // SAFETY: promised by the caller.
        unsafe {
            let total = *sum.add(row);
            for c in 0..dim {
                *outputs.o.0.add(at * dim + c) = *tiles.sums.add(row * dim + c) / total;
            }
            if let Some(lse) = outputs.lse {
                *lse.0.add(at) = *max.add(row) + total.ln();
            }
        }
    }
}
