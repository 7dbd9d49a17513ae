//! Holds the versions of `rms_norm` together over ragged shapes.

use super::*;
use crate::kv::PageTable;
use crate::testing::{Numbers, close, equals_differences, f32s, f64s, runtimes, same_bits, tensor, training_step};

#[test]
fn equals_the_reference() {
    let mut numbers = Numbers(2);
    for runtime in runtimes() {
        for (rows, d) in [(1, 32), (3, 64), (70, 2880), (5, 37)] {
            let norm = Norm { weight: numbers.vec(d), eps: 1e-5 };
            let x = numbers.vec(rows * d);
            let mut y = vec![0.0; x.len()];
            cpu::forward(&runtime, &x, &norm, &mut y);
            close(&y, &reference::forward(&x, &norm), 1e-6, "rms_norm");
        }
    }
}

#[test]
fn a_row_alone_has_the_same_bits() {
    let mut numbers = Numbers(3);
    for runtime in runtimes() {
        let norm = Norm { weight: numbers.vec(96), eps: 1e-5 };
        let x = numbers.vec(40 * 96);
        let (mut all, mut one) = (vec![0.0; x.len()], vec![0.0; 96]);
        cpu::forward(&runtime, &x, &norm, &mut all);
        for row in 0..40 {
            cpu::forward(&runtime, &x[row * 96..(row + 1) * 96], &norm, &mut one);
            same_bits(&one, &all[row * 96..(row + 1) * 96], "one row");
        }
    }
}

#[test]
fn the_reference_gradients_equal_differences() {
    let mut numbers = Numbers(51);
    let (x, g, dy) = (f64s(&mut numbers, 3 * 7), f64s(&mut numbers, 7), f64s(&mut numbers, 3 * 7));
    let (dx, dg) = reference::backward(&x, &g, 1e-2, &dy);
    let loss = |x: &[f64], g: &[f64]| reference::plain(x, g, 1e-2).iter().zip(&dy).map(|(y, c)| y * c).sum();
    equals_differences(&dx, &x, "dx", |x| loss(x, &g));
    equals_differences(&dg, &g, "dg", |g| loss(&x, g));
}

#[test]
fn gradients_equal_the_reference() {
    let mut numbers = Numbers(52);
    let none = PageTable::default();
    for (rows, d) in [(1, 32), (3, 64), (300, 128), (5, 37)] {
        let (x, g, dy) = (f64s(&mut numbers, rows * d), f64s(&mut numbers, d), f64s(&mut numbers, rows * d));
        let (mut dx, dg) = reference::backward(&x, &g, 1e-5, &dy);
        dx.iter_mut().for_each(|v| *v += 1.0);
        let norm = Norm { weight: f32s(&g), eps: 1e-5 };
        for runtime in runtimes() {
            let mut step = training_step(&runtime, &[rows], &none);
            let [x, dy] = [&x, &dy].map(|v| tensor(&runtime, rows, d, &f32s(v)));
            let mut got = tensor(&runtime, rows, d, &vec![1.0; rows * d]);
            let mut d_norm = vec![0.0; d];
            backward(&mut step, &x, &norm, &dy, Some(&mut d_norm), &mut got).unwrap();
            close(got.host(), &dx, 3e-6, "dx");
            close(&d_norm, &dg, 3e-6, "dg");
        }
    }
}

#[test]
fn chosen_rows_only() {
    let mut numbers = Numbers(53);
    let none = PageTable::default();
    let norm = Norm { weight: numbers.vec(32), eps: 1e-5 };
    let (x, dy) = (numbers.vec(6 * 32), numbers.vec(2 * 32));
    for runtime in runtimes() {
        let mut step = training_step(&runtime, &[6], &none);
        step.logits_rows = vec![1, 4];
        let (x, dy) = (tensor(&runtime, 6, 32, &x), tensor(&runtime, 2, 32, &dy));
        let mut dx = tensor(&runtime, 6, 32, &[0.0; 6 * 32]);
        let mut d_norm = vec![0.0; 32];
        backward_logits_rows(&mut step, &x, &norm, &dy, Some(&mut d_norm), &mut dx).unwrap();
        for (row, got) in dx.host().chunks_exact(32).enumerate() {
            assert_eq!(got.iter().any(|v| *v != 0.0), row == 1 || row == 4, "row {row}");
        }
    }
}
