//! The slow truth, in f64.

use super::Norm;

pub fn forward(x: &[f32], norm: &Norm) -> Vec<f64> {
    let rows = x.chunks_exact(norm.weight.len());
    rows.flat_map(|row| {
        let mean = row.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / row.len() as f64;
        let scale = 1.0 / (mean + f64::from(norm.eps)).sqrt();
        row.iter().zip(&norm.weight).map(move |(&x, &g)| f64::from(x) * scale * f64::from(g))
    })
    .collect()
}
