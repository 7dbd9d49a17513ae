//! The slow truth, in f64, token by token.

use super::{Expert, Experts};
use crate::Matrix;
use crate::ops::router::Routes;

pub fn add_forward(t: &[f32], routes: &Routes, experts: &Experts, x: &[f32]) -> Vec<f64> {
    let d = experts.experts[0].gate.cols();
    let k = routes.per_token;
    let token = |i: usize| {
        let t: Vec<f64> = t[i * d..(i + 1) * d].iter().map(|&v| f64::from(v)).collect();
        let mut y: Vec<f64> = x[i * d..(i + 1) * d].iter().map(|&v| f64::from(v)).collect();
        for slot in i * k..(i + 1) * k {
            let out = expert(&t, &experts.experts[routes.experts[slot] as usize], experts);
            y.iter_mut().zip(out).for_each(|(y, o)| *y += f64::from(routes.weights[slot]) * o);
        }
        y
    };
    (0..t.len() / d).flat_map(token).collect()
}

fn expert(t: &[f64], e: &Expert, experts: &Experts) -> Vec<f64> {
    let (limit, alpha) = (f64::from(experts.limit), f64::from(experts.alpha));
    let gate = apply(&e.gate, &e.gate_bias, t);
    let up = apply(&e.up, &e.up_bias, t);
    let act: Vec<f64> = gate
        .iter()
        .zip(&up)
        .map(|(&g, &u)| {
            let g = g.min(limit);
            g / (1.0 + (-alpha * g).exp()) * (u.clamp(-limit, limit) + 1.0)
        })
        .collect();
    apply(&e.down, &e.down_bias, &act)
}

fn apply(m: &Matrix, bias: &[f32], x: &[f64]) -> Vec<f64> {
    let row = |r: usize| {
        let mut w = vec![0.0; m.cols()];
        m.row_into(r, &mut w);
        w.iter().zip(x).map(|(&w, x)| f64::from(w) * x).sum::<f64>() + f64::from(bias[r])
    };
    (0..m.rows()).map(row).collect()
}

/// One expert with plain numbers, gate and up apart.
pub struct Plain {
    pub gate: Vec<f64>,
    pub up: Vec<f64>,
    pub down: Vec<f64>,
    pub gate_bias: Vec<f64>,
    pub up_bias: Vec<f64>,
    pub down_bias: Vec<f64>,
}

impl Plain {
    /// All numbers, in the order of the fields.
    pub fn parts(&mut self) -> [&mut Vec<f64>; 6] {
        let Plain { gate, up, down, gate_bias, up_bias, down_bias } = self;
        [gate, up, down, gate_bias, up_bias, down_bias]
    }

    /// Gate and up before the clamps.
    fn inner(&self, t: &[f64]) -> (Vec<f64>, Vec<f64>) {
        (product(&self.gate, &self.gate_bias, t), product(&self.up, &self.up_bias, t))
    }
}

fn product(w: &[f64], b: &[f64], x: &[f64]) -> Vec<f64> {
    let rows = w.chunks_exact(x.len()).zip(b);
    rows.map(|(w, b)| w.iter().zip(x).map(|(w, x)| w * x).sum::<f64>() + b).collect()
}

/// D_e act + c_e of one token.
pub fn plain(t: &[f64], e: &Plain, limit: f64, alpha: f64) -> Vec<f64> {
    let (gate, up) = e.inner(t);
    let act: Vec<f64> = gate.iter().zip(&up).map(|(g, u)| activation(*g, *u, limit, alpha)).collect();
    product(&e.down, &e.down_bias, &act)
}

fn activation(gate: f64, up: f64, limit: f64, alpha: f64) -> f64 {
    let g = gate.min(limit);
    g / (1.0 + (-alpha * g).exp()) * (up.clamp(-limit, limit) + 1.0)
}

/// One token with one expert and weight w: adds to `grad` and dt, gives dw.
#[allow(clippy::too_many_arguments)]
pub fn backward(
    t: &[f64],
    e: &Plain,
    (limit, alpha): (f64, f64),
    w: f64,
    dy: &[f64],
    grad: &mut Plain,
    dt: &mut [f64],
) -> f64 {
    let (gate, up) = e.inner(t);
    let (d, units) = (t.len(), gate.len());
    let mut dw = dy.iter().zip(&e.down_bias).map(|(d, c)| d * c).sum::<f64>();
    (0..dy.len()).for_each(|r| grad.down_bias[r] += w * dy[r]);
    for j in 0..units {
        let act = activation(gate[j], up[j], limit, alpha);
        let back: f64 = (0..dy.len()).map(|r| dy[r] * e.down[r * units + j]).sum();
        dw += act * back;
        (0..dy.len()).for_each(|r| grad.down[r * units + j] += w * dy[r] * act);
        let (g, u, da) = (gate[j].min(limit), up[j].clamp(-limit, limit), w * back);
        let s = 1.0 / (1.0 + (-alpha * g).exp());
        let dg = if gate[j] <= limit { da * (u + 1.0) * s * (1.0 + alpha * g * (1.0 - s)) } else { 0.0 };
        let du = if up[j].abs() <= limit { da * g * s } else { 0.0 };
        grad.gate_bias[j] += dg;
        grad.up_bias[j] += du;
        for c in 0..d {
            grad.gate[j * d + c] += dg * t[c];
            grad.up[j * d + c] += du * t[c];
            dt[c] += dg * e.gate[j * d + c] + du * e.up[j * d + c];
        }
    }
    dw
}
