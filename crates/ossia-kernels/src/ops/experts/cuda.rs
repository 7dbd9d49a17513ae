//! The launchers; the kernels are in `kernel.cu`. Experts stay MXFP4 on the device.

use std::sync::Arc;

use super::{Expert, Experts};
use crate::cuda::pack::{self, BLOCK, PARTS, TILE, TOKENS};
use crate::cuda::{Argument, Gpu, MOST_SHARED, Memory, Shape, Slice};
use crate::matrix::Kind;
use crate::ops::linear::cuda::staged_len;
use crate::ops::low_rank::cuda::Attached;
use crate::ops::router::Routes;
use crate::pool::Pool;
use crate::{Error, Matrix, Result, Step, Tensor};

/// Tiles of rows of a block of the kernels for few pairs, of the first and the second product.
const FEW_TILES: (usize, usize) = (4, 2);

/// Shared memory of theirs: sums of all tiles and parts, rows of tokens, and of two tiles weights with their scales.
fn few_shared(cols: usize, tokens: usize) -> usize {
    let weights = PARTS * cols.div_ceil(BLOCK).div_ceil(PARTS) * (512 + 32);
    2 * weights + FEW_TILES.0 * PARTS * TILE * TOKENS * 4 + staged_len(cols, tokens)
}

/// Tiles of rows of a block of the kernels for many pairs.
const MANY_ROWS: usize = 16;

/// Shared memory of theirs, with so many tiles of pairs: four stages of `Coded` in `prompt.cuh`, each with codes, scales, and
/// tokens.
fn many_shared(tiles: usize) -> usize {
    4 * (MANY_ROWS * (512 + 32) + tiles / 2 * 2048)
}

/// A product's weights on the device.
struct Packed {
    /// Codes, and behind them scales.
    memory: Arc<Memory>,
    /// Bytes of the codes.
    codes: usize,
    /// Tiles of rows of an expert.
    tiles: usize,
    /// Blocks of 64 columns.
    blocks: usize,
}

/// The work of a step: pairs by expert, in items.
enum Items<'a> {
    /// So few pairs of at most eight tokens that blocks find their own: the experts of so many pairs, and tokens.
    Found(&'a Slice, usize, usize),
    Made {
        pairs: Slice,
        items: Slice,
        num_items: Slice,
        /// How many items there can be.
        most: usize,
        /// Tiles of pairs of an item.
        tiles: usize,
    },
}

pub(super) fn add_forward(
    gpu: &Gpu,
    step: &Step,
    t: &Tensor,
    routes: &Routes,
    experts: &Experts,
    x: &Tensor,
) -> Result<()> {
    check(experts)?;
    let routed = routes.device.as_ref().expect("routes are where the tokens are");
    let (tokens, k) = (t.rows(), routes.per_token);
    let (units, hidden) = (experts.experts[0].gate.rows(), experts.experts[0].down.rows());
    let (up, down) = (packed_up(gpu, &step.runtime.pool, experts)?, packed_down(gpu, &step.runtime.pool, experts)?);
    let fits = few_shared(t.cols().max(units), tokens) <= MOST_SHARED;
    let found = tokens <= TOKENS && tokens * k <= 32 && fits;
    let items = if found {
        Items::Found(&routed.experts, tokens * k, tokens)
    } else {
        items(gpu, &routed.experts, tokens * k, experts.experts.len())?
    };
    let act = gpu.take(tokens * k * units)?;
    let [gate_bias, up_bias, down_bias] = biases(gpu, experts)?;
    let attached = experts.adapters.on_gpu(gpu, |adapter| adapter.factors().into())?;
    let pairs = (&routed.experts, tokens * k, k);
    let inner = |x, part| attached.as_ref().map(|attached| attached.inner(gpu, pairs, x, part)).transpose();
    let adapted = |u: &Option<Slice>, part| match (&attached, u) {
        (Some(attached), Some(u)) => attached.arguments(gpu, u, part, (tokens, k)),
        _ => Attached::none(),
    };
    let u = inner((t.device(), t.cols(), k), 0)?;
    let mut out = vec![(&gate_bias).into(), (&up_bias).into(), experts.limit.into(), experts.alpha.into()];
    out.extend([Argument::from(&act), units.into()]);
    out.extend(adapted(&u, 0));
    product(gpu, "up", &up, &items, (t.device(), t.cols(), k), &out)?;
    let said = gpu.take(tokens * k * hidden)?;
    let u = inner((&act, units, 1), 1)?;
    let mut out: Vec<Argument> = vec![(&down_bias).into(), (&said).into(), hidden.into()];
    out.extend(adapted(&u, 1));
    if found {
        let combine = [
            (&routed.weights).into(),
            x.device().into(),
            k.into(),
            tokens.into(),
            gpu.counters(down.tiles.div_ceil(FEW_TILES.1)),
        ];
        out.extend::<[Argument; 5]>(combine);
    }
    product(gpu, "down", &down, &items, (&act, units, 1), &out)?;
    if found {
        return Ok(());
    }
    let arguments = [(&said).into(), (&routed.weights).into(), x.device().into(), k.into(), hidden.into()];
    let shape = Shape { grid: (tokens, 1, 1), threads: 256, shared: 0 };
    // SAFETY: (said, weights, y, k, cols).
    unsafe { gpu.launch("experts", "experts_combine", shape, &arguments) }
}

