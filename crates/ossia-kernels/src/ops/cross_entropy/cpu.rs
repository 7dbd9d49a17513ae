//! Chunks of rows one after the other; a row's softmax is one thread's.

use super::Targets;
use crate::cpu::disjoint::Disjoint;
use crate::cpu::lanes::{LANES, Lanes, exp, sum, versions};
use crate::ops::linear::{self, Linear, LinearGrad, Write};
use crate::{Result, Runtime};

/// Logits that are held at once, unless that is very few rows: a panel of weights must serve many.
const LOGITS: usize = 1 << 20;

/// Rows of a chunk.
pub fn chunk_rows(vocab: usize) -> usize {
    (LOGITS / vocab).clamp(128, 1024)
}

pub fn backward(
    runtime: &Runtime,
    t: &[f32],
    (unembedding, adapter): (&Linear, Option<usize>),
    targets: Targets,
    grad: &mut LinearGrad,
    dt: &mut [f32],
) -> Result<Vec<f32>> {
    let (vocab, d) = (unembedding.rows(), unembedding.cols());
    let mut nll = vec![0.0; targets.ids.len()];
    let chunk = chunk_rows(vocab);
    let mut logits = runtime.arena.take::<f32>(chunk.min(nll.len()) * vocab)?;
    for first in (0..nll.len()).step_by(chunk) {
        let rows = first..(first + chunk).min(nll.len());
        let t = &t[rows.start * d..rows.end * d];
        let logits = &mut logits[..rows.len() * vocab];
        linear::apply_training(runtime, t, unembedding, adapter, logits)?;
        let part = Targets { ids: &targets.ids[rows.clone()], weights: &targets.weights[rows.clone()], ..targets };
        softmax_rows(runtime, logits, vocab, part, &mut nll[rows.clone()], true);
        let dt = &mut dt[rows.start * d..rows.end * d];
        linear::gradients(runtime, (t, logits), unembedding, adapter, grad, dt, Write::Set)?;
    }
    Ok(nll)
}

pub fn forward(
    runtime: &Runtime,
    t: &[f32],
    (unembedding, adapter): (&Linear, Option<usize>),
    ids: &[u32],
) -> Result<Vec<f32>> {
    let (vocab, d) = (unembedding.rows(), unembedding.cols());
    let mut nll = vec![0.0; ids.len()];
    let chunk = chunk_rows(vocab);
    let mut logits = runtime.arena.take::<f32>(chunk.min(nll.len()) * vocab)?;
    for first in (0..nll.len()).step_by(chunk) {
        let rows = first..(first + chunk).min(nll.len());
        let logits = &mut logits[..rows.len() * vocab];
        linear::apply_training(runtime, &t[rows.start * d..rows.end * d], unembedding, adapter, logits)?;
        let targets = Targets { ids: &ids[rows.clone()], weights: &[], z: 0.0 };
        softmax_rows(runtime, logits, vocab, targets, &mut nll[rows], false);
    }
    Ok(nll)
}

/// Fills `nll`, and turns logits into their gradients where that is wanted.
fn softmax_rows(
    runtime: &Runtime,
    logits: &mut [f32],
    vocab: usize,
    targets: Targets,
    nll: &mut [f32],
    gradient: bool,
) {
    let (logits, nll) = (Disjoint::new(logits), Disjoint::new(nll));
    runtime.pool.run_ranges(targets.ids.len(), (1 << 13) / vocab + 1, |range, _| {
        for i in range {
            let target = targets.ids[i] as usize;
            // SAFETY: rows of one run do not overlap.
            let (row, nll) = unsafe { (logits.part(i * vocab..(i + 1) * vocab), &mut nll.part(i..i + 1)[0]) };
            let logit = row[target];
            let (lse, inverse) = exponentials(runtime.isa, row);
            *nll = lse - logit;
            if gradient {
                let weight = targets.weights[i];
                let factor = inverse * (weight + 2.0 * weight * targets.z * lse);
                row.iter_mut().for_each(|v| *v *= factor);
                row[target] -= weight;
            }
        }
    });
}

versions! {
    /// exp(row - max) in place; the log-sum-exp and 1 / the sum of the new row.
    fn exponentials(row: &mut [f32]) -> (f32, f32) = exponentials_body
}

#[inline(always)]
fn exponentials_body<const FMA: bool>(row: &mut [f32]) -> (f32, f32) {
    let mut max = [f32::NEG_INFINITY; LANES];
    let (lanes, rest) = row.as_chunks_mut::<LANES>();
    for lanes in lanes.iter() {
        for i in 0..LANES {
            max[i] = if lanes[i] > max[i] { lanes[i] } else { max[i] };
        }
    }
    let max = max.iter().chain(rest.iter()).fold(f32::NEG_INFINITY, |m, &v| if v > m { v } else { m });
    let mut acc = [0.0; LANES];
    for lanes in lanes {
        *lanes = shifted_exp::<FMA>(lanes, max);
        for i in 0..LANES {
            acc[i] += lanes[i];
        }
    }
    if !rest.is_empty() {
        let mut last = [f32::NEG_INFINITY; LANES];
        last[..rest.len()].copy_from_slice(rest);
        let last = shifted_exp::<FMA>(&last, max);
        rest.copy_from_slice(&last[..rest.len()]);
        for i in 0..LANES {
            acc[i] += last[i];
        }
    }
    let total = sum(acc);
    (max + total.ln(), 1.0 / total)
}

#[inline(always)]
fn shifted_exp<const FMA: bool>(x: &Lanes, max: f32) -> Lanes {
    let mut shifted = *x;
    for v in &mut shifted {
        *v -= max;
    }
    exp::<FMA>(shifted)
}
