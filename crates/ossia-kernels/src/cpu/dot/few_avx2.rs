//! A few tokens with sixteen rows, straight from the weights, AVX2: the processors that it is for have no more of it.
//!
//! Rows lie along vectors, each half of one with a row of its own, and meet the same activations. What eight rows give is
//! brought together by blending halves of vectors and adding, which takes half the instructions of horizontal additions:
//! * MXFP4 codes are looked up as value + 12 (0..=24, the unsigned operand of `maddubs`), and sums of sixteen products stay
//!   in 16 bits: they begin at -12 times the sum of the activations, so what wraps around on the way comes back.
//! * Q8 and its activations are widened to 16 bits: `madd` multiplies pairs of them into 32 bits, while sums of two products of
//!   bytes would take another instruction to make one of them unsigned, and one more to widen them.

use std::arch::x86_64::*;

use super::TILE;
use super::quantize::{Int8Rows, Weights};
use super::span::{Addresses, Scales, Span, addresses, by_number};
use crate::mxfp4::GROUP;

/// Up to so many tokens at once, with Q8 or MXFP4. Of more, lists are laid down (see `lanes_avx2`).
pub const fn most(q8: bool) -> usize {
    if q8 { 8 } else { 4 }
}

/// Bytes of a group with its scale where scales lie between groups: MXFP4's, and Q8's.
pub const CODES: usize = 17;
pub const BYTES: usize = 34;

/// out[i] = sixteen rows times token i.
///
/// # Safety
/// AVX2, FMA and F16C are present; there are one to [`most`] tokens; `groups` groups of the weights that the activations are for
/// lie at every row and in the activations.
#[target_feature(enable = "avx2,fma,f16c")]
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
            (Weights::Bytes, _) => by_number!(|tokens| bytes_of(rows, groups, x, tokens, out)),
        }
    }
}

/// # Safety
/// As for [`tile`]; BETWEEN is whether scales lie between groups.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn codes_of<const N: usize, const BETWEEN: bool>(
    rows: &Span,
    groups: usize,
    x: &Int8Rows,
    tokens: [u32; N],
    out: &mut [[f32; TILE]],
) {
    let (table, ones) = (code_table(), _mm256_set1_epi16(1));
    let q = tokens.map(|t| x.values(t as usize).as_ptr());
    let (d, s) = (tokens.map(|t| x.scales(t as usize).as_ptr()), tokens.map(|t| x.offsets(t as usize).as_ptr()));
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
                let codes = [
                    looked_up(two_rows(&at, half, 0, 0), table),
                    looked_up(two_rows(&at, half, 2, 0), table),
                    looked_up(two_rows(&at, half, 1, 0), table),
                    looked_up(two_rows(&at, half, 3, 0), table),
                ];
                let exponents = _mm_loadl_epi64(exponents.as_ptr().add(8 * half).cast());
                let scale = powers_of_two(_mm256_cvtepu8_epi32(exponents));
                for n in 0..N {
                    let (low, high) =
                        (both_halves(q[n].add(g * GROUP).cast()), both_halves(q[n].add(g * GROUP + 16).cast()));
                    let products = [
                        code_products(codes[0], low, high),
                        code_products(codes[1], low, high),
                        code_products(codes[2], low, high),
                        code_products(codes[3], low, high),
                    ];
                    let sums = _mm256_add_epi16(across_words(products), _mm256_set1_epi32(*s[n].add(g)));
                    let sums = _mm256_cvtepi32_ps(_mm256_madd_epi16(sums, ones));
                    let scale = _mm256_mul_ps(scale, _mm256_set1_ps(*d[n].add(g)));
                    acc[n][half] = _mm256_fmadd_ps(sums, scale, acc[n][half]);
                }
            }
        }
        store(&acc, out);
    }
}

/// # Safety
/// As for [`tile`].
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn bytes_of<const N: usize>(
    rows: &Span,
    groups: usize,
    x: &Int8Rows,
    tokens: [u32; N],
    out: &mut [[f32; TILE]],
) {
    let q = tokens.map(|t| x.values(t as usize).as_ptr());
    let d = tokens.map(|t| x.scales(t as usize).as_ptr());
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
                let scale = _mm256_cvtph_ps(_mm_loadu_si128(scales.as_ptr().add(8 * half).cast()));
                for n in 0..N {
                    let p = q[n].add(g * GROUP).cast::<u8>();
                    let x = [wide(p), wide(p.add(16))];
                    let sums = across_halves([
                        byte_products(at[0][2 * half], at[0][2 * half + 1], x),
                        byte_products(at[2][2 * half], at[2][2 * half + 1], x),
                        byte_products(at[1][2 * half], at[1][2 * half + 1], x),
                        byte_products(at[3][2 * half], at[3][2 * half + 1], x),
                    ]);
                    let scale = _mm256_mul_ps(scale, _mm256_set1_ps(*d[n].add(g)));
                    acc[n][half] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums), scale, acc[n][half]);
                }
            }
        }
        store(&acc, out);
    }
}

/// Sixteen products of two rows with the low and the high nibbles' activations, four each in 16 bits.
///
/// Like others here it is no closure: the compiler would call a closure where there are many, vectors by way of memory.
///
/// # Safety
/// AVX2 is present.
#[inline(always)]
unsafe fn code_products((first, second): (__m256i, __m256i), low: __m256i, high: __m256i) -> __m256i {
    // SAFETY: promised by the caller.
    unsafe { _mm256_add_epi16(_mm256_maddubs_epi16(first, low), _mm256_maddubs_epi16(second, high)) }
}

