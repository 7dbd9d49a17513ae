//! Attention, router and experts beside the processor.

use super::*;
use crate::ops::attention::{self, Shape};
use crate::ops::experts::{self, Expert, ExpertGrad, Experts, ExpertsGrad};
use crate::ops::linear::{Linear, LinearGrad, Part};
use crate::ops::router::{self, Balance, Routes};

/// Documents that end anywhere, windows, groups of heads.
#[test]
fn attention() {
    let none = PageTable::default();
    let mut numbers = Numbers(41);
    for (heads, window, lengths) in [
        (Heads { query: 4, kv: 2, dim: 16 }, None, &[1, 70][..]),
        (Heads { query: 6, kv: 2, dim: 32 }, Some(20), &[150, 3, 65]),
        (Heads { query: 8, kv: 1, dim: 64 }, Some(128), &[200]),
        (Heads { query: 2, kv: 2, dim: 64 }, None, &[131]),
    ] {
        let tokens: usize = lengths.iter().sum();
        let (row, q) = (heads.row(), heads.query * heads.dim);
        let qkv: Vec<f32> = numbers.vec(tokens * row).iter().map(|v| 2.0 * v).collect();
        let d_o = numbers.vec(tokens * q);
        let shape = Shape { heads, window, layer: 0 };
        let made = both(27, &[(heads.query, true)], |case| {
            let [sinks] = case.vectors([0]);
            let (qkv, d_o) = (case.tensor(row, &qkv), case.tensor(q, &d_o));
            let mut d_qkv = case.poisoned(tokens, row);
            let gradient = std::mem::take(&mut case.gradients);
            let mut step = case.step(lengths, &none, &[], &[]);
            let (o, lse) = attention::forward_saving(&mut step, &qkv, &sinks, &shape).unwrap();
            let alone = attention::forward(&mut step, &qkv, &sinks, &shape).unwrap();
            same_bits(&values(&alone), &values(&o), "without what is saved");
            attention::backward(&step, &qkv, &sinks, &shape, &o, &lse, &d_o, &mut d_qkv, Some(gradient)).unwrap();
            vec![values(&o), values(&lse), values(&d_qkv)]
        });
        let Some((want, got)) = made else { return };
        let what = format!("{heads:?} {window:?} {lengths:?}");
        for (name, (want, got)) in ["o", "lse", "d_qkv", "d_sinks"].iter().zip(want.iter().zip(&got)) {
            near(got, want, 1e-2, &format!("{name} of {what}"));
        }
        let part = |all: &[f32], from: usize, len: usize| {
            all.chunks_exact(row).flat_map(|row| row[from..from + len].to_vec()).collect::<Vec<f32>>()
        };
        let kv = heads.kv * heads.dim;
        for (name, from, len) in [("dq", 0, q), ("dk", q, kv), ("dv", q + kv, kv)] {
            near(&part(&got[2], from, len), &part(&want[2], from, len), 1e-2, &format!("{name} of {what}"));
        }
    }
}

/// In f32, as it decides.
#[test]
fn routers() {
    let none = PageTable::default();
    let mut numbers = Numbers(42);
    for (tokens, count, k, d) in [(1, 4, 2, 32), (70, 8, 2, 64), (33, 40, 4, 96)] {
        let (x, dw) = (numbers.vec(tokens * d), numbers.vec(tokens * k));
        let (load, before) = (numbers.vec(count), numbers.vec(tokens * d));
        let made = both(28, &[(count * d, true), (count, true)], |case| {
            let [bias] = case.vectors([1]);
            let router = Linear::new(vec![Part { weight: case.matrix(0, d), bias: Some(bias) }]);
            let (weight, bias) = std::mem::take(&mut case.gradients).split_at_mut(count * d);
            let mut grad = LinearGrad { weight: Some(weight), bias: Some(bias), low_rank: vec![] };
            let (t, d_weights, mut dt) = (case.tensor(d, &x), case.tensor(k, &dw), case.tensor(d, &before));
            let mut step = case.step(&[tokens], &none, &[], &[]);
            let (routes, logits) = router::forward_saving(&mut step, &t, &router, k).unwrap();
            let balance = Balance { load: &load, z: 0.01 };
            router::backward(&mut step, &t, &router, (&routes, &logits), &d_weights, &balance, &mut grad, &mut dt)
                .unwrap();
            let (ids, weights) = match &routes.device {
                None => (routes.experts.iter().map(|&id| id as f32).collect(), routes.weights.to_vec()),
                Some(device) => {
                    let ids = device.experts.download().unwrap();
                    (ids.iter().map(|id| id.to_bits() as f32).collect(), device.weights.download().unwrap())
                }
            };
            vec![ids, weights, values(&logits), values(&dt)]
        });
        let Some((want, got)) = made else { return };
        all_close(&want, &got, 1e-5, &format!("{tokens} tokens, {count} experts"));
    }
}

