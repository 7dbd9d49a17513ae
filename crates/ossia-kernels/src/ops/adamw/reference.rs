//! The slow truth, in f64: one element over many steps, from its gradients.

use super::Settings;

pub fn element(mut p: f64, gradients: &[f64], s: &Settings) -> f64 {
    let (b1, b2) = (f64::from(s.betas.0), f64::from(s.betas.1));
    let (lr, eps, decay) = (f64::from(s.lr), f64::from(s.eps), f64::from(s.decay));
    let (mut m, mut v) = (0.0, 0.0);
    for (t, g) in (1..).zip(gradients) {
        let g = g * f64::from(s.scale);
        m = b1 * m + (1.0 - b1) * g;
        v = b2 * v + (1.0 - b2) * g * g;
        let by = m / (1.0 - b1.powi(t)) / ((v / (1.0 - b2.powi(t))).sqrt() + eps);
        p -= lr * (by + decay * p);
    }
    p
}