/// 32 products each of two rows, four each in 32 bits, brought together: the first row's in the low half, the second one's in
/// the high half.
///
/// # Safety
/// AVX2 is present; a group lies at each row.
#[inline(always)]
unsafe fn byte_products(a: *const u8, b: *const u8, [x0, x1]: [__m256i; 2]) -> __m256i {
    // SAFETY: promised by the caller.
    unsafe {
        let a = _mm256_add_epi32(_mm256_madd_epi16(wide(a), x0), _mm256_madd_epi16(wide(a.add(16)), x1));
        let b = _mm256_add_epi32(_mm256_madd_epi16(wide(b), x0), _mm256_madd_epi16(wide(b.add(16)), x1));
        _mm256_add_epi32(_mm256_blend_epi32::<0xf0>(a, b), _mm256_permute2x128_si256::<0x21>(a, b))
    }
}

/// # Safety
/// AVX2 is present.
#[inline]
#[target_feature(enable = "avx2")]
pub unsafe fn store<const N: usize>(acc: &[[__m256; 2]; N], out: &mut [[f32; TILE]]) {
    for (acc, out) in acc.iter().zip(out) {
        for (half, acc) in out.as_chunks_mut::<8>().0.iter_mut().zip(acc) {
            // SAFETY: eight floats.
            unsafe { _mm256_storeu_ps(half.as_mut_ptr(), *acc) };
        }
    }
}

/// E2M1 codes to value * 2 + 12.
#[inline]
#[target_feature(enable = "avx2")]
pub fn code_table() -> __m256i {
    _mm256_broadcastsi128_si256(_mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0))
}

/// The values of the low nibbles, and those of the high ones.
#[inline]
#[target_feature(enable = "avx2")]
pub fn looked_up(bytes: __m256i, table: __m256i) -> (__m256i, __m256i) {
    let mask = _mm256_set1_epi8(15);
    let high = _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), mask);
    (_mm256_shuffle_epi8(table, _mm256_and_si256(bytes, mask)), _mm256_shuffle_epi8(table, high))
}

/// Sixteen bytes each of row r of eight and of the fourth one after it, `offset` bytes on.
///
/// # Safety
/// They can be read.
#[inline]
#[target_feature(enable = "avx2")]
pub unsafe fn two_rows(at: &Addresses, half: usize, r: usize, offset: usize) -> __m256i {
    let [low, high] = [at[r][2 * half], at[r][2 * half + 1]].map(|row| row.wrapping_add(offset));
    // SAFETY: promised by the caller.
    unsafe { _mm256_loadu2_m128i(high.cast(), low.cast()) }
}

/// Sixteen bytes, twice.
///
/// # Safety
/// They can be read.
#[inline]
#[target_feature(enable = "avx2")]
pub unsafe fn both_halves(p: *const u8) -> __m256i {
    // SAFETY: promised by the caller.
    _mm256_broadcastsi128_si256(unsafe { _mm_loadu_si128(p.cast()) })
}

/// Sixteen signed bytes as 16-bit numbers.
///
/// # Safety
/// They can be read.
#[inline]
#[target_feature(enable = "avx2")]
pub unsafe fn wide(p: *const u8) -> __m256i {
    // SAFETY: promised by the caller.
    _mm256_cvtepi8_epi16(unsafe { _mm_loadu_si128(p.cast()) })
}

/// Eight E8M0 scales, from their exponents.
#[inline]
#[target_feature(enable = "avx2")]
pub fn powers_of_two(exponents: __m256i) -> __m256 {
    // Exponent 0 is 2^-127, which is subnormal; every other scale is larger.
    _mm256_castsi256_ps(_mm256_max_epi32(_mm256_slli_epi32::<23>(exponents), _mm256_set1_epi32(0x0040_0000)))
}

/// Of four vectors with eight 16-bit numbers of a row in each half, the rows' sums as two such numbers: the rows of
/// vectors 0, 2, 1, 3 of the low halves, then of the high ones.
#[inline]
#[target_feature(enable = "avx2")]
fn across_words(v: [__m256i; 4]) -> __m256i {
    let a = _mm256_add_epi16(_mm256_blend_epi32::<0xcc>(v[0], v[1]), _mm256_alignr_epi8::<8>(v[1], v[0]));
    let b = _mm256_add_epi16(_mm256_blend_epi32::<0xcc>(v[2], v[3]), _mm256_alignr_epi8::<8>(v[3], v[2]));
    let crossed = _mm256_shuffle_epi32::<0b10_11_00_01>(_mm256_blend_epi32::<0xaa>(b, a));
    _mm256_add_epi16(_mm256_blend_epi32::<0xaa>(a, b), crossed)
}

/// The same of four 32-bit numbers.
#[inline]
#[target_feature(enable = "avx2")]
fn across_halves(v: [__m256i; 4]) -> __m256i {
    let a = _mm256_add_epi32(_mm256_blend_epi32::<0xcc>(v[0], v[1]), _mm256_alignr_epi8::<8>(v[1], v[0]));
    let b = _mm256_add_epi32(_mm256_blend_epi32::<0xcc>(v[2], v[3]), _mm256_alignr_epi8::<8>(v[3], v[2]));
    let crossed = _mm256_shuffle_epi32::<0b10_11_00_01>(_mm256_blend_epi32::<0xaa>(b, a));
    _mm256_add_epi32(_mm256_blend_epi32::<0xaa>(a, b), crossed)
}