/// Logits that are not numbers, some or all of a token's: the experts that the processor takes, and weights that show it.
#[test]
fn routes_of_what_is_broken() {
    let none = PageTable::default();
    for (count, bad) in [(4, vec![0, 1]), (40, vec![39]), (40, (0..40).collect())] {
        let (x, d) = (Numbers(44).vec(3 * 32), 32);
        let made = both(30, &[(count * d, true), (count, true)], |case| {
            let [mut bias] = case.vectors([1]);
            // Without its name a bias is the host's own.
            case.runtime.name(&[]);
            bad.iter().for_each(|&e: &usize| bias[e] = f32::NAN);
            let router = Linear::new(vec![Part { weight: case.matrix(0, d), bias: Some(bias) }]);
            let t = case.tensor(d, &x);
            let mut step = case.step(&[3], &none, &[], &[]);
            let (routes, _) = router::forward_saving(&mut step, &t, &router, 4).unwrap();
            match &routes.device {
                None => vec![
                    routes.experts.iter().map(|&id| id as f32).collect(),
                    routes.weights.iter().map(|w| f32::from(u8::from(w.is_nan()))).collect(),
                ],
                Some(device) => vec![
                    device.experts.download().unwrap().iter().map(|id| id.to_bits() as f32).collect(),
                    device.weights.download().unwrap().iter().map(|w| f32::from(u8::from(w.is_nan()))).collect(),
                ],
            }
        });
        let Some((want, got)) = made else { return };
        want.iter().zip(&got).for_each(|(want, got)| same_bits(got, want, &format!("{count} experts, {bad:?}")));
    }
}

/// Routes that were chosen: `ids` [T, 2] with weights 0.75 and 0.5.
fn routes(runtime: &Runtime, ids: &[u32]) -> Routes {
    let weights: Vec<f32> = (0..ids.len()).map(|i| 0.75 - 0.25 * (i % 2) as f32).collect();
    let len = if matches!(runtime.device, Device::Cpu) { ids.len() } else { 0 };
    let (mut experts, mut shares) = (runtime.arena.take(len).unwrap(), runtime.arena.take(len).unwrap());
    let mut device = None;
    match &runtime.device {
        Device::Cpu => {
            experts.copy_from_slice(ids);
            shares.copy_from_slice(&weights);
        }
        Device::Cuda(gpu) => {
            let mut experts = gpu.take(ids.len()).unwrap();
            experts.upload(&ids.iter().flat_map(|id| id.to_le_bytes()).collect::<Vec<_>>()).unwrap();
            device = Some(router::cuda::Routes { experts, weights: gpu.uploaded(&weights).unwrap() });
        }
    }
    Routes { per_token: 2, experts, weights: shares, device }
}

