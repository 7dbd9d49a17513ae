//! A task is some key/value heads of some tokens, with the query heads that use them.

use std::ops::Range;

use super::{Heads, Rope};
use crate::Step;
use crate::cpu::disjoint::Disjoint;
use crate::kv::PAGE;

/// Heads of a task, at most.
const GRAIN: usize = 64;

/// Tasks for each thread at least, as far as there are heads for two in each.
const SHARES: usize = 2;

pub fn forward(step: &mut Step, qkv: &mut [f32], rope: &Rope, heads: Heads, layer: usize, window: Option<usize>) {
    let runtime = step.runtime;
    let kv = step.kv[layer].writer();
    let qkv = Disjoint::new(qkv);
    // The number of its row, its position, and the page that it lies in.
    let tokens: Vec<(usize, usize, usize)> = step
        .sequences
        .iter()
        .flat_map(|sequence| {
            let pages = sequence.pages(window);
            sequence
                .rows
                .clone()
                .zip(sequence.start..)
                .map(move |(row, position)| (row, position, pages.page_of(position)))
        })
        .collect();
    let units = tokens.len() * heads.kv;
    let grain = units.div_ceil(SHARES * runtime.pool.threads()).clamp(2, GRAIN);
    runtime.pool.run_ranges(units, grain, |units, _| {
        for (token, own) in by_token(units, heads.kv) {
            let (row, position, page) = tokens[token];
            let turns: Vec<(f32, f32)> = rope.inv_freq.iter().map(|f| turn(rope, position, *f)).collect();
            for head in own {
                // SAFETY: heads of a token belong to one task.
                let [q, k, v] = parts(heads, row, head).map(|part| unsafe { qkv.part(part) });
                rotate_heads(q, &turns, heads.dim);
                rotate_heads(k, &turns, heads.dim);
                // SAFETY: positions of a sequence have slots of their own, and so have sequences.
                unsafe { kv.write(page, position % PAGE, head, k, v) };
            }
        }
    });
}

/// A range of key/value heads of all tokens as tokens and heads of each.
fn by_token(units: Range<usize>, heads: usize) -> impl Iterator<Item = (usize, Range<usize>)> {
    (units.start / heads..units.end.div_ceil(heads)).map(move |token| {
        let first = token * heads;
        (token, units.start.max(first) - first..units.end.min(first + heads) - first)
    })
}

/// Where a row has the query heads that use a key/value head, its key and its value.
fn parts(heads: Heads, row: usize, head: usize) -> [Range<usize>; 3] {
    let group = heads.query / heads.kv;
    let of = |first: usize, num: usize| {
        let at = row * heads.row() + first * heads.dim;
        at..at + num * heads.dim
    };
    [of(head * group, group), of(heads.query + head, 1), of(heads.query + heads.kv + head, 1)]
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
    rotate_heads(heads, &turns, dim);
}

/// Rotates heads of a token by the same turns.
fn rotate_heads(heads: &mut [f32], turns: &[(f32, f32)], dim: usize) {
    heads.chunks_exact_mut(dim).for_each(|head| rotate_head(head, turns, 1.0));
}

/// Rotates a head by `turns`, cos and sin for each pair of channels, forth or (`sign` -1) back.
fn rotate_head(head: &mut [f32], turns: &[(f32, f32)], sign: f32) {
    let (a, b) = head.split_at_mut(turns.len());
    for ((a, b), (cos, sin)) in a.iter_mut().zip(b).zip(turns) {
        let sin = sign * sin;
        (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
    }
}
