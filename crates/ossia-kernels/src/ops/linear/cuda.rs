//! The launchers; the kernels are in `kernel.cu`. Weights become bf16 on the device, whatever they are in the file.

use std::sync::Arc;

use super::{Linear, Write};
use crate::cuda::pack::{PARTS, TILE, TOKENS};
use crate::cuda::{Argument, Gpu, Memory, Shape, Slice};
use crate::ops::low_rank::{self, LowRank};
use crate::pool::Pool;
use crate::{Result, Step, Tensor};

/// The widest rows that blocks put into shared memory (`rope/kernel.cu`: two eights a thread).
const MOST_STAGED: usize = 4096;

/// Bytes of shared memory of `rows` rows of tokens as bf16 (`staged_row` in `products.cuh`).
pub(crate) fn staged_len(cols: usize, rows: usize) -> usize {
    rows * (cols.div_ceil(64) * 8 + 4) * 16
}

/// How a product is cut, by how many tokens there are.
#[derive(Clone, Copy)]
pub(crate) struct Tiling {
    /// The end of the kernel's name.
    pub name: &'static str,
    /// Tiles of rows of a block.
    rows_at_once: usize,
    /// Tiles of tokens of a block.
    tokens_at_once: usize,
}

impl Tiling {
    /// The kernel for the floats themselves.
    const FLOATS: Self = Self { name: "few_8", rows_at_once: 1, tokens_at_once: 1 };
    /// Those of prompts.
    const WIDE: Self = Self { name: "wide", rows_at_once: 8, tokens_at_once: 16 };
    const NARROW: Self = Self { name: "narrow", rows_at_once: 4, tokens_at_once: 8 };
    /// Those of prompts on Hopper, where blocks are large.
    const ASYNC: [Self; 2] = [
        Self { name: "async_192", rows_at_once: 8, tokens_at_once: 24 },
        Self { name: "async_128", rows_at_once: 8, tokens_at_once: 16 },
    ];

    /// For a product of `tokens` with `rows` outputs and `cols` inputs.
    pub fn of(gpu: &Gpu, (rows, cols): (usize, usize), tokens: usize) -> Self {
        let is_staged = tokens <= TOKENS && cols <= MOST_STAGED;
        if is_staged { Self::FLOATS } else { Self::of_packed(gpu, rows, tokens) }
    }

    /// The same among the kernels that take packed tokens.
    pub fn of_packed(gpu: &Gpu, rows: usize, tokens: usize) -> Self {
        let (name, rows_at_once, tokens_at_once) = match tokens {
            0..=16 => ("few_16", 1, 2),
            17..=32 => ("few_32", 1, 4),
            33..=64 => ("few_64", 2, 8),
            _ => {
                // Large blocks read less, as long as every processor has one.
                return match Self::WIDE.blocks(rows, tokens) {
                    blocks if blocks < gpu.about().processors => Self::NARROW,
                    _ if gpu.is_hopper() => Self::of_async(gpu, rows, tokens),
                    _ => Self::WIDE,
                };
            }
        };
        Self { name, rows_at_once, tokens_at_once }
    }

    /// The wider of those on Hopper where it is done earlier: it takes about 5/4 of the time for a block, not 3/2, since the
    /// second cache has less to give.
    fn of_async(gpu: &Gpu, rows: usize, tokens: usize) -> Self {
        let turns = |tiling: &Self| tiling.blocks(rows, tokens).div_ceil(gpu.about().processors);
        let [wide, narrow] = Self::ASYNC;
        if 5 * turns(&wide) <= 4 * turns(&narrow) { wide } else { narrow }
    }

    fn blocks(self, rows: usize, tokens: usize) -> usize {
        let (x, y, _) = self.shape((rows, 0), tokens).grid;
        x * y
    }

    /// Whether tokens come in pieces, as `hopper.cu` takes them.
    pub fn is_async(self) -> bool {
        Self::ASYNC.iter().any(|tiling| tiling.name == self.name)
    }

