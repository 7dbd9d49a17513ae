//! A task is some tokens of one sequence.

use super::{Heads, Rope};
use crate::Step;
use crate::cpu::disjoint::Disjoint;
use crate::kv::PAGE;

pub fn forward(step: &mut Step, qkv: &mut [f32], rope: &Rope, heads: Heads, layer: usize, window: Option<usize>) {
    let pool = &step.runtime.pool;
    let kv = step.kv[layer].writer();
    let qkv = Disjoint::new(qkv);
    let width = heads.row();
    for sequence in &step.sequences {
        let pages = sequence.pages(window);
        pool.run_ranges(sequence.rows.len(), 8, |range, _| {
            for i in range {
                let (row, position) = (sequence.rows.start + i, sequence.start + i);
                // SAFETY: one row for each token.
                let row = unsafe { qkv.part(row * width..(row + 1) * width) };
                let (rotated, v) = row.split_at_mut((heads.query + heads.kv) * heads.dim);
                rotate(rotated, rope, position, heads.dim);
                let k = &rotated[heads.query * heads.dim..];
                // SAFETY: positions of a sequence have slots of their own, and so have sequences.
                unsafe { kv.write(pages.page_of(position), position % PAGE, k, v) };
            }
        });
    }
}

/// Rotates every head of one token.
pub fn rotate(heads: &mut [f32], rope: &Rope, position: usize, dim: usize) {
    for (i, &frequency) in rope.inv_freq.iter().enumerate() {
        let (sin, cos) = (position as f32 * frequency).sin_cos();
        let (sin, cos) = (sin * rope.concentration, cos * rope.concentration);
        for head in heads.chunks_exact_mut(dim) {
            let (a, b) = (head[i], head[i + dim / 2]);
            head[i] = a * cos - b * sin;
            head[i + dim / 2] = b * cos + a * sin;
        }
    }
}
