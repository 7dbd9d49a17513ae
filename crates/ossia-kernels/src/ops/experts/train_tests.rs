//! Holds training's two directions to the reference, and the reference to differences.

use super::reference::{self, Plain};
use super::*;
use crate::arena::Slice;
use crate::kv::PageTable;
use crate::testing::{Numbers, close, equals_differences, f32s, f64s, runtimes, same_bits, tensor, training_step};
use crate::{Bytes, DType, Runtime};

pub(super) const LIMIT: f64 = 7.0;
pub(super) const ALPHA: f64 = 1.702;

/// Biases spread so far that units lie on both sides of both clamps.
pub(super) fn plain(numbers: &mut Numbers, d: usize, units: usize) -> Plain {
    let mut wide = |n| f64s(numbers, n).iter().map(|v| 9.0 * v).collect();
    let (gate_bias, up_bias) = (wide(units), wide(units));
    Plain {
        gate: f64s(numbers, units * d),
        up: f64s(numbers, units * d),
        down: f64s(numbers, units * d),
        gate_bias,
        up_bias,
        down_bias: f64s(numbers, d),
    }
}

pub(super) fn zeros(like: &mut Plain) -> Plain {
    let [gate, up, down, gate_bias, up_bias, down_bias] = like.parts().map(|part| vec![0.0; part.len()]);
    Plain { gate, up, down, gate_bias, up_bias, down_bias }
}

#[test]
fn the_reference_gradients_equal_differences() {
    let mut numbers = Numbers(81);
    let (d, units) = (3, 16);
    let mut e = plain(&mut numbers, d, units);
    let (t, dy, w) = (f64s(&mut numbers, d), f64s(&mut numbers, d), 0.7);
    // Units beyond both limits, inside of both, and near the edges.
    (e.gate_bias[0], e.gate_bias[1], e.up_bias[2], e.up_bias[3]) = (12.0, -12.0, 12.0, -12.0);
    let loss = |t: &[f64], e: &Plain, w: f64| -> f64 {
        reference::plain(t, e, LIMIT, ALPHA).iter().zip(&dy).map(|(o, c)| w * o * c).sum()
    };
    let (mut grad, mut dt) = (zeros(&mut e), vec![0.0; d]);
    let dw = reference::backward(&t, &e, (LIMIT, ALPHA), w, &dy, &mut grad, &mut dt);
    equals_differences(&[dw], &[w], "dw", |w| loss(&t, &e, w[0]));
    equals_differences(&dt, &t, "dt", |t| loss(t, &e, w));
    for part in 0..6 {
        let values = e.parts()[part].clone();
        let gradient = grad.parts()[part].clone();
        equals_differences(&gradient, &values, &format!("part {part}"), |v| {
            e.parts()[part].copy_from_slice(v);
            let value = loss(&t, &e, w);
            e.parts()[part].copy_from_slice(&values);
            value
        });
    }
}

/// At the limits themselves the unit counts as open; just beyond them as closed.
#[test]
fn the_edges_of_the_clamps() {
    let e = |bias: f64| Plain {
        gate: vec![0.0],
        up: vec![0.0],
        down: vec![1.0],
        gate_bias: vec![bias],
        up_bias: vec![bias],
        down_bias: vec![0.0],
    };
    let gradient = |bias: f64| {
        let mut e = e(bias);
        let mut grad = zeros(&mut e);
        reference::backward(&[0.0], &e, (LIMIT, ALPHA), 1.0, &[1.0], &mut grad, &mut [0.0]);
        (grad.gate_bias[0] != 0.0, grad.up_bias[0] != 0.0)
    };
    assert_eq!([7.0, 7.001, -7.0, -7.001].map(gradient), [(true, true), (false, false), (true, true), (true, false)]);
}

fn matrix(rows: usize, cols: usize, values: &[f64]) -> Matrix {
    let bytes = f32s(values).iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    Matrix::new(DType::F32, rows, cols, Bytes::new(bytes)).unwrap()
}

pub(super) fn experts(all: &[Plain], d: usize, units: usize) -> Experts {
    let expert = |e: &Plain| Expert {
        gate: matrix(units, d, &e.gate),
        up: matrix(units, d, &e.up),
        down: matrix(d, units, &e.down),
        gate_bias: f32s(&e.gate_bias),
        up_bias: f32s(&e.up_bias),
        down_bias: f32s(&e.down_bias),
    };
    Experts::new(all.iter().map(expert).collect(), LIMIT as f32, ALPHA as f32)
}

pub(super) fn routes(runtime: &Runtime, k: usize, ids: &[u32]) -> Routes {
    let mut experts: Slice<u32> = runtime.arena.take(ids.len()).unwrap();
    let mut weights: Slice<f32> = runtime.arena.take(ids.len()).unwrap();
    experts.copy_from_slice(ids);
    weights.iter_mut().enumerate().for_each(|(i, w)| *w = 0.75 - 0.25 * (i % k) as f32);
    Routes { per_token: k, experts, weights, device: None }
}