    /// The file of the kernels of an op, whose name and that of its file for Hopper are given.
    pub fn file(self, [plain, hopper]: [&'static str; 2]) -> &'static str {
        if self.is_async() { hopper } else { plain }
    }

    /// Whether tokens come packed.
    pub fn is_packed(self) -> bool {
        self.name != Self::FLOATS.name
    }

    fn is_prompt(self) -> bool {
        self.is_async() || [Self::WIDE.name, Self::NARROW.name].contains(&self.name)
    }

    /// Tiles of eight tokens, filled up to what blocks take; those of prompts look how many there are.
    pub fn token_tiles(self, tokens: usize) -> usize {
        let at_once = if self.is_prompt() { 2 } else { self.tokens_at_once };
        tokens.div_ceil(TOKENS * at_once) * at_once
    }

    /// Blocks for a product with `rows` outputs and `cols` inputs.
    pub fn shape(self, (rows, cols): (usize, usize), tokens: usize) -> Shape {
        let tiles = (self.rows_at_once, self.tokens_at_once);
        let (threads, shared) = if !self.is_packed() {
            (PARTS * 32, PARTS * TILE * TOKENS * 4 + staged_len(cols, tokens))
        } else if self.is_async() {
            // Eight warps; four stages (`hopper.cuh`).
            (256, 4 * (2048 * tiles.0 + 1024 * tiles.1))
        } else if self.is_prompt() {
            // A warp for two tiles of rows and eight or four of tokens; three or four stages (`prompt.cuh`) of 2 KB for each tile
            // of rows and each two of tokens.
            let slots = if self.name == Self::WIDE.name { 3 } else { 4 };
            (tiles.0 * 32, slots * 2048 * (tiles.0 + tiles.1 / 2))
        } else {
            (PARTS * 32, PARTS * tiles.0 * TILE * tiles.1 * TOKENS * 4)
        };
        let grid = (rows.div_ceil(TILE).div_ceil(tiles.0), tokens.div_ceil(TOKENS * tiles.1), 1);
        Shape { grid, threads, shared }
    }
}

pub(super) fn apply(gpu: &Gpu, step: &Step, x: &Tensor, linear: &Linear, y: &Tensor, write: Write) -> Result<()> {
    let weights = weights(gpu, &step.runtime.pool, linear, "bf16 tiles", &|row| row)?;
    let bias = biases(gpu, linear)?;
    let (tokens, rows, cols) = (x.rows(), linear.rows(), linear.cols());
    let tiling = Tiling::of(gpu, (rows, cols), tokens);
    let packed = if tiling.is_packed() { Some(pack_tokens(gpu, x, tiling)?) } else { None };
    let input: Argument = packed.as_ref().map_or(x.device().into(), Argument::from);
    let add = usize::from(matches!(write, Write::Add));
    let bias = bias.as_ref().map_or(Argument::NULL, Argument::from);
    let arguments =
        [(&weights).into(), bias, input, y.device().into(), rows.into(), cols.into(), tokens.into(), add.into()];
    let kernel = format!("linear_{}", tiling.name);
    // SAFETY: (w, bias, x, y, rows, cols, tokens, add); packed tokens are as many tiles as the grid has.
    unsafe {
        gpu.launch(tiling.file(["linear", "linear.hopper"]), &kernel, tiling.shape((rows, cols), tokens), &arguments)?
    };
    add_adapters(gpu, x, linear, y)
}

/// y += what each row's adapter says of x.
pub(crate) fn add_adapters(gpu: &Gpu, x: &Tensor, linear: &Linear, y: &Tensor) -> Result<()> {
    match linear.adapters.on_gpu(gpu, |parts| parts.iter().map(LowRank::factors).collect())? {
        Some(attached) => low_rank::cuda::add(gpu, &attached, x, y),
        None => Ok(()),
    }
}

/// x as bf16 in the order of the kernels of a tiling.
pub(crate) fn pack_tokens(gpu: &Gpu, x: &Tensor, tiling: Tiling) -> Result<Slice> {
    let (tiles, steps) = (tiling.token_tiles(x.rows()), x.cols() / 16);
    let packed = gpu.take(tiles * steps * 64)?;
    let (kernel, at_once) = if tiling.is_async() { ("linear_pack_pieces", 16) } else { ("linear_pack", 8) };
    let shape = Shape { grid: (steps.div_ceil(at_once), tiles, 1), threads: 256, shared: 0 };
    let arguments = [x.device().into(), (&packed).into(), x.cols().into(), x.rows().into()];
    // SAFETY: (x, packed, cols, tokens).
    unsafe { gpu.launch(tiling.file(["linear", "linear.hopper"]), kernel, shape, &arguments)? };
    Ok(packed)
}

/// All parts, one under the other, in tiles; `place` says which row lies where. `form` is a name for that order.
pub(crate) fn weights(
    gpu: &Gpu,
    pool: &Pool,
    linear: &Linear,
    form: &'static str,
    place: &(dyn Fn(usize) -> usize + Sync),
) -> Result<Arc<Memory>> {
    let source = |at: usize| {
        let (row, mut first) = (place(at), 0);
        for part in &linear.parts {
            if row < first + part.weight.rows() {
                return Some((&part.weight, row - first));
            }
            first += part.weight.rows();
        }
        None
    };
    let shape = (linear.rows(), linear.cols());
    gpu.bf16_tiles((linear.parts.as_ptr().cast(), form), pool, shape, &source)
}

/// Those of all parts, or nothing where none has any.
pub(crate) fn biases(gpu: &Gpu, linear: &Linear) -> Result<Option<Arc<Memory>>> {
    if linear.parts.iter().all(|part| part.bias.is_none()) {
        return Ok(None);
    }
    let bytes = || {
        let of = |part: &super::Part| part.bias.clone().unwrap_or_else(|| vec![0.0; part.weight.rows()]);
        Ok(linear.parts.iter().flat_map(of).flat_map(f32::to_le_bytes).collect())
    };
    gpu.weight(linear.parts.as_ptr().cast(), "biases", bytes).map(Some)
}
