//! The slow truth, in f64: all keys and values of one sequence in order, no pages.

use crate::ops::rope::Heads;

/// One query of head `head` at position `i`; `keys` and `values` are [positions, K d].
pub fn attend(
    q: &[f32],
    i: usize,
    head: usize,
    kv: (&[f32], &[f32]),
    sink: f32,
    window: usize,
    heads: Heads,
) -> Vec<f64> {
    let d = heads.dim;
    let kv_head = head / (heads.query / heads.kv);
    let at = |all: &[f32], j: usize, c: usize| f64::from(all[(j * heads.kv + kv_head) * d + c]);
    let first = (i + 1).saturating_sub(window);
    let scores: Vec<f64> = (first..=i)
        .map(|j| (0..d).map(|c| f64::from(q[c]) * at(kv.0, j, c)).sum::<f64>() / (d as f64).sqrt())
        .collect();
    let max = scores.iter().fold(f64::from(sink), |m, &s| m.max(s));
    let sum = scores.iter().map(|s| (s - max).exp()).sum::<f64>() + (f64::from(sink) - max).exp();
    let value = |c: usize| scores.iter().enumerate().map(|(n, s)| (s - max).exp() / sum * at(kv.1, first + n, c)).sum();
    (0..d).map(value).collect()
}
