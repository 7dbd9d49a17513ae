//! The launchers; the kernels are in `kernel.cu` and `train.cu`.

use super::{Heads, Projection, Rope};
use crate::cuda::{Argument, Gpu, Shape, Slice};
use crate::ops::linear::cuda::{self as linear, Tiling};
use crate::{Error, Result, Step, Tensor};

/// Channels of a head that there are kernels for, here and in attention.
pub(crate) const DIMS: [usize; 3] = [16, 32, 64];

/// The files of kernels, the second for Hopper.
const FILES: [&str; 2] = ["rope", "rope.hopper"];

/// Rotates and writes what was made before.
pub(super) fn forward(
    gpu: &Gpu,
    step: &Step,
    qkv: &Tensor,
    rope: &Rope,
    heads: Heads,
    layer: usize,
    window: Option<usize>,
) -> Result<()> {
    check(heads)?;
    let out = out(gpu, step, (Argument::NULL, qkv), (turns(gpu, rope, qkv.rows(), true)?, heads), layer, window);
    let shape = Shape { grid: (qkv.rows(), heads.query + 2 * heads.kv, 1), threads: heads.dim / 2, shared: 0 };
    // SAFETY: (out); the pages that tables name lie inside the stores.
    unsafe { gpu.launch("rope", "rope", shape, &out) }
}

/// Norm, product, rotation and pages.
pub(super) fn project(gpu: &Gpu, step: &Step, x: &Tensor, projection: &Projection) -> Result<Tensor> {
    let Projection { norm, rope, .. } = projection;
    let (tokens, cols) = (x.rows(), x.cols());
    let weight = gpu.floats(&norm.weight)?;
    let turns = turns(gpu, rope, tokens, true)?;
    let tiling = Tiling::of(gpu, (projection.linear.rows(), cols), tokens);
    if !tiling.is_packed() {
        return product(
            gpu,
            step,
            tiling,
            &[x.device().into(), (&weight).into(), norm.eps.into()],
            tokens,
            projection,
            turns,
        );
    }
    let tiles = tiling.token_tiles(tokens);
    let packed = gpu.take(tiles * cols * 4)?;
    let kernel = if tiling.is_async() { "rope_norm_pack_pieces" } else { "rope_norm_pack" };
    let shape = Shape { grid: (tiles, 1, 1), threads: 256, shared: 0 };
    let arguments =
        [x.device().into(), (&weight).into(), norm.eps.into(), (&packed).into(), cols.into(), tokens.into()];
    // SAFETY: (x, norm, eps, packed, cols, tokens).
    unsafe { gpu.launch(tiling.file(FILES), kernel, shape, &arguments)? };
    product(gpu, step, tiling, &[(&packed).into()], tokens, projection, turns)
}

/// The product alone, of rows that are normalised, and what adapters add to it.
pub(super) fn product_of(gpu: &Gpu, step: &Step, t: &Tensor, projection: &Projection) -> Result<Tensor> {
    let tiling = Tiling::of_packed(gpu, projection.linear.rows(), t.rows());
    let packed = linear::pack_tokens(gpu, t, tiling)?;
    let qkv = product(gpu, step, tiling, &[(&packed).into()], t.rows(), projection, Argument::NULL)?;
    linear::add_adapters(gpu, t, projection.linear, &qkv)?;
    Ok(qkv)
}

