//! One page and one query, AVX2: a lane is a slot while scoring and a channel while adding values.

use std::arch::x86_64::*;
use std::ops::Range;

use super::cpu::{State, Tile};
use crate::cpu::exp::exp8;
use crate::kv::{KvLayer, PAGE, Store};

/// Vectors of a page's slots.
const VECTORS: usize = PAGE / 8;

/// Converts a page's keys and values to f32.
///
/// # Safety
/// AVX2 and F16C are present.
#[target_feature(enable = "avx2,f16c")]
pub unsafe fn load(kv: &KvLayer, at: usize, tile: &mut Tile) {
    convert(kv.keys(), at, tile.keys);
    convert(kv.values(), at, tile.values);
}

#[target_feature(enable = "avx2,f16c")]
fn convert(store: &Store, at: usize, out: &mut [f32]) {
    match store {
        Store::F32(v) => out.copy_from_slice(&v[at..at + out.len()]),
        Store::F16(v) => {
            let halves = &v[at..at + out.len()];
            for (h, out) in halves.chunks_exact(8).zip(out.chunks_exact_mut(8)) {
                // SAFETY: eight numbers on each side; PAGE * d is a multiple of 8.
                unsafe { _mm256_storeu_ps(out.as_mut_ptr(), _mm256_cvtph_ps(_mm_loadu_si128(h.as_ptr().cast()))) };
            }
        }
    }
}

/// Adds the visible slots to the state.
///
/// # Safety
/// AVX2 and FMA are present; d is a multiple of 8.
#[target_feature(enable = "avx2,fma")]
pub unsafe fn add_page(q: &[f32], tile: &Tile, slots: Range<usize>, state: State) {
    assert!(tile.keys.len() == q.len() * PAGE && tile.values.len() == tile.keys.len() && state.out.len() == q.len());
    // SAFETY: the shapes were checked.
    let s = unsafe { scores(q, tile.keys) };
    let s = mask(s, slots);
    let mut max = s[0];
    for s in &s[1..] {
        max = _mm256_max_ps(max, *s);
    }
    let max = state.max.max(largest(max));
    let correction = _mm256_cvtss_f32(exp8(_mm256_set1_ps(*state.max - max)));
    let p = s.map(|s| exp8(_mm256_sub_ps(s, _mm256_set1_ps(max))));
    let mut lanes = p[0];
    for p in &p[1..] {
        lanes = _mm256_add_ps(lanes, *p);
    }
    *state.max = max;
    *state.sum = *state.sum * correction + crate::cpu::dot::add_lanes(lanes);
    let mut weights = [0.0f32; PAGE];
    for (i, p) in p.into_iter().enumerate() {
        // SAFETY: eight of 64 weights.
        unsafe { _mm256_storeu_ps(weights.as_mut_ptr().add(8 * i), p) };
    }
    // SAFETY: the shapes were checked.
    unsafe { add_values(&weights, tile.values, correction, state.out) };
}

/// q · k / sqrt(d) of all slots: one chain over the channels for each.
///
/// # Safety
/// `keys` holds [d, 64] numbers.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn scores(q: &[f32], keys: &[f32]) -> [__m256; VECTORS] {
    let mut s = [_mm256_setzero_ps(); VECTORS];
    for (channel, &q) in q.iter().enumerate() {
        let q = _mm256_set1_ps(q);
        for i in 0..VECTORS {
            // SAFETY: promised by the caller.
            let k = unsafe { _mm256_loadu_ps(keys.as_ptr().add(channel * PAGE + 8 * i)) };
            s[i] = _mm256_fmadd_ps(q, k, s[i]);
        }
    }
    let scale = _mm256_set1_ps(1.0 / (q.len() as f32).sqrt());
    s.map(|s| _mm256_mul_ps(s, scale))
}

/// Minus infinity outside of `slots`.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn mask(s: [__m256; VECTORS], slots: Range<usize>) -> [__m256; VECTORS] {
    let first = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    let (start, end) = (_mm256_set1_epi32(slots.start as i32), _mm256_set1_epi32(slots.end as i32));
    std::array::from_fn(|i| {
        let slot = _mm256_add_epi32(first, _mm256_set1_epi32(8 * i as i32));
        let inside = _mm256_andnot_si256(_mm256_cmpgt_epi32(start, slot), _mm256_cmpgt_epi32(end, slot));
        _mm256_blendv_ps(_mm256_set1_ps(f32::NEG_INFINITY), s[i], _mm256_castsi256_ps(inside))
    })
}

#[inline]
#[target_feature(enable = "avx2")]
fn largest(v: __m256) -> f32 {
    let v = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
    let v = _mm_max_ps(v, _mm_movehl_ps(v, v));
    _mm_cvtss_f32(_mm_max_ss(v, _mm_movehdup_ps(v)))
}

/// out = out * correction + sum over the slots, one chain for each channel; up to 64 channels at a time.
///
/// # Safety
/// `values` holds [64, d] numbers, `out` d, a multiple of 8.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn add_values(weights: &[f32; PAGE], values: &[f32], correction: f32, out: &mut [f32]) {
    let dim = out.len();
    for first in (0..dim).step_by(8 * VECTORS) {
        let vectors = VECTORS.min((dim - first) / 8);
        let correction = _mm256_set1_ps(correction);
        let mut acc = [_mm256_setzero_ps(); VECTORS];
        // SAFETY: promised by the caller.
        unsafe {
            let (out, values) = (out.as_mut_ptr().add(first), values.as_ptr().add(first));
            for i in 0..vectors {
                acc[i] = _mm256_mul_ps(_mm256_loadu_ps(out.add(8 * i)), correction);
            }
            for (slot, &p) in weights.iter().enumerate() {
                let p = _mm256_set1_ps(p);
                for i in 0..vectors {
                    acc[i] = _mm256_fmadd_ps(p, _mm256_loadu_ps(values.add(slot * dim + 8 * i)), acc[i]);
                }
            }
            for i in 0..vectors {
                _mm256_storeu_ps(out.add(8 * i), acc[i]);
            }
        }
    }
}
