//! Products of f32 matrices for many tokens at once: what training is made of.
//!
//! ```text
//! apply:    y [M, N] (=, +=) x [M, K] Wᵀ + b     W [N, K]      a linear layer
//!           y [M, N] (=, +=) x [M, K] W          W [K, N]      its gradient for x
//! outer:    g [N, K] += dyᵀ x                    dy [T, N], x [T, K]   its gradient for W
//! ```
//!
//! **Order of sums.** An element of `apply` is one chain of fma over k, ascending, then the bias, then the old value. An
//! element of `outer` is a chain over each block of 256 tokens; the blocks are added to g in order. Both depend on
//! shapes alone. (Inference adds in another order, see `cpu::dot`: there a single token must cost one pass over W.)
//!
//! Thirty-two outputs are a panel [K, 32], made once from whatever form the weights have and used by all rows of x.

mod kernel;
mod panel;
#[cfg(test)]
mod tests;

use crate::arena::Arena;
use crate::cpu::disjoint::Disjoint;
use crate::cpu::isa::Isa;
use crate::cpu::lanes::versions;
use crate::{Result, Runtime};
use kernel::{Operand, ROWS, Sums};
pub use panel::Weight;

/// Outputs of a panel: a group of the weights' formats.
pub const WIDTH: usize = 32;

/// Rows of x that a task takes with one panel.
const TASK_ROWS: usize = 768;

/// Tokens whose outer products are added in registers.
const BLOCK: usize = 256;

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
    pub fn rows_of(self, range: std::ops::Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.rows, "rows of a view");
        Self { rows: range.len(), offset: self.offset + range.start * self.stride, ..self }
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

/// Bytes of scratch that products with up to `depth` terms in a sum take.
pub fn scratch_bytes(threads: usize, depth: usize) -> usize {
    Arena::size_of::<f32>(threads * depth.max(BLOCK) * WIDTH)
}

/// Runs all products. No two of them may write the same elements.
pub fn apply(runtime: &Runtime, products: &[Product]) -> Result<()> {
    let depth = products.iter().map(|p| p.x.cols).max().unwrap_or(0);
    let mut tasks = Vec::new();
    for (which, product) in products.iter().enumerate() {
        product.x.check();
        assert_eq!(product.x.cols, product.weight.depth(), "gemm: inner sizes");
        assert!(product.bias.is_none_or(|b| b.len() == product.weight.outputs()), "gemm: bias length");
        for first in (0..product.weight.outputs()).step_by(WIDTH) {
            tasks.extend((0..product.x.rows).step_by(TASK_ROWS).map(|row| (which, first, row)));
        }
    }
    with_panels(runtime, depth, tasks.len(), &|task, panel| {
        let (which, first, row) = tasks[task];
        let product = &products[which];
        let panel = &mut panel[..product.x.cols];
        product.weight.fill(first, panel);
        let rows = row..(row + TASK_ROWS).min(product.x.rows);
        apply_panel(runtime.isa, product, first, rows, panel);
    })
}

/// Lends each task its thread's panel.
fn with_panels(
    runtime: &Runtime,
    depth: usize,
    tasks: usize,
    work: &(dyn Fn(usize, &mut [[f32; WIDTH]]) + Sync),
) -> Result<()> {
    let threads = runtime.pool.threads();
    let mut scratch = runtime.arena.take::<f32>(threads * depth * WIDTH)?;
    let panels = Disjoint::new(&mut scratch);
    runtime.pool.run(tasks, &|task, thread| {
        // SAFETY: a thread runs one task at a time.
        let panel = unsafe { panels.part(thread * depth * WIDTH..(thread + 1) * depth * WIDTH) };
        work(task, panel.as_chunks_mut().0);
    });
    Ok(())
}