/// Both directions, with and without what is kept; an expert without tokens; clamps that are met.
#[test]
fn experts() {
    let none = PageTable::default();
    let mut numbers = Numbers(43);
    for (tokens, d, units) in [(1, 32, 32), (5, 64, 32), (150, 32, 96)] {
        let ids: Vec<u32> = (0..tokens).flat_map(|_| if numbers.below(3) == 0 { [1, 0] } else { [3, 1] }).collect();
        // Numbers of bf16, so that both see the same side of each clamp.
        let t = rounded(&numbers.vec(tokens * d).iter().map(|v| 2.0 * v).collect::<Vec<f32>>());
        let (dy, before) = (rounded(&numbers.vec(tokens * d)), numbers.vec(tokens * d));
        let expert = [(2 * units * d, false), (2 * units, true), (d * units, false), (d, true)];
        let made = both(29, &expert.repeat(4), |case| {
            let (gates, downs): (Vec<Vec<f32>>, Vec<Vec<f32>>) = (gate_biases(case), down_biases(case));
            let mut all = Vec::new();
            for (e, (gate_bias, down_bias)) in gates.iter().zip(downs).enumerate() {
                let gate_up = case.matrix(4 * e, d);
                let half = |half: usize| gate_bias.iter().skip(half).step_by(2).copied().collect::<Vec<f32>>();
                all.push(Expert {
                    gate: gate_up.every_other(0),
                    up: gate_up.every_other(1),
                    down: case.matrix(4 * e + 2, units),
                    gate_bias: half(0),
                    up_bias: half(1),
                    down_bias,
                });
            }
            let experts = Experts::new(all, 7.0, 1.702);
            name(case, &experts);
            let mut rest = std::mem::take(&mut case.gradients);
            let mut part = |len: usize| rest.split_off_mut(..len).unwrap();
            let grads = (0..4).map(|_| ExpertGrad {
                gate_up: part(2 * units * d),
                gate_up_bias: part(2 * units),
                down: part(d * units),
                down_bias: part(d),
            });
            let mut grads = ExpertsGrad { experts: grads.collect(), adapter: None };
            let routes = routes(case.runtime, &ids);
            let (t, dy) = (case.tensor(d, &t), case.tensor(d, &dy));
            let (mut y, mut alone) = (case.tensor(d, &before), case.tensor(d, &before));
            let (mut dt, mut dw) = (case.poisoned(tokens, d), case.poisoned(tokens, 2));
            let mut step = case.step(&[tokens], &none, &[], &[]);
            let hidden = experts::add_forward_saving(&mut step, &t, &routes, &experts, &mut y).unwrap();
            experts::add_forward(&mut step, &t, &routes, &experts, &mut alone).unwrap();
            same_bits(&values(&alone), &values(&y), "without what is saved");
            let kept = Some(hidden);
            experts::backward(&mut step, &t, &routes, &experts, kept, &dy, &mut grads, &mut dt, &mut dw).unwrap();
            let (mut again, mut dw_again) = (case.poisoned(tokens, d), case.poisoned(tokens, 2));
            let frozen = &mut ExpertsGrad::default();
            experts::backward(&mut step, &t, &routes, &experts, None, &dy, frozen, &mut again, &mut dw_again).unwrap();
            same_bits(&values(&again), &values(&dt), "computed again");
            same_bits(&values(&dw_again), &values(&dw), "computed again");
            vec![values(&y), values(&dt), values(&dw)]
        });
        let Some((want, got)) = made else { return };
        for (name, (want, got)) in ["y", "dt", "dw", "gradients"].iter().zip(want.iter().zip(&got)) {
            near(got, want, 1e-2, &format!("{name} of {tokens} tokens"));
        }
    }
}

fn gate_biases(case: &Case) -> Vec<Vec<f32>> {
    case.vectors([1, 5, 9, 13]).into()
}

fn down_biases(case: &Case) -> Vec<Vec<f32>> {
    case.vectors([3, 7, 11, 15]).into()
}

/// As a model's are: gates' and ups' biases under the gates' name.
fn name(case: &Case, experts: &Experts) {
    let place = |which: usize| &case.seen[case.tensors[which].range.clone()];
    let pairs = experts.experts.iter().enumerate();
    let names: Vec<(&[f32], &[f32])> = pairs
        .flat_map(|(e, expert)| [(&expert.gate_bias[..], place(4 * e + 1)), (&expert.down_bias[..], place(4 * e + 3))])
        .collect();
    case.runtime.name(&names);
}
