//! Gradients, block by block. With q' = q / sqrt(d) and row_i = do_i · o_i:
//!
//! p_ij = exp(q'_i · k_j - lse_i); ds_ij = p_ij (do_i · v_j - row_i); dq_i = sum_j ds_ij k_j / sqrt(d);
//! dk_j = sum_i ds_ij q'_i; dv_j = sum_i p_ij do_i; dsink = - sum_i exp(sink - lse_i) row_i.
//!
//! dk and dv grow in the output, which the task clears first.

use std::ops::Range;

use super::Gradients;
use super::product::{Out, Right, Size, product};
use super::tile::{Block, Document, Tiles, clear, left, out, pack, right, rows_of, transpose};
use crate::cpu::vector::Lanes;

/// One task; `share` [group] gets its part of the sinks' gradients.
///
/// # Safety
/// The machine has V's instruction set, d is a multiple of its lanes, the buffers have the op's shapes, and no other
/// thread writes the task's part of them.
#[inline(always)]
pub unsafe fn run<V: Lanes>(document: &Document, tiles: Tiles, gradients: Gradients, share: &mut [f32]) {
    share.fill(0.0);
    // SAFETY: promised by the caller; the tiles are the thread's own and have room for a block.
    unsafe {
        clear_rows::<V>(document, gradients);
        for block in document.blocks() {
            start::<V>(document, &block, tiles, gradients);
            add_sinks(document, &block, tiles, share);
            for keys in document.tiles(&block) {
                add_tile::<V>(document, &block, keys, tiles, gradients);
            }
            finish(document, &block, tiles, gradients);
        }
    }
}

/// The task's part of d_qkv from `token` on: queries 0, keys 1, values 2.
///
/// # Safety
/// As `run`.
#[inline(always)]
unsafe fn part(document: &Document, gradients: Gradients, token: usize, which: usize) -> Out {
    let stride = document.heads.row();
    let at = (document.first + token) * stride + document.columns()[which];
    // SAFETY: the token is one of the document's.
    Out { at: unsafe { gradients.d_qkv.0.add(at) }, stride }
}

/// Zeros for dk and dv.
///
/// # Safety
/// As `run`.
#[inline(always)]
unsafe fn clear_rows<V: Lanes>(document: &Document, gradients: Gradients) {
    for token in 0..document.tokens {
        for which in [1, 2] {
            // SAFETY: promised by the caller.
            unsafe { clear::<V>(part(document, gradients, token, which).at, document.dim) };
        }
    }
}

/// Packs queries and gradients of o; lse and row of each row.
///
/// # Safety
/// As `run`.
#[inline(always)]
unsafe fn start<V: Lanes>(document: &Document, block: &Block, tiles: Tiles, gradients: Gradients) {
    let (dim, group, num_heads) = (document.dim, document.group, document.heads.query);
    let [lse, dots, _] = tiles.state;
    let first = (document.first + block.tokens.start) * num_heads + document.head * group;
    // SAFETY: promised by the caller.
    unsafe {
        pack::<V>(document.queries(block.tokens.start), block.tokens.len(), group * dim, document.scale, tiles.q);
        transpose(tiles.q, block, dim, tiles.q_across);
        let d_o = Right { at: gradients.d_o.as_ptr().add(first * dim), stride: num_heads * dim };
        pack::<V>(d_o, block.tokens.len(), group * dim, 1.0, tiles.d_o);
        transpose(tiles.d_o, block, dim, tiles.d_o_across);
        clear::<V>(tiles.sums, block.rows * dim);
        for row in 0..block.rows {
            let at = first + row / group * num_heads + row % group;
            *lse.add(row) = gradients.lse[at];
            *dots.add(row) = dot::<V>(gradients.o.as_ptr().add(at * dim), tiles.d_o.add(row * dim), dim);
        }
        for lane in block.rows..block.lanes {
            *lse.add(lane) = 0.0;
            *dots.add(lane) = 0.0;
        }
    }
}

