//! Q8 with 16-bit activations, AVX2.
//!
//! `madd` multiplies pairs of 16-bit numbers exactly into 32 bits (32 * 128 * 32767 < 2^31), so the finer activations
//! cost what 8-bit ones would, whose products need a sign to be moved first.

use std::arch::x86_64::*;

use super::quantize::Int16Rows;
use super::rows_avx2::{HALF, Rows, add_across, in_fours, store_transposed};
use super::{PANEL_TOKENS, Panel, TILE};
use crate::matrix::Matrix;
use crate::mxfp4::GROUP;

/// See [`super::tile`].
///
/// # Safety
/// AVX2, FMA and F16C are present.
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn tile(m: &Matrix, row: usize, x: &Int16Rows, tokens: &[u32], panel: &mut Panel, out: &mut [[f32; TILE]]) {
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
    x: &Int16Rows,
    tokens: &[u32],
    panel: &mut Panel,
    out: &mut [[f32; TILE]],
) {
    let rows = Rows::<HALF>::new(m, row);
    if tokens.len() < PANEL_TOKENS {
        for (&token, out) in tokens.iter().zip(out) {
            let t = token as usize;
            // SAFETY: a Matrix holds all its groups, and the token's rows hold `groups` entries each.
            let sums = unsafe { direct(&rows, m.groups(), x.values(t), x.scales(t)) };
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

/// The scales of eight rows.
///
/// # Safety
/// Each address holds an F16.
#[inline]
#[target_feature(enable = "avx2,f16c")]
unsafe fn f16_scales(p: &[*const u8; HALF], at: usize) -> __m256 {
    // SAFETY: promised by the caller.
    let h = p.map(|p| i16::from_le_bytes(unsafe { [*p.add(at), *p.add(at + 1)] }));
    _mm256_cvtph_ps(_mm_setr_epi16(h[0], h[1], h[2], h[3], h[4], h[5], h[6], h[7]))
}

/// Half a group of weights, as 16-bit numbers.
///
/// # Safety
/// 16 bytes can be read at `p`.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn wide(p: *const u8) -> __m256i {
    // SAFETY: promised by the caller.
    _mm256_cvtepi8_epi16(unsafe { _mm_loadu_si128(p.cast()) })
}

/// One token, straight from the weights.
///
/// # Safety
/// `groups` groups lie at every row and in the activations.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn direct(rows: &Rows<HALF>, groups: usize, q: &[i16], d: &[f32]) -> __m256 {
    let mut acc = _mm256_setzero_ps();
    for g in 0..groups {
        rows.prefetch(g);
        // SAFETY: group g of the token.
        let [x0, x1] = [0, 16].map(|half| unsafe { _mm256_loadu_si256(q.as_ptr().add(g * GROUP + half).cast()) });
        let p = rows.elements.map(|p| {
            // SAFETY: group g of a row.
            let (w0, w1) = unsafe { (wide(p.add(g * rows.element_stride)), wide(p.add(g * rows.element_stride + 16))) };
            _mm256_add_epi32(_mm256_madd_epi16(w0, x0), _mm256_madd_epi16(w1, x1))
        });
        let pairs = |i: usize| _mm256_hadd_epi32(p[i], p[i + 1]);
        let sum = add_across(_mm256_hadd_epi32(pairs(0), pairs(2)), _mm256_hadd_epi32(pairs(4), pairs(6)));
        // SAFETY: group g of every row.
        let scale = unsafe { f16_scales(&rows.scales, g * rows.scale_stride) };
        acc = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), _mm256_mul_ps(scale, _mm256_set1_ps(d[g])), acc);
    }
    acc
}

/// Widens the rows, two elements of each row side by side.
///
/// # Safety
/// `groups` groups lie at every row.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn unpack(rows: &Rows<HALF>, groups: usize, panel: &mut Panel) {
    assert!(panel.codes.len() >= 2 * HALF * GROUP * groups && panel.scales.len() >= HALF * groups);
    for g in 0..groups {
        rows.prefetch(g);
        // SAFETY: group g of every row; the panel holds 512 bytes and 8 scales for each group.
        unsafe {
            for half in 0..2 {
                let w = rows.elements.map(|p| wide(p.add(g * rows.element_stride + 16 * half)));
                store_transposed(w, panel.codes.as_mut_ptr().add((2 * g + half) * GROUP * HALF), 32);
            }
            let scales = f16_scales(&rows.scales, g * rows.scale_stride);
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
    x: &Int16Rows,
    tokens: [u32; N],
    first: usize,
    out: &mut [[f32; TILE]],
) {
    let q = tokens.map(|t| x.values(t as usize).as_ptr().cast::<i32>());
    let d = tokens.map(|t| x.scales(t as usize));
    let mut acc = [_mm256_setzero_ps(); N];
    for g in 0..groups {
        let mut sums = [_mm256_setzero_si256(); N];
        for pair in 0..16 {
            // SAFETY: group g of the panel and of every token.
            let w = unsafe { _mm256_loadu_si256(panel.codes.as_ptr().add((16 * g + pair) * 32).cast()) };
            for n in 0..N {
                // SAFETY: as above.
                let x = _mm256_set1_epi32(unsafe { q[n].add(16 * g + pair).read_unaligned() });
                sums[n] = _mm256_add_epi32(sums[n], _mm256_madd_epi16(w, x));
            }
        }
        // SAFETY: as above.
        let scale = unsafe { _mm256_loadu_ps(panel.scales.as_ptr().add(g * HALF)) };
        for n in 0..N {
            let scale = _mm256_mul_ps(scale, _mm256_set1_ps(d[n][g]));
            acc[n] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums[n]), scale, acc[n]);
        }
    }
    for n in 0..N {
        // SAFETY: eight of sixteen floats.
        unsafe { _mm256_storeu_ps(out[n].as_mut_ptr().add(first), acc[n]) };
    }
}
