//! Dot products of weight rows with activations: the inner loop of every linear layer.
//!
//! Work is cut into tiles of sixteen rows. With a few tokens a tile is read straight from the weights; with more its
//! elements are unpacked once and reused.
//!
//! **The order of sums is the same on all ways**, so a token's result never depends on its company:
//! * integer activations: per group of 32 an exact integer sum s, then `acc = fma(s, w_scale * x_scale, acc)`, groups
//!   ascending, acc starting at 0. The same bits on every instruction set.
//! * float activations: eight lanes, `lane[j] = fma(w[8i+j], x[8i+j], lane[j])`, i ascending; the lanes are then added
//!   pairwise (0+4 1+5 2+6 3+7, then +2, then +1). The scalar version rounds products too (no fma).

#[cfg(target_arch = "x86_64")]
mod along_avx512;
#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod few_avx2;
#[cfg(target_arch = "x86_64")]
mod few_avx512;
#[cfg(target_arch = "x86_64")]
mod few_vnni;
#[cfg(target_arch = "x86_64")]
mod float_avx2;
#[cfg(target_arch = "x86_64")]
mod float_avx512;
#[cfg(target_arch = "x86_64")]
mod halves_avx512;
#[cfg(target_arch = "x86_64")]
mod int8_avx512;
#[cfg(target_arch = "x86_64")]
pub mod lanes_avx2;
mod lists;
#[cfg(target_arch = "x86_64")]
mod packed;
pub mod quantize;
#[cfg(target_arch = "x86_64")]
mod rows_avx512;
mod scalar;
#[cfg(target_arch = "x86_64")]
mod span;
#[cfg(test)]
mod speed;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod words_avx2;
#[cfg(target_arch = "x86_64")]
mod words_vnni;

pub use lists::{Lists, MOST_TOKENS};
use lists::{MOST_TILES, Products};
pub use scalar::add_lanes;

use crate::arena::{Arena, Slice};
use crate::cpu::isa::Isa;
#[cfg(target_arch = "x86_64")]
use crate::cpu::isa::{Processor, processor};
use crate::matrix::{Kind, Matrix};
use crate::mxfp4::GROUP;
use crate::{Precision, Result};
#[cfg(target_arch = "x86_64")]
use few_avx512::Way;
use quantize::{Int8Rows, Order, Weights};
#[cfg(target_arch = "x86_64")]
use span::Span;

/// Rows of a tile.
pub const TILE: usize = 16;

/// Groups that a panel has room for. (AMX reads four at once, the last of them too; AVX2 takes blocks of several tiles.)
const fn panel_groups(cols: usize) -> usize {
    if cols < 32 * GROUP { 32 } else { cols / GROUP }
}

/// Bytes and scales of a panel.
const fn panel_sizes(cols: usize) -> (usize, usize) {
    (2 * TILE * GROUP * panel_groups(cols), TILE * panel_groups(cols))
}

/// Activations in the form that a matrix wants them.
pub enum Input<'a> {
    /// f32, [tokens, cols].
    Float(&'a [f32]),
    /// 8-bit, with a scale for each group of 32: for MXFP4 and Q8.
    Int8(Int8Rows),
}

impl<'a> Input<'a> {
    /// Prepares x [tokens, cols] for matrices of `kind`: integers where the weights are quantized and precision is fast.
    pub fn new(runtime: &crate::Runtime, x: &'a [f32], cols: usize, kind: Kind) -> Result<Self> {
        if runtime.precision == Precision::F32 {
            return Ok(Input::Float(x));
        }
        let weights = match kind {
            Kind::F32 | Kind::F16 | Kind::BF16 => return Ok(Input::Float(x)),
            Kind::Q8 => Weights::Bytes,
            Kind::Mxfp4Pairs => Weights::Codes(Order::EvenOdd),
            Kind::Mxfp4Halves => Weights::Codes(Order::Natural),
        };
        Ok(Input::Int8(Int8Rows::quantize(runtime, x, cols, weights)?))
    }
}

/// Elements of a tile, or of some tiles' blocks, unpacked: scratch of one thread.
pub struct Panel<'a> {
    /// With AVX-512: [groups, 8 quads, rows, 4 elements], a byte each. With AVX2 a block of groups [rows, groups, elements], or
    /// with few tokens [eights of rows, groups, words, 8 rows]; there Q8 with two bytes each, unless there is AVX-VNNI.
    codes: &'a mut [u8],
    /// [groups, rows]; with AVX2 [rows, groups], or [eights of rows, groups, 8 rows].
    scales: &'a mut [f32],
    /// With AVX2, sums of rows with tokens that go on from block to block.
    sums: &'a mut [f32],
}

/// What one thread needs for its tiles: a panel, and places for what two matrices give.
pub struct Scratch<'a> {
    /// Unpacked elements.
    pub panel: Panel<'a>,
    /// What each of two matrices gives.
    pub out: [&'a mut [Products]; 2],
}

/// Floats of a thread's sums, and of what a matrix gives.
const MOST_SUMS: usize = MOST_TILES * TILE * MOST_TOKENS;

/// Scratch for the tiles of all threads.
pub struct Panels {
    codes: Slice<u8>,
    scales: Slice<f32>,
    sums: Slice<f32>,
    out: Slice<f32>,
    cols: usize,
}