/// What one run gives: y, dt, dw and each expert's gradients in the order of `Plain::parts`.
struct Run {
    y: Vec<f32>,
    dt: Vec<f32>,
    dw: Vec<f32>,
    grads: Vec<[Vec<f32>; 6]>,
}

fn run(runtime: &Runtime, experts: &Experts, ids: &[u32], t: &[f64], dy: &[f64], units: usize) -> Run {
    let none = PageTable::default();
    let (d, tokens) = (t.len() / (ids.len() / 2), ids.len() / 2);
    let mut step = training_step(runtime, &[tokens], &none);
    let routes = routes(runtime, 2, ids);
    let (t, dy) = (tensor(runtime, tokens, d, &f32s(t)), tensor(runtime, tokens, d, &f32s(dy)));
    let mut y = tensor(runtime, tokens, d, &vec![0.0; tokens * d]);
    let hidden = add_forward_saving(&mut step, &t, &routes, experts, &mut y).unwrap();
    let mut store: Vec<[Vec<f32>; 4]> =
        experts.experts.iter().map(|_| [2 * units * d, 2 * units, units * d, d].map(|n| vec![0.0; n])).collect();
    let experts_grad = store
        .iter_mut()
        .map(|[gate_up, gate_up_bias, down, down_bias]| ExpertGrad { gate_up, gate_up_bias, down, down_bias })
        .collect();
    let mut grads = ExpertsGrad { experts: experts_grad, adapter: None };
    let mut dt = tensor(runtime, tokens, d, &vec![f32::NAN; tokens * d]);
    let mut dw = tensor(runtime, tokens, 2, &vec![f32::NAN; ids.len()]);
    backward(&mut step, &t, &routes, experts, Some(hidden), &dy, &mut grads, &mut dt, &mut dw).unwrap();
    let part = |v: &[f32], width: usize, half: usize| {
        v.chunks_exact(width).skip(half).step_by(2).flatten().copied().collect::<Vec<f32>>()
    };
    let split = |[gate_up, bias, down, down_bias]: &[Vec<f32>; 4]| {
        let halves = [part(gate_up, d, 0), part(gate_up, d, 1), down.clone()];
        let [gate, up, down] = halves;
        [gate, up, down, part(bias, 1, 0), part(bias, 1, 1), down_bias.clone()]
    };
    Run {
        y: y.host().to_vec(),
        dt: dt.host().to_vec(),
        dw: dw.host().to_vec(),
        grads: store.iter().map(split).collect(),
    }
}

#[test]
fn both_directions_equal_the_reference() {
    let mut numbers = Numbers(82);
    for (tokens, d, units) in [(1, 32, 32), (5, 64, 32), (150, 32, 96)] {
        let mut all: Vec<Plain> = (0..4).map(|_| plain(&mut numbers, d, units)).collect();
        let (t, dy) = (f64s(&mut numbers, tokens * d), f64s(&mut numbers, tokens * d));
        // Expert 2 gets no token.
        let ids: Vec<u32> = (0..tokens).flat_map(|_| if numbers.below(3) == 0 { [1, 0] } else { [3, 1] }).collect();
        let (mut y, mut dt, mut dw) = (vec![0.0; tokens * d], vec![0.0; tokens * d], Vec::new());
        let mut grads: Vec<Plain> = all.iter_mut().map(zeros).collect();
        for (pair, &id) in ids.iter().enumerate() {
            let rows = pair / 2 * d..(pair / 2 + 1) * d;
            let (e, w) = (&all[id as usize], 0.75 - 0.25 * (pair % 2) as f64);
            let out = reference::plain(&t[rows.clone()], e, LIMIT, ALPHA);
            y[rows.clone()].iter_mut().zip(out).for_each(|(y, o)| *y += w * o);
            let grad = &mut grads[id as usize];
            dw.push(reference::backward(
                &t[rows.clone()],
                e,
                (LIMIT, ALPHA),
                w,
                &dy[rows.clone()],
                grad,
                &mut dt[rows],
            ));
        }
        let experts = experts(&all, d, units);
        let mut first: Vec<(crate::cpu::isa::Isa, Vec<f32>)> = Vec::new();
        for runtime in runtimes() {
            let got = run(&runtime, &experts, &ids, &t, &dy, units);
            close(&got.y, &y, 1e-5, "y");
            close(&got.dt, &dt, 1e-5, "dt");
            close(&got.dw, &dw, 1e-5, "dw");
            for (got, want) in got.grads.iter().zip(&mut grads) {
                got.iter().zip(want.parts()).for_each(|(got, want)| close(got, want, 1e-5, "gradients"));
            }
            match first.iter().find(|(isa, _)| *isa == runtime.isa) {
                Some((_, bits)) => same_bits(&got.dt, bits, "threads"),
                None => first.push((runtime.isa, got.dt)),
            }
        }
    }
}
