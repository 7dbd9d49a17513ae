//! MXFP4 with 8-bit activations, AVX-512 with VNNI: the sums of `int8_avx2`, sixteen rows at a time.
//!
//! `dpbusd` adds four products of an unsigned and a signed byte to each 32-bit lane without saturating, so codes are
//! looked up as value + 12 here too and the offset is taken off by the accumulator's first value.

use std::arch::x86_64::*;
use std::cell::Cell;

use super::quantize::Int8Rows;
use super::rows_avx512::{SCALES_AHEAD, Span, add_fours, in_eights, load_four, with_whole_tile, words_of_sixteen};
use super::{PANEL_TOKENS, Panel, TILE};
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
            if tokens.len() < PANEL_TOKENS {
                for (&token, out) in tokens.iter().zip(out) {
                    _mm512_storeu_ps(out.as_mut_ptr(), direct(&rows, groups, x, token as usize));
                }
                return;
            }
            unpack_scales(&rows, groups, panel);
            unpack::<OFFSET>(&rows, groups, panel);
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

/// The scales of a tile as f32, [groups, rows].
///
/// # Safety
/// `groups` groups lie at every row.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub unsafe fn unpack_scales(rows: &Span, groups: usize, panel: &mut Panel) {
    let bytes = &mut panel.codes[..TILE * groups];
    // SAFETY: promised by the caller.
    unsafe { rows.gather_scales::<u8>(bytes) };
    for (bytes, out) in bytes.chunks_exact(TILE).zip(panel.scales.chunks_exact_mut(TILE)) {
        // SAFETY: sixteen of both.
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), scales(_mm_loadu_si128(bytes.as_ptr().cast()))) };
    }
}

/// Exponents to floats. Exponent 0 is 2^-127, which is subnormal; every other scale is larger.
#[inline]
#[target_feature(enable = "avx512f")]
fn scales(exponents: __m128i) -> __m512 {
    let bits = _mm512_slli_epi32::<23>(_mm512_cvtepu8_epi32(exponents));
    _mm512_castsi512_ps(_mm512_max_epi32(bits, _mm512_set1_epi32(0x0040_0000)))
}

/// One token, straight from the weights.
///
/// # Safety
/// `groups` groups lie at every row and in the activations.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn direct(rows: &Span, groups: usize, x: &Int8Rows, token: usize) -> __m512 {
    let (q, d, sums) = (x.values(token).as_ptr(), x.scales(token).as_ptr(), x.sums(token).as_ptr());
    let (table, zero) = (code_table(OFFSET), _mm512_setzero_si512());
    let mut acc = _mm512_setzero_ps();
    let mut exponents = [[0u8; TILE]; 2 * SCALES_AHEAD];
    for g in 0..SCALES_AHEAD.min(groups) {
        // SAFETY: promised by the caller.
        unsafe { rows.scales_of(g, &mut exponents[g]) };
    }
    for g in 0..groups {
        rows.prefetch_near(g);
        // SAFETY: group g of every row and of the token.
        unsafe {
            if g + SCALES_AHEAD < groups {
                rows.scales_of(g + SCALES_AHEAD, &mut exponents[(g + SCALES_AHEAD) % (2 * SCALES_AHEAD)]);
            }
            let low = _mm512_broadcast_i32x4(_mm_loadu_si128(q.add(g * GROUP).cast()));
            let high = _mm512_broadcast_i32x4(_mm_loadu_si128(q.add(g * GROUP + 16).cast()));
            let four = |j: usize| {
                let p = rows.elements.add(4 * j * rows.row + g * rows.group);
                let (w_low, w_high) = unpack_four(p, rows.row, table);
                _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(zero, w_low, low), w_high, high)
            };
            let sum = add_fours([four(0), four(1), four(2), four(3)]);
            let sum = _mm512_cvtepi32_ps(_mm512_sub_epi32(sum, _mm512_set1_epi32(OFFSET * *sums.add(g))));
            let scale = scales(_mm_loadu_si128(exponents[g % (2 * SCALES_AHEAD)].as_ptr().cast()));
            acc = _mm512_fmadd_ps(sum, _mm512_mul_ps(scale, _mm512_set1_ps(0.5 * *d.add(g))), acc);
        }
    }
    acc
}

/// Looks the rows' codes up, as value * 2 + ADDED, four elements of each row side by side. Rows are brought side by side while two codes are
/// still in a byte, which is half of the work.
///
/// # Safety
/// `groups` groups lie at every row.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub unsafe fn unpack<const ADDED: i32>(rows: &Span, groups: usize, panel: &mut Panel) {
    let (table, mask) = (code_table(ADDED), _mm512_set1_epi8(15));
    assert!(panel.codes.len() >= PANEL_GROUP * groups && panel.scales.len() >= TILE * groups);
    for g in 0..groups {
        rows.prefetch(g, 0);
        // SAFETY: group g of every row; the panel holds 512 bytes for each group.
        unsafe {
            let words = words_of_sixteen(rows.elements.add(g * rows.group), rows.row);
            let out = panel.codes.as_mut_ptr().add(g * PANEL_GROUP);
            for (quad, word) in words.into_iter().enumerate() {
                let low = _mm512_shuffle_epi8(table, _mm512_and_si512(word, mask));
                let high = _mm512_shuffle_epi8(table, _mm512_and_si512(_mm512_srli_epi16::<4>(word), mask));
                _mm512_storeu_si512(out.add(64 * quad).cast(), low);
                _mm512_storeu_si512(out.add(64 * (quad + 4)).cast(), high);
            }
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
    let s = tokens.map(|t| x.sums(t as usize).as_ptr());
    let mut acc = [_mm512_setzero_ps(); N];
    for g in 0..groups {
        if let Some(rows) = ahead {
            rows.prefetch(g, 1);
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
