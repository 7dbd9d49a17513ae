//! The launchers of training; the kernels are in `train.cu`. Weights are read in bf16 as the run that is seen has them.

use super::{Linear, LinearGrad, Write};
use crate::cuda::{Argument, Gpu, Shape, Slice};
use crate::{Error, Result, Tensor};

/// The file of kernels.
const FILE: &str = "linear.train";
/// Rows and columns of a block.
const SIDE: usize = 128;

/// Rows that belong to groups, as pairs do to experts.
#[derive(Clone, Copy)]
pub(crate) struct Groups<'a> {
    /// Where the rows of each start, and the end [count + 1].
    pub starts: &'a Slice,
    /// How many there are.
    pub count: usize,
    /// Numbers from what belongs to one group to what belongs to the next.
    pub step: usize,
    /// The same between biases that a product adds.
    pub bias_step: usize,
}

/// c [m, n] of a and b, whose sums have `depth` products.
#[derive(Clone, Copy)]
pub(crate) struct Product {
    pub a: Argument,
    pub b: Argument,
    /// One number for each column, or nothing.
    pub bias: Argument,
    pub c: Argument,
    pub m: usize,
    pub n: usize,
    pub depth: usize,
}

/// How operands lie.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// a [m, depth], b [n, depth] in bf16: y = x Wᵀ.
    Rows,
    /// a [m, depth], b [depth, n] in bf16: dx = dy W.
    Columns,
    /// As `Rows`, b in f32.
    RowsF32,
    /// As `Columns`, b in f32.
    ColumnsF32,
    /// a [depth, m], b [depth, n]: dW = dyᵀ x. Groups are of the depth.
    Outer,
}

/// Computes a product, rows in groups where there are some.
pub(crate) fn product(gpu: &Gpu, kind: Kind, p: &Product, groups: Option<Groups>, write: Write) -> Result<()> {
    let kernel = match kind {
        Kind::Rows => "product_rows",
        Kind::Columns => "product_columns",
        Kind::RowsF32 => "product_rows_f32",
        Kind::ColumnsF32 => "product_columns_f32",
        Kind::Outer => "product_outer",
    };
    let count = groups.map_or(0, |groups| groups.count);
    let tiles = p.m.div_ceil(SIDE);
    let grid = match kind {
        Kind::Outer => (p.n.div_ceil(SIDE), tiles, count.max(1)),
        // Each group's last tile may be half empty.
        _ => (p.n.div_ceil(SIDE), tiles + count, 1),
    };
    let arguments = [
        p.a,
        p.b,
        p.bias,
        p.c,
        groups.map_or(Argument::NULL, |groups| groups.starts.into()),
        count.into(),
        Argument::long(groups.map_or(0, |groups| groups.step)),
        Argument::long(groups.map_or(0, |groups| groups.bias_step)),
        p.m.into(),
        p.n.into(),
        p.depth.into(),
        usize::from(write == Write::Add).into(),
    ];
    // SAFETY: (a, b, bias, c, starts, groups, step, bias_step, m, n, depth, add), of the sizes that are said.
    unsafe { gpu.launch(FILE, kernel, Shape { grid, threads: 256, shared: 0 }, &arguments) }
}

/// out [cols] of each group += the sum of its rows of x [rows, cols], times `weights` [rows] where there are some.
pub(crate) fn add_rows(
    gpu: &Gpu,
    (x, weights): (Argument, Argument),
    (rows, cols): (usize, usize),
    groups: Option<Groups>,
    out: Argument,
) -> Result<()> {
    let arguments = [
        x,
        weights,
        groups.map_or(Argument::NULL, |groups| groups.starts.into()),
        Argument::long(groups.map_or(0, |groups| groups.step)),
        out,
        rows.into(),
        cols.into(),
    ];
    let shape =
        Shape { grid: (cols.div_ceil(32), groups.map_or(1, |groups| groups.count), 1), threads: 1024, shared: 0 };
    // SAFETY: (x, weights, starts, step, out, rows, cols).
    unsafe { gpu.launch(FILE, "add_rows", shape, &arguments) }
}

