//! What moves the weights, and what is seen of them.

use super::*;
use crate::mxfp4::GROUP;
use crate::ops::adamw;
use crate::ops::muon::reference::{product, transpose};
use crate::ops::muon::{self, Parameter};
use crate::ops::squares;

/// Runs of a device, each with its numbers.
fn held<'a>(runtime: &Runtime, runs: impl IntoIterator<Item = &'a [f32]>) {
    for run in runs {
        runtime.hold(run).unwrap();
        runtime.send(run).unwrap();
    }
}

#[test]
fn adamw_is_the_processors() {
    let settings = adamw::Settings { lr: 0.01, betas: (0.9, 0.95), eps: 1e-8, decay: 0.1, step: 0, scale: 0.5 };
    for n in [1, 255, 1000] {
        let Some(runtime) = device() else { return };
        let of = |runtime: &Runtime| {
            let mut numbers = Numbers(51);
            let (mut p, mut g, mut m, mut v) = (numbers.vec(n), vec![0.0; n], vec![0.0; n], vec![0.0; n]);
            held(runtime, [&p[..], &g, &m, &v]);
            for step in 1..4 {
                g.copy_from_slice(&numbers.vec(n));
                runtime.send(&g).unwrap();
                adamw::update(runtime, &mut p, &g, (&mut m, &mut v), &adamw::Settings { step, ..settings }).unwrap();
            }
            [&mut p, &mut m, &mut v].iter_mut().for_each(|run| runtime.fetch(run).unwrap());
            [p, m, v]
        };
        of(&cpu()).iter().zip(of(&runtime)).for_each(|(want, got)| close(&got, &wide(want), 1e-6, &format!("{n}")));
    }
}

/// p after two steps from zeros, in f64, with factors rounded to bf16 where the device rounds them.
fn muon_rounded(gradients: [&[f32]; 2], rows: usize, cols: usize, s: &muon::Settings) -> Vec<f64> {
    let round = |m: &[f64]| wide(&rounded(&m.iter().map(|&v| v as f32).collect::<Vec<_>>()));
    let (mut p, mut momentum) = (vec![0.0; rows * cols], vec![0.0; rows * cols]);
    let (h, w) = (rows.min(cols), rows.max(cols));
    let turned = |m: &[f64]| if rows > cols { transpose(m, rows, cols) } else { m.to_vec() };
    for g in gradients {
        let (beta, scale) = (f64::from(s.momentum), f64::from(s.scale));
        momentum.iter_mut().zip(g).for_each(|(m, g)| *m = beta * *m + scale * f64::from(*g));
        let u: Vec<f64> = momentum.iter().zip(g).map(|(m, g)| scale * f64::from(*g) + beta * m).collect();
        let norm = u.iter().map(|v| v * v).sum::<f64>().sqrt() + 1e-7;
        let mut x: Vec<f64> = turned(&u).iter().map(|v| v / norm).collect();
        for _ in 0..muon::ROUNDS {
            let (a, b, c) = muon::COEFFICIENTS;
            let factor = round(&x);
            let first = product(&factor, &transpose(&factor, h, w), h, w, h);
            let square = round(&first);
            let second = product(&square, &transpose(&square, h, h), h, h, h);
            let mixed: Vec<f64> = first.iter().zip(&second).map(|(f, s)| f64::from(b) * f + f64::from(c) * s).collect();
            let moved = product(&round(&mixed), &factor, h, h, w);
            x.iter_mut().zip(moved).for_each(|(x, m)| *x = f64::from(a) * *x + m);
        }
        let o = if rows > cols { transpose(&x, h, w) } else { x };
        let (lr, by, decay) = (f64::from(s.lr), 0.2 * (w as f64).sqrt(), f64::from(s.decay));
        p.iter_mut().zip(o).for_each(|(p, o)| *p -= lr * (by * o + decay * *p));
    }
    p
}