fn apply_panel(isa: Isa, product: &Product, first: usize, rows: std::ops::Range<usize>, panel: &[[f32; WIDTH]]) {
    let width = WIDTH.min(product.weight.outputs() - first);
    let mut bias = [0.0; WIDTH];
    if let Some(b) = product.bias {
        bias[..width].copy_from_slice(&b[first..first + width]);
    }
    let x = product.x;
    let mut sums: Sums = [[0.0; WIDTH]; ROWS];
    for row in rows.clone().step_by(ROWS) {
        let count = ROWS.min(rows.end - row);
        let start = x.data[x.offset + row * x.stride..].as_ptr();
        let operand = Operand { start, row_stride: x.stride, k_stride: 1 };
        // SAFETY: `View::check` holds for x, and the panel is as deep as x is wide.
        unsafe { kernel::strip(isa, operand, count, panel, &mut sums) };
        store(isa, &product.y, row, (first, width), &sums[..count], &bias, product.write);
    }
}

versions! {
    /// Writes the first `width` sums of each row, with the bias. Called for outputs that belong to the task.
    fn store(
        target: &Target, row: usize, columns: (usize, usize), sums: &[[f32; WIDTH]], bias: &[f32; WIDTH], write: Write,
    ) = store_body
}

#[inline(always)]
fn store_body<const FMA: bool>(
    target: &Target,
    row: usize,
    (first, width): (usize, usize),
    sums: &[[f32; WIDTH]],
    bias: &[f32; WIDTH],
    write: Write,
) {
    for (r, sums) in sums.iter().enumerate() {
        let at = target.offset + (row + r) * target.stride + first;
        // SAFETY: a task's outputs are its own (see `apply` and `outer`); bounds are checked.
        let out = unsafe { target.data.part(at..at + width) };
        let mut values = [0.0; WIDTH];
        for j in 0..WIDTH {
            values[j] = sums[j] + bias[j];
        }
        match (<&mut [f32; WIDTH]>::try_from(&mut *out), write) {
            (Ok(out), Write::Set) => *out = values,
            (Ok(out), Write::Add) => {
                for j in 0..WIDTH {
                    out[j] += values[j];
                }
            }
            (Err(_), Write::Set) => out.copy_from_slice(&values[..width]),
            (Err(_), Write::Add) => out.iter_mut().zip(values).for_each(|(y, v)| *y += v),
        }
    }
}

/// Runs all outer products. No two of them may write the same elements.
pub fn outer(runtime: &Runtime, products: &[Outer]) -> Result<()> {
    let mut tasks = Vec::new();
    for (which, product) in products.iter().enumerate() {
        product.x.check();
        product.dy.check();
        assert_eq!(product.x.rows, product.dy.rows, "gemm: tokens");
        let rows_of_task = 8 * ROWS;
        for first in (0..product.x.cols).step_by(WIDTH) {
            tasks.extend((0..product.dy.cols).step_by(rows_of_task).map(|row| {
                let rows = row..(row + rows_of_task).min(product.dy.cols);
                (which, first, rows)
            }));
        }
    }
    with_panels(runtime, BLOCK, tasks.len(), &|task, panel| {
        let (which, first, rows) = tasks[task].clone();
        outer_panel(runtime.isa, &products[which], first, rows, panel);
    })
}

fn outer_panel(isa: Isa, product: &Outer, first: usize, rows: std::ops::Range<usize>, panel: &mut [[f32; WIDTH]]) {
    let (x, dy) = (product.x, product.dy);
    let width = WIDTH.min(x.cols - first);
    let mut sums: Sums = [[0.0; WIDTH]; ROWS];
    for token in (0..x.rows).step_by(BLOCK) {
        let panel = &mut panel[..BLOCK.min(x.rows - token)];
        for (k, out) in panel.iter_mut().enumerate() {
            let values = &x.data[x.offset + (token + k) * x.stride + first..][..width];
            match <&[f32; WIDTH]>::try_from(values) {
                Ok(values) => *out = *values,
                Err(_) => {
                    out[..width].copy_from_slice(values);
                    out[width..].fill(0.0);
                }
            }
        }
        for row in rows.clone().step_by(ROWS) {
            let count = ROWS.min(rows.end - row);
            let start = dy.data[dy.offset + token * dy.stride + row..].as_ptr();
            let operand = Operand { start, row_stride: 1, k_stride: dy.stride };
            // SAFETY: `View::check` holds for dy, and the panel has no more rows than there are tokens.
            unsafe { kernel::strip(isa, operand, count, panel, &mut sums) };
            store(isa, &product.gradient, row, (first, width), &sums[..count], &[0.0; WIDTH], Write::Add);
        }
    }
}
