//! MXFP4 with 8-bit activations, AVX2.
//!
//! Codes are looked up as value + 12 (0..=24, the unsigned operand of `maddubs`) and 12 times the sum of the
//! activations is taken off the integer sum again: one `maddubs` and one 16-bit add for 32 products, and no
//! saturation (4 * 2 * 24 * 127 < 32768).

use std::arch::x86_64::*;

use super::quantize::Int8Rows;
use super::rows_avx2::{HALF, Rows, add_across, in_fours, store_transposed};
use super::{PANEL_TOKENS, Panel, TILE};
use crate::matrix::Matrix;
use crate::mxfp4::GROUP;

/// E2M1 codes to value * 2 + 12.
#[inline]
#[target_feature(enable = "avx2")]
fn code_table() -> __m256i {
    _mm256_broadcastsi128_si256(_mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0))
}

/// 32 codes, low nibbles first, as unsigned values.
///
/// # Safety
/// 16 bytes can be read at `p`.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn unpack_codes(p: *const u8, table: __m256i) -> __m256i {
    // SAFETY: promised by the caller.
    let bytes = unsafe { _mm_loadu_si128(p.cast()) };
    let nibbles = _mm256_set_m128i(_mm_srli_epi16::<4>(bytes), bytes);
    _mm256_shuffle_epi8(table, _mm256_and_si256(nibbles, _mm256_set1_epi8(15)))
}

/// The scales of eight rows.
///
/// # Safety
/// Each address holds an E8M0 byte.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn e8m0_scales(p: &[*const u8; HALF], at: usize) -> __m256 {
    // SAFETY: promised by the caller.
    let bytes = u64::from_le_bytes(p.map(|p| unsafe { *p.add(at) }));
    let exponents = _mm256_slli_epi32::<23>(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128(bytes as i64)));
    // Exponent 0 is 2^-127, which is subnormal; every other scale is larger.
    _mm256_castsi256_ps(_mm256_max_epi32(exponents, _mm256_set1_epi32(0x0040_0000)))
}

/// See [`super::tile`].
///
/// # Safety
/// AVX2, FMA and F16C are present.
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn tile(m: &Matrix, row: usize, x: &Int8Rows, tokens: &[u32], panel: &mut Panel, out: &mut [[f32; TILE]]) {
    for first in (0..TILE).step_by(HALF).filter(|first| row + first < m.rows()) {
        // SAFETY: passed on.
        unsafe { half(m, row + first, first, x, tokens, panel, out) };
    }
}

/// Eight rows from `row` on, into the columns of `out` from `first` on.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn half(
    m: &Matrix,
    row: usize,
    first: usize,
    x: &Int8Rows,
    tokens: &[u32],
    panel: &mut Panel,
    out: &mut [[f32; TILE]],
) {
    let rows = Rows::<HALF>::new(m, row);
    if tokens.len() < PANEL_TOKENS {
        for (&token, out) in tokens.iter().zip(out) {
            let t = token as usize;
            // SAFETY: a Matrix holds all its groups, and the token's rows hold `groups` entries each.
            let sums = unsafe { direct(&rows, m.groups(), x.values(t), x.scales(t), x.offsets(t)) };
            // SAFETY: eight of sixteen floats.
            unsafe { _mm256_storeu_ps(out.as_mut_ptr().add(first), sums) };
        }
        return;
    }
    // SAFETY: the panel is unpacked before it is used.
    unsafe {
        unpack(&rows, m.groups(), panel);
        in_fours(
            tokens,
            out,
            |tokens, out| panel_tokens(m.groups(), panel, x, tokens, first, out),
            |token, out| panel_tokens(m.groups(), panel, x, token, first, out),
        );
    }
}

