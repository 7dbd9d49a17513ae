//! One page and one query in plain Rust.

use std::ops::Range;

use super::cpu::{State, Tile};
use crate::cpu::dot::add_lanes;
use crate::kv::{KvLayer, PAGE, Store};

/// Converts a page's keys and values to f32.
pub fn load(kv: &KvLayer, at: usize, tile: &mut Tile) {
    let convert = |store: &Store, out: &mut [f32]| match store {
        Store::F32(v) => out.copy_from_slice(&v[at..at + out.len()]),
        Store::F16(v) => {
            out.iter_mut().zip(&v[at..]).for_each(|(out, &bits)| *out = half::f16::from_bits(bits).to_f32());
        }
        Store::Cuda(_) => unreachable!("a GPU's pages are read by its kernels"),
    };
    convert(kv.keys(), tile.keys);
    convert(kv.values(), tile.values);
}

/// Adds the visible slots to the states of all heads of q [heads, d].
pub fn add_page(q: &[f32], dim: usize, tile: &Tile, slots: Range<usize>, state: State) {
    let states = state.max.iter_mut().zip(state.sum).zip(state.out.chunks_exact_mut(dim));
    for (q, ((max, sum), out)) in q.chunks_exact(dim).zip(states) {
        add_head(q, tile, slots.clone(), max, sum, out);
    }
}

fn add_head(q: &[f32], tile: &Tile, slots: Range<usize>, max: &mut f32, sum: &mut f32, out: &mut [f32]) {
    let scale = 1.0 / (q.len() as f32).sqrt();
    let mut p = [0.0f32; PAGE];
    for (&q, keys) in q.iter().zip(tile.keys.chunks_exact(PAGE)) {
        p.iter_mut().zip(keys).for_each(|(s, k)| *s += q * k);
    }
    p.iter_mut().for_each(|s| *s *= scale);
    p[..slots.start].fill(f32::NEG_INFINITY);
    p[slots.end..].fill(f32::NEG_INFINITY);
    let new = p[slots].iter().fold(*max, |m, &s| if s > m || s.is_nan() { s } else { m });
    let correction = (*max - new).exp();
    p.iter_mut().for_each(|s| *s = (*s - new).exp());
    let mut lanes = [0.0f32; 8];
    p.as_chunks::<8>().0.iter().for_each(|eight| (0..8).for_each(|j| lanes[j] += eight[j]));
    *max = new;
    *sum = *sum * correction + add_lanes(&lanes);
    out.iter_mut().for_each(|o| *o *= correction);
    for (&p, values) in p.iter().zip(tile.values.chunks_exact(q.len())) {
        out.iter_mut().zip(values).for_each(|(o, v)| *o += p * v);
    }
}