/// a · b: a chain for each channel modulo 16, then halves of the chains onto each other, whatever V is.
///
/// # Safety
/// The machine has V's instruction set, and `len` numbers, a multiple of its lanes, may be read from each.
#[inline(always)]
unsafe fn dot<V: Lanes>(a: *const f32, b: *const f32, len: usize) -> f32 {
    let mut chains = [0.0; 16];
    // SAFETY: promised by the caller; the chains are a multiple of the lanes.
    unsafe {
        for chain in (0..16).step_by(V::LANES) {
            let mut sums = V::splat(0.0);
            for i in (chain..len).step_by(16) {
                sums = V::load(a.add(i)).mul_add(V::load(b.add(i)), sums);
            }
            sums.store(chains.as_mut_ptr().add(chain));
        }
    }
    for half in [8, 4, 2, 1] {
        (0..half).for_each(|i| chains[i] += chains[i + half]);
    }
    chains[0]
}

/// The block's part of the sinks' gradients.
///
/// # Safety
/// As `run`.
#[inline(always)]
unsafe fn add_sinks(document: &Document, block: &Block, tiles: Tiles, share: &mut [f32]) {
    let [lse, dots, _] = tiles.state;
    for row in 0..block.rows {
        let head = row % document.group;
        // SAFETY: the tiles' states hold as many rows.
        share[head] -= unsafe { (document.sinks[head] - *lse.add(row)).exp() * *dots.add(row) };
    }
}

/// Adds some keys: to the block's dq, and the block to their dk and dv.
///
/// # Safety
/// As `run`.
#[inline(always)]
unsafe fn add_tile<V: Lanes>(
    document: &Document,
    block: &Block,
    keys: Range<usize>,
    tiles: Tiles,
    gradients: Gradients,
) {
    let (dim, lanes, count) = (document.dim, block.lanes, keys.len());
    let (k, v) = (document.keys(keys.start), document.values(keys.start));
    // SAFETY: promised by the caller.
    unsafe {
        let size = Size { m: count, n: lanes, depth: dim };
        product::<V, false, false>(rows_of(k), right(tiles.q_across, lanes), out(tiles.p, lanes), size);
        product::<V, false, false>(rows_of(v), right(tiles.d_o_across, lanes), out(tiles.ds, lanes), size);
        document.mask::<V>(block, keys.clone(), tiles.p);
        weigh::<V>(count, lanes, tiles);
        let size = Size { m: block.rows, n: dim, depth: count };
        product::<V, true, true>(left(tiles.ds, block), k, out(tiles.sums, dim), size);
        let size = Size { m: count, n: dim, depth: block.rows };
        let (dk, dv) = (part(document, gradients, keys.start, 1), part(document, gradients, keys.start, 2));
        product::<V, false, true>(left(tiles.ds, block), right(tiles.q, dim), dk, size);
        product::<V, false, true>(left(tiles.p, block), right(tiles.d_o, dim), dv, size);
    }
}

/// Scores to probabilities, and the gradients of these to those of the scores.
///
/// # Safety
/// As `run`.
#[inline(always)]
unsafe fn weigh<V: Lanes>(count: usize, lanes: usize, tiles: Tiles) {
    let [lse, dots, _] = tiles.state;
    for lane in (0..lanes).step_by(V::LANES) {
        // SAFETY: promised by the caller.
        unsafe {
            let (lse, dots) = (V::load(lse.add(lane)), V::load(dots.add(lane)));
            for key in 0..count {
                let at = key * lanes + lane;
                let p = V::load(tiles.p.add(at)).sub(lse).exp();
                p.store(tiles.p.add(at));
                p.mul(V::load(tiles.ds.add(at)).sub(dots)).store(tiles.ds.add(at));
            }
        }
    }
}

/// Writes dq.
///
/// # Safety
/// As `run`.
#[inline(always)]
unsafe fn finish(document: &Document, block: &Block, tiles: Tiles, gradients: Gradients) {
    let width = document.group * document.dim;
    for (i, token) in block.tokens.clone().enumerate() {
        // SAFETY: promised by the caller.
        unsafe {
            let dq = part(document, gradients, token, 0).at;
            for c in 0..width {
                *dq.add(c) = *tiles.sums.add(i * width + c) * document.scale;
            }
        }
    }
}