/// Two steps of wide and tall matrices, one with several shares, beside f64 with the same roundings; and near the processor's, which
/// rounds nothing.
#[test]
fn muon_is_the_processors() {
    let settings = muon::Settings { lr: 0.1, momentum: 0.9, decay: 0.05, scale: 0.5 };
    for (rows, cols) in [(5, 40), (40, 33), (160, 33)] {
        let n = rows * cols;
        let Some(runtime) = device() else { return };
        let of = |runtime: &Runtime| {
            let mut numbers = Numbers(52);
            let (mut value, mut gradient, mut momentum) = (vec![0.0; n], vec![0.0; n], vec![0.0; n]);
            held(runtime, [&value[..], &gradient, &momentum]);
            for _ in 0..2 {
                gradient.copy_from_slice(&numbers.vec(n));
                runtime.send(&gradient).unwrap();
                let (value, momentum, gradient) = (&mut value[..], &mut momentum[..], &gradient[..]);
                muon::update(runtime, &mut [Parameter { value, gradient, momentum, rows, cols }], &settings).unwrap();
            }
            [&mut value, &mut momentum].iter_mut().for_each(|run| runtime.fetch(run).unwrap());
            [value, momentum]
        };
        let (want, got) = (of(&cpu()), of(&runtime));
        close(&got[1], &wide(&want[1]), 1e-6, "momentum");
        let mut numbers = Numbers(52);
        let gradients = [numbers.vec(n), numbers.vec(n)];
        let same = muon_rounded([&gradients[0], &gradients[1]], rows, cols, &settings);
        let same: Vec<f32> = same.into_iter().map(|v| v as f32).collect();
        // Sums in another order put some number of a larger matrix beyond the border of two of bf16, and rounds change it with
        // all others; which, depends on the order in which `mma` adds.
        if n <= 40 * 33 {
            let most = if n <= 5 * 40 { 1e-4 } else { 5e-3 };
            near(&got[0], &same, most, &format!("{rows} x {cols}, the same roundings"));
        }
        near(&got[0], &want[0], 5e-2, &format!("{rows} x {cols}, none"));
    }
}

#[test]
fn squares_are_added_in_f64() {
    let Some(runtime) = device() else { return };
    let mut x = Numbers(53).vec(140_000);
    let ranges = [0..1, 1..1, 1..70_000, 70_000..140_000];
    held(&runtime, [&x[..]]);
    let (want, got) = (squares::forward(&cpu(), &x, &ranges), squares::forward(&runtime, &x, &ranges));
    for (want, got) in want.unwrap().iter().zip(got.unwrap()) {
        assert!((want - got).abs() <= 1e-12 * want, "{want} {got}");
    }
    (x[3], x[139_999]) = (f32::MAX, f32::NAN);
    runtime.send(&x).unwrap();
    let got = squares::forward(&runtime, &x, &ranges).unwrap();
    assert!(got[2].is_finite() && !got[3].is_finite());
}

/// What a device sees has the bits of what a file holds, whatever the form.
#[test]
fn forms_are_those_of_a_file() {
    let Some(runtime) = device() else { return };
    let Device::Cuda(gpu) = &runtime.device else { unreachable!() };
    let mut weights = Numbers(54).vec(9 * GROUP + 7);
    // Zeros, subnormal numbers, powers of two, ties, a fault.
    weights[..GROUP].fill(0.0);
    weights[GROUP..2 * GROUP].iter_mut().for_each(|v| *v *= 1e-38);
    weights[2 * GROUP..3 * GROUP].iter_mut().enumerate().for_each(|(i, v)| *v = 0.25 * (i as f32 - 16.0));
    weights[3 * GROUP] = f32::INFINITY;
    let tensors = [0..8 * GROUP, 8 * GROUP..8 * GROUP + 7, 8 * GROUP + 7..9 * GROUP + 7]
        .map(|range| Stored { exact: range.len() < GROUP, range });
    let mut seen = vec![0.0; weights.len()];
    held(&runtime, [&weights[..]]);
    stored::hold(&runtime, &seen, &tensors).unwrap();
    let forms = [Form::Mxfp4, Form::Bf16, Form::Bf16];
    stored::look(&runtime, &weights, &mut seen, &tensors, &|which| forms[which]).unwrap();
    let halves = gpu.download_for_test(gpu.seen_halves(seen.as_ptr().cast()).unwrap(), 2 * weights.len());
    let halves: Vec<f32> = halves.as_chunks().0.iter().map(|&b| bf16::from_le_bytes(b).to_f32()).collect();
    let mut want = vec![0.0; weights.len()];
    stored::look(&cpu(), &weights, &mut want, &tensors, &|which| forms[which]).unwrap();
    for (at, (got, want)) in halves.iter().zip(&want).enumerate() {
        assert!(got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(), "{at}: {got} {want}");
    }
    let exact = gpu.download_for_test(gpu.seen_exact(seen[8 * GROUP..].as_ptr().cast()).unwrap(), 4 * 7);
    let exact: Vec<f32> = exact.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
    same_bits(&exact, &want[8 * GROUP..8 * GROUP + 7], "exact");
}
