//! The slow truth: cos and sin in f64 of the f32 angle, as the published references have it.

use super::Rope;

/// One head of one token.
pub fn rotate(head: &[f64], rope: &Rope, position: usize) -> Vec<f64> {
    let half = head.len() / 2;
    let mut out = vec![0.0; head.len()];
    for i in 0..half {
        let angle = f64::from(position as f32 * rope.inv_freq[i]);
        let c = f64::from(rope.concentration);
        let (a, b) = (head[i], head[i + half]);
        out[i] = c * (a * angle.cos() - b * angle.sin());
        out[i + half] = c * (b * angle.cos() + a * angle.sin());
    }
    out
}

/// The gradient of one head before the rotation.
pub fn backward(d: &[f64], rope: &Rope, position: usize) -> Vec<f64> {
    let half = d.len() / 2;
    let mut out = vec![0.0; d.len()];
    for i in 0..half {
        let angle = f64::from(position as f32 * rope.inv_freq[i]);
        let c = f64::from(rope.concentration);
        out[i] = c * (d[i] * angle.cos() + d[i + half] * angle.sin());
        out[i + half] = c * (d[i + half] * angle.cos() - d[i] * angle.sin());
    }
    out
}
