//! Products of f32 matrices for many tokens at once: what training is made of.
//!
//! ```text
//! apply:    y [M, N] (=, +=) x [M, K] Wᵀ + b     W [N, K]      a linear layer
//!           y [M, N] (=, +=) x [M, K] W          W [K, N]      its gradient for x
//! outer:    g [N, K] += dyᵀ x                    dy [T, N], x [T, K]   its gradient for W
//! ```
//!
//! **Order of sums.** An element of `apply` is one chain of fma over k, ascending, that begins at the bias, or with `+=` at
//! the old value plus the bias. An element of `outer` is a chain over each block of 256 tokens; the blocks are added to
//! g in order. Both depend on shapes alone. (Inference adds in another order, see `cpu::dot`: there a single token must
//! cost one pass over W.)
//!
//! **Tiles.** Thirty-two outputs are a panel [K, 32], made from whatever form the weights have. A task makes a few panels
//! that stay in its core's second cache, and takes twelve rows of x at a time through all of them, while it asks for the
//! next twelve: x comes from far away once, not once for each panel. Where the rows of a factor lie far apart, as tokens
//! do in `outer`, they are copied together first: at a distance of a power of two they would push each other out.

mod kernel;
mod mxfp4;
mod panel;
#[cfg(test)]
mod tests;
mod transpose;

use std::ops::Range;

use crate::arena::Arena;
use crate::cpu::disjoint::Disjoint;
use crate::cpu::isa::Isa;
use crate::{Result, Runtime};
use kernel::{Operand, Output, ROWS, prefetch, strip};
pub use panel::Weight;

/// Outputs of a panel: a group of the weights' formats.
pub const WIDTH: usize = 32;

/// Terms of a sum that are in a panel at once; tokens whose outer products are added in registers.
const BLOCK: usize = 256;

/// Panels of a task, where they are as deep as a block.
const PANELS: usize = 4;

/// Strips of twelve columns of dy that a task of `outer` takes.
const STRIPS: usize = 12;

/// Rows of panels that a task has room for, and numbers for its strips.
const ROOM: (usize, usize) = (PANELS * BLOCK, STRIPS * ROWS * BLOCK);

/// Tasks of `apply` that each thread should have, so that all end at about the same time. (Those of `outer` copy what they
/// share, so there are no more than threads need.)
const TASKS: usize = 3;

/// Rows of a matrix: row i is `data[i * stride + offset..][..cols]`.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// The numbers.
    pub data: &'a [f32],
    /// Rows.
    pub rows: usize,
    /// Columns that are used.
    pub cols: usize,
    /// From one row to the next.
    pub stride: usize,
    /// Where the first row begins.
    pub offset: usize,
}

impl<'a> View<'a> {
    /// A whole matrix [rows, cols].
    pub fn new(data: &'a [f32], cols: usize) -> Self {
        Self { data, rows: data.len() / cols, cols, stride: cols, offset: 0 }
    }

    /// Columns `from..from + cols` of it.
    pub fn columns(self, from: usize, cols: usize) -> Self {
        assert!(from + cols <= self.cols, "columns of a view");
        Self { cols, offset: self.offset + from, ..self }
    }

    /// Rows `range` of it.
    pub fn rows_of(self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.rows, "rows of a view");
        Self { rows: range.len(), offset: self.offset + range.start * self.stride, ..self }
    }

    /// Every other row of it, from row `first` on.
    pub fn every_other(self, first: usize) -> Self {
        Self { rows: self.rows / 2, stride: 2 * self.stride, offset: self.offset + first * self.stride, ..self }
    }

    /// Row `row`.
    fn row(&self, row: usize) -> &'a [f32] {
        &self.data[self.offset + row * self.stride..][..self.cols]
    }

    fn check(&self) {
        let last = self.offset + self.rows.saturating_sub(1) * self.stride + self.cols;
        assert!(self.rows == 0 || last <= self.data.len(), "a view must lie inside its data");
    }
}

/// Where results go: element (i, j) lies at `offset + i * stride + j`.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    /// The numbers.
    pub data: &'a Disjoint<'a, f32>,
    /// From one row to the next.
    pub stride: usize,
    /// Where the first row begins.
    pub offset: usize,
}

/// What happens to the old value of an output.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Write {
    /// It is replaced.
    Set,
    /// The result is added to it.
    Add,
}

/// One product of `apply`.
pub struct Product<'a> {
    /// x [M, K].
    pub x: View<'a>,
    /// W.
    pub weight: Weight<'a>,
    /// b [N], added once.
    pub bias: Option<&'a [f32]>,
    /// y [M, N].
    pub y: Target<'a>,
    /// Set or add.
    pub write: Write,
}

