//! What both directions share: a task's document, its blocks of queries, the thread's tiles, packing and the mask.
//!
//! Rows of a block [rows, d] are packed as they are and transposed [d, lanes]; lanes are the rows rounded up to 16, and
//! those without a row hold zeros.

use std::ops::Range;

use super::Shape;
use super::product::{Left, Out, Right};
use crate::Sequence;
use crate::cpu::vector::Lanes;
use crate::ops::rope::Heads;

/// Rows of a block of queries, as far as a group divides them.
const ROWS: usize = 32;
/// Keys of a tile.
const KEYS: usize = 64;
/// The first keys of tiles are multiples of this.
const STEP: usize = 8;
/// The numbers of the lanes.
const COUNT: [f32; 16] = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0];

/// Tokens of a block for groups of `group` heads.
fn block_tokens(group: usize) -> usize {
    (ROWS / group).max(1)
}

/// Lanes of the largest block.
fn most_lanes(heads: Heads) -> usize {
    let group = heads.query / heads.kv;
    (block_tokens(group) * group).next_multiple_of(16)
}

/// f32 numbers of scratch for each thread.
pub fn scratch_len(heads: Heads) -> usize {
    let lanes = most_lanes(heads);
    5 * lanes * heads.dim + 2 * KEYS * lanes + 3 * lanes
}

/// A thread's scratch, cut up; pointers, because tiles are read and written in turn.
#[derive(Clone, Copy)]
pub struct Tiles {
    /// Scaled queries [rows, d].
    pub q: *mut f32,
    /// The same [d, lanes].
    pub q_across: *mut f32,
    /// The gradient of o [rows, d].
    pub d_o: *mut f32,
    /// The same [d, lanes].
    pub d_o_across: *mut f32,
    /// o, or the gradient of q [rows, d].
    pub sums: *mut f32,
    /// Scores, then probabilities [keys, lanes].
    pub p: *mut f32,
    /// Gradients of the probabilities, then of the scores [keys, lanes].
    pub ds: *mut f32,
    /// Three numbers for each row: maximum, sum and correction, or lse, do · o and nothing.
    pub state: [*mut f32; 3],
}

impl Tiles {
    /// Cuts `scratch_len` numbers.
    pub fn new(scratch: &mut [f32], heads: Heads) -> Self {
        assert!(scratch.len() == scratch_len(heads), "attention: scratch");
        let (lanes, mut rest) = (most_lanes(heads), scratch);
        let mut cut = |len: usize| {
            let (own, after) = std::mem::take(&mut rest).split_at_mut(len);
            rest = after;
            own.as_mut_ptr()
        };
        let matrix = lanes * heads.dim;
        Self {
            q: cut(matrix),
            q_across: cut(matrix),
            d_o: cut(matrix),
            d_o_across: cut(matrix),
            sums: cut(matrix),
            p: cut(KEYS * lanes),
            ds: cut(KEYS * lanes),
            state: [cut(lanes), cut(lanes), cut(lanes)],
        }
    }
}

/// One document's rows and one key/value head with its query heads.
pub struct Document<'a> {
    /// Its first row in the batch.
    pub first: usize,
    /// Its tokens.
    pub tokens: usize,
    /// Query heads of the group.
    pub group: usize,
    /// Channels of a head.
    pub dim: usize,
    /// All heads.
    pub heads: Heads,
    /// Key/value head.
    pub head: usize,
    /// The group's sinks.
    pub sinks: &'a [f32],
    /// 1 / sqrt(d).
    pub scale: f32,
    window: usize,
    qkv: &'a [f32],
}

impl<'a> Document<'a> {
    /// The task's share of the step.
    pub fn new(sequence: &Sequence, head: usize, qkv: &'a [f32], sinks: &'a [f32], shape: &Shape) -> Self {
        let (heads, rows) = (shape.heads, &sequence.rows);
        let group = heads.query / heads.kv;
        assert!(rows.end * heads.row() <= qkv.len(), "attention: rows");
        Self {
            first: rows.start,
            tokens: rows.len(),
            group,
            dim: heads.dim,
            heads,
            head,
            sinks: &sinks[head * group..(head + 1) * group],
            scale: 1.0 / (heads.dim as f32).sqrt(),
            window: shape.window.unwrap_or(usize::MAX),
            qkv,
        }
    }

    /// Its blocks of queries.
    pub fn blocks(&self) -> impl Iterator<Item = Block> {
        let step = block_tokens(self.group);
        (0..self.tokens).step_by(step).map(move |from| Block::new(from..(from + step).min(self.tokens), self.group))
    }

    /// The tiles of keys that some query of the block sees.
    pub fn tiles(&self, block: &Block) -> impl Iterator<Item = Range<usize>> + use<> {
        let first = (block.tokens.start + 1).saturating_sub(self.window) / STEP * STEP;
        let end = block.tokens.end;
        (first..end).step_by(KEYS).map(move |from| from..(from + KEYS).min(end))
    }

    /// Where the queries of a token's group begin in a row of qkv; those of keys and values.
    pub fn columns(&self) -> [usize; 3] {
        let Heads { query, kv, dim } = self.heads;
        [self.head * self.group * dim, (query + self.head) * dim, (query + kv + self.head) * dim]
    }

    /// The queries from `token` on.
    pub fn queries(&self, token: usize) -> Right {
        self.part(token, self.columns()[0])
    }

    /// The keys from `token` on, as a right factor.
    pub fn keys(&self, token: usize) -> Right {
        self.part(token, self.columns()[1])
    }