fn product(
    gpu: &Gpu,
    step: &Step,
    tiling: Tiling,
    input: &[Argument],
    tokens: usize,
    projection: &Projection,
    turns: Argument,
) -> Result<Tensor> {
    let Projection { linear, heads, layer, window, .. } = *projection;
    check(heads)?;
    // Of a tile's sixteen rows the first eight are channels of a head, the others those that turn with them.
    let place = |row: usize| {
        let (head, tile, at) = (row / heads.dim, row % heads.dim / 16, row % 16);
        head * heads.dim + tile * 8 + at % 8 + at / 8 * (heads.dim / 2)
    };
    let weights = linear::weights(gpu, &step.runtime.pool, linear, "bf16 tiles of heads", &place)?;
    let bias = linear::biases(gpu, linear)?;
    let bias = bias.as_ref().map_or(Argument::NULL, Argument::from);
    let (rows, cols) = (linear.rows(), linear.cols());
    let qkv = Tensor::on_gpu(gpu, tokens, rows)?;
    let mut arguments = vec![Argument::from(&weights)];
    arguments.extend_from_slice(input);
    arguments.extend([rows, cols, tokens].map(Argument::from));
    arguments.extend(out(gpu, step, (bias, &qkv), (turns, heads), layer, window));
    // SAFETY: (w, input, rows, cols, tokens, out); packed tokens are as many tiles as the grid has, and the pages that tables
    // name lie inside the stores.
    unsafe {
        gpu.launch(
            tiling.file(FILES),
            &format!("rope_{}", tiling.name),
            tiling.shape((rows, cols), tokens),
            &arguments,
        )?
    };
    Ok(qkv)
}

/// Where q, k and v go.
fn out(
    gpu: &Gpu,
    step: &Step,
    (bias, qkv): (Argument, &Tensor),
    (turns, heads): (Argument, Heads),
    layer: usize,
    window: Option<usize>,
) -> [Argument; 13] {
    let (keys, values) = step.kv[layer].device();
    let tables = gpu.tables();
    let pages = tables.pages(window);
    [
        bias,
        qkv.device().into(),
        turns,
        tables.positions(),
        tables.sequences(),
        pages.pages,
        pages.firsts,
        pages.width.into(),
        keys.into(),
        values.into(),
        heads.query.into(),
        heads.kv.into(),
        heads.dim.into(),
    ]
}

/// The rotation of training, or with a `sign` of -1 its reverse.
pub(super) fn rotate_all(gpu: &Gpu, qkv: &Tensor, rope: &Rope, heads: Heads, sign: f32) -> Result<()> {
    let turns = turns(gpu, rope, qkv.rows(), false)?;
    let arguments = [qkv.device().into(), turns, sign.into(), qkv.cols().into(), heads.dim.into()];
    let shape = Shape { grid: (qkv.rows(), heads.query + heads.kv, 1), threads: heads.dim / 2, shared: 0 };
    // SAFETY: (qkv, turns, sign, row, dim).
    unsafe { gpu.launch("rope.train", "rope_rotate", shape, &arguments) }
}

/// Cosines and sines [T, d / 2] of the step's positions, which are the same for all layers: made by the first. Frequencies of
/// a model that `lasts` are kept on the device.
fn turns(gpu: &Gpu, rope: &Rope, tokens: usize, lasts: bool) -> Result<Argument> {
    let tables = gpu.tables();
    tables.turns(|| {
        let half = rope.inv_freq.len();
        let turns: Slice = gpu.take(2 * tokens * half)?;
        let copy = if lasts { None } else { Some(gpu.uploaded(&rope.inv_freq)?) };
        let frequencies = copy.as_ref().map_or_else(|| gpu.floats(&rope.inv_freq), |copy| Ok(copy.into()))?;
        let arguments = [frequencies, rope.concentration.into(), tables.positions(), (&turns).into()];
        let shape = Shape { grid: (tokens, 1, 1), threads: half, shared: 0 };
        // SAFETY: (inv_freq, concentration, positions, turns).
        unsafe { gpu.launch("rope", "rope_turns", shape, &arguments)? };
        Ok(turns)
    })
}

fn check(heads: Heads) -> Result<()> {
    if DIMS.contains(&heads.dim) {
        return Ok(());
    }
    let found = format!("{} channels", heads.dim);
    Err(Error::CudaUnsupported { what: "heads are computed", wanted: "16, 32 or 64 channels", found })
}