/// One product of `outer`.
pub struct Outer<'a> {
    /// dy [T, N].
    pub dy: View<'a>,
    /// x [T, K].
    pub x: View<'a>,
    /// g [N, K], to which the product is added.
    pub gradient: Target<'a>,
}

/// Bytes of scratch that products take.
pub fn scratch_bytes(threads: usize) -> usize {
    Arena::size_of::<f32>(threads * (ROOM.0 * WIDTH + ROOM.1))
}

/// Some outputs of some rows of a product.
#[derive(Clone)]
struct Tile {
    product: usize,
    outputs: Range<usize>,
    rows: Range<usize>,
}

/// Runs all products. No two of them may write the same elements.
pub fn apply(runtime: &Runtime, products: &[Product]) -> Result<()> {
    let wanted = TASKS * runtime.pool.threads();
    let mut tiles = Vec::new();
    for (index, product) in products.iter().enumerate() {
        let (rows, outputs) = (product.x.rows, product.weight.outputs());
        product.x.check();
        assert_eq!(product.x.cols, product.weight.depth(), "gemm: inner sizes");
        assert!(product.bias.is_none_or(|b| b.len() == outputs), "gemm: bias length");
        let panels = (ROOM.0 / product.x.cols.clamp(1, BLOCK)).min(4 * PANELS);
        let height = rows.div_ceil(wanted).next_multiple_of(ROWS).clamp(16 * ROWS, 64 * ROWS);
        for first in (0..outputs).step_by(panels * WIDTH) {
            let outputs = first..(first + panels * WIDTH).min(outputs);
            let rows = (0..rows).step_by(height).map(|row| row..(row + height).min(rows));
            tiles.extend(rows.map(|rows| Tile { product: index, outputs: outputs.clone(), rows }));
        }
    }
    with_room(runtime, &tiles, &|tile, panels, _| apply_tile(runtime.isa, &products[tile.product], tile, panels))
}

/// What computes a tile, with its thread's room for panels and for strips.
type Work<'a> = &'a (dyn Fn(&Tile, &mut [[f32; WIDTH]], &mut [f32]) + Sync);

/// Runs `work` for all tiles.
fn with_room(runtime: &Runtime, tiles: &[Tile], work: Work) -> Result<()> {
    let size = ROOM.0 * WIDTH + ROOM.1;
    let mut scratch = runtime.arena.take::<f32>(runtime.pool.threads() * size)?;
    let rooms = Disjoint::new(&mut scratch);
    runtime.pool.run(tiles.len(), &|task, thread| {
        // SAFETY: a thread runs one task at a time.
        let room = unsafe { rooms.part(thread * size..(thread + 1) * size) };
        let (panels, strips) = room.split_at_mut(ROOM.0 * WIDTH);
        work(&tiles[task], panels.as_chunks_mut().0, strips);
    });
    Ok(())
}

fn apply_tile(isa: Isa, product: &Product, tile: &Tile, room: &mut [[f32; WIDTH]]) {
    let x = product.x;
    let firsts = || tile.outputs.clone().step_by(WIDTH);
    let at = |row: usize, k: usize| x.offset + row * x.stride + k;
    for from in (0..x.cols).step_by(BLOCK) {
        let depth = BLOCK.min(x.cols - from);
        for (first, panel) in firsts().zip(room.chunks_mut(depth)) {
            product.weight.fill(isa, first, from, panel);
        }
        for row in tile.rows.clone().step_by(ROWS) {
            let rows = row..(row + ROWS).min(tile.rows.end);
            let operand = Operand::Rows { start: x.data[at(row, from)..].as_ptr(), stride: x.stride };
            // A share of the next rows before each panel.
            let mut next = rows.end..(rows.end + ROWS).min(tile.rows.end);
            let share = ROWS.div_ceil(firsts().len());
            for (first, panel) in firsts().zip(room.chunks(depth)) {
                next.by_ref().take(share).for_each(|row| prefetch::<false>(x.data[at(row, from)..].as_ptr(), depth));
                let width = WIDTH.min(tile.outputs.end - first);
                let mut bias = [0.0; WIDTH];
                if let (Some(b), 0) = (product.bias, from) {
                    bias[..width].copy_from_slice(&b[first..first + width]);
                }
                let out = product.y.output(rows.clone(), first, width, &bias);
                (0..rows.len()).for_each(|r| prefetch::<true>(out.start.wrapping_add(r * out.stride), width));
                let out = Output { old: from > 0 || product.write == Write::Add, ..out };
                // SAFETY: `View::check` holds for x, the panel is as deep as the block is wide, the outputs are the
                // task's own.
                unsafe { strip(isa, operand, rows.len(), panel, out) };
            }
        }
    }
}