/// Numbers of four bytes of scratch for `tokens` with `k` of `e` experts each, of hidden size `d` and `i` units.
pub fn scratch_len(tokens: usize, (e, k): (usize, usize), d: usize, i: usize) -> usize {
    let pairs = tokens * k;
    let tiles = tiles_of_an_item(pairs, e);
    let most = most_items(pairs, e, tiles);
    pairs * (i + d + 1) + 4 * most + 1 + most * tiles * d.max(i).div_ceil(BLOCK) * 4 * 64
}

fn check(experts: &Experts) -> Result<()> {
    let matrices = experts.experts.iter().flat_map(|expert| [&expert.gate, &expert.up, &expert.down]);
    let mut others = matrices.map(Matrix::kind).filter(|kind| !matches!(kind, Kind::Mxfp4Pairs | Kind::Mxfp4Halves));
    others.next().map_or(Ok(()), |kind| {
        let found = format!("{kind:?}");
        Err(Error::CudaUnsupported { what: "experts are computed as they are released", wanted: "MXFP4", found })
    })
}

/// Tiles of pairs that an item takes at most: twice as many as an expert has on the mean, up to what registers hold.
fn tiles_of_an_item(pairs: usize, experts: usize) -> usize {
    match pairs.div_ceil(experts) {
        0..=8 => 2,
        9..=24 => 4,
        _ => 8,
    }
}

fn most_items(pairs: usize, experts: usize, tiles: usize) -> usize {
    (experts + pairs / (tiles * TOKENS)).min(pairs)
}

/// Pairs whose experts lie in shared memory while they are sorted.
const MOST_HELD: usize = 32 << 10;

fn items(gpu: &Gpu, chosen: &Slice, pairs: usize, experts: usize) -> Result<Items<'static>> {
    let tiles = tiles_of_an_item(pairs, experts);
    let most = most_items(pairs, experts, tiles);
    let (sorted, items, num_items) = (gpu.take(pairs)?, gpu.take(4 * most)?, gpu.take(1)?);
    let arguments = [
        chosen.into(),
        pairs.into(),
        experts.into(),
        (tiles * TOKENS).into(),
        (&sorted).into(),
        (&items).into(),
        (&num_items).into(),
        pairs.min(MOST_HELD).into(),
    ];
    let shape = Shape { grid: (1, 1, 1), threads: 1024, shared: 2 * pairs.min(MOST_HELD) };
    // SAFETY: (chosen, n, experts, most, pairs, items, num_items, held).
    unsafe { gpu.launch("experts", "experts_items", shape, &arguments)? };
    Ok(Items::Made { pairs: sorted, items, num_items, most, tiles })
}

/// The product `which` ("up" or "down") of rows of `x`, each of them `per_row` pairs', with what its kernel writes to.
fn product(
    gpu: &Gpu,
    which: &str,
    weights: &Packed,
    items: &Items,
    (x, cols, per_row): (&Slice, usize, usize),
    out: &[Argument],
) -> Result<()> {
    let codes = Argument::from(&weights.memory);
    let mut arguments: Vec<Argument> =
        vec![codes, codes.plus(weights.codes), weights.tiles.into(), weights.blocks.into()];
    let (sorted, list, num_items, most, tiles) = match items {
        Items::Found(chosen, pairs, tokens) => {
            arguments.extend::<[Argument; 4]>([(*chosen).into(), x.into(), cols.into(), per_row.into()]);
            arguments.extend(out);
            let at_once = if which == "up" { FEW_TILES.0 } else { FEW_TILES.1 };
            let grid = (weights.tiles.div_ceil(at_once), *pairs, 1);
            let shape = Shape { grid, threads: PARTS * 32, shared: few_shared(cols, *tokens) };
            // SAFETY: (weights, chosen, x, cols, per_row, out).
            return unsafe { gpu.launch("experts", &format!("experts_{which}_few"), shape, &arguments) };
        }
        Items::Made { pairs, items, num_items, most, tiles } => (pairs, items, num_items, *most, *tiles),
    };
    let work: [Argument; 3] = [list.into(), num_items.into(), sorted.into()];
    let packed = gpu.take(most * tiles * weights.blocks * 256)?;
    pack_many(gpu, &work, (most, tiles, weights.blocks), (x, cols, per_row), &packed)?;
    arguments.extend(work);
    arguments.push((&packed).into());
    arguments.extend(out);
    let grid = (weights.tiles.div_ceil(MANY_ROWS), most, 1);
    let (op, end, shared) = if is_async(gpu, tiles) {
        ("experts.hopper", "async".to_owned(), many_shared(tiles) / 4 * 5)
    } else {
        ("experts", (tiles * TOKENS).to_string(), many_shared(tiles))
    };
    let shape = Shape { grid, threads: 256, shared };
    // SAFETY: (weights, work, packed, out).
    unsafe { gpu.launch(op, &format!("experts_{which}_{end}"), shape, &arguments) }
}

