//! A few tokens with sixteen rows, straight from the weights, AVX-VNNI: nothing is written down first.
//!
//! Eight rows come side by side, four elements of each in a lane, and `dpbusd` adds four products of an unsigned and a signed
//! byte to each lane. MXFP4 codes are looked up as value + 12 and to Q8's bytes 128 is added, which the offsets take off again.
//! (With rows along vectors, as in `few_avx2`, one token takes as many instructions, and every other one 18 or 22 instead of 11.)

use std::arch::x86_64::*;

use super::TILE;
use super::few_avx2::{BYTES, CODES, code_table, looked_up, powers_of_two, store, two_rows};
use super::quantize::{Int8Rows, Weights};
use super::span::{Addresses, Scales, Span, addresses, by_number, unknown_distance};
use super::words_avx2::side_by_side;
use super::words_vnni::unsigned;
use crate::mxfp4::GROUP;

/// Up to so many tokens at once. Of more, lists are laid down (see `lanes_avx2`).
pub const MOST: usize = 8;

/// Of more tokens one follows the other in a loop.
const IN_A_ROW: usize = 4;

/// out[i] = sixteen rows times token i.
///
/// # Safety
/// AVX2, FMA, F16C and AVX-VNNI are present; there are one to [`MOST`] tokens; `groups` groups of the weights that the
/// activations are for lie at every row and in the activations.
#[target_feature(enable = "avx2,avxvnni,fma,f16c")]
pub unsafe fn tile(rows: &Span, groups: usize, x: &Int8Rows, tokens: &[u32], out: &mut [[f32; TILE]]) {
    // SAFETY: promised by the caller.
    unsafe {
        match (x.weights(), rows.scales_between()) {
            (Weights::Codes(_), true) => by_number!(|tokens| codes_of::<_, true>(rows, groups, x, tokens, out)),
            (Weights::Codes(_), false) => by_number!(|tokens| codes_of::<_, false>(rows, groups, x, tokens, out)),
            (Weights::Bytes, _) => by_number!(|tokens| bytes_of(rows, groups, x, tokens, out)),
        }
    }
}

/// # Safety
/// As for [`tile`]; BETWEEN is whether scales lie between groups.
#[target_feature(enable = "avx2,avxvnni,fma,f16c")]
unsafe fn codes_of<const N: usize, const BETWEEN: bool>(
    rows: &Span,
    groups: usize,
    x: &Int8Rows,
    tokens: [u32; N],
    out: &mut [[f32; TILE]],
) {
    let (table, x) = (code_table(), Activations::of(x, tokens));
    let mut acc = [[_mm256_setzero_ps(); 2]; N];
    let mut exponents = Scales::<u8>::new();
    // SAFETY: group g of every row and of every token.
    unsafe {
        exponents.begin(rows, groups);
        for g in 0..groups {
            rows.prefetch_known::<BETWEEN, true>(g, GROUP / 2, 1);
            let size = if BETWEEN { CODES } else { GROUP / 2 };
            let at = addresses(rows.elements.wrapping_add(g * size), rows.row);
            let exponents =
                if BETWEEN { exponents.of_between::<CODES>(groups, g, &at) } else { exponents.of(rows, groups, g) };
            for half in 0..2 {
                let codes = apart(words(&at, half, 0), table);
                let exponents = _mm_loadl_epi64(exponents.as_ptr().add(8 * half).cast());
                let scale = powers_of_two(_mm256_cvtepu8_epi32(exponents));
                add(codes, scale, &x, (g, half), &mut acc);
            }
        }
        store(&acc, out);
    }
}

