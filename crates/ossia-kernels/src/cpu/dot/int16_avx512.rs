//! Q8 with 16-bit activations, AVX-512 with VNNI: the sums of `int16_avx2`, sixteen rows at a time.
//!
//! Activations are two planes of bytes here, see `few_avx512`, whose kernel the first tokens take: it leaves the rows side by side
//! for the others.

use std::arch::x86_64::*;

use super::few_avx512::{Way, bytes_kept};
use super::quantize::Int16Rows;
use super::rows_avx512::TOKENS;
use super::span::{Span, by_number, parts, with_whole_tile};
use super::{Panel, TILE};
use crate::matrix::Matrix;

/// See [`super::tile`].
///
/// # Safety
/// AVX-512 (F, BW, DQ, VL) with VNNI, AVX2, FMA and F16C are present, and what the way needs.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub unsafe fn tile(
    way: Way,
    m: &Matrix,
    row: usize,
    x: &Int16Rows,
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
            bytes_kept(way, &Span::new(m, row), groups, x, tokens, panel, out);
            parts.for_each(|(tokens, out)| by_number!(|tokens| panel_tokens(groups, panel, x, tokens, out)));
        }
    });
}

/// Scales to f32.
#[inline]
#[target_feature(enable = "avx512f")]
pub fn widened(halves: &[[u8; 2]; TILE]) -> __m512 {
    // SAFETY: 32 bytes.
    _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(halves.as_ptr().cast()) })
}

/// The rows that were brought side by side with some tokens.
///
/// # Safety
/// `panel` was filled with `groups` groups.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn panel_tokens<const N: usize>(
    groups: usize,
    panel: &Panel,
    x: &Int16Rows,
    tokens: [u32; N],
    out: &mut [[f32; TILE]],
) {
    let q = tokens.map(|t| x.planes(t as usize).as_ptr().cast::<i32>());
    let d = tokens.map(|t| x.scales(t as usize).as_ptr());
    let s = tokens.map(|t| x.offsets(t as usize).as_ptr());
    let mut acc = [_mm512_setzero_ps(); N];
    for g in 0..groups {
        // SAFETY: group g of the panel and of every token.
        unsafe {
            let words = panel.codes.as_ptr().add(512 * g);
            let (mut low, mut high) = ([_mm512_setzero_si512(); N], [_mm512_setzero_si512(); N]);
            for n in 0..N {
                high[n] = _mm512_set1_epi32(*s[n].add(g));
            }
            for quad in 0..8 {
                let w = _mm512_loadu_si512(words.add(64 * quad).cast());
                let unsigned = _mm512_xor_si512(w, _mm512_set1_epi8(-128));
                for n in 0..N {
                    let x = q[n].add(16 * g + quad);
                    low[n] = _mm512_dpbusd_epi32(low[n], _mm512_set1_epi32(x.read_unaligned()), w);
                    high[n] = _mm512_dpbusd_epi32(high[n], unsigned, _mm512_set1_epi32(x.add(8).read_unaligned()));
                }
            }
            let scale = _mm512_loadu_ps(panel.scales.as_ptr().add(g * TILE));
            for n in 0..N {
                let sum = _mm512_cvtepi32_ps(_mm512_add_epi32(low[n], _mm512_slli_epi32::<8>(high[n])));
                acc[n] = _mm512_fmadd_ps(sum, _mm512_mul_ps(scale, _mm512_set1_ps(*d[n].add(g))), acc[n]);
            }
        }
    }
    for n in 0..N {
        // SAFETY: sixteen floats.
        unsafe { _mm512_storeu_ps(out[n].as_mut_ptr(), acc[n]) };
    }
}
