//! Products against f64 over the same rounded numbers, and layers that are made of them.

use super::*;
use crate::cuda::Argument;
use crate::ops::cross_entropy::{self, Targets};
use crate::ops::linear::cuda_train::{Groups, Kind, Product, add_rows, product};
use crate::ops::linear::{self, Linear, LinearGrad, Part, Write};

/// c [m, n] of a and b, read by the closures as (row, depth) and (column, depth).
fn multiplied(
    m: usize,
    n: usize,
    depth: std::ops::Range<usize>,
    a: impl Fn(usize, usize) -> f64,
    b: impl Fn(usize, usize) -> f64,
) -> Vec<f64> {
    let one = |at: usize| depth.clone().map(|k| a(at / n, k) * b(at % n, k)).sum::<f64>();
    (0..m * n).map(one).collect()
}

/// Products of floats in rows and in columns, over sides and depths that end anywhere.
#[test]
fn products_of_floats() {
    let Some(runtime) = device() else { return };
    let Device::Cuda(gpu) = &runtime.device else { unreachable!() };
    let mut numbers = Numbers(31);
    for (m, n, depth) in [(1, 1, 1), (130, 33, 70), (17, 129, 31), (64, 96, 160)] {
        let (a, b, bias) = (numbers.vec(m * depth), numbers.vec(n * depth), numbers.vec(n));
        let (wide_a, wide_b) = (wide(&rounded(&a)), wide(&rounded(&b)));
        for kind in [Kind::RowsF32, Kind::ColumnsF32, Kind::Outer] {
            let a_at = |row: usize, k: usize| wide_a[if kind == Kind::Outer { k * m + row } else { row * depth + k }];
            let b_at = |row: usize, k: usize| wide_b[if kind == Kind::RowsF32 { row * depth + k } else { k * n + row }];
            let mut want = multiplied(m, n, 0..depth, a_at, b_at);
            let (da, db) = (gpu.uploaded(&a).unwrap(), gpu.uploaded(&b).unwrap());
            let (c, d_bias) = (gpu.uploaded(&vec![f32::NAN; m * n]).unwrap(), gpu.uploaded(&bias).unwrap());
            let with_bias = kind != Kind::Outer;
            let bias_at = if with_bias { (&d_bias).into() } else { Argument::NULL };
            let p = Product { a: (&da).into(), b: (&db).into(), bias: bias_at, c: (&c).into(), m, n, depth };
            product(gpu, kind, &p, None, Write::Set).unwrap();
            if with_bias {
                want.iter_mut().enumerate().for_each(|(at, v)| *v += f64::from(bias[at % n]));
            }
            close(&c.download().unwrap(), &want, 2e-6, &format!("{m} x {n} of {depth}"));
            product(gpu, kind, &p, None, Write::Add).unwrap();
            want.iter_mut().for_each(|v| *v *= 2.0);
            close(&c.download().unwrap(), &want, 2e-6, "twice");
        }
    }
}

/// Rows in groups, some of them empty, each with weights, biases and gradients of its own.
#[test]
fn products_of_groups() {
    let mut numbers = Numbers(32);
    let (n, depth, starts) = (40, 64, [0u32, 3, 3, 140, 141]);
    let (rows, groups) = (141, starts.len() - 1);
    // Weights of a group and what else lies between them.
    let (step, bias_step) = (n * depth + 32, n + 24);
    let (x, dy, bias) = (numbers.vec(rows * depth), numbers.vec(rows * n), numbers.vec(groups * bias_step));
    let made = both(24, &[(groups * step, false)], |case| {
        let Device::Cuda(gpu) = &case.runtime.device else { return vec![] };
        let mut slice = gpu.take(starts.len()).unwrap();
        slice.upload(&starts.map(u32::to_le_bytes).concat()).unwrap();
        let groups = Some(Groups { starts: &slice, count: groups, step, bias_step });
        let [x, dy, bias] = [&x, &dy, &bias].map(|values| gpu.uploaded(values).unwrap());
        let [y, dx] = [rows * n, rows * depth].map(|len| gpu.uploaded(&vec![f32::NAN; len]).unwrap());
        let weights = gpu.seen_halves(case.seen.as_ptr().cast()).unwrap();
        let none = Argument::NULL;
        let gradient = gpu.part(case.gradients);
        let (m, at) = (rows, |slice| Argument::from(slice));
        let forward = Product { a: at(&x), b: weights, bias: at(&bias), c: at(&y), m, n, depth };
        product(gpu, Kind::Rows, &forward, groups, Write::Set).unwrap();
        let back = Product { a: at(&dy), b: weights, bias: none, c: at(&dx), m, n: depth, depth: n };
        product(gpu, Kind::Columns, &back, groups, Write::Set).unwrap();
        let outer = Product { a: at(&dy), b: at(&x), bias: none, c: gradient, m: n, n: depth, depth: rows };
        product(gpu, Kind::Outer, &outer, groups, Write::Add).unwrap();
        // Over the weights' gradients come those of biases, in what lies between.
        add_rows(gpu, (at(&x), none), (rows, 32), groups, gradient.plus(4 * n * depth)).unwrap();
        vec![y.download().unwrap(), dx.download().unwrap()]
    });
    let Some((_, got)) = made else { return };
    let weights = wide(&rounded(&Numbers(24).vec(groups * step)));
    let (x_r, dy_r, x_w) = (wide(&rounded(&x)), wide(&rounded(&dy)), wide(&x));
    let (mut y, mut dx, mut gradients) = (Vec::new(), Vec::new(), vec![1.0; groups * step]);
    for group in 0..groups {
        let (from, end) = (starts[group] as usize, starts[group + 1] as usize);
        let w = &weights[group * step..];
        let part = multiplied(end - from, n, 0..depth, |r, k| x_r[(from + r) * depth + k], |c, k| w[c * depth + k]);
        y.extend(part.iter().enumerate().map(|(at, v)| v + f64::from(bias[group * bias_step + at % n])));
        dx.extend(multiplied(end - from, depth, 0..n, |r, k| dy_r[(from + r) * n + k], |c, k| w[k * depth + c]));
        let outer = multiplied(n, depth, from..end, |r, k| dy_r[k * n + r], |c, k| x_r[k * depth + c]);
        let own = &mut gradients[group * step..(group + 1) * step];
        own.iter_mut().zip(outer).for_each(|(g, v)| *g += v);
        // As if x had rows of 32.
        (0..32).for_each(|c| own[n * depth + c] += (from..end).map(|r| x_w[r * 32 + c]).sum::<f64>());
    }
    close(&got[0], &y, 2e-6, "y");
    close(&got[1], &dx, 2e-6, "dx");
    close(&got[2], &gradients, 2e-6, "gradients");
}

