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

/// y with plain numbers.
pub fn plain(x: &[f64], g: &[f64], eps: f64) -> Vec<f64> {
    let rows = x.chunks_exact(g.len());
    rows.flat_map(|row| {
        let scale = 1.0 / (row.iter().map(|v| v * v).sum::<f64>() / g.len() as f64 + eps).sqrt();
        row.iter().zip(g).map(move |(x, g)| x * scale * g)
    })
    .collect()
}

/// dx, dg.
pub fn backward(x: &[f64], g: &[f64], eps: f64, dy: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let d = g.len();
    let (mut dx, mut dg) = (Vec::new(), vec![0.0; d]);
    for (x, dy) in x.chunks_exact(d).zip(dy.chunks_exact(d)) {
        let r = 1.0 / (x.iter().map(|v| v * v).sum::<f64>() / d as f64 + eps).sqrt();
        let mean = (0..d).map(|i| dy[i] * g[i] * x[i]).sum::<f64>() / d as f64;
        for i in 0..d {
            dg[i] += dy[i] * x[i] * r;
            dx.push(r * dy[i] * g[i] - x[i] * r.powi(3) * mean);
        }
    }
    (dx, dg)
}
