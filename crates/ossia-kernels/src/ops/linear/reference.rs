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
