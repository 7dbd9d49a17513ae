//! A task is one key/value head with a block of a sequence's queries: each page's keys and values are converted to f32
//! once and serve all queries of the block and all query heads of the group.

use std::ops::Range;

#[cfg(target_arch = "x86_64")]
use super::vector;
use super::{Shape, scalar};
use crate::cpu::disjoint::Disjoint;
use crate::cpu::isa::Isa;
use crate::kv::{KvLayer, PAGE};
use crate::ops::rope::Heads;
use crate::{Result, Sequence, Step};

/// Queries of a task.
const BLOCK: usize = 16;

/// f32 numbers of scratch for each thread: keys and values of a page, maxima and sums of a block.
pub fn tile_len(heads: Heads) -> usize {
    2 * PAGE * heads.dim + 2 * BLOCK * (heads.query / heads.kv)
}

/// The softmax's running state of the heads of one query.
pub struct State<'a> {
    /// Largest score so far [heads].
    pub max: &'a mut [f32],
    /// Sum of exp(score - max) [heads].
    pub sum: &'a mut [f32],
    /// Weighted sum of values [heads, d].
    pub out: &'a mut [f32],
}

/// A page's keys [d, 64] and values [64, d], in f32.
pub struct Tile<'a> {
    pub keys: &'a mut [f32],
    pub values: &'a mut [f32],
}

pub fn forward(step: &mut Step, qkv: &[f32], sinks: &[f32], shape: &Shape, o: &mut [f32]) -> Result<()> {
    let runtime = step.runtime;
    let heads = shape.heads;
    let kv = &step.kv[shape.layer];
    let mut scratch = runtime.arena.take::<f32>(runtime.pool.threads() * tile_len(heads))?;
    let scratch = Disjoint::new(&mut scratch);
    let o = Disjoint::new(o);
    // One run for all sequences: threads wait for each other once.
    let blocks: Vec<_> = step.sequences.iter().flat_map(blocks).collect();
    runtime.pool.run(blocks.len() * heads.kv, &|task, thread| {
        let ((sequence, rows), head) = (blocks[task / heads.kv].clone(), task % heads.kv);
        // SAFETY: a thread runs one task at a time.
        let scratch = unsafe { scratch.part(thread * tile_len(heads)..(thread + 1) * tile_len(heads)) };
        let work = Block { isa: runtime.isa, kv, shape, sequence, sinks, head, rows };
        // SAFETY: a task's queries and heads are its own.
        unsafe { work.attend(qkv, scratch, &o) };
    });
    Ok(())
}

/// A sequence's new tokens, cut into blocks.
fn blocks<'a>(sequence: &'a Sequence<'a>) -> impl Iterator<Item = (&'a Sequence<'a>, Range<usize>)> {
    let rows = sequence.rows.len();
    (0..rows).step_by(BLOCK).map(move |first| (sequence, first..rows.min(first + BLOCK)))
}

struct Block<'a> {
    isa: Isa,
    kv: &'a KvLayer,
    shape: &'a Shape,
    sequence: &'a Sequence<'a>,
    sinks: &'a [f32],
    /// Key/value head.
    head: usize,
    /// Rows within the sequence's new tokens.
    rows: Range<usize>,
}

impl Block<'_> {
    /// # Safety
    /// No other task writes the outputs of these rows and heads.
    unsafe fn attend(&self, qkv: &[f32], scratch: &mut [f32], o: &Disjoint<f32>) {
        let heads = self.shape.heads;
        let (dim, group) = (heads.dim, heads.query / heads.kv);
        let (keys, rest) = scratch.split_at_mut(PAGE * dim);
        let (values, rest) = rest.split_at_mut(PAGE * dim);
        let (max, sum) = rest.split_at_mut(BLOCK * group);
        let sinks = &self.sinks[self.head * group..][..group];
        max.iter_mut().zip(sinks.iter().cycle()).for_each(|(m, s)| *m = *s);
        sum.fill(1.0);
        let out_of = |row: usize| {
            let at = (self.sequence.rows.start + row) * heads.query * dim + self.head * group * dim;
            // SAFETY: promised by the caller; the parts of one task are used one after the other.
            unsafe { o.part(at..at + group * dim) }
        };
        self.rows.clone().for_each(|row| out_of(row).fill(0.0));
        let first = self.visible(self.rows.start).start / PAGE;
        let last = (self.sequence.start + self.rows.end - 1) / PAGE;
        for page in first..=last {
            let mut tile = Tile { keys: &mut *keys, values: &mut *values };
            self.load(page, (page + 1).min(last), &mut tile);
            for row in self.rows.clone() {
                let slots = self.visible_slots(row, page);
                if slots.is_empty() {
                    continue;
                }
                let q =
                    &qkv[(self.sequence.rows.start + row) * heads.row()..][self.head * group * dim..][..group * dim];
                let at = (row - self.rows.start) * group..(row - self.rows.start + 1) * group;
                let state = State { max: &mut max[at.clone()], sum: &mut sum[at], out: out_of(row) };
                add_page(self.isa, q, dim, &tile, slots, state);
            }
        }
        for row in self.rows.clone() {
            let sums = &sum[(row - self.rows.start) * group..][..group];
            for (out, sum) in out_of(row).chunks_exact_mut(dim).zip(sums) {
                out.iter_mut().for_each(|v| *v /= sum);
            }
        }
    }

    /// Positions that the query in `row` sees.
    fn visible(&self, row: usize) -> Range<usize> {
        let position = self.sequence.start + row;
        self.shape.window.map_or(0, |w| (position + 1).saturating_sub(w))..position + 1
    }

    /// The same, as slots of `page`.
    fn visible_slots(&self, row: usize, page: usize) -> Range<usize> {
        let seen = self.visible(row);
        let clip = |position: usize| position.saturating_sub(page * PAGE).min(PAGE);
        clip(seen.start)..clip(seen.end)
    }

    /// Keys and values of `page`, while those of `next` are asked for.
    fn load(&self, page: usize, next: usize, tile: &mut Tile) {
        let pages = self.sequence.pages(self.shape.window);
        let [at, next] = [page, next].map(|page| self.kv.offset(pages.page_of(page * PAGE), self.head));
        // Slots past the newest position hold nothing of this sequence.
        let written = (self.sequence.start + self.sequence.rows.len()).saturating_sub(page * PAGE).min(PAGE);
        match self.isa.of_floats() {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: these are only made where the features were detected.
            Isa::Avx2 => unsafe { vector::load_avx2(self.kv, at, next, tile) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Isa::Avx512 => unsafe { vector::load_avx512(self.kv, at, next, tile) },
            _ => scalar::load(self.kv, at, tile),
        }
        tile.values[written * self.shape.heads.dim..].fill(0.0);
    }
}

/// Adds the page's visible `slots` to the state of one query's heads, q [heads, d].
fn add_page(isa: Isa, q: &[f32], dim: usize, tile: &Tile, slots: Range<usize>, state: State) {
    match isa.of_floats() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: these are only made where the features were detected.
        Isa::Avx512 if dim.is_multiple_of(16) => unsafe {
            vector::add_page_avx512(q, dim, tile, slots, state);
        },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Avx2 | Isa::Avx512 if dim.is_multiple_of(8) => unsafe {
            vector::add_page_avx2(q, dim, tile, slots, state);
        },
        _ => scalar::add_page(q, dim, tile, slots, state),
    }
}
