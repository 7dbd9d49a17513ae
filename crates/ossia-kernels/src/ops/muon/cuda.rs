//! The launchers; what is no product is in `train.cu`. Matrices one after the other, products of bf16, sums in f32.

use super::{COEFFICIENTS, Parameter, ROUNDS, Settings};
use crate::Result;
use crate::cuda::{Argument, Gpu, Shape, Slice};
use crate::ops::linear::Write;
use crate::ops::linear::cuda_train::{Kind, Product, product};

/// Numbers that share a sum of squares, the same as in `train.cu`.
const SHARE: usize = 4096;

/// Numbers of four bytes of scratch for the largest matrix.
pub fn scratch_len(rows: usize, cols: usize) -> usize {
    2 * rows * cols + 2 * rows.min(cols).pow(2) + 2 * (rows * cols).div_ceil(SHARE) + 1
}

/// # Safety
/// As [`Gpu::launch`].
unsafe fn launch(gpu: &Gpu, kernel: &str, blocks: usize, arguments: &[Argument]) -> Result<()> {
    let shape = Shape { grid: (blocks, 1, 1), threads: 256, shared: 0 };
    // SAFETY: promised by the caller.
    unsafe { gpu.launch("muon.train", kernel, shape, arguments) }
}

pub(super) fn update(gpu: &Gpu, p: &Parameter, settings: &Settings) -> Result<()> {
    let (n, turned) = (p.rows * p.cols, usize::from(p.rows > p.cols));
    let (height, width) = (p.rows.min(p.cols), p.rows.max(p.cols));
    let (mut x, mut next) = (gpu.take(n)?, gpu.take(n)?);
    let (first, second) = (gpu.take(height * height)?, gpu.take(height * height)?);
    let (sizes, blocks) = ([p.rows.into(), p.cols.into(), turned.into()], n.div_ceil(256));
    unit(gpu, p, settings, &x, sizes)?;
    for _ in 0..ROUNDS {
        round(gpu, (height, width), (&x, &next), (&first, &second))?;
        std::mem::swap(&mut x, &mut next);
    }
    let scale = 0.2 * (width as f32).sqrt();
    let mut arguments = vec![gpu.part(p.value), (&x).into()];
    arguments.extend(sizes);
    arguments.extend([settings.lr, scale, settings.decay].map(Argument::from));
    // SAFETY: (p, o, rows, cols, turned, lr, scale, decay).
    unsafe { launch(gpu, "muon_apply", blocks, &arguments) }
}

/// Momentum, then u over its length.
fn unit(gpu: &Gpu, p: &Parameter, settings: &Settings, x: &Slice, sizes: [Argument; 3]) -> Result<()> {
    let n = p.rows * p.cols;
    let shares = n.div_ceil(SHARE);
    let (squares, by) = (gpu.take(2 * shares)?, gpu.take(1)?);
    let mut arguments = vec![gpu.part(p.gradient), gpu.part(p.momentum), x.into(), (&squares).into()];
    arguments.extend(sizes);
    arguments.extend([settings.momentum, settings.scale].map(Argument::from));
    // SAFETY: (g, m, x, squares, rows, cols, turned, beta, scale); (squares, count, by); (x, by, n).
    unsafe {
        launch(gpu, "muon_momentum", shares, &arguments)?;
        launch(gpu, "muon_length", 1, &[(&squares).into(), shares.into(), (&by).into()])?;
        launch(gpu, "muon_scale", n.div_ceil(256), &[x.into(), (&by).into(), Argument::long(n)])
    }
}

/// next = a X + (b A + c A²) X.
fn round(
    gpu: &Gpu,
    (height, width): (usize, usize),
    (x, next): (&Slice, &Slice),
    (first, second): (&Slice, &Slice),
) -> Result<()> {
    let (a, b, c) = COEFFICIENTS;
    let square = |factor: &Slice, depth: usize, out: &Slice| {
        let (a, bias) = (factor.into(), Argument::NULL);
        let p = Product { a, b: a, bias, c: out.into(), m: height, n: height, depth };
        product(gpu, Kind::RowsF32, &p, None, Write::Set)
    };
    let mix = |out: &Slice, a: f32, x: &Slice, b: f32, y: Argument, n: usize| {
        let arguments = [out.into(), a.into(), x.into(), b.into(), y, Argument::long(n)];
        // SAFETY: (out, a, x, b, y, n).
        unsafe { launch(gpu, "muon_mix", n.div_ceil(256), &arguments) }
    };
    square(x, width, first)?;
    square(first, height, second)?;
    mix(second, b, first, c, second.into(), height * height)?;
    mix(next, a, x, 0.0, Argument::NULL, height * width)?;
    let (m, n, depth) = (height, width, height);
    let p = Product { a: second.into(), b: x.into(), bias: Argument::NULL, c: next.into(), m, n, depth };
    product(gpu, Kind::ColumnsF32, &p, None, Write::Add)
}