/// Whether items of so many tiles of pairs are multiplied by the kernels of `hopper.cu`, which have five stages instead of four:
/// smaller ones take as long as their weights are read.
fn is_async(gpu: &Gpu, tiles: usize) -> bool {
    gpu.is_hopper() && tiles == 8
}

/// Rows of `x` as the kernels for many take them, of `most` items of `tiles` tiles of pairs, and `blocks` blocks of columns.
fn pack_many(
    gpu: &Gpu,
    work: &[Argument; 3],
    (most, tiles, blocks): (usize, usize, usize),
    (x, cols, per_row): (&Slice, usize, usize),
    packed: &Slice,
) -> Result<()> {
    let steps = blocks * 4;
    let input: [Argument; 4] = [x.into(), packed.into(), cols.into(), per_row.into()];
    let arguments = [&work[..], &input].concat();
    if is_async(gpu, tiles) {
        let shape = Shape { grid: (blocks.div_ceil(2), most, 1), threads: 256, shared: 0 };
        // SAFETY: (work, x, packed, cols, per_row, blocks).
        return unsafe {
            gpu.launch("experts.hopper", "experts_pack_pieces", shape, &[&arguments[..], &[blocks.into()]].concat())
        };
    }
    let shape = Shape { grid: (steps.div_ceil(8), most * tiles, 1), threads: 256, shared: 0 };
    // SAFETY: (work, x, packed, cols, per_row, steps, most).
    unsafe { gpu.launch("experts", "experts_pack", shape, &[&arguments[..], &[steps.into(), tiles.into()]].concat()) }
}

/// Gate and up: of a tile's rows the first eight are gates, the others the same units' ups.
fn packed_up(gpu: &Gpu, pool: &Pool, experts: &Experts) -> Result<Packed> {
    let first = &experts.experts[0].gate;
    let tiles = first.rows().div_ceil(TILE / 2);
    packed(gpu, pool, experts, "up", (tiles, first.cols()), &|expert, tile, row| {
        let unit = tile * (TILE / 2) + row % (TILE / 2);
        let half = if row < TILE / 2 { &expert.gate } else { &expert.up };
        (unit < half.rows()).then_some((half, unit))
    })
}

fn packed_down(gpu: &Gpu, pool: &Pool, experts: &Experts) -> Result<Packed> {
    let first = &experts.experts[0].down;
    let tiles = first.rows().div_ceil(TILE);
    packed(gpu, pool, experts, "down", (tiles, first.cols()), &|expert, tile, row| {
        let row = tile * TILE + row;
        (row < expert.down.rows()).then_some((&expert.down, row))
    })
}

/// All experts' rows in tiles, `tiles` of each; `source` knows of an expert the row that lies in a tile's row.
fn packed(
    gpu: &Gpu,
    pool: &Pool,
    experts: &Experts,
    form: &'static str,
    (tiles, cols): (usize, usize),
    source: &(impl for<'a> Fn(&'a Expert, usize, usize) -> Option<pack::Row<'a>> + Sync),
) -> Result<Packed> {
    let all = experts.experts.len() * tiles;
    let of = |row: usize| source(&experts.experts[row / TILE / tiles], row / TILE % tiles, row % TILE);
    let memory = gpu.mxfp4_tiles((experts.experts.as_ptr().cast(), form), pool, (all, cols), &of)?;
    Ok(Packed { memory, codes: pack::codes_len(all, cols), tiles, blocks: cols.div_ceil(BLOCK) })
}

/// Those of gates, ups and outputs, expert after expert.
fn biases(gpu: &Gpu, experts: &Experts) -> Result<[Arc<Memory>; 3]> {
    let key = experts.experts.as_ptr().cast();
    let of = |form, bias: fn(&Expert) -> &Vec<f32>| {
        let bytes = || Ok(experts.experts.iter().flat_map(bias).flat_map(|v| v.to_le_bytes()).collect());
        gpu.weight(key, form, bytes)
    };
    Ok([of("gate biases", |e| &e.gate_bias)?, of("up biases", |e| &e.up_bias)?, of("down biases", |e| &e.down_bias)?])
}
