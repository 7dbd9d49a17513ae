//! One page and the heads of one query, in vectors: a lane is a slot while scoring and a channel while adding values.
//!
//! One head alone would wait for its own sums, so where a page's slots take few vectors several heads go side by side.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;
use std::ops::Range;

use super::cpu::{State, Tile};
use crate::cpu::vector::{Eight, Lanes, Sixteen};
use crate::kv::{KvLayer, PAGE, Store};

/// Converts a page's keys and values to f32, and asks for those of the page at `next`.
///
/// # Safety
/// AVX2 and F16C are present.
#[target_feature(enable = "avx2,f16c")]
pub unsafe fn load_avx2(kv: &KvLayer, at: usize, next: usize, tile: &mut Tile) {
    for (store, out) in [(kv.keys(), &mut *tile.keys), (kv.values(), &mut *tile.values)] {
        convert(store, at, next, out, |halves, out| {
            for (h, out) in halves.as_chunks::<8>().0.iter().zip(out.as_chunks_mut::<8>().0) {
                // SAFETY: eight numbers on each side.
                unsafe { _mm256_storeu_ps(out.as_mut_ptr(), _mm256_cvtph_ps(_mm_loadu_si128(h.as_ptr().cast()))) };
            }
        });
    }
}

/// The same with AVX-512.
///
/// # Safety
/// AVX-512 (F) is present.
#[target_feature(enable = "avx512f")]
pub unsafe fn load_avx512(kv: &KvLayer, at: usize, next: usize, tile: &mut Tile) {
    for (store, out) in [(kv.keys(), &mut *tile.keys), (kv.values(), &mut *tile.values)] {
        convert(store, at, next, out, |halves, out| {
            for (h, out) in halves.as_chunks::<16>().0.iter().zip(out.as_chunks_mut::<16>().0) {
                // SAFETY: sixteen numbers on each side.
                unsafe { _mm512_storeu_ps(out.as_mut_ptr(), _mm512_cvtph_ps(_mm256_loadu_si256(h.as_ptr().cast()))) };
            }
        });
    }
}

/// Halves of a cache line.
const LINE: usize = 32;

/// Calls `widen` for one cache line after the other.
#[inline(always)]
fn convert(store: &Store, at: usize, next: usize, out: &mut [f32], widen: impl Fn(&[u16; LINE], &mut [f32; LINE])) {
    match store {
        Store::F32(v) => out.copy_from_slice(&v[at..at + out.len()]),
        Store::F16(v) => {
            let halves = v[at..at + out.len()].as_chunks::<LINE>().0;
            for (i, (halves, out)) in halves.iter().zip(out.as_chunks_mut().0).enumerate() {
                // SAFETY: a prefetch touches no memory and may point anywhere.
                unsafe { _mm_prefetch::<_MM_HINT_T0>(v.as_ptr().wrapping_add(next + i * LINE).cast()) };
                widen(halves, out);
            }
        }
        Store::Cuda(_) => unreachable!("a GPU's pages are read by its kernels"),
    }
}

/// Adds the visible slots to the states of all heads of q [heads, d].
///
/// # Safety
/// AVX2 and FMA are present; d is a multiple of 8.
#[target_feature(enable = "avx2,fma")]
pub unsafe fn add_page_avx2(q: &[f32], dim: usize, tile: &Tile, slots: Range<usize>, state: State) {
    // SAFETY: promised by the caller.
    unsafe { heads::<Eight, 8, 1>(q, dim, tile, slots, state) };
}

/// The same with AVX-512.
///
/// # Safety
/// AVX-512 (F and DQ), AVX2 and FMA are present; d is a multiple of 16.
#[target_feature(enable = "avx512f,avx512dq,avx2,fma")]
pub unsafe fn add_page_avx512(q: &[f32], dim: usize, tile: &Tile, slots: Range<usize>, state: State) {
    // SAFETY: promised by the caller.
    unsafe {
        if q.len().is_multiple_of(4 * dim) {
            heads::<Sixteen, 4, 4>(q, dim, tile, slots, state);
        } else {
            heads::<Sixteen, 4, 1>(q, dim, tile, slots, state);
        }
    }
}

/// N heads at a time; V vectors hold a page's slots.
///
/// # Safety
/// The machine has the instruction set of L; the number of heads is a multiple of N, and d one of the lanes.
#[inline(always)]
unsafe fn heads<L: Lanes, const V: usize, const N: usize>(
    q: &[f32],
    dim: usize,
    tile: &Tile,
    slots: Range<usize>,
    state: State,
) {
    assert!(V * L::LANES == PAGE && tile.keys.len() == dim * PAGE && tile.values.len() == tile.keys.len());
    assert!(state.out.len() == q.len() && state.max.len() * dim == q.len() && state.sum.len() == state.max.len());
    let states = state.max.chunks_exact_mut(N).zip(state.sum.chunks_exact_mut(N));
    for ((q, out), (max, sum)) in q.chunks_exact(N * dim).zip(state.out.chunks_exact_mut(N * dim)).zip(states) {
        // SAFETY: the shapes were checked.
        unsafe {
            let scores = scores::<L, V, N>(q, dim, tile.keys, &slots);
            let mut weights = [[0.0f32; PAGE]; N];
            let corrections = softmax(&scores, max, sum, &mut weights);
            let mut first = 0;
            while first + V * L::LANES <= dim {
                add_values::<L, V, N>(&weights, &corrections, tile.values, dim, first, out);
                first += V * L::LANES;
            }
            while first < dim {
                add_values::<L, 1, N>(&weights, &corrections, tile.values, dim, first, out);
                first += L::LANES;
            }
        }
    }
}

