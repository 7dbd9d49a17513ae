//! Holds the versions of `router` together over ragged shapes.

use super::*;
use crate::kv::PageTable;
use crate::matrix::Kind;
use crate::ops::linear::{LinearGrad, Part};
use crate::testing::{Numbers, close, equals_differences, f64s, runtimes, tensor, training_step};

fn choose(logits: &[f32], experts: usize, k: usize) -> Routes {
    let arena = Arena::new(1 << 16);
    let n = logits.len() / experts * k;
    let mut routes =
        Routes { per_token: k, experts: arena.take(n).unwrap(), weights: arena.take(n).unwrap(), device: None };
    cpu::choose(logits, experts, &mut routes);
    routes
}

#[test]
fn equals_the_reference() {
    let mut numbers = Numbers(13);
    for (experts, k) in [(1, 1), (4, 2), (8, 8), (32, 4), (128, 4)] {
        // Rounded logits tie often.
        let logits: Vec<f32> = numbers.vec(50 * experts).iter().map(|v| (v * 8.0).round()).collect();
        let routes = choose(&logits, experts, k);
        for (t, logits) in logits.chunks_exact(experts).enumerate() {
            for (i, (id, weight)) in reference::choose(logits, k).into_iter().enumerate() {
                assert_eq!(routes.experts[t * k + i], id);
                assert!((f64::from(routes.weights[t * k + i]) - weight).abs() < 1e-6);
            }
        }
    }
}

#[test]
fn broken_logits_give_valid_ids() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let routes = choose(&[bad, 1.0, bad, bad], 4, 3);
        let mut ids = routes.experts.to_vec();
        ids.sort_unstable();
        ids.dedup();
        assert!(ids.len() == 3 && ids.iter().all(|&id| id < 4), "{bad}: {ids:?}");
    }
}

#[test]
fn the_reference_gradient_equals_differences() {
    let mut numbers = Numbers(57);
    let (logits, load, dw) = (f64s(&mut numbers, 6), f64s(&mut numbers, 6), f64s(&mut numbers, 3));
    let ids = [4, 0, 2];
    let loss = |logits: &[f64]| {
        let (p, lse) = reference::softmax(logits);
        let chosen: f64 = reference::weights(logits, &ids).iter().zip(&dw).map(|(w, c)| w * c).sum();
        chosen + p.iter().zip(&load).map(|(p, g)| p * g).sum::<f64>() + 0.3 * lse * lse
    };
    equals_differences(&reference::backward(&logits, &ids, &dw, &load, 0.3), &logits, "router", loss);
}

#[test]
fn gradients_equal_the_reference() {
    let mut numbers = Numbers(58);
    let none = PageTable::default();
    for (tokens, experts, k, d) in [(1, 4, 2, 32), (300, 8, 2, 64), (33, 32, 4, 96)] {
        let weight = numbers.matrix(Kind::F32, experts, d);
        let router = Linear::new(vec![Part { weight, bias: Some(numbers.vec(experts)) }]);
        let (x, dw) = (numbers.vec(tokens * d), numbers.vec(tokens * k));
        let load = numbers.vec(experts);
        for runtime in runtimes() {
            let mut step = training_step(&runtime, &[tokens], &none);
            let t = tensor(&runtime, tokens, d, &x);
            let (routes, logits) = forward_saving(&mut step, &t, &router, k).unwrap();
            let wide = |v: &[f32]| v.iter().map(|&v| f64::from(v)).collect::<Vec<f64>>();
            let mut d_logits = Vec::new();
            for i in 0..tokens {
                let ids: Vec<usize> = routes.experts[i * k..(i + 1) * k].iter().map(|&id| id as usize).collect();
                let (dw, load) = (wide(&dw[i * k..(i + 1) * k]), wide(&load));
                d_logits.extend(reference::backward(&wide(logits.row(i)), &ids, &dw, &load, 0.01));
            }
            let mut w = vec![0.0; experts * d];
            w.chunks_exact_mut(d).enumerate().for_each(|(r, out)| router.parts()[0].weight.row_into(r, out));
            let (dx, d_weight, d_bias) =
                crate::ops::linear::reference::backward(&wide(&x), &wide(&w), &d_logits, experts, d);
            let (mut weight, mut bias) = (vec![0.0; experts * d], vec![0.0; experts]);
            let mut grad = LinearGrad { weight: Some(&mut weight), bias: Some(&mut bias), low_rank: Vec::new() };
            let mut dt = tensor(&runtime, tokens, d, &vec![0.0; tokens * d]);
            let balance = Balance { load: &load, z: 0.01 };
            let d_weights = tensor(&runtime, tokens, k, &dw);
            backward(&mut step, &t, &router, (&routes, &logits), &d_weights, &balance, &mut grad, &mut dt).unwrap();
            close(dt.host(), &dx, 1e-5, "dt");
            close(&weight, &d_weight, 1e-5, "dW");
            close(&bias, &d_bias, 1e-5, "db");
        }
    }
}

#[test]
fn the_load_of_known_logits() {
    let load = load(&[0.0, 0.0, -1e9, 5.0, 5.0, 9.0, 5.0, 5.0], 4, 2);
    assert_eq!(load.counts, [2.0, 1.0, 0.0, 1.0]);
    assert!((load.probability.iter().sum::<f64>() - 2.0).abs() < 1e-6);
}
