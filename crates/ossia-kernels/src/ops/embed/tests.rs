//! Holds the versions of `embed` together over ragged shapes.

use super::*;
use crate::testing::{KINDS, Numbers, runtimes, same_bits};

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
