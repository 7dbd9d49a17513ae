//! Inference: u = s A x for the rows of every adapter, then tiles of outputs with all of an adapter's rows.

use super::LowRank;
use crate::Runtime;
use crate::arena::Slice;
use crate::cpu::disjoint::Disjoint;
use crate::cpu::lanes::{dot, versions};

/// Outputs of a task.
const OUTPUTS: usize = 128;

/// Numbers of u that a task makes.
const PRODUCTS: usize = 4;

/// Some rows of x that go through one [`LowRank`].
pub struct Share<'a> {
    /// The adapter's part.
    pub low_rank: &'a LowRank,
    /// Rows of x and of y.
    pub rows: &'a [u32],
}

/// y(row, outputs) += s B A x(row) for all shares, where x is [T, K] and y [T, stride].
///
/// No two shares may have a row and an output in common.
pub fn add(runtime: &Runtime, x: &[f32], shares: &[Share], y: &mut [f32], stride: usize) -> crate::Result<()> {
    let mut ends = Vec::with_capacity(shares.len());
    let mut len = 0;
    for share in shares {
        len += share.rows.len() * share.low_rank.rank;
        ends.push(len);
    }
    let mut u = runtime.arena.take::<f32>(len)?;
    make_u(runtime, x, shares, &ends, &mut u);
    let tasks: Vec<(usize, usize)> = shares
        .iter()
        .enumerate()
        .flat_map(|(which, share)| share.low_rank.outputs().step_by(OUTPUTS).map(move |first| (which, first)))
        .collect();
    let y = Disjoint::new(y);
    runtime.pool.run(tasks.len(), &|task, _| {
        let (which, first) = tasks[task];
        let Share { low_rank, rows } = &shares[which];
        let (rank, outputs) = (low_rank.rank, low_rank.outputs());
        let own = first..(first + OUTPUTS).min(outputs.end);
        let b = &low_rank.b[(first - outputs.start) * rank..];
        let u = &u[ends[which] - rows.len() * rank..ends[which]];
        for (&row, u) in rows.iter().zip(u.chunks_exact(rank)) {
            let at = row as usize * stride;
            // SAFETY: a row's outputs belong to one share, and these of them to this task.
            let y = unsafe { y.part(at + own.start..at + own.end) };
            add_products(runtime.isa, b, rank, u, y);
        }
    });
    Ok(())
}

/// u = s A x, share by share.
fn make_u(runtime: &Runtime, x: &[f32], shares: &[Share], ends: &[usize], u: &mut Slice<f32>) {
    let out = Disjoint::new(u);
    let total = ends.last().copied().unwrap_or(0);
    runtime.pool.run_ranges(total, PRODUCTS, |range, _| {
        for i in range {
            let which = ends.partition_point(|&end| end <= i);
            let Share { low_rank, rows } = &shares[which];
            let (rank, k) = (low_rank.rank, low_rank.cols());
            let within = i + rows.len() * rank - ends[which];
            let row = rows[within / rank] as usize;
            // SAFETY: one number for each i.
            let u = unsafe { out.part(i..i + 1) };
            let a = &low_rank.a[within % rank * k..][..k];
            products(runtime.isa, a, &x[row * k..][..k], low_rank.scale, u);
        }
    });
}

versions! {
    /// out[j] = scale (a row j · x), rows as long as x, as many as `out`.
    pub fn products(a: &[f32], x: &[f32], scale: f32, out: &mut [f32]) = products_body
}

#[inline(always)]
fn products_body<const FMA: bool>(a: &[f32], x: &[f32], scale: f32, out: &mut [f32]) {
    for (out, a) in out.iter_mut().zip(a.chunks_exact(x.len())) {
        *out = scale * dot::<FMA>(a, x);
    }
}

versions! {
    /// out[j] += b row j · u, rows `stride` apart, as many as `out`.
    pub fn add_products(b: &[f32], stride: usize, u: &[f32], out: &mut [f32]) = add_products_body
}

#[inline(always)]
fn add_products_body<const FMA: bool>(b: &[f32], stride: usize, u: &[f32], out: &mut [f32]) {
    for (j, out) in out.iter_mut().enumerate() {
        *out += dot::<FMA>(&b[j * stride..][..u.len()], u);
    }
}
