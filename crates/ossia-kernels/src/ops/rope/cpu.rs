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

/// The rotation of all tokens of training documents, forth or (`sign` -1) back. No pages: every key is at hand.
pub fn rotate_all(step: &Step, qkv: &mut [f32], rope: &Rope, heads: Heads, sign: f32) {
    let (width, half) = (heads.row(), heads.dim / 2);
    let longest = step.sequences.iter().map(|s| s.start + s.rows.len()).max().unwrap_or(0);
    // Documents share their positions.
    let table: Vec<(f32, f32)> =
        (0..longest).flat_map(|p| rope.inv_freq.iter().map(move |f| turn(rope, p, *f))).collect();
    let qkv = Disjoint::new(qkv);
    for sequence in &step.sequences {
        step.runtime.pool.run_ranges(sequence.rows.len(), 64, |range, _| {
            for i in range {
                let at = (sequence.rows.start + i) * width;
                // SAFETY: one row for each token.
                let row = unsafe { qkv.part(at..at + (heads.query + heads.kv) * heads.dim) };
                let turns = &table[(sequence.start + i) * half..][..half];
                row.chunks_exact_mut(heads.dim).for_each(|head| rotate_head(head, turns, sign));
            }
        });
    }
}

/// cos and sin of a position and frequency, times the concentration.
fn turn(rope: &Rope, position: usize, frequency: f32) -> (f32, f32) {
    let (sin, cos) = (position as f32 * frequency).sin_cos();
    (cos * rope.concentration, sin * rope.concentration)
}

/// Rotates every head of one token.
pub fn rotate(heads: &mut [f32], rope: &Rope, position: usize, dim: usize) {
    let turns: Vec<(f32, f32)> = rope.inv_freq.iter().map(|f| turn(rope, position, *f)).collect();
    heads.chunks_exact_mut(dim).for_each(|head| rotate_head(head, &turns, 1.0));
}

/// Rotates a head by `turns`, cos and sin for each pair of channels, forth or (`sign` -1) back.
fn rotate_head(head: &mut [f32], turns: &[(f32, f32)], sign: f32) {
    let (a, b) = head.split_at_mut(turns.len());
    for ((a, b), (cos, sin)) in a.iter_mut().zip(b).zip(turns) {
        let sin = sign * sin;
        (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
    }
}
