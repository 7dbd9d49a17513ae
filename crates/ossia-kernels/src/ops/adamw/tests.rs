//! Holds the versions of `adamw` together over ragged lengths and several steps.

use super::*;
use crate::testing::{Numbers, close, runtimes};

#[test]
fn equals_the_reference_over_steps() {
    let mut numbers = Numbers(91);
    let settings = Settings { lr: 0.01, betas: (0.9, 0.95), eps: 1e-8, decay: 0.1, step: 0, scale: 0.5 };
    for n in [1, 15, 16, 100, 40_000] {
        let start = numbers.vec(n);
        let gradients: Vec<Vec<f32>> = (0..5).map(|_| numbers.vec(n)).collect();
        let of = |i: usize| gradients.iter().map(|g| f64::from(g[i])).collect::<Vec<f64>>();
        let want: Vec<f64> = (0..n).map(|i| reference::element(f64::from(start[i]), &of(i), &settings)).collect();
        for runtime in runtimes() {
            let (mut p, mut m, mut v) = (start.clone(), vec![0.0; n], vec![0.0; n]);
            for (t, g) in (1..).zip(&gradients) {
                update(&runtime, &mut p, g, (&mut m, &mut v), &Settings { step: t, ..settings }).unwrap();
            }
            close(&p, &want, 1e-5, "adamw");
        }
    }
}