/// q · k / sqrt(d) of all slots, one chain over the channels for each; minus infinity outside of `slots`.
///
/// # Safety
/// The machine has the instruction set of L; `q` holds [N, d] and `keys` [d, 64] numbers.
#[inline(always)]
unsafe fn scores<L: Lanes, const V: usize, const N: usize>(
    q: &[f32],
    dim: usize,
    keys: &[f32],
    slots: &Range<usize>,
) -> [[L; V]; N] {
    /// The numbers of the slots.
    const INDEX: [f32; PAGE] = {
        let mut index = [0.0; PAGE];
        let mut i = 0;
        while i < PAGE {
            index[i] = i as f32;
            i += 1;
        }
        index
    };
    // SAFETY: promised by the caller.
    unsafe {
        let mut s = [[L::splat(0.0); V]; N];
        for channel in 0..dim {
            let mut k = [L::splat(0.0); V];
            for i in 0..V {
                k[i] = L::load(keys.as_ptr().add(channel * PAGE + i * L::LANES));
            }
            for n in 0..N {
                let q = L::splat(*q.as_ptr().add(n * dim + channel));
                for i in 0..V {
                    s[n][i] = q.mul_add(k[i], s[n][i]);
                }
            }
        }
        let scale = L::splat(1.0 / (dim as f32).sqrt());
        let (from, to) = (L::splat(slots.start as f32), L::splat(slots.end as f32));
        for n in 0..N {
            for i in 0..V {
                let index = L::load(INDEX.as_ptr().add(i * L::LANES));
                s[n][i] = s[n][i].mul(scale).keep(index, from, to);
            }
        }
        s
    }
}

/// Moves the states' maxima and sums on and writes exp(s - maximum); the results are what old values are multiplied with.
///
/// # Safety
/// The machine has the instruction set of L, V vectors are a page, and N heads are no more than a vector's lanes.
#[inline(always)]
unsafe fn softmax<L: Lanes, const V: usize, const N: usize>(
    s: &[[L; V]; N],
    max: &mut [f32],
    sum: &mut [f32],
    weights: &mut [[f32; PAGE]; N],
) -> [f32; N] {
    // SAFETY: promised by the caller; `weights` has room for V vectors, `lanes` for the widest one.
    unsafe {
        let (mut new, mut lanes) = ([0.0f32; N], [0.0f32; 16]);
        for n in 0..N {
            let mut largest = s[n][0];
            for s in &s[n][1..] {
                largest = largest.max(*s);
            }
            // A score that is not a number may be lost here, but not below.
            new[n] = max[n].max(largest.largest());
            lanes[n] = max[n] - new[n];
        }
        // One vector for all heads.
        L::load(lanes.as_ptr()).exp().store(lanes.as_mut_ptr());
        for n in 0..N {
            let mut w = s[n];
            for i in 0..V {
                w[i] = w[i].sub(L::splat(new[n])).exp();
                w[i].store(weights[n].as_mut_ptr().add(i * L::LANES));
            }
            max[n] = new[n];
            sum[n] = sum[n] * lanes[n] + L::sum_in_eights(&w);
        }
        std::array::from_fn(|n| lanes[n])
    }
}

/// out = out * correction + sum over the slots, one chain for each channel; V vectors of channels from `first` on.
///
/// # Safety
/// The machine has the instruction set of L; `values` holds [64, d] and `out` [N, d] numbers, d at least so many.
#[inline(always)]
unsafe fn add_values<L: Lanes, const V: usize, const N: usize>(
    weights: &[[f32; PAGE]; N],
    corrections: &[f32; N],
    values: &[f32],
    dim: usize,
    first: usize,
    out: &mut [f32],
) {
    // SAFETY: promised by the caller.
    unsafe {
        let out = out.as_mut_ptr().add(first);
        let mut acc = [[L::splat(0.0); V]; N];
        for n in 0..N {
            for i in 0..V {
                acc[n][i] = L::load(out.add(n * dim + i * L::LANES)).mul(L::splat(corrections[n]));
            }
        }
        for slot in 0..PAGE {
            let mut v = [L::splat(0.0); V];
            for i in 0..V {
                v[i] = L::load(values.as_ptr().add(slot * dim + first + i * L::LANES));
            }
            for n in 0..N {
                let p = L::splat(weights[n][slot]);
                for i in 0..V {
                    acc[n][i] = p.mul_add(v[i], acc[n][i]);
                }
            }
        }
        for n in 0..N {
            for i in 0..V {
                acc[n][i].store(out.add(n * dim + i * L::LANES));
            }
        }
    }
}