/// # Safety
/// As for [`tile`].
#[target_feature(enable = "avx2,avxvnni,fma,f16c")]
unsafe fn bytes_of<const N: usize>(
    rows: &Span,
    groups: usize,
    x: &Int8Rows,
    tokens: [u32; N],
    out: &mut [[f32; TILE]],
) {
    let x = Activations::of(x, tokens);
    let mut acc = [[_mm256_setzero_ps(); 2]; N];
    let mut scales = Scales::<u16>::new();
    // SAFETY: group g of every row and of every token.
    unsafe {
        scales.begin(rows, groups);
        for g in 0..groups {
            rows.prefetch_known::<true, true>(g, GROUP, 2);
            let at = addresses(rows.elements.wrapping_add(g * BYTES), rows.row);
            let scales = scales.of_between::<BYTES>(groups, g, &at);
            for half in 0..2 {
                let [a, b, c, d] = words(&at, half, 0);
                let [e, f, g_, h] = words(&at, half, 16);
                let bytes = [
                    unsigned(a),
                    unsigned(b),
                    unsigned(c),
                    unsigned(d),
                    unsigned(e),
                    unsigned(f),
                    unsigned(g_),
                    unsigned(h),
                ];
                let scale = _mm256_cvtph_ps(_mm_loadu_si128(scales.as_ptr().add(8 * half).cast()));
                add(bytes, scale, &x, (g, half), &mut acc);
            }
        }
        store(&acc, out);
    }
}

/// Some tokens' integers, scales and offsets.
struct Activations<const N: usize> {
    values: [*const i8; N],
    scales: [*const f32; N],
    offsets: [*const i32; N],
}

impl<const N: usize> Activations<N> {
    fn of(x: &Int8Rows, tokens: [u32; N]) -> Self {
        Self {
            values: tokens.map(|t| x.values(t as usize).as_ptr()),
            scales: tokens.map(|t| x.scales(t as usize).as_ptr()),
            offsets: tokens.map(|t| x.offsets(t as usize).as_ptr()),
        }
    }
}

/// acc[n] of one half += eight rows times group g of token n.
///
/// # Safety
/// AVX2, FMA and AVX-VNNI are present; the tokens hold the group.
#[inline(always)]
unsafe fn add<const N: usize>(
    words: [__m256i; 8],
    scale: __m256,
    x: &Activations<N>,
    (g, half): (usize, usize),
    acc: &mut [[__m256; 2]; N],
) {
    // With many tokens the compiler would keep the vectors of a whole group, in memory: it is not to know how many tokens there are.
    let num = if N > IN_A_ROW { unknown_distance(N) } else { N };
    let (all_values, all_offsets, all_scales) = (x.values.as_ptr(), x.offsets.as_ptr(), x.scales.as_ptr());
    let acc = acc.as_mut_ptr();
    // SAFETY: promised by the caller; there are N of everything.
    unsafe {
        for n in 0..num {
            let values = (*all_values.add(n)).add(g * GROUP).cast::<i32>();
            // A single token's sums would wait for each other: there are two of them.
            let mut sums = [_mm256_set1_epi32(*(*all_offsets.add(n)).add(g)), _mm256_setzero_si256()];
            for k in 0..8 {
                let sum = &mut sums[if N == 1 { k % 2 } else { 0 }];
                *sum = _mm256_dpbusd_avx_epi32(*sum, words[k], _mm256_set1_epi32(values.add(k).read_unaligned()));
            }
            let sum = if N == 1 { _mm256_add_epi32(sums[0], sums[1]) } else { sums[0] };
            let scale = _mm256_mul_ps(scale, _mm256_set1_ps(*(*all_scales.add(n)).add(g)));
            let acc = &mut (*acc.add(n))[half];
            *acc = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), scale, *acc);
        }
    }
}

/// Eight rows' words of four bytes, of the sixteen that lie `offset` bytes on.
///
/// # Safety
/// AVX2 is present; they can be read.
#[inline(always)]
unsafe fn words(at: &Addresses, half: usize, offset: usize) -> [__m256i; 4] {
    // SAFETY: promised by the caller.
    unsafe {
        side_by_side([
            two_rows(at, half, 0, offset),
            two_rows(at, half, 1, offset),
            two_rows(at, half, 2, offset),
            two_rows(at, half, 3, offset),
        ])
    }
}

/// The values of words of codes: low nibbles, then high ones.
///
/// # Safety
/// AVX2 is present.
#[inline(always)]
unsafe fn apart(words: [__m256i; 4], table: __m256i) -> [__m256i; 8] {
    // SAFETY: promised by the caller.
    unsafe {
        let [(a, e), (b, f), (c, g), (d, h)] = [
            looked_up(words[0], table),
            looked_up(words[1], table),
            looked_up(words[2], table),
            looked_up(words[3], table),
        ];
        [a, b, c, d, e, f, g, h]
    }
}
