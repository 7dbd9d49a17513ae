//! Holds the versions of `attention` together over ragged shapes.

use super::*;
use crate::kv::{KvLayer, KvType, PageTable};
use crate::ops::rope::{self, Rope};
use crate::testing::{Numbers, close, runtimes, same_bits, tensor};
use crate::{Phase, Runtime, Sequence};

/// Rotation by nothing, so that keys stay as they are.
fn still(dim: usize) -> Rope {
    Rope { inv_freq: vec![0.0; dim / 2], concentration: 1.0 }
}

struct Case {
    heads: Heads,
    window: Option<usize>,
    /// Rows of the sequences [T, (H + 2K) d].
    sequences: Vec<Vec<f32>>,
    sinks: Vec<f32>,
    kind: KvType,
}

impl Case {
    fn new(seed: u64, heads: Heads, window: Option<usize>, lengths: &[usize]) -> Self {
        let mut numbers = Numbers(seed);
        let sequences =
            lengths.iter().map(|n| numbers.vec(n * heads.row()).iter().map(|v| v * 2.0).collect()).collect();
        Self { heads, window, sequences, sinks: numbers.vec(heads.query), kind: KvType::F32 }
    }

    /// Feeds each sequence in chunks of its size in `chunks` (0: whole), all sequences in one batch per round.
    fn run(&self, runtime: &Runtime, chunks: &[usize]) -> Vec<Vec<f32>> {
        let width = self.heads.row();
        let pages = |n: usize| n.div_ceil(PAGE);
        let lengths: Vec<usize> = self.sequences.iter().map(|s| s.len() / width).collect();
        let mut kv =
            vec![KvLayer::new(self.kind, lengths.iter().map(|&n| pages(n)).sum(), self.heads.kv, self.heads.dim)];
        // Pages are handed out backwards, so that order in the store is not order in the sequence.
        let mut free: Vec<u32> = (0..lengths.iter().map(|&n| pages(n)).sum::<usize>() as u32).collect();
        let tables: Vec<PageTable> = lengths
            .iter()
            .map(|&n| PageTable { first: 0, pages: (0..pages(n)).map(|_| free.pop().unwrap()).collect() })
            .collect();
        let mut done = vec![0; lengths.len()];
        let mut outputs = vec![Vec::new(); lengths.len()];
        while done != lengths {
            let (mut rows, mut sequences, mut spans) = (Vec::new(), Vec::new(), Vec::new());
            for (s, &length) in lengths.iter().enumerate() {
                let chunk = if chunks[s] == 0 { length } else { chunks[s] }.min(length - done[s]);
                if chunk == 0 {
                    continue;
                }
                let start = rows.len() / width;
                rows.extend_from_slice(&self.sequences[s][done[s] * width..(done[s] + chunk) * width]);
                sequences.push(Sequence {
                    rows: start..start + chunk,
                    start: done[s],
                    full: &tables[s],
                    sliding: &tables[s],
                    adapter: None,
                });
                spans.push((s, chunk));
            }
            let mut step =
                Step { runtime, phase: Phase::Inference, sequences, kv: &mut kv, logits_rows: vec![], tap: None };
            let mut qkv = tensor(runtime, rows.len() / width, width, &rows);
            rope::forward(&mut step, &mut qkv, &still(self.heads.dim), self.heads, 0, self.window).unwrap();
            let shape = Shape { heads: self.heads, window: self.window, layer: 0 };
            let o = forward(&mut step, &qkv, &self.sinks, &shape).unwrap();
            let mut rest = o.host();
            for (s, chunk) in spans {
                let (own, next) = rest.split_at(chunk * self.heads.query * self.heads.dim);
                outputs[s].extend_from_slice(own);
                (rest, done[s]) = (next, done[s] + chunk);
            }
        }
        outputs
    }