    /// The values from `token` on, as a right factor.
    pub fn values(&self, token: usize) -> Right {
        self.part(token, self.columns()[2])
    }

    fn part(&self, token: usize, column: usize) -> Right {
        let stride = self.heads.row();
        Right { at: self.qkv[(self.first + token) * stride + column..].as_ptr(), stride }
    }

    /// Gives minus infinity to the scores of a tile [keys, lanes] that a row does not see.
    ///
    /// # Safety
    /// The tile may be written, and the machine has V's instruction set.
    #[inline(always)]
    pub unsafe fn mask<V: Lanes>(&self, block: &Block, keys: Range<usize>, tile: *mut f32) {
        let Range { start, end } = block.tokens;
        for (i, key) in keys.enumerate() {
            let last = key.saturating_add(self.window);
            if key <= start && last >= end {
                continue;
            }
            let from = key.saturating_sub(start) * self.group;
            let to = last.saturating_sub(start).min(end - start) * self.group;
            // SAFETY: promised by the caller; lanes are a multiple of 16.
            unsafe {
                let (from, to) = (V::splat(from as f32), V::splat(to as f32));
                for lane in (0..block.lanes).step_by(V::LANES) {
                    let index = V::load(COUNT.as_ptr().add(lane % 16)).add(V::splat((lane - lane % 16) as f32));
                    let at = tile.add(i * block.lanes + lane);
                    V::load(at).keep(index, from, to).store(at);
                }
            }
        }
    }
}

/// Some queries that follow each other, with all heads of the group.
pub struct Block {
    /// Tokens of the document.
    pub tokens: Range<usize>,
    /// Tokens times heads.
    pub rows: usize,
    /// The same, rounded up to 16.
    pub lanes: usize,
}

impl Block {
    fn new(tokens: Range<usize>, group: usize) -> Self {
        let rows = tokens.len() * group;
        Self { tokens, rows, lanes: rows.next_multiple_of(16) }
    }
}

/// A tile [keys, lanes] as the left factor of a product over its rows, or with ACROSS over its keys.
pub fn left<const ACROSS: bool>(tile: *const f32, block: &Block) -> Left<ACROSS> {
    Left { at: tile, stride: block.lanes }
}

/// Keys or values as the left factor of a product over the channels.
pub fn rows_of(right: Right) -> Left<false> {
    Left { at: right.at, stride: right.stride }
}

/// A matrix without gaps as the right factor.
pub fn right(at: *const f32, stride: usize) -> Right {
    Right { at, stride }
}

/// A matrix without gaps as the result.
pub fn out(at: *mut f32, stride: usize) -> Out {
    Out { at, stride }
}

/// Packs `count` runs of `width` numbers, times `scale`, without gaps.
///
/// # Safety
/// The machine has V's instruction set, `width` is a multiple of its lanes, the runs may be read, and there is room for
/// them at `to`.
#[inline(always)]
pub unsafe fn pack<V: Lanes>(from: Right, count: usize, width: usize, scale: f32, to: *mut f32) {
    for i in 0..count {
        for c in (0..width).step_by(V::LANES) {
            // SAFETY: promised by the caller.
            unsafe { V::load(from.at.add(i * from.stride + c)).mul(V::splat(scale)).store(to.add(i * width + c)) };
        }
    }
}

/// Zeros.
///
/// # Safety
/// The machine has V's instruction set, `len` is a multiple of its lanes, and so many numbers may be written.
#[inline(always)]
pub unsafe fn clear<V: Lanes>(to: *mut f32, len: usize) {
    for c in (0..len).step_by(V::LANES) {
        // SAFETY: promised by the caller.
        unsafe { V::splat(0.0).store(to.add(c)) };
    }
}

/// [rows, d] to [d, lanes], zeros where there is no row.
///
/// # Safety
/// The matrices of these sizes may be read and written.
#[inline(always)]
pub unsafe fn transpose(from: *const f32, block: &Block, dim: usize, to: *mut f32) {
    let (rows, lanes) = (block.rows, block.lanes);
    let (whole_rows, whole_dim) = (rows / 4 * 4, dim / 4 * 4);
    // SAFETY: promised by the caller.
    unsafe {
        for row in (0..whole_rows).step_by(4) {
            for c in (0..whole_dim).step_by(4) {
                four_by_four(from.add(row * dim + c), dim, to.add(c * lanes + row), lanes);
            }
            for c in whole_dim..dim {
                (row..row + 4).for_each(|row| *to.add(c * lanes + row) = *from.add(row * dim + c));
            }
        }
        for c in 0..dim {
            (whole_rows..rows).for_each(|row| *to.add(c * lanes + row) = *from.add(row * dim + c));
            (rows..lanes).for_each(|row| *to.add(c * lanes + row) = 0.0);
        }
    }
}

/// Four rows of four, which the compiler turns in registers.
///
/// # Safety
/// Four numbers of four rows may be read and written.
#[inline(always)]
unsafe fn four_by_four(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
    // SAFETY: promised by the caller; an array of f32 may lie wherever an f32 may.
    unsafe {
        let read = |row: usize| from.add(row * from_stride).cast::<[f32; 4]>().read();
        let [a, b, c, d] = [read(0), read(1), read(2), read(3)];
        for i in 0..4 {
            to.add(i * to_stride).cast::<[f32; 4]>().write([a[i], b[i], c[i], d[i]]);
        }
    }
}