/// What goes through a layer: so many rows of x [rows, K] and of dy [rows, N], and where dx [rows, K] goes.
#[derive(Clone, Copy)]
pub(crate) struct Io {
    pub x: Argument,
    pub dy: Argument,
    pub dx: Argument,
    pub rows: usize,
}

/// y [rows, N] (=, +=) W x + b.
pub(crate) fn apply(gpu: &Gpu, x: Argument, linear: &Linear, y: Argument, rows: usize, write: Write) -> Result<()> {
    check(linear)?;
    let bias = linear.parts[0].bias.as_ref().map(|bias| gpu.floats(bias)).transpose()?.unwrap_or(Argument::NULL);
    let (m, n, depth) = (rows, linear.rows(), linear.cols());
    product(gpu, Kind::Rows, &Product { a: x, b: weights(gpu, linear), bias, c: y, m, n, depth }, None, write)
}

/// [`apply`] of whole tensors.
pub(super) fn forward(gpu: &Gpu, x: &Tensor, linear: &Linear, y: &Tensor, write: Write) -> Result<()> {
    apply(gpu, x.device().into(), linear, y.device().into(), x.rows(), write)
}

/// Adds to the gradients of W and b, and writes dx.
pub(crate) fn gradients(gpu: &Gpu, io: &Io, linear: &Linear, grad: &mut LinearGrad, write: Write) -> Result<()> {
    check(linear)?;
    let (n, k) = (linear.rows(), linear.cols());
    if let Some(weight) = grad.weight.as_deref() {
        assert!(weight.len() == n * k, "linear: gradient sizes");
        let outer =
            Product { a: io.dy, b: io.x, bias: Argument::NULL, c: gpu.part(weight), m: n, n: k, depth: io.rows };
        product(gpu, Kind::Outer, &outer, None, Write::Add)?;
    }
    if let Some(bias) = grad.bias.as_deref() {
        assert!(bias.len() == n, "linear: gradient sizes");
        add_rows(gpu, (io.dy, Argument::NULL), (io.rows, n), None, gpu.part(bias))?;
    }
    let (a, b, bias) = (io.dy, weights(gpu, linear), Argument::NULL);
    product(gpu, Kind::Columns, &Product { a, b, bias, c: io.dx, m: io.rows, n: k, depth: n }, None, write)
}

/// [`gradients`] of whole tensors.
pub(super) fn backward(
    gpu: &Gpu,
    x: &Tensor,
    linear: &Linear,
    dy: &Tensor,
    grad: &mut LinearGrad,
    dx: &Tensor,
    write: Write,
) -> Result<()> {
    let io = Io { x: x.device().into(), dy: dy.device().into(), dx: dx.device().into(), rows: x.rows() };
    gradients(gpu, &io, linear, grad, write)
}

/// W [N, K] in bf16, whose parts lie end to end as their gradients do.
fn weights(gpu: &Gpu, linear: &Linear) -> Argument {
    let at = |part: &super::Part| part.weight.elements().at(0, 0).as_ptr();
    let mut next = at(&linear.parts[0]);
    for part in &linear.parts {
        assert!(at(part) == next, "linear: the parts of a layer that is trained lie end to end");
        next = next.wrapping_add(4 * part.weight.rows() * part.weight.cols());
    }
    gpu.seen_halves(at(&linear.parts[0]).cast()).expect("linear: weights that are trained are seen")
}

/// Adapters are not trained here.
fn check(linear: &Linear) -> Result<()> {
    if !linear.is_adapted() {
        return Ok(());
    }
    let found = "one that is attached".to_owned();
    Err(Error::CudaUnsupported { what: "adapters are not trained", wanted: "no adapter", found })
}
