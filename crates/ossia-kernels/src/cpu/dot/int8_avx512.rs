//! Many tokens with sixteen rows, AVX-512 with VNNI: the kernel for a few of them (`few_avx512`) takes the first, and leaves the
//! weights, made unsigned, in a panel for the others.

use std::arch::x86_64::*;

use super::few_avx512::{Way, tile_kept};
use super::quantize::{Int8Rows, Order, Weights};
use super::rows_avx512::TOKENS;
use super::span::{Span, by_number, parts, with_whole_tile};
use super::{Panel, TILE};
use crate::matrix::Matrix;
use crate::mxfp4::DOUBLED;

/// Bits of 1.5 * 2^23: adding a small integer to the bits of this number adds it to the number.
const LARGE: i32 = 0x4b40_0000;

/// Bits of the scales 2^-51 and 2^6, and of 1. Between the first two a scale times one of activations, which are 0 or above
/// 1e-22, is exact.
const EXACT: (i32, i32) = ((127 - 51) << 23, (127 + 6) << 23);
const ONE: i32 = 127 << 23;

/// See [`super::tile`].
///
/// # Safety
/// AVX-512 (F, BW, DQ, VL) with VNNI, AVX2, FMA and F16C are present, and what the way needs.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub unsafe fn tile(
    way: Way,
    m: &Matrix,
    row: usize,
    x: &Int8Rows,
    tokens: &[u32],
    panel: &mut Panel,
    out: &mut [[f32; TILE]],
) {
    let groups = m.groups();
    with_whole_tile(m, row, out, |row, out| {
        let mut parts = parts(tokens, out, TOKENS);
        let Some((tokens, out)) = parts.next() else { return };
        // SAFETY: a Matrix holds all its groups, the token's rows hold `groups` entries each, the first tokens fill the panel.
        unsafe {
            let (lowest, highest) = tile_kept(way, &Span::new(m, row), groups, x, tokens, panel, out);
            if x.weights() != Weights::Bytes && EXACT.0 <= lowest && highest <= EXACT.1 {
                parts.for_each(|(tokens, out)| {
                    by_number!(|tokens| panel_tokens::<true, _>(groups, panel, x, tokens, out))
                });
            } else {
                parts.for_each(|(tokens, out)| {
                    by_number!(|tokens| panel_tokens::<false, _>(groups, panel, x, tokens, out))
                });
            }
        }
    });
}

/// E2M1 codes to value * 2 + 12.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub fn code_table() -> __m512i {
    // SAFETY: sixteen bytes.
    let doubled = unsafe { _mm_loadu_si128(DOUBLED.as_ptr().cast()) };
    _mm512_add_epi8(_mm512_broadcast_i32x4(doubled), _mm512_set1_epi8(Weights::Codes(Order::Natural).offset() as i8))
}

/// Q8's scales to f32.
#[inline]
#[target_feature(enable = "avx512f")]
pub fn widened(halves: &[[u8; 2]; TILE]) -> __m512 {
    // SAFETY: 32 bytes.
    _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(halves.as_ptr().cast()) })
}

/// Exponents in bytes to floats.
#[inline]
#[target_feature(enable = "avx512f")]
pub fn scales(exponents: __m128i) -> __m512 {
    power_of_two(_mm512_cvtepu8_epi32(exponents))
}

/// Exponents to floats. Exponent 0 is 2^-127, which is subnormal; every other scale is larger.
#[inline]
#[target_feature(enable = "avx512f")]
pub fn power_of_two(exponents: __m512i) -> __m512 {
    let bits = _mm512_slli_epi32::<23>(exponents);
    _mm512_castsi512_ps(_mm512_max_epi32(bits, _mm512_set1_epi32(0x0040_0000)))
}

/// Words of codes to codes in the low halves of bytes, four elements of each row in a lane, eight times. The high halves hold
/// what they may. Rows are brought side by side while two codes are still in a byte, which is half of the work.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub fn apart([a, b, c, d]: [__m512i; 4]) -> [__m512i; 8] {
    let high = |word| _mm512_srli_epi16::<4>(word);
    [a, b, c, d, high(a), high(b), high(c), high(d)]
}

/// The unpacked rows with some tokens. EXACT: all scales are powers of two in [`EXACT`].
///
/// acc = fma(sum, scale * d, acc) takes two multiplications for sixteen numbers, which the products of bytes compete with.
/// Where scale * d is exact, as scales are powers of two, it is the same as fma(sum * scale, d, acc), and integers can be
/// scaled without multiplying: bits(1.5 * 2^23) + sum is 1.5 * 2^23 + sum, adding k to its exponent scales it by 2^k, and
/// subtracting 1.5 * 2^(23 + k) leaves sum * 2^k.
///
/// # Safety
/// `panel` was unpacked from `groups` groups.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn panel_tokens<const EXACT: bool, const N: usize>(
    groups: usize,
    panel: &Panel,
    x: &Int8Rows,
    tokens: [u32; N],
    out: &mut [[f32; TILE]],
) {
    let q = tokens.map(|t| x.values(t as usize).as_ptr().cast::<i32>());
    let d = tokens.map(|t| x.scales(t as usize).as_ptr());
    let s = tokens.map(|t| x.offsets(t as usize).as_ptr());
    let mut acc = [_mm512_setzero_ps(); N];
    for g in 0..groups {
        // SAFETY: group g of the panel and of every token.
        unsafe {
            let codes = panel.codes.as_ptr().add(512 * g);
            let mut sums: [__m512i; N] = std::array::from_fn(|n| _mm512_set1_epi32(*s[n].add(g)));
            for quad in 0..8 {
                let w = _mm512_loadu_si512(codes.add(64 * quad).cast());
                for n in 0..N {
                    let x = _mm512_set1_epi32(q[n].add(8 * g + quad).read_unaligned());
                    sums[n] = _mm512_dpbusd_epi32(sums[n], w, x);
                }
            }
            let scale = _mm512_loadu_ps(panel.scales.as_ptr().add(g * TILE));
            let large = _mm512_add_epi32(_mm512_castps_si512(scale), _mm512_set1_epi32(LARGE - ONE));
            for n in 0..N {
                let d = _mm512_set1_ps(*d[n].add(g));
                if EXACT {
                    let sum = _mm512_castsi512_ps(_mm512_add_epi32(sums[n], large));
                    acc[n] = _mm512_fmadd_ps(_mm512_sub_ps(sum, _mm512_castsi512_ps(large)), d, acc[n]);
                } else {
                    acc[n] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[n]), _mm512_mul_ps(scale, d), acc[n]);
                }
            }
        }
    }
    for n in 0..N {
        // SAFETY: sixteen floats.
        unsafe { _mm512_storeu_ps(out[n].as_mut_ptr(), acc[n]) };
    }
}
