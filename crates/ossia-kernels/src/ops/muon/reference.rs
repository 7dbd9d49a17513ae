//! The slow truth, in f64.

use super::{COEFFICIENTS, ROUNDS};

/// Newton-Schulz of u [rows, cols].
pub fn orthogonal(u: &[f64], rows: usize, cols: usize) -> Vec<f64> {
    if rows > cols {
        let turned = transpose(u, rows, cols);
        return transpose(&orthogonal(&turned, cols, rows), cols, rows);
    }
    let (a, b, c) = (f64::from(COEFFICIENTS.0), f64::from(COEFFICIENTS.1), f64::from(COEFFICIENTS.2));
    let norm = u.iter().map(|v| v * v).sum::<f64>().sqrt() + 1e-7;
    let mut x: Vec<f64> = u.iter().map(|v| v / norm).collect();
    for _ in 0..ROUNDS {
        let square = product(&x, &transpose(&x, rows, cols), rows, cols, rows);
        let fourth = product(&square, &square, rows, rows, rows);
        let mixed: Vec<f64> = square.iter().zip(&fourth).map(|(s, f)| b * s + c * f).collect();
        let turned = product(&mixed, &x, rows, rows, cols);
        x.iter_mut().zip(turned).for_each(|(x, t)| *x = a * *x + t);
    }
    x
}

pub fn transpose(m: &[f64], rows: usize, cols: usize) -> Vec<f64> {
    (0..cols * rows).map(|i| m[i % rows * cols + i / rows]).collect()
}

/// a [n, k] b [k, m].
pub fn product(a: &[f64], b: &[f64], n: usize, k: usize, m: usize) -> Vec<f64> {
    let element = |i: usize, j: usize| (0..k).map(|l| a[i * k + l] * b[l * m + j]).sum();
    (0..n * m).map(|at| element(at / m, at % m)).collect()
}
