//! Dot products with float activations, AVX2: every kind of weight, its values exact.

use std::arch::x86_64::*;
use std::ops::Range;

use super::{TILE, tile_rows};
use crate::cpu::isa::{Processor, processor};
use crate::matrix::{Kind, Matrix};
use crate::mxfp4::{DOUBLED, GROUP};

/// Tokens that share the loads of a row.
const TOKENS: usize = 4;

/// Tokens whose lanes are kept from block to block.
const PART: usize = 6 * TOKENS;

/// Groups of a block, whose sixteen rows stay in the first cache while the tokens of a part pass by.
const BLOCK: usize = 10;

/// The lanes of some tokens, [tokens, TILE, 8].
type Lanes = [[__m256; TILE]; PART];

/// See [`super::tile`].
///
/// # Safety
/// AVX2, FMA and F16C are present.
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn tile(m: &Matrix, row: usize, x: &[f32], tokens: &[u32], out: &mut [[f32; TILE]]) {
    let rows = tile_rows(m, row);
    for (tokens, out) in tokens.chunks(PART).zip(out.chunks_mut(PART)) {
        let mut lanes: Lanes = [[_mm256_setzero_ps(); TILE]; PART];
        // As even as may be: one alone waits for its own sums.
        let together = tokens.len().div_ceil(tokens.len().div_ceil(TOKENS));
        // A few tokens read the weights once, from end to end.
        let block = if tokens.len() <= TOKENS { m.groups() } else { BLOCK };
        for first in (0..m.groups()).step_by(block) {
            let groups = first..(first + block).min(m.groups());
            for (tokens, lanes) in tokens.chunks(together).zip(lanes.chunks_mut(together)) {
                // SAFETY: passed on.
                unsafe {
                    match *tokens {
                        [a, b, c, d] => add_block::<_, 2>(m, &rows, x, [a, b, c, d], groups.clone(), lanes),
                        [a, b, c] => add_block::<_, 2>(m, &rows, x, [a, b, c], groups.clone(), lanes),
                        [a, b] => add_block::<_, 4>(m, &rows, x, [a, b], groups.clone(), lanes),
                        [a] => add_block::<_, 4>(m, &rows, x, [a], groups.clone(), lanes),
                        _ => unreachable!("one to four tokens"),
                    }
                }
            }
        }
        for (out, lanes) in out.iter_mut().zip(&lanes) {
            out.iter_mut().zip(lanes).for_each(|(out, lanes)| *out = add_lanes(*lanes));
        }
    }
}

