//! Holds the versions of `rms_norm` together over ragged shapes.

use super::*;
use crate::testing::{Numbers, close, runtimes, same_bits};

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
