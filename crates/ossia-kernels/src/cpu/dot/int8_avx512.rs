//! MXFP4 with 8-bit activations, AVX-512 with VNNI: the sums of `int8_avx2`, sixteen rows at a time.
//!
//! `dpbusd` adds four products of an unsigned and a signed byte to each 32-bit lane without saturating, so codes are
//! looked up as value + 12 here too and the offset is taken off by the accumulator's first value.

use std::arch::x86_64::*;
use std::cell::Cell;

use super::quantize::Int8Rows;
use super::rows_avx512::{
    FEW, Scales, Span, add_fours, each_group, in_eights, load_four, with_whole_tile, words_of_sixteen,
};
use super::{Panel, TILE};
use crate::matrix::Matrix;
use crate::mxfp4::GROUP;

/// What is added to a doubled E2M1 value to make it unsigned.
const OFFSET: i32 = 12;

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
            match *tokens {
                [a] => return direct(&rows, groups, x, [a], out),
                [a, b] => return direct(&rows, groups, x, [a, b], out),
                [a, b, c] => return direct(&rows, groups, x, [a, b, c], out),
                [a, b, c, d] => return direct(&rows, groups, x, [a, b, c, d], out),
                _ => {}
            }
            unpack::<OFFSET>(&rows, groups, tokens.len() <= FEW, panel);
            // The first tokens ask for the next tile, which then comes while they are computed.
            let ahead = Cell::new(Some((&rows, tokens.len() > FEW)));
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

/// E2M1 codes to value * 2 + `added`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn code_table(added: i32) -> __m512i {
    let doubled = _mm_setr_epi8(0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12);
    _mm512_add_epi8(_mm512_broadcast_i32x4(doubled), _mm512_set1_epi8(added as i8))
}

/// The codes of four rows, a row in each 128-bit lane: low nibbles and high nibbles as unsigned values.
///
/// # Safety
/// 16 bytes can be read at `p` and at three times `row` bytes after it.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq")]
unsafe fn unpack_four(p: *const u8, row: usize, table: __m512i) -> (__m512i, __m512i) {
    // SAFETY: promised by the caller.
    let bytes = unsafe { load_four(p, row) };
    let mask = _mm512_set1_epi8(15);
    let high = _mm512_and_si512(_mm512_srli_epi16::<4>(bytes), mask);
    (_mm512_shuffle_epi8(table, _mm512_and_si512(bytes, mask)), _mm512_shuffle_epi8(table, high))
}

/// Exponents to floats. Exponent 0 is 2^-127, which is subnormal; every other scale is larger.
#[inline]
#[target_feature(enable = "avx512f")]
pub fn scales(exponents: __m128i) -> __m512 {
    let bits = _mm512_slli_epi32::<23>(_mm512_cvtepu8_epi32(exponents));
    _mm512_castsi512_ps(_mm512_max_epi32(bits, _mm512_set1_epi32(0x0040_0000)))
}

/// A few tokens, straight from the weights: as long as memory is slower than this, nothing needs to be unpacked first.
///
/// # Safety
/// `groups` groups lie at every row and in the activations.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn direct<const N: usize>(rows: &Span, groups: usize, x: &Int8Rows, tokens: [u32; N], out: &mut [[f32; TILE]]) {
    let q = tokens.map(|t| x.values(t as usize).as_ptr());
    let d = tokens.map(|t| x.scales(t as usize).as_ptr());
    let s = tokens.map(|t| x.sums(t as usize).as_ptr());
    let (table, zero) = (code_table(OFFSET), _mm512_setzero_si512());
    let mut acc = [_mm512_setzero_ps(); N];
    // SAFETY: promised by the caller.
    let mut exponents = unsafe { Scales::<u8>::new(rows, groups) };
    for g in 0..groups {
        rows.prefetch_near(g);
        // SAFETY: group g of every row and of the token.
        unsafe {
            let exponents = exponents.of(rows, groups, g);
            let half =
                |n: usize, i: usize| _mm512_broadcast_i32x4(_mm_loadu_si128(q[n].add(g * GROUP + 16 * i).cast()));
            let x: [_; N] = std::array::from_fn(|n| [half(n, 0), half(n, 1)]);
            let mut fours = [[zero; 4]; N];
            for j in 0..4 {
                let from = rows.elements.add(4 * j * rows.row + g * rows.group);
                let (low, high) = unpack_four(from, rows.row, table);
                for n in 0..N {
                    fours[n][j] = _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(zero, low, x[n][0]), high, x[n][1]);
                }
            }
            let scale = scales(_mm_loadu_si128(exponents.as_ptr().cast()));
            for n in 0..N {
                let offset = _mm512_set1_epi32(OFFSET * *s[n].add(g));
                let sum = _mm512_cvtepi32_ps(_mm512_sub_epi32(add_fours(fours[n]), offset));
                acc[n] = _mm512_fmadd_ps(sum, _mm512_mul_ps(scale, _mm512_set1_ps(0.5 * *d[n].add(g))), acc[n]);
            }
        }
    }
    for (acc, out) in acc.iter().zip(out) {
        // SAFETY: sixteen floats.
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), *acc) };
    }
}

