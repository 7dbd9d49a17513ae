//! A few tokens with sixteen rows, straight from the weights, AVX-VNNI: rows lie along vectors as in `few_avx2`, but `dpbusd`
//! multiplies four bytes with four others and adds all that to 32 bits, so MXFP4 and Q8 are the same products and nothing has
//! to be widened. Codes are looked up as value + 12 and to Q8's bytes 128 is added, which the offsets take off again.

use std::arch::x86_64::*;

use super::TILE;
use super::few_avx2::{BYTES, CODES, across_halves, both_halves, code_table, looked_up, powers_of_two, store, two_rows};
use super::quantize::{Int8Rows, Weights};
use super::span::{Addresses, Scales, Span, addresses, by_number};
use crate::mxfp4::GROUP;

/// Up to so many tokens at once. Of more, lists are laid down (see `lanes_avx2`).
pub const MOST: usize = 4;

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
            (Weights::Codes(_), true) => {
                by_number!(|tokens| codes_of::<_, true>(rows, groups, x, tokens, out), [a] [a b] [a b c] [a b c d]);
            }
            (Weights::Codes(_), false) => {
                by_number!(|tokens| codes_of::<_, false>(rows, groups, x, tokens, out), [a] [a b] [a b c] [a b c d]);
            }
            (Weights::Bytes, _) => {
                by_number!(|tokens| bytes_of(rows, groups, x, tokens, out), [a] [a b] [a b c] [a b c d]);
            }
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
                let pairs = [
                    looked_up(two_rows(&at, half, 0, 0), table),
                    looked_up(two_rows(&at, half, 2, 0), table),
                    looked_up(two_rows(&at, half, 1, 0), table),
                    looked_up(two_rows(&at, half, 3, 0), table),
                ];
                let exponents = _mm_loadl_epi64(exponents.as_ptr().add(8 * half).cast());
                let scale = powers_of_two(_mm256_cvtepu8_epi32(exponents));
                add(pairs, scale, &x, (g, half), &mut acc);
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
                let pairs = [flipped(&at, half, 0), flipped(&at, half, 2), flipped(&at, half, 1), flipped(&at, half, 3)];
                let scale = _mm256_cvtph_ps(_mm_loadu_si128(scales.as_ptr().add(8 * half).cast()));
                add(pairs, scale, &x, (g, half), &mut acc);
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

/// acc[n] of one half += eight rows times group g of token n. A pair are the first and the last sixteen elements of two rows, one in
/// each half of the vectors.
///
/// # Safety
/// AVX2, FMA and AVX-VNNI are present; the tokens hold the group.
#[inline(always)]
unsafe fn add<const N: usize>(
    pairs: [(__m256i, __m256i); 4],
    scale: __m256,
    x: &Activations<N>,
    (g, half): (usize, usize),
    acc: &mut [[__m256; 2]; N],
) {
    // SAFETY: promised by the caller.
    unsafe {
        for n in 0..N {
            let p = x.values[n].add(g * GROUP).cast();
            let (first, last) = (both_halves(p), both_halves(p.add(16)));
            let sums = across_halves([
                products(pairs[0], first, last),
                products(pairs[1], first, last),
                products(pairs[2], first, last),
                products(pairs[3], first, last),
            ]);
            let sums = _mm256_add_epi32(sums, _mm256_set1_epi32(*x.offsets[n].add(g)));
            let scale = _mm256_mul_ps(scale, _mm256_set1_ps(*x.scales[n].add(g)));
            acc[n][half] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums), scale, acc[n][half]);
        }
    }
}

/// The products of two rows, eight in each lane.
///
/// # Safety
/// AVX2 and AVX-VNNI are present.
#[inline(always)]
unsafe fn products((a, b): (__m256i, __m256i), first: __m256i, last: __m256i) -> __m256i {
    // SAFETY: promised by the caller.
    unsafe { _mm256_dpbusd_avx_epi32(_mm256_dpbusd_avx_epi32(_mm256_setzero_si256(), a, first), b, last) }
}

/// Row r of eight and the fourth one after it, without a sign: the first sixteen elements of a group of both, and the last.
///
/// # Safety
/// AVX2 is present; they can be read.
#[inline(always)]
unsafe fn flipped(at: &Addresses, half: usize, r: usize) -> (__m256i, __m256i) {
    // SAFETY: promised by the caller.
    unsafe {
        let sign = _mm256_set1_epi8(-128);
        (_mm256_xor_si256(two_rows(at, half, r, 0), sign), _mm256_xor_si256(two_rows(at, half, r, 16), sign))
    }
}
