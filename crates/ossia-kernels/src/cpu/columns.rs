//! Sums over the rows of a matrix: the gradients of biases and of norms.
//!
//! A column's sum is one chain over the rows, ascending, added to what was there; a task is some columns of one matrix.

use super::gemm::View;
use crate::Runtime;
use crate::cpu::disjoint::Disjoint;
use crate::cpu::lanes::{LANES, fma, versions};

/// Columns of a task.
const COLUMNS: usize = 4 * LANES;

/// out[j * stride + offset] += sum over rows i of weights[i] rows[i][j].
pub struct ColumnSum<'a> {
    /// [M, N].
    pub rows: View<'a>,
    /// [M], or nothing for ones.
    pub weights: Option<&'a [f32]>,
    /// The sums.
    pub out: &'a Disjoint<'a, f32>,
    /// Where the first sum goes.
    pub offset: usize,
    /// From one sum to the next.
    pub stride: usize,
}

/// Runs all sums. No two of them may write the same elements.
pub fn add(runtime: &Runtime, sums: &[ColumnSum]) {
    let tasks: Vec<(usize, usize)> = sums
        .iter()
        .enumerate()
        .flat_map(|(which, sum)| (0..sum.rows.cols).step_by(COLUMNS).map(move |first| (which, first)))
        .collect();
    runtime.pool.run(tasks.len(), &|task, _| {
        let (which, first) = tasks[task];
        let sum = &sums[which];
        let mut acc = [0.0; COLUMNS];
        let width = COLUMNS.min(sum.rows.cols - first);
        columns(runtime.isa, sum, first, width, &mut acc);
        for (j, value) in acc[..width].iter().enumerate() {
            let at = sum.offset + (first + j) * sum.stride;
            // SAFETY: a column belongs to one task.
            unsafe { sum.out.part(at..at + 1)[0] += value };
        }
    });
}

versions! {
    fn columns(sum: &ColumnSum, first: usize, width: usize, acc: &mut [f32; COLUMNS]) = columns_body
}

#[inline(always)]
fn columns_body<const FMA: bool>(sum: &ColumnSum, first: usize, width: usize, acc: &mut [f32; COLUMNS]) {
    let View { data, rows, stride, offset, .. } = sum.rows;
    for i in 0..rows {
        let row = &data[offset + i * stride + first..][..width];
        let weight = sum.weights.map_or(1.0, |w| w[i]);
        if let Ok(row) = <&[f32; COLUMNS]>::try_from(row) {
            for j in 0..COLUMNS {
                acc[j] = fma::<FMA>(weight, row[j], acc[j]);
            }
        } else {
            for (acc, v) in acc.iter_mut().zip(row) {
                *acc = fma::<FMA>(weight, *v, *acc);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Numbers, close, runtimes};

    #[test]
    fn sums_equal_a_plain_loop() {
        let mut numbers = Numbers(61);
        for runtime in runtimes() {
            for (rows, cols) in [(1, 1), (9, 64), (300, 130)] {
                let (m, w, old) = (numbers.vec(rows * cols), numbers.vec(rows), numbers.vec(2 * cols));
                let mut out = old.clone();
                let parts = Disjoint::new(&mut out);
                let rows = View::new(&m, cols);
                add(
                    &runtime,
                    &[
                        ColumnSum { rows, weights: Some(&w), out: &parts, offset: 0, stride: 2 },
                        ColumnSum { rows, weights: None, out: &parts, offset: 1, stride: 2 },
                    ],
                );
                let sum = |j: usize, weight: &dyn Fn(usize) -> f64| {
                    (0..rows.rows).map(|i| weight(i) * f64::from(m[i * cols + j])).sum::<f64>()
                };
                let want: Vec<f64> = (0..cols)
                    .flat_map(|j| [sum(j, &|i| f64::from(w[i])), sum(j, &|_| 1.0)])
                    .zip(&old)
                    .map(|(v, old)| v + f64::from(*old))
                    .collect();
                close(&out, &want, 3e-6, "columns");
            }
        }
    }
}
