//! MXFP4 with 8-bit activations, AVX-512 with VNNI: the sums of `int8_avx2`, sixteen rows at a time.
//!
//! `dpbusd` adds four products of an unsigned and a signed byte to each 32-bit lane without saturating, so codes are
//! looked up as value + 12 here too and the offset is taken off by the accumulator's first value.

use std::arch::x86_64::*;
use std::cell::Cell;

use super::quantize::{Int8Rows, OFFSET};
use super::rows_avx512::{Span, each_group, in_eights, with_whole_tile, words_of_sixteen};
use super::{Panel, TILE};
use crate::matrix::Matrix;
use crate::mxfp4::{DOUBLED, GROUP};

/// Bytes of a group in the panel.
const PANEL_GROUP: usize = GROUP * TILE;

/// See [`super::tile`].
///
/// # Safety
/// AVX-512 (F, BW, DQ, VL) with VNNI, AVX2, FMA and F16C are present.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub unsafe fn tile(m: &Matrix, row: usize, x: &Int8Rows, tokens: &[u32], panel: &mut Panel, out: &mut [[f32; TILE]]) {
    let groups = m.groups();
    with_whole_tile(m, row, out, |row, out| {
        let rows = Span::new(m, row);
        // SAFETY: a Matrix holds all its groups, the token's rows hold `groups` entries each, the panel is unpacked
        // before it is used.
        unsafe {
            unpack(&rows, groups, panel);
            // The first tokens ask for the next tile, which then comes while they are computed.
            let ahead = Cell::new(Some(&rows));
            in_eights(
                tokens,
                out,
                |tokens, out| panel_tokens(groups, panel, ahead.take(), x, tokens, out),
                |tokens, out| panel_tokens(groups, panel, ahead.take(), x, tokens, out),
                |token, out| panel_tokens(groups, panel, ahead.take(), x, token, out),
            );
        }
    });
}

/// E2M1 codes to value * 2 + 12.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub fn code_table() -> __m512i {
    // SAFETY: sixteen bytes.
    let doubled = unsafe { _mm_loadu_si128(DOUBLED.as_ptr().cast()) };
    _mm512_add_epi8(_mm512_broadcast_i32x4(doubled), _mm512_set1_epi8(OFFSET as i8))
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

/// Codes of sixteen rows in a group, looked up in the low halves of bytes: four elements of each row side by side, eight
/// times.
///
/// # Safety
/// Group g lies at every row; AVX-512 (F, BW, DQ) is present.
#[inline(always)]
pub unsafe fn codes_of(rows: &Span, g: usize, look_up: impl Fn(__m512i) -> __m512i) -> [__m512i; 8] {
    // Rows are brought side by side while two codes are still in a byte, which is half of the work.
    // SAFETY: promised by the caller.
    unsafe {
        let words = words_of_sixteen(rows.elements.add(g * rows.group), rows.row);
        std::array::from_fn(|i| look_up(if i < 4 { words[i] } else { _mm512_srli_epi16::<4>(words[i - 4]) }))
    }
}

/// Scales to f32, and the rows' codes looked up, as value * 2 + 12, four elements of each row side by side.
///
/// # Safety
/// `groups` groups lie at every row.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn unpack(rows: &Span, groups: usize, panel: &mut Panel) {
    assert!(panel.codes.len() >= PANEL_GROUP * groups && panel.scales.len() >= TILE * groups);
    let (codes, scales) = (panel.codes.as_mut_ptr(), panel.scales.as_mut_ptr());
    // SAFETY: promised by the caller; a byte is a scale; the panel holds 512 bytes and sixteen scales for each group.
    unsafe {
        each_group(rows, groups, |g, exponents| {
            unpack_group(rows, g, exponents, codes.add(g * PANEL_GROUP), scales.add(g * TILE))
        });
    }
}

/// One group of [`unpack`].
///
/// # Safety
/// Group g lies at every row; there is room for 512 codes and sixteen scales.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn unpack_group(rows: &Span, g: usize, exponents: &[u8; TILE], out: *mut u8, scales_out: *mut f32) {
    // SAFETY: promised by the caller.
    unsafe {
        _mm512_storeu_ps(scales_out, scales(_mm_loadu_si128(exponents.as_ptr().cast())));
        let (table, mask) = (code_table(), _mm512_set1_epi8(15));
        let look_up = move |word| _mm512_shuffle_epi8(table, _mm512_and_si512(word, mask));
        for (quad, codes) in codes_of(rows, g, look_up).into_iter().enumerate() {
            _mm512_storeu_si512(out.add(64 * quad).cast(), codes);
        }
    }
}

/// The unpacked rows with some tokens.
///
/// # Safety
/// `panel` was unpacked from `groups` groups.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn panel_tokens<const N: usize>(
    groups: usize,
    panel: &Panel,
    ahead: Option<&Span>,
    x: &Int8Rows,
    tokens: [u32; N],
    out: &mut [[f32; TILE]],
) {
    let q = tokens.map(|t| x.values(t as usize).as_ptr().cast::<i32>());
    let d = tokens.map(|t| x.scales(t as usize).as_ptr());
    let s = tokens.map(|t| x.offsets(t as usize).as_ptr());
    let mut acc = [_mm512_setzero_ps(); N];
    for g in 0..groups {
        if let Some(rows) = ahead {
            rows.prefetch_next(g);
        }
        // SAFETY: group g of the panel and of every token.
        unsafe {
            let codes = panel.codes.as_ptr().add(g * PANEL_GROUP);
            let mut sums: [__m512i; N] = std::array::from_fn(|n| _mm512_set1_epi32(*s[n].add(g)));
            for quad in 0..8 {
                let w = _mm512_loadu_si512(codes.add(64 * quad).cast());
                for n in 0..N {
                    let x = _mm512_set1_epi32(q[n].add(8 * g + quad).read_unaligned());
                    sums[n] = _mm512_dpbusd_epi32(sums[n], w, x);
                }
            }
            let scale = _mm512_loadu_ps(panel.scales.as_ptr().add(g * TILE));
            for n in 0..N {
                let scale = _mm512_mul_ps(scale, _mm512_set1_ps(0.5 * *d[n].add(g)));
                acc[n] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[n]), scale, acc[n]);
            }
        }
    }
    for n in 0..N {
        // SAFETY: sixteen floats.
        unsafe { _mm512_storeu_ps(out[n].as_mut_ptr(), acc[n]) };
    }
}
