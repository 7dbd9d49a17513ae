//! Holds the versions of `linear` together over ragged shapes.

use super::*;
use crate::Runtime;
use crate::kv::PageTable;
use crate::testing::{KINDS, Numbers, close, equals_differences, f64s, runtimes, same_bits, tensor, training_step};

fn linear(numbers: &mut Numbers, kind: crate::matrix::Kind, rows: &[usize], cols: usize) -> Linear {
    let part = |&n: &usize| Part { weight: numbers.matrix(kind, n, cols), bias: (n % 2 == 1).then(|| numbers.vec(n)) };
    Linear::new(rows.iter().map(part).collect())
}

fn run(runtime: &Runtime, x: &[f32], linear: &Linear) -> Vec<f32> {
    let mut y = vec![f32::NAN; x.len() / linear.cols() * linear.rows()];
    cpu::forward(runtime, x, linear, &mut y, Write::Set).unwrap();
    y
}

#[test]
fn equals_the_reference_over_ragged_shapes() {
    let mut numbers = Numbers(4);
    for kind in KINDS {
        for (rows, cols, tokens) in [(&[1][..], 32, 1), (&[7], 64, 2), (&[8, 3, 21], 96, 5), (&[40, 9], 2880, 67)] {
            let linear = linear(&mut numbers, kind, rows, cols);
            let x = numbers.vec(tokens * cols);
            let want = reference::forward(&x, &linear);
            for runtime in runtimes() {
                // 8-bit activations are off by up to half a step in each product.
                let fast = runtime.precision == Precision::Fast && kind.is_quantized();
                close(&run(&runtime, &x, &linear), &want, if fast { 2e-2 } else { 3e-6 }, &format!("{kind:?}"));
            }
        }
    }
}

#[test]
fn a_token_alone_has_the_same_bits() {
    let mut numbers = Numbers(5);
    for kind in KINDS {
        let linear = linear(&mut numbers, kind, &[19, 8], 160);
        let x = numbers.vec(130 * 160);
        for runtime in runtimes() {
            let all = run(&runtime, &x, &linear);
            for (i, row) in all.chunks_exact(27).enumerate() {
                same_bits(&run(&runtime, &x[i * 160..(i + 1) * 160], &linear), row, &format!("{kind:?} token {i}"));
            }
            same_bits(&run(&runtime, &x[..7 * 160], &linear), &all[..7 * 27], "seven tokens");
        }
    }
}

#[test]
fn adds_onto_its_output() {
    let mut numbers = Numbers(6);
    let linear = linear(&mut numbers, crate::matrix::Kind::BF16, &[9], 64);
    let (x, y0) = (numbers.vec(3 * 64), numbers.vec(27));
    for runtime in runtimes() {
        let (product, mut y) = (run(&runtime, &x, &linear), y0.clone());
        cpu::forward(&runtime, &x, &linear, &mut y, Write::Add).unwrap();
        let want: Vec<f32> = product.iter().zip(&y0).map(|(p, y)| y + p).collect();
        same_bits(&y, &want, "added");
    }
}

#[test]
fn scratch_is_as_planned() {
    let mut numbers = Numbers(7);
    let linear = linear(&mut numbers, crate::matrix::Kind::Q8, &[16], 96);
    let x = numbers.vec(33 * 96);
    for runtime in runtimes() {
        run(&runtime, &x, &linear);
        let planned = scratch_bytes(runtime.isa, runtime.precision, runtime.pool.threads(), 33, 96);
        // What lists of tokens may need depends on how they fall.
        let spare = Lists::scratch_bytes(runtime.isa, 1, 33, 96);
        let peak = runtime.arena.peak();
        assert!(peak <= planned && peak + spare >= planned, "{peak} of {planned}, {:?}", runtime.isa);
    }
}

#[test]
fn a_fault_in_the_input_stays_visible() {
    let mut numbers = Numbers(8);
    for kind in KINDS {
        let linear = linear(&mut numbers, kind, &[8], 64);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = numbers.vec(4 * 64);
            x[64 + 40] = bad;
            for runtime in runtimes() {
                let y = run(&runtime, &x, &linear);
                let finite: Vec<bool> = y.chunks_exact(8).map(|y| y.iter().all(|v| v.is_finite())).collect();
                assert_eq!(finite, [true, false, true, true], "{kind:?} {bad}");
            }
        }
    }
}

/// The loss whose gradient for y is `c`.
fn weighted(y: &[f64], c: &[f64]) -> f64 {
    y.iter().zip(c).map(|(y, c)| y * c).sum()
}

#[test]
fn the_reference_gradients_equal_differences() {
    let mut numbers = Numbers(41);
    let (tokens, n, k) = (3, 4, 5);
    let (x, w, b) = (f64s(&mut numbers, tokens * k), f64s(&mut numbers, n * k), f64s(&mut numbers, n));
    let dy = f64s(&mut numbers, tokens * n);
    let (dx, dw, db) = reference::backward(&x, &w, &dy, n, k);
    equals_differences(&dx, &x, "dx", |x| weighted(&reference::plain(x, &w, &b, k), &dy));
    equals_differences(&dw, &w, "dW", |w| weighted(&reference::plain(&x, w, &b, k), &dy));
    equals_differences(&db, &b, "db", |b| weighted(&reference::plain(&x, &w, b, k), &dy));
}

#[test]
fn training_equals_the_reference_in_both_directions() {
    let mut numbers = Numbers(42);
    let none = PageTable::default();
    for (tokens, rows, k) in [(1, &[1, 2][..], 32), (70, &[40, 24], 64), (600, &[33], 96)] {
        let layer = linear(&mut numbers, crate::matrix::Kind::F32, rows, k);
        let n = layer.rows();
        let (x, dy) = (numbers.vec(tokens * k), numbers.vec(tokens * n));
        let wide = |v: &[f32]| v.iter().map(|&v| f64::from(v)).collect::<Vec<f64>>();
        let mut w = vec![0.0; n * k];
        let all = layer.parts().iter().flat_map(|p| (0..p.weight.rows()).map(move |r| (p, r)));
        all.zip(w.chunks_exact_mut(k)).for_each(|((p, r), out)| p.weight.row_into(r, out));
        let (dx, dw, db) = reference::backward(&wide(&x), &wide(&w), &wide(&dy), n, k);
        for runtime in runtimes().into_iter().filter(|r| r.precision == Precision::F32) {
            let mut step = training_step(&runtime, &[tokens], &none);
            let (x, dy) = (tensor(&runtime, tokens, k, &x), tensor(&runtime, tokens, n, &dy));
            let y = forward(&mut step, &x, &layer).unwrap();
            close(y.host(), &reference::forward(x.host(), &layer), 3e-6, "y");
            let (mut weight, mut bias) = (vec![0.0; n * k], vec![0.0; n]);
            let mut got = tensor(&runtime, tokens, k, &vec![f32::NAN; tokens * k]);
            let mut grad = LinearGrad { weight: Some(&mut weight), bias: Some(&mut bias), low_rank: Vec::new() };
            backward(&mut step, &x, &layer, &dy, &mut grad, &mut got, Write::Set).unwrap();
            close(got.host(), &dx, 3e-6, "dx");
            close(&weight, &dw, 3e-6, "dW");
            close(&bias, &db, 3e-6, "db");
        }
    }
}