    fn reference(&self, s: usize) -> Vec<f64> {
        let (width, d) = (self.heads.row(), self.heads.dim);
        let rows: Vec<&[f32]> = self.sequences[s].chunks_exact(width).collect();
        let columns =
            |from: usize, to: usize| rows.iter().flat_map(|r| r[from * d..to * d].to_vec()).collect::<Vec<f32>>();
        let Heads { query, kv, .. } = self.heads;
        let (keys, values) = (columns(query, query + kv), columns(query + kv, query + 2 * kv));
        let window = self.window.unwrap_or(usize::MAX);
        let one = |i: usize, h: usize| {
            let q = &rows[i][h * d..(h + 1) * d];
            reference::attend(q, i, h, (&keys, &values), self.sinks[h], window, self.heads)
        };
        (0..rows.len()).flat_map(|i| (0..query).flat_map(move |h| one(i, h))).collect()
    }
}

const SMALL: Heads = Heads { query: 4, kv: 2, dim: 16 };

#[test]
fn equals_the_reference() {
    for runtime in runtimes() {
        for (heads, window, lengths) in [
            (SMALL, None, &[1, 70][..]),
            (SMALL, Some(4), &[80]),
            (Heads { query: 8, kv: 1, dim: 64 }, Some(128), &[200, 3]),
            (Heads { query: 3, kv: 3, dim: 80 }, None, &[65]),
            (Heads { query: 2, kv: 1, dim: 4 }, Some(1), &[9]),
        ] {
            let case = Case::new(20, heads, window, lengths);
            for (s, got) in case.run(&runtime, &vec![0; lengths.len()]).iter().enumerate() {
                close(got, &case.reference(s), 2e-6, &format!("{heads:?} {window:?}"));
            }
        }
    }
}

#[test]
fn chunks_and_company_do_not_change_a_bit() {
    for runtime in runtimes() {
        for window in [None, Some(8), Some(64), Some(100)] {
            let case = Case::new(21, SMALL, window, &[150, 64, 1]);
            let whole = case.run(&runtime, &[0, 0, 0]);
            for chunks in [[1, 1, 1], [7, 64, 1], [64, 1, 1], [149, 63, 1]] {
                for (a, b) in case.run(&runtime, &chunks).iter().zip(&whole) {
                    same_bits(a, b, &format!("{chunks:?} {window:?}"));
                }
            }
        }
    }
}

#[test]
fn sixteen_bit_pages_are_close() {
    for runtime in runtimes() {
        let case = Case { kind: KvType::F16, ..Case::new(22, SMALL, Some(30), &[100]) };
        close(&case.run(&runtime, &[13])[0], &case.reference(0), 2e-3, "f16 pages");
    }
}

#[test]
fn training_equals_the_pages() {
    for runtime in runtimes() {
        for window in [None, Some(1), Some(30), Some(64)] {
            let lengths = [1, 150, 64];
            let case = Case::new(23, SMALL, window, &lengths);
            let pages = PageTable { first: 0, pages: vec![] };
            let mut sequences = Vec::new();
            for length in lengths {
                let start = sequences.last().map_or(0, |s: &Sequence| s.rows.end);
                sequences.push(Sequence {
                    rows: start..start + length,
                    start: 0,
                    full: &pages,
                    sliding: &pages,
                    adapter: None,
                });
            }
            let mut step = Step {
                runtime: &runtime,
                phase: Phase::Training,
                sequences,
                kv: &mut [],
                logits_rows: vec![],
                tap: None,
            };
            let qkv = tensor(&runtime, 215, SMALL.row(), &case.sequences.concat());
            let o = forward(&mut step, &qkv, &case.sinks, &Shape { heads: SMALL, window, layer: 0 }).unwrap();
            let pages: Vec<f64> = case.run(&runtime, &[0, 0, 0]).concat().iter().map(|&v| f64::from(v)).collect();
            close(o.host(), &pages, 1e-6, &format!("{window:?}"));
        }
    }
}
