//! The slow truth, in f64, all logits at once.

/// sum of w (nll + z lse²), and nll of each row.
pub fn loss(t: &[f64], u: &[f64], d: usize, ids: &[usize], weights: &[f64], z: f64) -> (f64, Vec<f64>) {
    let mut total = 0.0;
    let mut nll = Vec::new();
    for (i, t) in t.chunks_exact(d).enumerate() {
        let (logits, lse) = logits(t, u, d);
        nll.push(lse - logits[ids[i]]);
        total += weights[i] * (nll[i] + z * lse * lse);
    }
    (total, nll)
}

fn logits(t: &[f64], u: &[f64], d: usize) -> (Vec<f64>, f64) {
    let logits: Vec<f64> = u.chunks_exact(d).map(|u| u.iter().zip(t).map(|(u, t)| u * t).sum()).collect();
    let max = logits.iter().fold(f64::MIN, |m, &v| m.max(v));
    let lse = max + logits.iter().map(|v| (v - max).exp()).sum::<f64>().ln();
    (logits, lse)
}

/// dt, dU.
pub fn backward(t: &[f64], u: &[f64], d: usize, ids: &[usize], weights: &[f64], z: f64) -> (Vec<f64>, Vec<f64>) {
    let (mut dt, mut du) = (vec![0.0; t.len()], vec![0.0; u.len()]);
    for (i, row) in t.chunks_exact(d).enumerate() {
        let (logits, lse) = logits(row, u, d);
        for (v, logit) in logits.iter().enumerate() {
            let p = (logit - lse).exp();
            let dl = weights[i] * (p - f64::from(v == ids[i]) + 2.0 * z * lse * p);
            for c in 0..d {
                dt[i * d + c] += dl * u[v * d + c];
                du[v * d + c] += dl * row[c];
            }
        }
    }
    (dt, du)
}
