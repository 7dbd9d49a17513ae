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