/// One token, straight from the weights.
///
/// # Safety
/// `groups` groups lie at every row and in the activations.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn direct(rows: &Rows<HALF>, groups: usize, q: &[i8], d: &[f32], offsets: &[i32]) -> __m256 {
    let (table, ones) = (code_table(), _mm256_set1_epi16(1));
    let mut acc = _mm256_setzero_ps();
    for g in 0..groups {
        rows.prefetch(g);
        let at = g * rows.element_stride;
        // SAFETY: group g of every row and of the token.
        let (x, scale) = unsafe {
            (_mm256_loadu_si256(q.as_ptr().add(g * GROUP).cast()), e8m0_scales(&rows.scales, g * rows.scale_stride))
        };
        // SAFETY: as above.
        let p = rows.elements.map(|p| _mm256_maddubs_epi16(unsafe { unpack_codes(p.add(at), table) }, x));
        let pairs = |i: usize| _mm256_hadd_epi16(p[i], p[i + 1]);
        let low = _mm256_madd_epi16(_mm256_hadd_epi16(pairs(0), pairs(2)), ones);
        let high = _mm256_madd_epi16(_mm256_hadd_epi16(pairs(4), pairs(6)), ones);
        let sum = _mm256_add_epi32(add_across(low, high), _mm256_set1_epi32(offsets[g]));
        acc = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), _mm256_mul_ps(scale, _mm256_set1_ps(d[g])), acc);
    }
    acc
}

/// Looks the rows' codes up, four elements of each row side by side.
///
/// # Safety
/// `groups` groups lie at every row.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn unpack(rows: &Rows<HALF>, groups: usize, panel: &mut Panel) {
    let table = code_table();
    assert!(panel.codes.len() >= HALF * GROUP * groups && panel.scales.len() >= HALF * groups);
    for g in 0..groups {
        rows.prefetch(g);
        // SAFETY: group g of every row; the panel holds 256 bytes and 8 scales for each group.
        unsafe {
            let w = rows.elements.map(|p| unpack_codes(p.add(g * rows.element_stride), table));
            store_transposed(w, panel.codes.as_mut_ptr().add(g * GROUP * HALF), 32);
            let scales = e8m0_scales(&rows.scales, g * rows.scale_stride);
            _mm256_storeu_ps(panel.scales.as_mut_ptr().add(g * HALF), scales);
        }
    }
}

/// The unpacked rows with some tokens.
///
/// # Safety
/// `panel` was unpacked from `groups` groups.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn panel_tokens<const N: usize>(
    groups: usize,
    panel: &Panel,
    x: &Int8Rows,
    tokens: [u32; N],
    first: usize,
    out: &mut [[f32; TILE]],
) {
    let q = tokens.map(|t| x.values(t as usize).as_ptr().cast::<i32>());
    let d = tokens.map(|t| x.scales(t as usize));
    let s = tokens.map(|t| x.offsets(t as usize));
    let mut acc = [_mm256_setzero_ps(); N];
    for g in 0..groups {
        // SAFETY: group g of the panel and of every token.
        let (sums, scale) = unsafe {
            let sums = group_sums(panel.codes.as_ptr().add(g * GROUP * HALF), q.map(|q| q.add(g * 8)));
            (sums, _mm256_loadu_ps(panel.scales.as_ptr().add(g * HALF)))
        };
        for n in 0..N {
            let sum = _mm256_cvtepi32_ps(_mm256_add_epi32(sums[n], _mm256_set1_epi32(s[n][g])));
            acc[n] = _mm256_fmadd_ps(sum, _mm256_mul_ps(scale, _mm256_set1_ps(d[n][g])), acc[n]);
        }
    }
    for n in 0..N {
        // SAFETY: eight of sixteen floats.
        unsafe { _mm256_storeu_ps(out[n].as_mut_ptr().add(first), acc[n]) };
    }
}

/// # Safety
/// 256 bytes of codes; 32 activations at each `q`.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn group_sums<const N: usize>(codes: *const u8, q: [*const i32; N]) -> [__m256i; N] {
    let ones = _mm256_set1_epi16(1);
    let mut total = [_mm256_setzero_si256(); N];
    for half in 0..2 {
        let mut sums = [_mm256_setzero_si256(); N];
        for quad in 4 * half..4 * half + 4 {
            // SAFETY: promised by the caller.
            let w = unsafe { _mm256_loadu_si256(codes.add(32 * quad).cast()) };
            for n in 0..N {
                // SAFETY: promised by the caller.
                let x = _mm256_set1_epi32(unsafe { q[n].add(quad).read_unaligned() });
                sums[n] = _mm256_add_epi16(sums[n], _mm256_maddubs_epi16(w, x));
            }
        }
        for n in 0..N {
            total[n] = _mm256_add_epi32(total[n], _mm256_madd_epi16(sums[n], ones));
        }
    }
    total
}
