//! Holds the versions of `cross_entropy` together over ragged shapes.

use super::*;
use crate::kv::PageTable;
use crate::matrix::Kind;
use crate::ops::linear::Part;
use crate::testing::{Numbers, close, equals_differences, f64s, runtimes, same_bits, tensor, training_step};

#[test]
fn the_reference_gradients_equal_differences() {
    let mut numbers = Numbers(71);
    let (t, u, w) = (f64s(&mut numbers, 3 * 4), f64s(&mut numbers, 5 * 4), f64s(&mut numbers, 3));
    let ids = [4, 0, 2];
    let (dt, du) = reference::backward(&t, &u, 4, &ids, &w, 0.1);
    equals_differences(&dt, &t, "dt", |t| reference::loss(t, &u, 4, &ids, &w, 0.1).0);
    equals_differences(&du, &u, "dU", |u| reference::loss(&t, u, 4, &ids, &w, 0.1).0);
}

#[test]
fn gradients_equal_the_reference() {
    let mut numbers = Numbers(72);
    let none = PageTable::default();
    let wide = |v: &[f32]| v.iter().map(|&v| f64::from(v)).collect::<Vec<f64>>();
    // The last has more rows than a chunk takes.
    for (rows, vocab, d) in [(1, 1, 32), (7, 37, 64), (40, 768, 32), (1100, 33, 32)] {
        let matrix = numbers.matrix(Kind::F32, vocab, d);
        let mut u = vec![0.0; vocab * d];
        u.chunks_exact_mut(d).enumerate().for_each(|(r, out)| matrix.row_into(r, out));
        let unembedding = Linear::new(vec![Part { weight: matrix, bias: None }]);
        let (t, weights) = (numbers.vec(rows * d), numbers.vec(rows));
        let ids: Vec<u32> = (0..rows).map(|_| numbers.below(vocab) as u32).collect();
        let places: Vec<usize> = ids.iter().map(|&id| id as usize).collect();
        let (_, nll) = reference::loss(&wide(&t), &wide(&u), d, &places, &wide(&weights), 0.01);
        let (dt, du) = reference::backward(&wide(&t), &wide(&u), d, &places, &wide(&weights), 0.01);
        for runtime in runtimes() {
            let mut step = training_step(&runtime, &[rows], &none);
            let t = tensor(&runtime, rows, d, &t);
            let mut weight = vec![0.0; vocab * d];
            let targets = Targets { ids: &ids, weights: &weights, z: 0.01 };
            let mut grad = LinearGrad { weight: Some(&mut weight), ..LinearGrad::default() };
            let (got, d_t) = backward(&mut step, &t, &unembedding, targets, &mut grad).unwrap();
            close(&got, &nll, 3e-6, "nll");
            close(d_t.host(), &dt, 1e-5, "dt");
            close(&weight, &du, 1e-5, "dU");
            same_bits(&forward(&mut step, &t, &unembedding, &ids).unwrap(), &got, "the loss alone");
        }
    }
}

#[test]
fn a_target_outside_of_the_vocabulary_is_an_error() {
    let mut numbers = Numbers(73);
    let none = PageTable::default();
    let unembedding = Linear::new(vec![Part { weight: numbers.matrix(Kind::F32, 5, 32), bias: None }]);
    let runtime = &runtimes()[0];
    let mut step = training_step(runtime, &[1], &none);
    let t = tensor(runtime, 1, 32, &[0.0; 32]);
    let error = forward(&mut step, &t, &unembedding, &[5]).unwrap_err();
    assert_eq!(error.to_string(), "token id 5 is outside the vocabulary of 5");
}

#[test]
fn a_fault_stays_visible() {
    let mut numbers = Numbers(74);
    let none = PageTable::default();
    let unembedding = Linear::new(vec![Part { weight: numbers.matrix(Kind::F32, 40, 32), bias: None }]);
    for runtime in runtimes() {
        let mut step = training_step(&runtime, &[1], &none);
        let t = tensor(&runtime, 1, 32, &[f32::NAN; 32]);
        assert!(forward(&mut step, &t, &unembedding, &[3]).unwrap()[0].is_nan());
    }
}
