//! A task is some tokens' rows; backward, where tokens share rows of the table, some of its columns.

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

/// Columns of a task.
const COLUMNS: usize = 32;

pub fn backward(runtime: &Runtime, tokens: &[u32], dx: &[f32], cols: usize, d_table: &mut [f32]) {
    let d_table = Disjoint::new(d_table);
    runtime.pool.run_ranges(cols, COLUMNS, |range, _| {
        for (&token, dx) in tokens.iter().zip(dx.chunks_exact(cols)) {
            let at = token as usize * cols;
            // SAFETY: the columns belong to this task.
            let out = unsafe { d_table.part(at + range.start..at + range.end) };
            out.iter_mut().zip(&dx[range.clone()]).for_each(|(d, v)| *d += v);
        }
    });
}
