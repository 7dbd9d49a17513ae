//! Dot products with float activations, AVX-512: two rows a vector, each with the eight lanes that it has with AVX2, so the
//! bits are the same.

use std::arch::x86_64::*;

use super::float_avx2::{add_lanes, codes};
use super::{TILE, float_avx2, tile_rows};
use crate::cpu::isa::{Processor, processor};
use crate::matrix::{Kind, Matrix};
use crate::mxfp4::GROUP;

/// Vectors of two rows whose sums run side by side.
const PAIRS: usize = 4;
/// Rows of theirs.
const ROWS: usize = 2 * PAIRS;
/// Tokens that share the loads of a row.
const TOKENS: usize = 6;
/// The fewest for which these are worth it on any processor; fewer wait for memory, and need it asked for ahead.
const FEWEST: usize = 3;

/// See [`super::tile`].
///
/// # Safety
/// AVX-512 F, BW, DQ and VL are present, and what AVX2's kernel needs.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub unsafe fn tile(m: &Matrix, row: usize, x: &[f32], tokens: &[u32], out: &mut [[f32; TILE]]) {
    let mut done = 0;
    // Zen 5 has AVX2's for fewer, which asks ahead as suits it.
    let ahead = processor() != Processor::Zen5;
    let fewest = if ahead { 1 } else { FEWEST };
    while tokens.len() - done >= fewest {
        let n = (tokens.len() - done).min(TOKENS);
        let (tokens, out) = (&tokens[done..][..n], &mut out[done..][..n]);
        // SAFETY: passed on.
        unsafe {
            match (n, ahead) {
                (1, _) => rows_of_tile::<1, true>(m, row, x, tokens, out),
                (2, _) => rows_of_tile::<2, true>(m, row, x, tokens, out),
                (FEWEST, true) => rows_of_tile::<FEWEST, true>(m, row, x, tokens, out),
                (FEWEST, false) => rows_of_tile::<FEWEST, false>(m, row, x, tokens, out),
                _ => rows_of_tile::<TOKENS, false>(m, row, x, tokens, out),
            }
        }
        done += n;
    }
    // SAFETY: passed on.
    unsafe { float_avx2::tile(m, row, x, &tokens[done..], &mut out[done..]) }
}

