//! Holds the versions of `embed` together over ragged shapes.

use super::*;
use crate::kv::PageTable;
use crate::testing::{KINDS, Numbers, close, f32s, f64s, runtimes, same_bits, tensor, training_step};

#[test]
fn rows_are_exact_in_every_format() {
    let mut numbers = Numbers(1);
    for runtime in runtimes() {
        for kind in KINDS {
            let table = numbers.matrix(kind, 50, 64);
            let tokens: Vec<u32> = (0..37).map(|_| numbers.below(50) as u32).collect();
            let mut x = vec![0.0; tokens.len() * 64];
            cpu::forward(&runtime, &tokens, &table, &mut x);
            same_bits(&x, &reference::forward(&tokens, &table), &format!("{kind:?}"));
        }
    }
}

#[test]
fn the_gradient_adds_over_equal_tokens() {
    let mut numbers = Numbers(56);
    let none = PageTable::default();
    for d in [32, 70] {
        let tokens: Vec<u32> = (0..37).map(|_| numbers.below(9) as u32).collect();
        let dx = f64s(&mut numbers, 37 * d);
        let mut want = reference::backward(&tokens, &dx, d, 9);
        want.iter_mut().for_each(|v| *v += 1.0);
        for runtime in runtimes() {
            let mut step = training_step(&runtime, &[37], &none);
            let mut table = vec![1.0; 9 * d];
            backward(&mut step, &tokens, &tensor(&runtime, 37, d, &f32s(&dx)), &mut table).unwrap();
            close(&table, &want, 1e-6, "dE");
        }
    }
}
