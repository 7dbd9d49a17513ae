//! A task is one token's row.

use crate::cpu::disjoint::Disjoint;
use crate::{Matrix, Runtime};

pub fn forward(runtime: &Runtime, tokens: &[u32], table: &Matrix, x: &mut [f32]) {
    let cols = table.cols();
    let x = Disjoint::new(x);
    runtime.pool.run_ranges(tokens.len(), 16, |range, _| {
        for t in range {
            // SAFETY: one row for each token.
            table.row_into(tokens[t] as usize, unsafe { x.part(t * cols..(t + 1) * cols) });
        }
    });
}