/// A layer of three parts: forward against f64 over rounded numbers, gradients too.
#[test]
fn layers() {
    let none = PageTable::default();
    let mut numbers = Numbers(33);
    for (tokens, rows, k) in [(1, [16, 16, 16], 32), (150, [96, 32, 48], 160)] {
        let n: usize = rows.iter().sum();
        let (x, dy, before) = (numbers.vec(tokens * k), numbers.vec(tokens * n), numbers.vec(tokens * n));
        let tensors = [rows.map(|rows| (rows * k, false)), rows.map(|rows| (rows, true))].concat();
        let made = both(25, &tensors, |case| {
            let mut parts = Vec::new();
            for (i, bias) in case.vectors([3, 4, 5]).into_iter().enumerate() {
                parts.push(Part { weight: case.matrix(i, k), bias: Some(bias) });
            }
            let linear = Linear::new(parts);
            let (weight, bias) = std::mem::take(&mut case.gradients).split_at_mut(n * k);
            let mut grad = LinearGrad { weight: Some(weight), bias: Some(bias), low_rank: vec![] };
            let (x, dy) = (case.tensor(k, &x), case.tensor(n, &dy));
            let (mut dx, mut sum) = (case.poisoned(tokens, k), case.tensor(n, &before));
            let mut step = case.step(&[tokens], &none, &[], &[]);
            let y = values(&linear::forward(&mut step, &x, &linear).unwrap());
            linear::add_forward(&mut step, &x, &linear, &mut sum).unwrap();
            linear::backward(&mut step, &x, &linear, &dy, &mut grad, &mut dx, Write::Set).unwrap();
            vec![y, values(&sum), values(&dx)]
        });
        let Some((_, got)) = made else { return };
        let weights = wide(&rounded(&Numbers(25).vec(n * k + n)));
        let (w, bias) = weights.split_at(n * k);
        let (x_r, dy_r) = (wide(&rounded(&x)), wide(&rounded(&dy)));
        let mut y = multiplied(tokens, n, 0..k, |r, i| x_r[r * k + i], |c, i| w[c * k + i]);
        y.iter_mut().enumerate().for_each(|(at, y)| *y += bias[at % n]);
        close(&got[0], &y, 2e-6, "y");
        y.iter_mut().zip(&before).for_each(|(y, before)| *y += f64::from(*before));
        close(&got[1], &y, 2e-6, "y added");
        let dx = multiplied(tokens, k, 0..n, |r, i| dy_r[r * n + i], |c, i| w[i * k + c]);
        close(&got[2], &dx, 2e-6, "dx");
        let mut gradients = multiplied(n, k, 0..tokens, |r, i| dy_r[i * n + r], |c, i| x_r[i * k + c]);
        gradients.extend((0..n).map(|c| (0..tokens).map(|r| f64::from(dy[r * n + c])).sum::<f64>()));
        gradients.iter_mut().for_each(|g| *g += 1.0);
        close(&got[3], &gradients, 2e-6, "gradients");
    }
}

/// Loss and gradients beside the processor's, whose products round nothing.
#[test]
fn losses() {
    let none = PageTable::default();
    let mut numbers = Numbers(34);
    for (rows, vocab, d) in [(1, 5, 32), (45, 301, 96)] {
        let (t, weights) = (numbers.vec(rows * d), numbers.vec(rows));
        let ids: Vec<u32> = (0..rows).map(|_| numbers.below(vocab) as u32).collect();
        let made = both(26, &[(vocab * d, false)], |case| {
            let unembedding = Linear::new(vec![Part { weight: case.matrix(0, d), bias: None }]);
            let weight = Some(std::mem::take(&mut case.gradients));
            let mut grad = LinearGrad { weight, ..LinearGrad::default() };
            let t = case.tensor(d, &t);
            let mut step = case.step(&[rows], &none, &[], &[]);
            let targets = Targets { ids: &ids, weights: &weights, z: 0.01 };
            let alone = cross_entropy::forward(&mut step, &t, &unembedding, &ids).unwrap();
            let (nll, dt) = cross_entropy::backward(&mut step, &t, &unembedding, targets, &mut grad).unwrap();
            same_bits(&nll, &alone, "the loss alone");
            vec![nll, values(&dt)]
        });
        let Some((want, got)) = made else { return };
        for (name, (want, got)) in ["nll", "dt", "dU"].iter().zip(want.iter().zip(&got)) {
            near(got, want, 1e-2, &format!("{name} of {rows} rows"));
        }
    }
}
