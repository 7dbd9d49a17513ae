//! The slow truth, in f64, with the weights' exact values.

use super::Linear;

pub fn forward(x: &[f32], linear: &Linear) -> Vec<f64> {
    let rows: Vec<(Vec<f32>, f64)> = linear
        .parts()
        .iter()
        .flat_map(|part| {
            (0..part.weight.rows()).map(|r| {
                let mut row = vec![0.0; linear.cols()];
                part.weight.row_into(r, &mut row);
                (row, part.bias.as_ref().map_or(0.0, |b| f64::from(b[r])))
            })
        })
        .collect();
    let dot = |x: &[f32], w: &[f32]| x.iter().zip(w).map(|(&x, &w)| f64::from(x) * f64::from(w)).sum::<f64>();
    x.chunks_exact(linear.cols()).flat_map(|x| rows.iter().map(move |(w, b)| dot(x, w) + b)).collect()
}

/// dx, dW, db of y = W x + b with plain numbers: x [T, K], W [N, K], dy [T, N].
pub fn backward(x: &[f64], w: &[f64], dy: &[f64], n: usize, k: usize) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    let tokens = x.len() / k;
    let (mut dx, mut dw, mut db) = (vec![0.0; x.len()], vec![0.0; w.len()], vec![0.0; n]);
    for t in 0..tokens {
        for r in 0..n {
            let d = dy[t * n + r];
            db[r] += d;
            for c in 0..k {
                dx[t * k + c] += d * w[r * k + c];
                dw[r * k + c] += d * x[t * k + c];
            }
        }
    }
    (dx, dw, db)
}

/// y = W x + b with plain numbers.
pub fn plain(x: &[f64], w: &[f64], b: &[f64], k: usize) -> Vec<f64> {
    let row = |x: &[f64], r: usize| x.iter().zip(&w[r * k..(r + 1) * k]).map(|(x, w)| x * w).sum::<f64>() + b[r];
    x.chunks_exact(k).flat_map(|x| (0..b.len()).map(move |r| row(x, r))).collect()
}
