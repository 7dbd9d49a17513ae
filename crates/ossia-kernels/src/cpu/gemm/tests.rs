//! Holds the versions of the products to a plain triple loop, over ragged shapes.

use super::*;
use crate::testing::{KINDS, Numbers, close, runtime, same_bits};
use crate::{Matrix, Precision};

fn runtimes() -> Vec<Runtime> {
    let all = Isa::all().into_iter();
    all.flat_map(|isa| [1, 3].map(|threads| runtime(isa, threads, Precision::F32))).collect()
}

fn rows(m: &Matrix) -> Vec<f32> {
    let mut out = vec![0.0; m.rows() * m.cols()];
    out.chunks_exact_mut(m.cols()).enumerate().for_each(|(r, out)| m.row_into(r, out));
    out
}

/// sum over k of x(i, k) w(k, j).
fn product(
    m: usize,
    n: usize,
    depth: usize,
    x: impl Fn(usize, usize) -> f32,
    w: impl Fn(usize, usize) -> f32,
) -> Vec<f64> {
    let element = |i, j| (0..depth).map(|k| f64::from(x(i, k)) * f64::from(w(k, j))).sum();
    (0..m).flat_map(|i| (0..n).map(move |j| (i, j))).map(|(i, j)| element(i, j)).collect()
}

#[test]
fn products_equal_the_triple_loop_for_every_kind_of_weight() {
    let mut numbers = Numbers(21);
    for kind in KINDS {
        for (tokens, outputs, cols) in
            [(1, 1, 32), (5, 33, 64), (13, 70, 96), (40, 40, 544), (3, 300, 32), (800, 31, 32)]
        {
            let matrix = numbers.matrix(kind, outputs, cols);
            let (w, x, bias) = (rows(&matrix), numbers.vec(tokens * cols), numbers.vec(outputs));
            let forward: Vec<f64> = product(tokens, outputs, cols, |i, k| x[i * cols + k], |k, j| w[j * cols + k])
                .iter()
                .zip(bias.iter().cycle())
                .map(|(v, b)| v + f64::from(*b))
                .collect();
            let dy = numbers.vec(tokens * outputs);
            let backward = product(tokens, cols, outputs, |i, k| dy[i * outputs + k], |k, j| w[k * cols + j]);
            for runtime in runtimes() {
                let what = format!("{kind:?} {tokens} x {outputs} x {cols}, {:?}", runtime.isa);
                let y = run(&runtime, &x, Weight::Rows(&matrix), Some(&bias));
                close(&y, &forward, 3e-6, &what);
                same_bits(&run(&runtime, &x, Weight::PlainRows(View::new(&w, cols)), Some(&bias)), &y, &what);
                let dx = run(&runtime, &dy, Weight::Columns(&matrix), None);
                close(&dx, &backward, 3e-6, &what);
                same_bits(&run(&runtime, &dy, Weight::PlainColumns(View::new(&w, cols)), None), &dx, &what);
            }
        }
    }
}

fn run(runtime: &Runtime, x: &[f32], weight: Weight, bias: Option<&[f32]>) -> Vec<f32> {
    let x = View::new(x, weight.depth());
    let mut y = vec![f32::NAN; x.rows * weight.outputs()];
    let data = Disjoint::new(&mut y);
    let y_target = Target { data: &data, stride: weight.outputs(), offset: 0 };
    apply(runtime, &[Product { x, weight, bias, y: y_target, write: Write::Set }]).unwrap();
    y
}

#[test]
fn columns_of_wider_rows_are_read_and_written() {
    let mut numbers = Numbers(22);
    let (x, w, y0) = (numbers.vec(40 * 50), numbers.vec(7 * 20), numbers.vec(40 * 9));
    let want: Vec<f64> = product(40, 7, 20, |i, k| x[i * 50 + 11 + k], |k, j| w[j * 20 + k]);
    for runtime in runtimes() {
        let mut y = y0.clone();
        let data = Disjoint::new(&mut y);
        let product = Product {
            x: View::new(&x, 50).columns(11, 20),
            weight: Weight::PlainRows(View::new(&w, 20)),
            bias: None,
            y: Target { data: &data, stride: 9, offset: 1 },
            write: Write::Add,
        };
        apply(&runtime, &[product]).unwrap();
        for (i, row) in y.chunks_exact(9).enumerate() {
            assert_eq!((row[0], row[8]), (y0[i * 9], y0[i * 9 + 8]), "outside of the target");
            let want: Vec<f64> = (0..7).map(|j| want[i * 7 + j] + f64::from(y0[i * 9 + 1 + j])).collect();
            close(&row[1..8], &want, 3e-6, "inside");
        }
    }
}

#[test]
fn outer_products_add_over_all_tokens() {
    let mut numbers = Numbers(23);
    for (tokens, n, k) in [(1, 1, 32), (255, 12, 64), (257, 100, 33), (270, 170, 140), (700, 5, 32)] {
        let (dy, x, g0) = (numbers.vec(tokens * n), numbers.vec(tokens * k), numbers.vec(n * k));
        let want: Vec<f64> = product(n, k, tokens, |i, t| dy[t * n + i], |t, j| x[t * k + j])
            .iter()
            .zip(&g0)
            .map(|(v, g)| v + f64::from(*g))
            .collect();
        let mut first: Vec<(Isa, Vec<f32>)> = Vec::new();
        for runtime in runtimes() {
            let mut g = g0.clone();
            let data = Disjoint::new(&mut g);
            let gradient = Target { data: &data, stride: k, offset: 0 };
            outer(&runtime, &[Outer { dy: View::new(&dy, n), x: View::new(&x, k), gradient }]).unwrap();
            close(&g, &want, 3e-6, &format!("{tokens} {n} {k} {:?}", runtime.isa));
            match first.iter().find(|(isa, _)| *isa == runtime.isa) {
                Some((_, bits)) => same_bits(&g, bits, "threads"),
                None => first.push((runtime.isa, g)),
            }
        }
    }
}

#[test]
fn a_row_does_not_depend_on_its_company() {
    let mut numbers = Numbers(24);
    let (x, w) = (numbers.vec(500 * 64), numbers.vec(40 * 64));
    for runtime in runtimes() {
        let all = run(&runtime, &x, Weight::PlainRows(View::new(&w, 64)), None);
        for i in [0, 11, 12, 383, 384, 499] {
            let alone = run(&runtime, &x[i * 64..(i + 1) * 64], Weight::PlainRows(View::new(&w, 64)), None);
            same_bits(&alone, &all[i * 40..(i + 1) * 40], "alone");
        }
    }
}
