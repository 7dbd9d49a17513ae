//! Holds the versions of `muon` together over ragged shapes.

use super::*;
use crate::testing::{Numbers, close, runtimes, same_bits};

const SETTINGS: Settings = Settings { lr: 0.1, momentum: 0.9, decay: 0.05, scale: 0.5 };

#[test]
fn the_reference_makes_singular_values_alike() {
    let mut numbers = Numbers(95);
    let (rows, cols) = (8, 20);
    let u: Vec<f64> = numbers.vec(rows * cols).into_iter().map(f64::from).collect();
    let o = reference::orthogonal(&u, rows, cols);
    let square = reference::product(&o, &reference::transpose(&o, rows, cols), rows, cols, rows);
    // The eigenvalues of O Oᵀ are the squares of singular values between about 0.7 and 1.2.
    let trace: f64 = (0..rows).map(|i| square[i * rows + i]).sum();
    assert!((0.4 * rows as f64..1.5 * rows as f64).contains(&trace), "{trace}");
}

/// Two steps of several matrices at once, tall, wide and square.
#[test]
fn equals_the_reference_over_steps() {
    let mut numbers = Numbers(96);
    let shapes = [(32, 32), (64, 32), (5, 40), (33, 7)];
    let starts: Vec<Vec<f32>> = shapes.iter().map(|(r, c)| numbers.vec(r * c)).collect();
    let gradients: Vec<[Vec<f32>; 2]> = shapes.iter().map(|(r, c)| [numbers.vec(r * c), numbers.vec(r * c)]).collect();
    let mut first: Vec<(crate::cpu::isa::Isa, Vec<f32>)> = Vec::new();
    for runtime in runtimes() {
        let mut values = starts.clone();
        let mut momenta: Vec<Vec<f32>> = starts.iter().map(|s| vec![0.0; s.len()]).collect();
        for step in 0..2 {
            let parts = values.iter_mut().zip(&mut momenta).zip(shapes).zip(&gradients);
            let mut parameters: Vec<Parameter> = parts
                .map(|(((value, momentum), (rows, cols)), g)| Parameter {
                    value,
                    gradient: &g[step],
                    momentum,
                    rows,
                    cols,
                })
                .collect();
            update(&runtime, &mut parameters, &SETTINGS).unwrap();
        }
        for (i, (rows, cols)) in shapes.into_iter().enumerate() {
            close(&values[i], &two_steps(&starts[i], &gradients[i], rows, cols), 2e-4, &format!("{rows} x {cols}"));
        }
        let all = values.concat();
        match first.iter().find(|(isa, _)| *isa == runtime.isa) {
            Some((_, bits)) => same_bits(&all, bits, "threads"),
            None => first.push((runtime.isa, all)),
        }
    }
}

fn two_steps(start: &[f32], gradients: &[Vec<f32>; 2], rows: usize, cols: usize) -> Vec<f64> {
    let mut p: Vec<f64> = start.iter().map(|&v| f64::from(v)).collect();
    let mut m = vec![0.0; p.len()];
    for g in gradients {
        let g: Vec<f64> = g.iter().map(|&v| f64::from(v) * f64::from(SETTINGS.scale)).collect();
        m.iter_mut().zip(&g).for_each(|(m, g)| *m = f64::from(SETTINGS.momentum) * *m + g);
        let u: Vec<f64> = m.iter().zip(&g).map(|(m, g)| g + f64::from(SETTINGS.momentum) * m).collect();
        let o = reference::orthogonal(&u, rows, cols);
        let scale = 0.2 * (rows.max(cols) as f64).sqrt();
        let (lr, decay) = (f64::from(SETTINGS.lr), f64::from(SETTINGS.decay));
        p.iter_mut().zip(o).for_each(|(p, o)| *p -= lr * (scale * o + decay * *p));
    }
    p
}