/// At most N tokens, the last of which stands in for those that are missing. AHEAD: the next rows are asked for.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
unsafe fn rows_of_tile<const N: usize, const AHEAD: bool>(
    m: &Matrix,
    row: usize,
    x: &[f32],
    tokens: &[u32],
    out: &mut [[f32; TILE]],
) {
    let all = tile_rows(m, row);
    let mut own = [0; N];
    for n in 0..N {
        own[n] = tokens[n.min(tokens.len() - 1)];
    }
    for half in 0..TILE / ROWS {
        let mut rows = [0; ROWS];
        rows.copy_from_slice(&all[half * ROWS..][..ROWS]);
        let mut sums = [[0.0; ROWS]; N];
        // SAFETY: passed on; the kind is decided once, outside the loop.
        unsafe {
            match m.kind() {
                Kind::F32 => dots::<{ Kind::F32 as u8 }, N, AHEAD>(m, &rows, x, &own, &mut sums),
                Kind::F16 => dots::<{ Kind::F16 as u8 }, N, AHEAD>(m, &rows, x, &own, &mut sums),
                Kind::BF16 => dots::<{ Kind::BF16 as u8 }, N, AHEAD>(m, &rows, x, &own, &mut sums),
                Kind::Q8 => dots::<{ Kind::Q8 as u8 }, N, AHEAD>(m, &rows, x, &own, &mut sums),
                Kind::Mxfp4Pairs => dots::<{ Kind::Mxfp4Pairs as u8 }, N, AHEAD>(m, &rows, x, &own, &mut sums),
                Kind::Mxfp4Halves => dots::<{ Kind::Mxfp4Halves as u8 }, N, AHEAD>(m, &rows, x, &own, &mut sums),
            }
        }
        for (out, sums) in out.iter_mut().zip(&sums) {
            out[half * ROWS..][..ROWS].copy_from_slice(sums);
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
unsafe fn dots<const KIND: u8, const N: usize, const AHEAD: bool>(
    m: &Matrix,
    rows: &[usize; ROWS],
    x: &[f32],
    tokens: &[u32; N],
    sums: &mut [[f32; ROWS]; N],
) {
    let (mut elements, mut scales, mut from) =
        ([std::ptr::null(); ROWS], [std::ptr::null(); ROWS], [std::ptr::null(); N]);
    for r in 0..ROWS {
        (elements[r], scales[r]) = (m.elements().at(rows[r], 0).as_ptr(), m.scales().at(rows[r], 0).as_ptr());
    }
    for n in 0..N {
        from[n] = x[tokens[n] as usize * m.cols()..][..m.cols()].as_ptr();
    }
    let (stride, scale_stride) = (m.elements().group_stride(), m.scales().group_stride());
    let mut acc = [[_mm512_setzero_ps(); PAIRS]; N];
    let next = ROWS * m.elements().row_stride();
    for g in 0..m.groups() {
        if AHEAD {
            for elements in &elements {
                for line in (0..stride).step_by(64) {
                    _mm_prefetch::<_MM_HINT_T1>(elements.wrapping_add(next + g * stride + line).cast());
                }
            }
        }
        // SAFETY: group g of rows of the matrix, and 32 activations of each token.
        unsafe {
            let mut w = [[_mm512_setzero_ps(); PAIRS]; 4];
            for p in 0..PAIRS {
                let of = |r: usize| (elements[r].add(g * stride), scales[r].add(g * scale_stride));
                let (first, second) = (of(2 * p), of(2 * p + 1));
                let group = load_group::<KIND>([first.0, second.0], [first.1, second.1]);
                for j in 0..4 {
                    w[j][p] = group[j];
                }
            }
            for (j, w) in w.iter().enumerate() {
                for n in 0..N {
                    let x = _mm512_broadcast_f32x8(_mm256_loadu_ps(from[n].add(g * GROUP + 8 * j)));
                    for p in 0..PAIRS {
                        acc[n][p] = _mm512_fmadd_ps(w[p], x, acc[n][p]);
                    }
                }
            }
        }
    }
    for n in 0..N {
        for p in 0..PAIRS {
            sums[n][2 * p] = add_lanes(_mm512_castps512_ps256(acc[n][p]));
            sums[n][2 * p + 1] = add_lanes(_mm512_extractf32x8_ps::<1>(acc[n][p]));
        }
    }
}

/// The values of a group of two rows, the first row's in the lower halves.
///
/// # Safety
/// `e` and `s` are the addresses of a group's elements and scale of this kind.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,f16c")]
unsafe fn load_group<const KIND: u8>(e: [*const u8; 2], s: [*const u8; 2]) -> [__m512; 4] {
    let mut values = [_mm512_setzero_ps(); 4];
    // SAFETY: promised by the caller.
    unsafe {
        if KIND == Kind::F32 as u8 {
            for j in 0..4 {
                let low = _mm512_castps256_ps512(_mm256_loadu_ps(e[0].cast::<f32>().add(8 * j)));
                values[j] = _mm512_insertf32x8::<1>(low, _mm256_loadu_ps(e[1].cast::<f32>().add(8 * j)));
            }
        } else if KIND == Kind::F16 as u8 || KIND == Kind::BF16 as u8 {
            for j in 0..4 {
                let low = _mm256_castsi128_si256(_mm_loadu_si128(e[0].add(16 * j).cast()));
                let halves = _mm256_inserti128_si256::<1>(low, _mm_loadu_si128(e[1].add(16 * j).cast()));
                values[j] = if KIND == Kind::F16 as u8 {
                    _mm512_cvtph_ps(halves)
                } else {
                    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(halves)))
                };
            }
        } else if KIND == Kind::Q8 as u8 {
            let scale = |s: *const u8| half::f16::from_le_bytes([*s, *s.add(1)]).to_f32();
            let scale = two_scales(scale(s[0]), scale(s[1]));
            for j in 0..4 {
                let (a, b) = (_mm_loadl_epi64(e[0].add(8 * j).cast()), _mm_loadl_epi64(e[1].add(8 * j).cast()));
                let v = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_unpacklo_epi64(a, b)));
                values[j] = _mm512_mul_ps(v, scale);
            }
        } else {
            let (mut a, mut b) = (codes(e[0]), codes(e[1]));
            if KIND == Kind::Mxfp4Pairs as u8 {
                a = (_mm_unpacklo_epi8(a.0, a.1), _mm_unpackhi_epi8(a.0, a.1));
                b = (_mm_unpacklo_epi8(b.0, b.1), _mm_unpackhi_epi8(b.0, b.1));
            }
            let scale = two_scales(0.5 * crate::mxfp4::scale(*s[0]), 0.5 * crate::mxfp4::scale(*s[1]));
            let eights = [
                _mm_unpacklo_epi64(a.0, b.0),
                _mm_unpackhi_epi64(a.0, b.0),
                _mm_unpacklo_epi64(a.1, b.1),
                _mm_unpackhi_epi64(a.1, b.1),
            ];
            for j in 0..4 {
                values[j] = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(eights[j])), scale);
            }
        }
    }
    values
}

#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn two_scales(first: f32, second: f32) -> __m512 {
    _mm512_insertf32x8::<1>(_mm512_set1_ps(first), _mm256_set1_ps(second))
}