/// Scales to f32, and the rows' codes looked up, as value * 2 + ADDED, four elements of each row side by side.
///
/// # Safety
/// `groups` groups lie at every row.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub unsafe fn unpack<const ADDED: i32>(rows: &Span, groups: usize, few: bool, panel: &mut Panel) {
    assert!(panel.codes.len() >= PANEL_GROUP * groups && panel.scales.len() >= TILE * groups);
    let (codes, scales) = (panel.codes.as_mut_ptr(), panel.scales.as_mut_ptr());
    // SAFETY: promised by the caller; a byte is a scale; the panel holds 512 bytes and sixteen scales for each group.
    unsafe {
        each_group(rows, groups, few, |g, exponents| {
            unpack_group::<ADDED>(rows, g, exponents, codes.add(g * PANEL_GROUP), scales.add(g * TILE))
        });
    }
}

/// One group of [`unpack`]. Rows are brought side by side while two codes are still in a byte, which is half of the work.
///
/// # Safety
/// Group g lies at every row; there is room for 512 codes and sixteen scales.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub unsafe fn unpack_group<const ADDED: i32>(
    rows: &Span,
    g: usize,
    exponents: &[u8; TILE],
    codes: *mut u8,
    scales_out: *mut f32,
) {
    let (table, mask) = (code_table(ADDED), _mm512_set1_epi8(15));
    // SAFETY: promised by the caller.
    unsafe {
        _mm512_storeu_ps(scales_out, scales(_mm_loadu_si128(exponents.as_ptr().cast())));
        let words = words_of_sixteen(rows.elements.add(g * rows.group), rows.row);
        for (quad, word) in words.into_iter().enumerate() {
            let low = _mm512_shuffle_epi8(table, _mm512_and_si512(word, mask));
            let high = _mm512_shuffle_epi8(table, _mm512_and_si512(_mm512_srli_epi16::<4>(word), mask));
            _mm512_storeu_si512(codes.add(64 * quad).cast(), low);
            _mm512_storeu_si512(codes.add(64 * (quad + 4)).cast(), high);
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
    ahead: Option<(&Span, bool)>,
    x: &Int8Rows,
    tokens: [u32; N],
    out: &mut [[f32; TILE]],
) {
    let q = tokens.map(|t| x.values(t as usize).as_ptr().cast::<i32>());
    let d = tokens.map(|t| x.scales(t as usize).as_ptr());
    let s = tokens.map(|t| x.sums(t as usize).as_ptr());
    let mut acc = [_mm512_setzero_ps(); N];
    for g in 0..groups {
        if let Some((rows, all)) = ahead {
            rows.prefetch_next(g, all);
        }
        // SAFETY: group g of the panel and of every token.
        unsafe {
            let codes = panel.codes.as_ptr().add(g * PANEL_GROUP);
            let mut sums: [__m512i; N] = std::array::from_fn(|n| _mm512_set1_epi32(-OFFSET * *s[n].add(g)));
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