impl Target<'_> {
    /// Where `width` outputs from `first` on lie, of some rows.
    ///
    /// # Panics
    /// Where they do not lie inside the data.
    fn output<'b>(&self, rows: Range<usize>, first: usize, width: usize, bias: &'b [f32; WIDTH]) -> Output<'b> {
        let at = |row: usize| self.offset + row * self.stride + first;
        let start = self.data.pointer(at(rows.start)..at(rows.end - 1) + width);
        Output { start, stride: self.stride, width, bias, old: false, add: false }
    }
}

/// Runs all outer products. No two of them may write the same elements.
pub fn outer(runtime: &Runtime, products: &[Outer]) -> Result<()> {
    let wanted = runtime.pool.threads().div_ceil(products.len().max(1));
    let mut tiles = Vec::new();
    for (index, product) in products.iter().enumerate() {
        product.x.check();
        product.dy.check();
        assert_eq!(product.x.rows, product.dy.rows, "gemm: tokens");
        let (rows, cols, width) = (product.dy.cols, product.x.cols, PANELS * WIDTH);
        // Strips, cut into equal parts.
        let strips = rows.div_ceil(ROWS);
        let parts = wanted.div_ceil(cols.div_ceil(width).max(1)).max(strips.div_ceil(STRIPS)).min(strips).max(1);
        let height = strips.div_ceil(parts).max(1) * ROWS;
        for first in (0..cols).step_by(width) {
            let outputs = first..(first + width).min(cols);
            let rows = (0..rows).step_by(height).map(|row| row..(row + height).min(rows));
            tiles.extend(rows.map(|rows| Tile { product: index, outputs: outputs.clone(), rows }));
        }
    }
    with_room(runtime, &tiles, &|tile, panels, strips| {
        outer_tile(runtime.isa, &products[tile.product], tile, panels, strips);
    })
}

fn outer_tile(isa: Isa, product: &Outer, tile: &Tile, panels: &mut [[f32; WIDTH]], strips: &mut [f32]) {
    let (x, dy) = (product.x, product.dy);
    let tokens_x = |token: usize| &x.data[x.offset + token * x.stride..][tile.outputs.clone()];
    let tokens_dy = |token: usize| &dy.data[dy.offset + token * dy.stride..][tile.rows.clone()];
    for from in (0..x.rows).step_by(BLOCK) {
        let tokens = from..(from + BLOCK).min(x.rows);
        let depth = tokens.len();
        for (k, token) in tokens.enumerate() {
            copy_apart(tokens_x(token), panels, k, depth);
            copy_apart(tokens_dy(token), strips.as_chunks_mut::<ROWS>().0, k, depth);
        }
        // A share of the next block before each product.
        let mut next = from + depth..(from + 2 * depth).min(x.rows);
        let share = depth.div_ceil(tile.outputs.len().div_ceil(WIDTH) * tile.rows.len().div_ceil(ROWS));
        for (first, panel) in tile.outputs.clone().step_by(WIDTH).zip(panels.chunks(depth)) {
            let width = WIDTH.min(tile.outputs.end - first);
            for (row, strip_of_dy) in tile.rows.clone().step_by(ROWS).zip(strips.chunks(depth * ROWS)) {
                let rows = row..(row + ROWS).min(tile.rows.end);
                next.by_ref().take(share).for_each(|token| {
                    prefetch::<false>(tokens_x(token).as_ptr(), tile.outputs.len());
                    prefetch::<false>(tokens_dy(token).as_ptr(), tile.rows.len());
                });
                let operand = Operand::Strip(strip_of_dy.as_ptr());
                let out = product.gradient.output(rows.clone(), first, width, &[0.0; WIDTH]);
                // SAFETY: strip and panel hold `depth` rows each, the outputs are the task's own.
                unsafe { strip(isa, operand, rows.len(), panel, Output { add: true, ..out }) };
            }
        }
    }
}

/// Puts N values after N into row `k` of parts of `depth` rows; what is left of the last one's row is zero.
#[inline(always)]
fn copy_apart<const N: usize>(values: &[f32], parts: &mut [[f32; N]], k: usize, depth: usize) {
    let (whole, rest) = values.as_chunks::<N>();
    whole.iter().enumerate().for_each(|(part, values)| parts[part * depth + k] = *values);
    if !rest.is_empty() {
        let last = &mut parts[whole.len() * depth + k];
        last[..rest.len()].copy_from_slice(rest);
        last[rest.len()..].fill(0.0);
    }
}
