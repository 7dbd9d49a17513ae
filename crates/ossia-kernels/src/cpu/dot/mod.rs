//! Dot products of weight rows with activations: the inner loop of every linear layer.
//!
//! Work is cut into tiles of sixteen rows. One tile with one token is read straight from the weights; with more tokens
//! its elements are unpacked once and reused.
//!
//! **The order of sums is the same on both ways**, so a token's result never depends on its company:
//! * integer activations: per group of 32 an exact integer sum s, then `acc = fma(s, w_scale * x_scale, acc)`, groups
//!   ascending, acc starting at 0. The same bits on every instruction set.
//! * float activations: eight lanes, `lane[j] = fma(w[8i+j], x[8i+j], lane[j])`, i ascending; the lanes are then added
//!   pairwise (0+4 1+5 2+6 3+7, then +2, then +1). The scalar version rounds products too (no fma).

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod float_avx2;
#[cfg(target_arch = "x86_64")]
mod int16_avx2;
#[cfg(target_arch = "x86_64")]
mod int16_avx512;
#[cfg(target_arch = "x86_64")]
mod int8_avx2;
#[cfg(target_arch = "x86_64")]
mod int8_avx512;
pub mod quantize;
#[cfg(target_arch = "x86_64")]
mod rows_avx2;
#[cfg(target_arch = "x86_64")]
mod rows_avx512;
mod scalar;
#[cfg(test)]
mod tests;

#[cfg(target_arch = "x86_64")]
pub use float_avx2::add_lanes;

use crate::arena::{Arena, Slice};
use crate::cpu::isa::Isa;
use crate::matrix::{Kind, Matrix};
use crate::mxfp4::GROUP;
use crate::{Precision, Result};
use quantize::{Int8Rows, Int16Rows, Order};

/// Rows of a tile.
pub const TILE: usize = 16;

/// Bytes of a panel. (AMX reads four groups at once, the last of them too.)
const fn panel_bytes(cols: usize) -> usize {
    2 * TILE * if cols < 4 * GROUP { 4 * GROUP } else { cols }
}

/// From this many tokens on, a tile's elements are unpacked first.
const PANEL_TOKENS: usize = 3;

/// Tokens that are picked at once, at most.
pub const MOST_TOKENS: usize = 128;

/// Activations in the form that a matrix wants them.
pub enum Input<'a> {
    /// f32, [tokens, cols].
    Float(&'a [f32]),
    /// 8-bit, with a scale for each group of 32: for MXFP4.
    Int8(Int8Rows),
    /// 16-bit, with a scale for each group of 32: for Q8, where they cost no more than 8 bits do on AVX2.
    Int16(Int16Rows),
}

impl<'a> Input<'a> {
    /// Prepares x [tokens, cols] for matrices of `kind`: integers where the weights are quantized and precision is fast.
    pub fn new(runtime: &crate::Runtime, x: &'a [f32], cols: usize, kind: Kind) -> Result<Self> {
        if runtime.precision == Precision::F32 {
            return Ok(Input::Float(x));
        }
        Ok(match kind {
            Kind::F32 | Kind::F16 | Kind::BF16 => Input::Float(x),
            Kind::Q8 => Input::Int16(Int16Rows::quantize(runtime, x, cols)?),
            Kind::Mxfp4Pairs => Input::Int8(Int8Rows::quantize(runtime, x, cols, Order::EvenOdd)?),
            Kind::Mxfp4Halves => Input::Int8(Int8Rows::quantize(runtime, x, cols, Order::Natural)?),
        })
    }
}

/// One tile's elements, unpacked, and the tokens that it meets: scratch of one thread.
pub struct Panel<'a> {
    /// MXFP4, and Q8 for AMX: [groups, 8 quads, rows, 4 elements], a byte each; else Q8: [groups, 16 pairs, rows,
    /// 2 elements], two each.
    codes: &'a mut [u8],
    /// [groups, rows].
    scales: &'a mut [f32],
    /// Tokens for AMX, see there.
    planes: &'a mut [u8],
    token_scales: &'a mut [f32],
}

/// Scratch for the panels of all threads.
pub struct Panels {
    codes: Slice<u8>,
    scales: Slice<f32>,
    planes: Slice<u8>,
    token_scales: Slice<f32>,
    cols: usize,
}

/// Some tokens of an input, ready for one tile of weights after the other.
pub struct Picked<'a, 'p> {
    isa: Isa,
    x: &'a Input<'a>,
    tokens: &'a [u32],
    panel: &'a mut Panel<'p>,
}

impl Panels {
    /// Panels for tiles of `cols` columns.
    pub fn new(arena: &Arena, threads: usize, cols: usize) -> Result<Self> {
        let codes = arena.take(threads * panel_bytes(cols))?;
        let scales = arena.take(threads * TILE * cols / GROUP)?;
        let (planes, token_scales) = token_room(cols);
        let (planes, token_scales) = (arena.take(threads * planes)?, arena.take(threads * token_scales)?);
        Ok(Self { codes, scales, planes, token_scales, cols })
    }

    /// Bytes of scratch that [`Panels::new`] takes.
    pub fn scratch_bytes(threads: usize, cols: usize) -> usize {
        let (planes, token_scales) = token_room(cols);
        Arena::size_of::<u8>(threads * panel_bytes(cols))
            + Arena::size_of::<f32>(threads * TILE * cols / GROUP)
            + Arena::size_of::<u8>(threads * planes)
            + Arena::size_of::<f32>(threads * token_scales)
    }

