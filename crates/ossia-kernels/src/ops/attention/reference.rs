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

/// Whole documents in f64, for training.
pub struct Documents<'a> {
    /// [T, (H + 2K) d].
    pub qkv: &'a [f64],
    /// [H].
    pub sinks: &'a [f64],
    /// Tokens of each document.
    pub lengths: &'a [usize],
    /// `usize::MAX` where everything is seen.
    pub window: usize,
    /// Heads and channels.
    pub heads: Heads,
}

impl Documents<'_> {
    /// o [T, H d] and lse [T, H].
    pub fn forward(&self) -> (Vec<f64>, Vec<f64>) {
        let (mut o, mut lse) = (Vec::new(), Vec::new());
        self.each_row(|_, h, scores| {
            let sum = scores.iter().map(|(_, s)| s.exp()).sum::<f64>() + self.sinks[h].exp();
            let value = |c: usize| scores.iter().map(|&(j, s)| s.exp() / sum * self.qkv[self.value(j, h) + c]).sum();
            o.extend((0..self.heads.dim).map(value).collect::<Vec<f64>>());
            lse.push(sum.ln());
        });
        (o, lse)
    }

    /// The gradients of qkv and of the sinks, from that of o.
    pub fn backward(&self, d_o: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let (mut d_qkv, mut d_sinks) = (vec![0.0; self.qkv.len()], vec![0.0; self.sinks.len()]);
        let (d, scale) = (self.heads.dim, 1.0 / (self.heads.dim as f64).sqrt());
        self.each_row(|i, h, scores| {
            let d_o = &d_o[(i * self.heads.query + h) * d..][..d];
            let sum = scores.iter().map(|(_, s)| s.exp()).sum::<f64>() + self.sinks[h].exp();
            let dp = |j: usize| (0..d).map(|c| d_o[c] * self.qkv[self.value(j, h) + c]).sum::<f64>();
            let row: f64 = scores.iter().map(|&(j, s)| s.exp() / sum * dp(j)).sum();
            d_sinks[h] -= self.sinks[h].exp() / sum * row;
            let q = i * self.heads.row() + h * d;
            for &(j, s) in scores {
                let p = s.exp() / sum;
                let ds = p * (dp(j) - row) * scale;
                for c in 0..d {
                    d_qkv[q + c] += ds * self.qkv[self.key(j, h) + c];
                    d_qkv[self.key(j, h) + c] += ds * self.qkv[q + c];
                    d_qkv[self.value(j, h) + c] += p * d_o[c];
                }
            }
        });
        (d_qkv, d_sinks)
    }

    /// `see(row, head, [(row of the key, score)])` for every row and head.
    fn each_row(&self, mut see: impl FnMut(usize, usize, &[(usize, f64)])) {
        let (d, mut first) = (self.heads.dim, 0);
        for length in self.lengths {
            for i in 0..*length {
                for h in 0..self.heads.query {
                    let q = &self.qkv[(first + i) * self.heads.row() + h * d..][..d];
                    let dot = |j: usize| q.iter().zip(&self.qkv[self.key(j, h)..]).map(|(q, k)| q * k).sum::<f64>();
                    let visible = (0..=i).filter(|j| i - j < self.window).map(|j| first + j);
                    see(first + i, h, &visible.map(|j| (j, dot(j) / (d as f64).sqrt())).collect::<Vec<_>>());
                }
            }
            first += length;
        }
    }

    /// Where the key in `row` of a query head lies.
    fn key(&self, row: usize, head: usize) -> usize {
        let Heads { query, kv, dim } = self.heads;
        row * self.heads.row() + (query + head / (query / kv)) * dim
    }

    /// Where the value lies.
    fn value(&self, row: usize, head: usize) -> usize {
        self.key(row, head) + self.heads.kv * self.heads.dim
    }
}
