//! Matrices in batches that fit into a fixed room: their products run together, so that small ones keep all threads
//! busy. The smaller side comes first: a matrix with more rows than columns is worked on as its transpose.

use super::{COEFFICIENTS, Parameter, ROUNDS, Settings};
use crate::arena::Arena;
use crate::cpu::disjoint::Disjoint;
use crate::cpu::gemm::{self, Product, Target, View, Weight, Write};
use crate::{Result, Runtime};

/// Elements of a batch, unless one matrix alone has more.
const BATCH: usize = 1 << 20;

/// Bytes of scratch: X, its successor and two squares, each at most as large as the batch.
pub fn scratch_bytes(threads: usize, rows: usize, cols: usize) -> usize {
    4 * Arena::size_of::<f32>((rows * cols).max(BATCH)) + gemm::scratch_bytes(threads)
}

pub fn update(runtime: &Runtime, parameters: &mut [Parameter], settings: &Settings) -> Result<()> {
    let mut rest = parameters;
    while !rest.is_empty() {
        let mut size = 0;
        let fits = rest.iter().take_while(|p| {
            size += p.value.len();
            size <= BATCH
        });
        let (batch, next) = rest.split_at_mut(fits.count().max(1));
        update_batch(runtime, batch, settings)?;
        rest = next;
    }
    Ok(())
}

/// A matrix of the batch: [rows, cols], rows <= cols, at `start` in the batch's room, its square at `square`.
#[derive(Clone, Copy)]
struct Place {
    start: usize,
    square: usize,
    rows: usize,
    cols: usize,
}

fn update_batch(runtime: &Runtime, batch: &mut [Parameter], settings: &Settings) -> Result<()> {
    let (mut start, mut square) = (0, 0);
    let places: Vec<Place> = batch
        .iter()
        .map(|p| {
            let place = Place { start, square, rows: p.rows.min(p.cols), cols: p.rows.max(p.cols) };
            start += place.rows * place.cols;
            square += place.rows * place.rows;
            place
        })
        .collect();
    let (mut x, mut next) = (runtime.arena.take::<f32>(start)?, runtime.arena.take::<f32>(start)?);
    let mut squares = [runtime.arena.take::<f32>(square)?, runtime.arena.take::<f32>(square)?];
    prepare(runtime, batch, &places, &mut x, settings);
    for _ in 0..ROUNDS {
        let [a, b] = &mut squares;
        round(runtime, &places, (&mut x, &mut next), (a, b))?;
        std::mem::swap(&mut x, &mut next);
    }
    apply(runtime, batch, &places, &x, settings);
    Ok(())
}

/// Momentum, then u over its norm.
fn prepare(runtime: &Runtime, batch: &mut [Parameter], places: &[Place], x: &mut [f32], settings: &Settings) {
    let x = Disjoint::new(x);
    let batch: Vec<_> = batch.iter_mut().map(std::sync::Mutex::new).collect();
    runtime.pool.run(batch.len(), &|which, _| {
        let mut p = batch[which].lock().unwrap_or_else(|e| e.into_inner());
        let place = places[which];
        // SAFETY: each matrix has a place of its own.
        let x = unsafe { x.part(place.start..place.start + place.rows * place.cols) };
        let (beta, gradient) = (settings.momentum, p.gradient);
        let mut square = 0.0f64;
        for (i, (m, g)) in p.momentum.iter_mut().zip(gradient).enumerate() {
            let g = settings.scale * g;
            *m = beta * *m + g;
            let u = g + beta * *m;
            square += f64::from(u) * f64::from(u);
            x[i] = u;
        }
        let norm = (1.0 / (square.sqrt() + 1e-7)) as f32;
        x.iter_mut().for_each(|v| *v *= norm);
        if p.rows > p.cols {
            let copy = x.to_vec();
            transpose(&copy, p.rows, p.cols, x);
        }
    });
}

/// to [cols, rows] from [rows, cols].
fn transpose(from: &[f32], rows: usize, cols: usize, to: &mut [f32]) {
    for r in 0..rows {
        for c in 0..cols {
            to[c * rows + r] = from[r * cols + c];
        }
    }
}

/// next = a X + (b A + c A²) X.
fn round(
    runtime: &Runtime,
    places: &[Place],
    (x, next): (&mut [f32], &mut [f32]),
    (first, second): (&mut [f32], &mut [f32]),
) -> Result<()> {
    let (a, b, c) = COEFFICIENTS;
    let whole = |p: &Place| p.start..p.start + p.rows * p.cols;
    let square = |p: &Place| p.square..p.square + p.rows * p.rows;
    let factors: Vec<_> = places.iter().map(|p| (&x[whole(p)], p.cols)).collect();
    squares(runtime, places, &factors, first)?;
    let factors: Vec<_> = places.iter().map(|p| (&first[square(p)], p.rows)).collect();
    squares(runtime, places, &factors, second)?;
    second.iter_mut().zip(first.iter()).for_each(|(s, f)| *s = b * f + c * *s);
    next.iter_mut().zip(x.iter()).for_each(|(n, x)| *n = a * x);
    let out = Disjoint::new(next);
    let product = |p: &Place| Product {
        x: View::new(&second[square(p)], p.rows),
        weight: Weight::PlainColumns(View::new(&x[whole(p)], p.cols)),
        bias: None,
        y: Target { data: &out, stride: p.cols, offset: p.start },
        write: Write::Add,
    };
    gemm::apply(runtime, &places.iter().map(product).collect::<Vec<_>>())
}

/// out = F Fᵀ for a factor F, its rows and their length, of each place.
fn squares(runtime: &Runtime, places: &[Place], factors: &[(&[f32], usize)], out: &mut [f32]) -> Result<()> {
    let out = Disjoint::new(out);
    let product = |(p, &(factor, cols)): (&Place, &(_, usize))| Product {
        x: View::new(factor, cols),
        weight: Weight::PlainRows(View::new(factor, cols)),
        bias: None,
        y: Target { data: &out, stride: p.rows, offset: p.square },
        write: Write::Set,
    };
    gemm::apply(runtime, &places.iter().zip(factors).map(product).collect::<Vec<_>>())
}

fn apply(runtime: &Runtime, batch: &mut [Parameter], places: &[Place], x: &[f32], settings: &Settings) {
    let batch: Vec<_> = batch.iter_mut().map(std::sync::Mutex::new).collect();
    runtime.pool.run(batch.len(), &|which, _| {
        let mut p = batch[which].lock().unwrap_or_else(|e| e.into_inner());
        let Place { start, rows, cols, .. } = places[which];
        let x = &x[start..start + rows * cols];
        let scale = 0.2 * (cols as f32).sqrt();
        let turned = p.rows > p.cols;
        let (height, width) = (p.rows, p.cols);
        for (i, value) in p.value.iter_mut().enumerate() {
            let o = if turned { x[i % width * height + i / width] } else { x[i] };
            *value -= settings.lr * (scale * o + settings.decay * *value);
        }
    });
}
