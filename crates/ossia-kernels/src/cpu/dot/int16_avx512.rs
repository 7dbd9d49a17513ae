//! Q8 with 16-bit activations, AVX-512 with VNNI: the sums of `int16_avx2`, sixteen rows at a time.

use std::arch::x86_64::*;

use super::quantize::Int16Rows;
use super::rows_avx2::{HALF, store_transposed};
use super::rows_avx512::{Span, TOKENS, by_number, each_group, parts, up_to, with_whole_tile};
use super::{Panel, TILE};
use crate::matrix::Matrix;
use crate::mxfp4::GROUP;

/// Bytes of a group in the panel.
const PANEL_GROUP: usize = 2 * GROUP * TILE;

/// See [`super::tile`].
///
/// # Safety
/// AVX-512 (F, BW, DQ, VL) with VNNI, AVX2, FMA and F16C are present.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub unsafe fn tile(m: &Matrix, row: usize, x: &Int16Rows, tokens: &[u32], panel: &mut Panel, out: &mut [[f32; TILE]]) {
    let groups = m.groups();
    with_whole_tile(m, row, out, |row, out| {
        let rows = Span::new(m, row);
        // The first tokens ask for the next tile, which then comes while they are computed.
        let mut ahead = Some(&rows);
        // SAFETY: a Matrix holds all its groups, the token's rows hold `groups` entries each, the panel is unpacked
        // before it is used.
        unsafe {
            unpack(&rows, groups, panel);
            for (tokens, out) in parts(tokens, out, TOKENS) {
                let ahead = ahead.take();
                up_to!(8, |tokens| panel_tokens(groups, panel, ahead, x, tokens, out));
            }
        }
    });
}

/// Scales to f32, and the rows widened, two elements of each row side by side.
///
/// # Safety
/// `groups` groups lie at every row.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn unpack(rows: &Span, groups: usize, panel: &mut Panel) {
    assert!(panel.codes.len() >= PANEL_GROUP * groups && panel.scales.len() >= TILE * groups);
    let unpack_one = |g: usize, halves: &[[u8; 2]; TILE]| {
        // SAFETY: group g of every row; the panel holds 1024 bytes and sixteen scales for each group.
        unsafe {
            _mm512_storeu_ps(panel.scales.as_mut_ptr().add(g * TILE), widened(halves));
            for (part, half) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                let w: [__m256i; HALF] = std::array::from_fn(|r| {
                    let p = rows.elements.add((half * HALF + r) * rows.row + g * rows.group + 16 * part);
                    _mm256_cvtepi8_epi16(_mm_loadu_si128(p.cast()))
                });
                let out = panel.codes.as_mut_ptr().add(g * PANEL_GROUP + part * PANEL_GROUP / 2 + 32 * half);
                store_transposed(w, out, 64);
            }
        }
    };
    // SAFETY: promised by the caller; two bytes are a scale.
    unsafe { each_group(rows, groups, unpack_one) };
}

/// Scales to f32.
#[inline]
#[target_feature(enable = "avx512f")]
pub fn widened(halves: &[[u8; 2]; TILE]) -> __m512 {
    // SAFETY: 32 bytes.
    _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(halves.as_ptr().cast()) })
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
    x: &Int16Rows,
    tokens: [u32; N],
    out: &mut [[f32; TILE]],
) {
    let q = tokens.map(|t| x.values(t as usize).as_ptr().cast::<i32>());
    let d = tokens.map(|t| x.scales(t as usize).as_ptr());
    let mut acc = [_mm512_setzero_ps(); N];
    for g in 0..groups {
        if let Some(rows) = ahead {
            rows.prefetch_next::<9>(g);
        }
        // SAFETY: group g of the panel and of every token.
        unsafe {
            let codes = panel.codes.as_ptr().add(g * PANEL_GROUP);
            let mut sums = [_mm512_setzero_si512(); N];
            for pair in 0..16 {
                let w = _mm512_loadu_si512(codes.add(64 * pair).cast());
                for n in 0..N {
                    let x = _mm512_set1_epi32(q[n].add(16 * g + pair).read_unaligned());
                    sums[n] = _mm512_dpwssd_epi32(sums[n], w, x);
                }
            }
            let scale = _mm512_loadu_ps(panel.scales.as_ptr().add(g * TILE));
            for n in 0..N {
                let scale = _mm512_mul_ps(scale, _mm512_set1_ps(*d[n].add(g)));
                acc[n] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[n]), scale, acc[n]);
            }
        }
    }
    for n in 0..N {
        // SAFETY: sixteen floats.
        unsafe { _mm512_storeu_ps(out[n].as_mut_ptr(), acc[n]) };
    }
}
