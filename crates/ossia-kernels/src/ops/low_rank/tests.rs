//! Holds both phases to the reference, and the reference to differences.

use super::reference::Plain;
use super::*;
use crate::cpu::gemm::View;
use crate::testing::{Numbers, close, equals_differences, f32s, f64s, runtimes, same_bits};
use crate::{Floats, Precision};

fn plain(numbers: &mut Numbers, rank: usize, k: usize, n: usize) -> Plain {
    Plain { a: f64s(numbers, rank * k), b: f64s(numbers, n * rank), rank, scale: 0.75 }
}

fn low_rank(plain: &Plain, first: usize) -> LowRank {
    let part = |values: &[f64]| Floats::new(f32s(values)).part(0..values.len()).unwrap();
    LowRank::new(part(&plain.a), part(&plain.b), plain.rank, plain.scale as f32, first)
}

#[test]
fn the_reference_gradients_equal_differences() {
    let mut numbers = Numbers(101);
    let (mut p, x, dy) = (plain(&mut numbers, 2, 5, 4), f64s(&mut numbers, 15), f64s(&mut numbers, 12));
    let loss = |p: &Plain, x: &[f64]| p.forward(x).iter().zip(&dy).map(|(y, d)| y * d).sum::<f64>();
    let (dx, da, db) = p.backward(&x, &dy);
    equals_differences(&dx, &x, "dx", |x| loss(&p, x));
    let (a, b) = (p.a.clone(), p.b.clone());
    equals_differences(&da, &a, "dA", |a| loss(&Plain { a: a.to_vec(), b: b.clone(), ..p }, &x));
    equals_differences(&db, &b, "dB", |b| {
        p.b = b.to_vec();
        loss(&p, &x)
    });
}

/// (tokens, rank, K, outputs of two ranges) over ragged shapes.
const SHAPES: [(usize, usize, usize, [usize; 2]); 4] =
    [(1, 1, 32, [1, 3]), (5, 16, 96, [40, 33]), (70, 7, 64, [130, 9]), (270, 24, 96, [64, 5])];

#[test]
fn training_equals_the_reference_in_both_directions() {
    let mut numbers = Numbers(102);
    for (tokens, rank, k, outputs) in SHAPES {
        // A gap before, between and after the two ranges.
        let firsts = [2, outputs[0] + 3];
        let n = outputs[0] + outputs[1] + 5;
        let plains = outputs.map(|n| plain(&mut numbers, rank, k, n));
        let adapters: Vec<LowRank> = plains.iter().zip(firsts).map(|(p, first)| low_rank(p, first)).collect();
        let (x, y0, dy) = (f64s(&mut numbers, tokens * k), numbers.vec(tokens * n), f64s(&mut numbers, tokens * n));
        let mut y: Vec<f64> = y0.iter().map(|&v| f64::from(v)).collect();
        let mut dx = vec![1.0; tokens * k];
        let mut wanted = Vec::new();
        for (p, first) in plains.iter().zip(firsts) {
            let width = p.b.len() / rank;
            let own: Vec<f64> = dy.chunks_exact(n).flat_map(|dy| dy[first..first + width].to_vec()).collect();
            for (y, add) in y.chunks_exact_mut(n).zip(p.forward(&x).chunks_exact(width)) {
                y[first..].iter_mut().zip(add).for_each(|(y, a)| *y += a);
            }
            let (d, da, db) = p.backward(&x, &own);
            dx.iter_mut().zip(d).for_each(|(dx, d)| *dx += d);
            wanted.push([da, db]);
        }
        for runtime in runtimes().into_iter().filter(|r| r.precision == Precision::F32) {
            let (x, dy) = (f32s(&x), f32s(&dy));
            let mut got = y0.clone();
            add_forward(&runtime, View::new(&x, k), &adapters, &mut got, n).unwrap();
            close(&got, &y, 3e-6, "y");
            let mut store: Vec<[Vec<f32>; 2]> =
                wanted.iter().map(|w| [vec![0.0; w[0].len()], vec![0.0; w[1].len()]]).collect();
            let mut grads: Vec<LowRankGrad> = store.iter_mut().map(|[a, b]| LowRankGrad { a, b }).collect();
            let mut got = vec![1.0; tokens * k];
            let (x, dy) = (View::new(&x, k), View::new(&dy, n));
            add_backward(&runtime, x, &adapters, dy, &mut grads, &mut got).unwrap();
            close(&got, &dx, 3e-6, "dx");
            for (got, want) in store.iter().flatten().zip(wanted.iter().flatten()) {
                close(got, want, 3e-6, "dA, dB");
            }
            let mut frozen = vec![1.0; tokens * k];
            add_backward(&runtime, x, &adapters, dy, &mut [], &mut frozen).unwrap();
            same_bits(&frozen, &got, "frozen");
        }
    }
}

#[test]
fn inference_equals_the_reference_whoever_shares_the_step() {
    let mut numbers = Numbers(103);
    for (tokens, rank, k, outputs) in SHAPES {
        let n = outputs[0] + 4;
        let plains = [rank, 2 * rank].map(|rank| plain(&mut numbers, rank, k, outputs[0]));
        let adapters = [low_rank(&plains[0], 1), low_rank(&plains[1], 3)];
        let (x, y0) = (numbers.vec(tokens * k), numbers.vec(tokens * n));
        // Every third row is the base's, the others take turns.
        let rows: [Vec<u32>; 2] = [1, 2].map(|which| (0..tokens as u32).filter(|row| row % 3 == which).collect());
        let shares = |rows: &'_ [Vec<u32>; 2]| -> Vec<(usize, Vec<u32>)> { rows.iter().cloned().enumerate().collect() };
        let mut want: Vec<f64> = y0.iter().map(|&v| f64::from(v)).collect();
        for (which, rows) in shares(&rows) {
            for row in rows {
                let row = row as usize;
                let x: Vec<f64> = x[row * k..][..k].iter().map(|&v| f64::from(v)).collect();
                let first = adapters[which].outputs().start;
                let y = &mut want[row * n + first..][..outputs[0]];
                y.iter_mut().zip(plains[which].forward(&x)).for_each(|(y, a)| *y += a);
            }
        }
        for runtime in runtimes() {
            let mut got = y0.clone();
            let all: Vec<Share> = adapters.iter().zip(&rows).map(|(low_rank, rows)| Share { low_rank, rows }).collect();
            add(&runtime, &x, &all, &mut got, n).unwrap();
            close(&got, &want, 3e-6, "y");
            for (row, got) in got.chunks_exact(n).enumerate() {
                let mut alone = y0[row * n..(row + 1) * n].to_vec();
                if let Some(which) = (row % 3).checked_sub(1) {
                    let share = Share { low_rank: &adapters[which], rows: &[0] };
                    add(&runtime, &x[row * k..(row + 1) * k], &[share], &mut alone, n).unwrap();
                }
                same_bits(got, &alone, "alone");
            }
        }
    }
}

#[test]
fn slots_are_filled_and_emptied() {
    let mut slots = Slots::default();
    assert!(slots.is_empty() && slots.vacant() == 0 && slots.get(Some(3)).is_none());
    slots.put(1, 'b');
    assert_eq!((slots.get(Some(1)), slots.get(Some(0)), slots.get(None), slots.vacant()), (Some(&'b'), None, None, 0));
    slots.put(0, 'a');
    assert_eq!((slots.vacant(), slots.used().collect::<Vec<_>>()), (2, vec![(0, &'a'), (1, &'b')]));
    slots.clear(1);
    slots.clear(7);
    assert!(slots.vacant() == 1 && !slots.is_empty());
}