    /// Lends one panel to each thread.
    pub fn split(&mut self) -> Vec<std::sync::Mutex<Panel<'_>>> {
        let (planes, token_scales) = token_room(self.cols);
        let codes = self.codes.chunks_exact_mut(panel_bytes(self.cols));
        let scales = self.scales.chunks_exact_mut(TILE * self.cols / GROUP);
        // Where nothing is needed, every thread has nothing.
        let mut planes = self.planes.chunks_exact_mut(planes.max(1));
        let mut token_scales = self.token_scales.chunks_exact_mut(token_scales.max(1));
        let panel = |(codes, scales)| {
            let (planes, token_scales) = (planes.next().unwrap_or_default(), token_scales.next().unwrap_or_default());
            std::sync::Mutex::new(Panel { codes, scales, planes, token_scales })
        };
        codes.zip(scales).map(panel).collect()
    }
}

/// Bytes and scales of a thread's tokens.
fn token_room(cols: usize) -> (usize, usize) {
    #[cfg(target_arch = "x86_64")]
    if Isa::detect() == Isa::Amx {
        return amx::room(MOST_TOKENS, cols);
    }
    let _ = cols;
    (0, 0)
}

impl<'a, 'p> Picked<'a, 'p> {
    /// Makes `tokens` of `x` ready, at most [`MOST_TOKENS`].
    pub fn new(isa: Isa, x: &'a Input<'a>, tokens: &'a [u32], panel: &'a mut Panel<'p>) -> Self {
        assert!(tokens.len() <= MOST_TOKENS);
        let mut isa = isa;
        #[cfg(target_arch = "x86_64")]
        if isa == Isa::Amx {
            let Panel { planes, token_scales, .. } = panel;
            match x {
                // SAFETY: the version is only made where the features were detected.
                Input::Int8(x) if tokens.len() >= amx::LEAST_TOKENS => unsafe {
                    amx::pack_int8(x, tokens, planes, token_scales);
                },
                // SAFETY: as above.
                Input::Int16(x) if tokens.len() >= amx::LEAST_TOKENS => unsafe {
                    amx::pack_int16(x, tokens, planes, token_scales);
                },
                _ => isa = isa.without_amx(),
            }
        }
        isa = if cfg!(target_arch = "x86_64") { isa } else { isa.without_amx() };
        Self { isa, x, tokens, panel }
    }

    /// out[i][r] = W[row + r] · x[tokens[i]] for the sixteen rows from `row` on; rows past the last repeat it.
    pub fn tile(&mut self, m: &Matrix, row: usize, out: &mut [[f32; TILE]]) {
        let Picked { x, tokens, .. } = *self;
        let panel = &mut *self.panel;
        assert!(row < m.rows() && tokens.len() == out.len());
        // The widest kernels take sixteen rows or none; the scalar ones give the same bits.
        let wide = matches!(self.isa, Isa::Avx512 | Isa::Amx);
        let isa = if wide && m.rows() < TILE && m.kind().is_quantized() { Isa::Scalar } else { self.isa };
        match (isa, x) {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: these are only made where the features were detected.
            (Isa::Avx2, Input::Int8(x)) => unsafe { int8_avx2::tile(m, row, x, tokens, panel, out) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            (Isa::Avx2, Input::Int16(x)) => unsafe { int16_avx2::tile(m, row, x, tokens, panel, out) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            (Isa::Avx512, Input::Int8(x)) => unsafe { int8_avx512::tile(m, row, x, tokens, panel, out) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            (Isa::Avx512, Input::Int16(x)) => unsafe { int16_avx512::tile(m, row, x, tokens, panel, out) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above; `new` has packed the tokens.
            (Isa::Amx, Input::Int8(_)) => unsafe { amx::tile_int8(m, row, panel, out) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            (Isa::Amx, Input::Int16(_)) => unsafe { amx::tile_int16(m, row, panel, out) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            (Isa::Avx2 | Isa::Avx512 | Isa::Amx, Input::Float(x)) => unsafe {
                float_avx2::tile(m, row, x, tokens, out)
            },
            (_, Input::Int8(x)) => scalar::int8_tile(m, row, x, tokens, out),
            (_, Input::Int16(x)) => scalar::int16_tile(m, row, x, tokens, out),
            (_, Input::Float(x)) => scalar::float_tile(m, row, x, tokens, out),
        }
    }
}

/// Runs a kernel for N tokens on fewer, the last of them standing in for the others: a kernel for one token waits for its
/// own sums and takes as long as one for many.
#[inline(always)]
fn padded<const N: usize>(tokens: &[u32], out: &mut [[f32; TILE]], run: impl Fn([u32; N], &mut [[f32; TILE]])) {
    let num = tokens.len();
    let mut all = [[0.0; TILE]; N];
    all[..num].copy_from_slice(out);
    run(std::array::from_fn(|i| tokens[i.min(num - 1)]), &mut all);
    out.copy_from_slice(&all[..num]);
}

/// The rows of a tile; past the end the last row stands in.
fn tile_rows(m: &Matrix, row: usize) -> [usize; TILE] {
    std::array::from_fn(|r| (row + r).min(m.rows() - 1))
}