impl Panels {
    /// Panels for tiles of `cols` columns.
    pub fn new(arena: &Arena, threads: usize, cols: usize) -> Result<Self> {
        let (codes, scales) = panel_sizes(cols);
        Ok(Self {
            codes: arena.take(threads * codes)?,
            scales: arena.take(threads * scales)?,
            sums: arena.take(threads * MOST_SUMS)?,
            out: arena.take(threads * 2 * MOST_SUMS)?,
            cols,
        })
    }

    /// Bytes of scratch that [`Panels::new`] takes.
    pub fn scratch_bytes(threads: usize, cols: usize) -> usize {
        let (codes, scales) = panel_sizes(cols);
        let floats = [scales, MOST_SUMS, 2 * MOST_SUMS].map(|size| Arena::size_of::<f32>(threads * size));
        Arena::size_of::<u8>(threads * codes) + floats.iter().sum::<usize>()
    }

    /// Lends its own to each thread.
    pub fn split(&mut self) -> Vec<std::sync::Mutex<Scratch<'_>>> {
        let (codes, scales) = panel_sizes(self.cols);
        let codes = self.codes.chunks_exact_mut(codes);
        let scales = self.scales.chunks_exact_mut(scales);
        let sums = self.sums.chunks_exact_mut(MOST_SUMS);
        let out = self.out.as_chunks_mut::<TILE>().0.as_chunks_mut::<MOST_TOKENS>().0.chunks_exact_mut(2 * MOST_TILES);
        let both = out.map(|out| <[_; 2]>::from(out.split_at_mut(MOST_TILES)));
        codes
            .zip(scales)
            .zip(sums.zip(both))
            .map(|((codes, scales), (sums, out))| {
                std::sync::Mutex::new(Scratch { panel: Panel { codes, scales, sums }, out })
            })
            .collect()
    }
}

/// out[i][r] = W[row + r] · x[tokens[i]] for the sixteen rows from `row` on; rows past the last repeat it.
fn tile(isa: Isa, m: &Matrix, row: usize, x: &Input, tokens: &[u32], panel: &mut Panel, out: &mut [[f32; TILE]]) {
    match (isa, x) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: these are only made where the features were detected.
        (Isa::Avx2 | Isa::AvxVnni, Input::Float(x)) => unsafe { float_avx2::tile(m, row, x, tokens, out) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        (Isa::Avx512 | Isa::Amx, Input::Float(x)) => unsafe { float_avx512::tile(m, row, x, tokens, out) },
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx2 | Isa::AvxVnni, Input::Int8(x)) => few_tile_avx2(isa == Isa::AvxVnni, m, row, x, tokens, out),
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx512 | Isa::Amx, Input::Int8(x)) => tile_avx512(m, row, x, tokens, panel, out),
        (_, Input::Int8(x)) => scalar::int8_tile(m, row, x, tokens, out),
        (_, Input::Float(x)) => scalar::float_tile(m, row, x, tokens, out),
    }
}

/// The same straight from the weights with AVX2, and maybe AVX-VNNI, which the caller has made sure of.
#[cfg(target_arch = "x86_64")]
fn few_tile_avx2(vnni: bool, m: &Matrix, row: usize, x: &Int8Rows, tokens: &[u32], out: &mut [[f32; TILE]]) {
    let most = if vnni { few_vnni::MOST } else { few_avx2::most(x.weights() == Weights::Bytes) };
    span::with_whole_tile(m, row, out, |row, out| {
        let (rows, groups) = (Span::new(m, row), m.groups());
        for (tokens, out) in span::parts(tokens, out, most) {
            // SAFETY: the features were detected; a Matrix holds all its groups, the tokens' rows as many.
            unsafe {
                if vnni {
                    few_vnni::tile(&rows, groups, x, tokens, out);
                } else {
                    few_avx2::tile(&rows, groups, x, tokens, out);
                }
            }
        }
    });
}

/// The same with AVX-512, which the caller has made sure of: straight from the weights with a few tokens.
#[cfg(target_arch = "x86_64")]
fn tile_avx512(m: &Matrix, row: usize, x: &Int8Rows, tokens: &[u32], panel: &mut Panel, out: &mut [[f32; TILE]]) {
    let way = Way::best();
    if !(1..=few_avx512::MOST).contains(&tokens.len()) {
        // SAFETY: the features were detected.
        return unsafe { int8_avx512::tile(way, m, row, x, tokens, panel, out) };
    }
    let along = way == Way::Wide && processor() == Processor::Zen5 && tokens.len() <= along_avx512::MOST;
    span::with_whole_tile(m, row, out, |row, out| {
        // SAFETY: the features were detected; a Matrix holds all its groups, the tokens' rows as many.
        unsafe {
            if along {
                along_avx512::tile(m, row, x, tokens, out);
            } else {
                few_avx512::tile(way, &Span::new(m, row), m.groups(), x, tokens, out);
            }
        }
    });
}

/// The rows of a tile; past the end the last row stands in.
fn tile_rows(m: &Matrix, row: usize) -> [usize; TILE] {
    std::array::from_fn(|r| (row + r).min(m.rows() - 1))
}
