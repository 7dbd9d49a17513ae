//! A row's squares are added in eight lanes, then pairwise; plain Rust vectorises well.

use super::Norm;
use crate::Runtime;
use crate::cpu::disjoint::Disjoint;

pub fn forward(runtime: &Runtime, x: &[f32], norm: &Norm, y: &mut [f32]) {
    let d = norm.weight.len();
    let y = Disjoint::new(y);
    runtime.pool.run_ranges(x.len() / d, (1 << 14) / d + 1, |rows, _| {
        for row in rows {
            let x = &x[row * d..(row + 1) * d];
            // SAFETY: rows of one run do not overlap.
            let y = unsafe { y.part(row * d..(row + 1) * d) };
            let scale = 1.0 / (sum_of_squares(x) / d as f32 + norm.eps).sqrt();
            for i in 0..d {
                y[i] = x[i] * scale * norm.weight[i];
            }
        }
    });
}

fn sum_of_squares(x: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 8];
    let (eights, rest) = x.as_chunks::<8>();
    for eight in eights {
        for j in 0..8 {
            lanes[j] += eight[j] * eight[j];
        }
    }
    for (lane, v) in lanes.iter_mut().zip(rest) {
        *lane += v * v;
    }
    let four = [lanes[0] + lanes[4], lanes[1] + lanes[5], lanes[2] + lanes[6], lanes[3] + lanes[7]];
    (four[0] + four[2]) + (four[1] + four[3])
}
