//! What the AVX2 integer kernels share: half a tile's rows, sums across lanes, the transposition that makes a panel.

use std::arch::x86_64::*;

use super::TILE;
use crate::matrix::Matrix;

/// Bytes of a cache line.
const LINE: usize = 64;

/// Rows that one vector of 32-bit lanes holds sums for.
pub const HALF: usize = 8;

/// N rows of a tile, as addresses.
pub struct Rows<const N: usize> {
    pub elements: [*const u8; N],
    pub scales: [*const u8; N],
    pub element_stride: usize,
    pub scale_stride: usize,
    /// Bytes from a row of this tile to its successor in the next one.
    next_tile: usize,
    /// Prefetches for each group, so that every line of the next tile is asked for once or a little more.
    prefetches: usize,
}

impl<const N: usize> Rows<N> {
    /// The rows from `row` on; past the end the last one repeats.
    pub fn new(m: &Matrix, row: usize) -> Self {
        let rows: [usize; N] = std::array::from_fn(|r| (row + r).min(m.rows() - 1));
        Self {
            elements: rows.map(|row| m.elements().at(row, 0).as_ptr()),
            scales: rows.map(|row| m.scales().at(row, 0).as_ptr()),
            element_stride: m.elements().group_stride(),
            scale_stride: m.scales().group_stride(),
            next_tile: TILE * m.elements().row_stride(),
            prefetches: (N * m.elements().group_stride()).div_ceil(LINE),
        }
    }

    /// Asks for the next tile's share of group `g`. Eight short rows side by side are no stream that the hardware
    /// would follow by itself.
    #[inline(always)]
    pub fn prefetch(&self, g: usize) {
        for i in 0..self.prefetches {
            let row = self.elements[(g * self.prefetches + i) % N];
            // SAFETY: a prefetch touches no memory and may point anywhere.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(row.wrapping_add(self.next_tile + g * self.element_stride).cast()) };
        }
    }
}

/// Eight vectors of 32-bit sums to one vector of their totals.
#[inline]
#[target_feature(enable = "avx2")]
pub fn add_across(a: __m256i, b: __m256i) -> __m256i {
    _mm256_add_epi32(_mm256_permute2x128_si256::<0x20>(a, b), _mm256_permute2x128_si256::<0x31>(a, b))
}

/// [row][quad] to [quad][row], a quad being 4 bytes; quads lie `stride` bytes apart.
///
/// # Safety
/// Eight times 32 bytes can be written from `out` on.
#[inline]
#[target_feature(enable = "avx2")]
pub unsafe fn store_transposed(w: [__m256i; 8], out: *mut u8, stride: usize) {
    let pair = |i: usize, j: usize| (_mm256_unpacklo_epi32(w[i], w[j]), _mm256_unpackhi_epi32(w[i], w[j]));
    let ((a0, a1), (a2, a3), (a4, a5), (a6, a7)) = (pair(0, 1), pair(2, 3), pair(4, 5), pair(6, 7));
    let four = |x, y| (_mm256_unpacklo_epi64(x, y), _mm256_unpackhi_epi64(x, y));
    let ((b0, b1), (b2, b3), (b4, b5), (b6, b7)) = (four(a0, a2), four(a1, a3), four(a4, a6), four(a5, a7));
    let low = [(b0, b4), (b1, b5), (b2, b6), (b3, b7)];
    for (i, (x, y)) in low.into_iter().enumerate() {
        // SAFETY: eight vectors of 32 bytes.
        unsafe {
            _mm256_storeu_si256(out.add(stride * i).cast(), _mm256_permute2x128_si256::<0x20>(x, y));
            _mm256_storeu_si256(out.add(stride * (i + 4)).cast(), _mm256_permute2x128_si256::<0x31>(x, y));
        }
    }
}

/// Tokens that share the loads of a panel.
pub const TOKENS: usize = 4;

/// `four` for fours of tokens, the last one filled up; `one` for a single token that remains.
#[inline(always)]
pub fn in_fours(
    tokens: &[u32],
    out: &mut [[f32; TILE]],
    four: impl Fn([u32; TOKENS], &mut [[f32; TILE]]),
    one: impl Fn([u32; 1], &mut [[f32; TILE]]),
) {
    let (fours, rest) = tokens.as_chunks::<TOKENS>();
    let (out, out_rest) = out.split_at_mut(fours.len() * TOKENS);
    fours.iter().zip(out.chunks_exact_mut(TOKENS)).for_each(|(tokens, out)| four(*tokens, out));
    match rest {
        [] => {}
        [token] => one([*token], out_rest),
        _ => padded(rest, out_rest, four),
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