/// Adds a block of sixteen rows, R side by side, to the lanes of N tokens. There are registers for eight sums and little else.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn add_block<const N: usize, const R: usize>(
    m: &Matrix,
    rows: &[usize; TILE],
    x: &[f32],
    tokens: [u32; N],
    groups: Range<usize>,
    lanes: &mut [[__m256; TILE]],
) {
    for (i, rows) in rows.as_chunks::<R>().0.iter().enumerate() {
        let mut acc: [[__m256; R]; N] = std::array::from_fn(|n| std::array::from_fn(|r| lanes[n][i * R + r]));
        let groups = groups.clone();
        // SAFETY: passed on; the kind is decided once, outside the loop.
        unsafe {
            match m.kind() {
                Kind::F32 => dots::<{ Kind::F32 as u8 }, N, R>(m, rows, x, tokens, groups, &mut acc),
                Kind::F16 => dots::<{ Kind::F16 as u8 }, N, R>(m, rows, x, tokens, groups, &mut acc),
                Kind::BF16 => dots::<{ Kind::BF16 as u8 }, N, R>(m, rows, x, tokens, groups, &mut acc),
                Kind::Q8 => dots::<{ Kind::Q8 as u8 }, N, R>(m, rows, x, tokens, groups, &mut acc),
                Kind::Mxfp4Pairs => dots::<{ Kind::Mxfp4Pairs as u8 }, N, R>(m, rows, x, tokens, groups, &mut acc),
                Kind::Mxfp4Halves => dots::<{ Kind::Mxfp4Halves as u8 }, N, R>(m, rows, x, tokens, groups, &mut acc),
            }
        }
        for n in 0..N {
            lanes[n][i * R..][..R].copy_from_slice(&acc[n]);
        }
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn dots<const KIND: u8, const N: usize, const R: usize>(
    m: &Matrix,
    rows: &[usize; R],
    x: &[f32],
    tokens: [u32; N],
    groups: Range<usize>,
    acc: &mut [[__m256; R]; N],
) {
    let elements = rows.map(|row| m.elements().at(row, 0).as_ptr());
    let scales = rows.map(|row| m.scales().at(row, 0).as_ptr());
    let (stride, scale_stride) = (m.elements().group_stride(), m.scales().group_stride());
    let x = tokens.map(|t| x[t as usize * m.cols()..][..m.cols()].as_ptr());
    // Rows are read once where there is one token, and come from memory: the next ones are asked for.
    let (processor, next) = (processor(), R * m.elements().row_stride());
    let mut sums = *acc;
    for g in groups {
        if N == 1 {
            elements.iter().for_each(|row| prefetch(processor, row.wrapping_add(next + g * stride), stride));
        }
        for r in 0..R {
            // SAFETY: group g of a row of the matrix, and 32 activations of each token.
            unsafe {
                let w = load_group::<KIND>(elements[r].add(g * stride), scales[r].add(g * scale_stride));
                for (j, w) in w.into_iter().enumerate() {
                    for n in 0..N {
                        let x = _mm256_loadu_ps(x[n].add(g * GROUP + 8 * j));
                        sums[n][r] = _mm256_fmadd_ps(w, x, sums[n][r]);
                    }
                }
            }
        }
    }
    *acc = sums;
}

/// Asks for some bytes of weights, into the cache that suits the processor; Intel's reads on by itself.
#[inline(always)]
fn prefetch(processor: Processor, from: *const u8, bytes: usize) {
    for line in (0..bytes).step_by(64) {
        let line = from.wrapping_add(line).cast();
        // SAFETY: a prefetch touches no memory and may point anywhere.
        unsafe {
            match processor {
                Processor::Intel => {}
                Processor::Zen4 => _mm_prefetch::<_MM_HINT_T1>(line),
                Processor::Zen5 => _mm_prefetch::<_MM_HINT_T0>(line),
            }
        }
    }
}

/// The values of a group.
///
/// # Safety
/// `e` and `s` are the addresses of a group's elements and scale of this kind.
#[inline]
#[target_feature(enable = "avx2,f16c")]
unsafe fn load_group<const KIND: u8>(e: *const u8, s: *const u8) -> [__m256; 4] {
    // SAFETY: promised by the caller.
    unsafe {
        if KIND == Kind::F32 as u8 {
            return std::array::from_fn(|j| _mm256_loadu_ps(e.cast::<f32>().add(8 * j)));
        }
        if KIND == Kind::F16 as u8 {
            return std::array::from_fn(|j| _mm256_cvtph_ps(_mm_loadu_si128(e.add(16 * j).cast())));
        }
        if KIND == Kind::BF16 as u8 {
            return std::array::from_fn(|j| {
                let halves = _mm256_cvtepu16_epi32(_mm_loadu_si128(e.add(16 * j).cast()));
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(halves))
            });
        }
        if KIND == Kind::Q8 as u8 {
            let scale = _mm256_set1_ps(half::f16::from_le_bytes([*s, *s.add(1)]).to_f32());
            return std::array::from_fn(|j| {
                let v = _mm256_cvtepi8_epi32(_mm_loadl_epi64(e.add(8 * j).cast()));
                _mm256_mul_ps(_mm256_cvtepi32_ps(v), scale)
            });
        }
        let (low, high) = codes(e);
        let (first, second) = if KIND == Kind::Mxfp4Pairs as u8 {
            (_mm_unpacklo_epi8(low, high), _mm_unpackhi_epi8(low, high))
        } else {
            (low, high)
        };
        let scale = _mm256_set1_ps(0.5 * crate::mxfp4::scale(*s));
        let lanes = |v: __m128i| _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(v)), scale);
        [lanes(first), lanes(_mm_srli_si128::<8>(first)), lanes(second), lanes(_mm_srli_si128::<8>(second))]
    }
}

/// The doubled values of 16 low and 16 high nibbles.
///
/// # Safety
/// 16 bytes can be read at `e`.
#[inline]
#[target_feature(enable = "avx2")]
pub unsafe fn codes(e: *const u8) -> (__m128i, __m128i) {
    // SAFETY: the table holds 16 bytes; `e` is promised by the caller.
    let (table, bytes) = unsafe { (_mm_loadu_si128(DOUBLED.as_ptr().cast()), _mm_loadu_si128(e.cast())) };
    let mask = _mm_set1_epi8(15);
    let low = _mm_shuffle_epi8(table, _mm_and_si128(bytes, mask));
    (low, _mm_shuffle_epi8(table, _mm_and_si128(_mm_srli_epi16::<4>(bytes), mask)))
}

/// Eight lanes to one, pairwise, as the scalar version does.
///
/// # Safety
/// AVX2 is present; code compiled for it calls this as it would a safe function.
#[inline]
#[target_feature(enable = "avx2")]
pub fn add_lanes(v: __m256) -> f32 {
    let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
    let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
    _mm_cvtss_f32(_mm_add_ss(v, _mm_movehdup_ps(v)))
}
