//! A task is some tiles of units (or rows) of one expert with all of its tokens.

use std::ops::Range;

use super::adapter::Inner;
use super::{Expert, Experts};
use crate::cpu::disjoint::Disjoint;
use crate::cpu::dot::{Input, Lists, MOST_TOKENS, Panels, Scratch, TILE};
use crate::cpu::isa::Isa;
use crate::cpu::vector::Lanes;
#[cfg(target_arch = "x86_64")]
use crate::cpu::vector::{Eight, Sixteen};
use crate::ops::router::Routes;
use crate::{Result, Runtime};

/// Tiles of a task. A tile's kernel asks for the tile after it, which at a task's end is another thread's.
const TILES: usize = 15;

/// Columns that are added up at once.
const COLUMNS: usize = 64;

/// The pairs of each expert, ascending.
pub struct Groups {
    /// Experts that have pairs, with their range in `pairs`.
    pub active: Vec<(usize, Range<usize>)>,
    /// Pair numbers, expert by expert.
    pub pairs: Vec<u32>,
}

impl Groups {
    /// Gathers pairs by expert.
    pub fn new(routes: &Routes, experts: usize) -> Self {
        let mut ends = vec![0; experts];
        routes.experts.iter().for_each(|&e| ends[e as usize] += 1);
        let mut active = Vec::new();
        let mut start = 0;
        for (expert, count) in ends.iter_mut().enumerate() {
            if *count > 0 {
                active.push((expert, start..start + *count));
            }
            start += std::mem::replace(count, start);
        }
        let mut pairs = vec![0; start];
        for (pair, &expert) in routes.experts.iter().enumerate() {
            let place = &mut ends[expert as usize];
            pairs[*place] = pair as u32;
            *place += 1;
        }
        Self { active, pairs }
    }

    /// The pairs, an expert's in lists of at most [`MOST_TOKENS`], and the expert of each list.
    fn lists(&self) -> Vec<(usize, Range<usize>)> {
        let cut = |(expert, range): &(usize, Range<usize>)| {
            let (expert, range) = (*expert, range.clone());
            range.clone().step_by(MOST_TOKENS).map(move |at| (expert, at..(at + MOST_TOKENS).min(range.end)))
        };
        self.active.iter().flat_map(cut).collect()
    }
}

/// Some tiles of an expert's rows, and its lists.
struct Share {
    expert: usize,
    tiles: Range<usize>,
    lists: Range<usize>,
}

/// Runs `work(share, thread)` over all tiles of all experts that have lists.
fn run(runtime: &Runtime, lists: &[(usize, Range<usize>)], rows: usize, work: impl Fn(Share, usize) + Sync) {
    let mut first = 0;
    let experts: Vec<_> = lists
        .chunk_by(|a, b| a.0 == b.0)
        .map(|of_one| {
            first += of_one.len();
            (of_one[0].0, first - of_one.len()..first)
        })
        .collect();
    let tiles = rows.div_ceil(TILE);
    let shares = tiles.div_ceil(TILES);
    runtime.pool.run(experts.len() * shares, &|task, thread| {
        let ((expert, lists), share) = (experts[task / shares].clone(), task % shares);
        let tiles = share * TILES..((share + 1) * TILES).min(tiles);
        work(Share { expert, tiles, lists }, thread);
    });
}

/// `slots` are the adapters of the tokens, or empty where none are attached.
pub fn add_forward(
    runtime: &Runtime,
    t: &[f32],
    routes: &Routes,
    experts: &Experts,
    slots: &[Option<usize>],
    x: &mut [f32],
) -> Result<()> {
    let groups = Groups::new(routes, experts.experts.len());
    let first = &experts.experts[0];
    let mut act = runtime.arena.take::<f32>(groups.pairs.len() * first.gate.rows())?;
    let inner = Inner::gate_up(runtime, experts, routes, slots, t)?;
    mlp1(runtime, t, routes.per_token, experts, &groups, &inner, &mut act)?;
    let inner = Inner::down(runtime, experts, routes, slots, &act)?;
    let mut out = runtime.arena.take::<f32>(groups.pairs.len() * first.down.rows())?;
    mlp2(runtime, &act, experts, &groups, &inner, &mut out)?;
    combine(runtime, &out, None, routes, first.down.rows(), x);
    Ok(())
}

/// act [pairs, I] from t [T, D].
fn mlp1(
    runtime: &Runtime,
    t: &[f32],
    k: usize,
    experts: &Experts,
    groups: &Groups,
    inner: &Inner,
    act: &mut [f32],
) -> Result<()> {
    let Expert { gate, .. } = &experts.experts[0];
    let (units, cols) = (gate.rows(), gate.cols());
    let input = Input::new(runtime, t, cols, gate.kind())?;
    let (cut, tokens) = (groups.lists(), groups.pairs.iter().map(|pair| pair / k as u32).collect::<Vec<_>>());
    let lists = Lists::new(runtime, &input, cols, cut.iter().map(|(_, range)| &tokens[range.clone()]).collect())?;
    let mut panels = Panels::new(&runtime.arena, runtime.pool.threads(), cols)?;
    let panels = panels.split();
    let act = Disjoint::new(act);
    run(runtime, &cut, units, |Share { expert, tiles, lists: own }, thread| {
        let expert = &experts.experts[expert];
        let mut scratch = panels[thread].lock().unwrap_or_else(|e| e.into_inner());
        let Scratch { panel, out: [gate, up] } = &mut *scratch;
        for list in own {
            let pairs = &groups.pairs[cut[list].1.clone()];
            for tiles in lists.runs(list, &tiles) {
                lists.tiles(list, &expert.gate, tiles.clone(), panel, gate);
                lists.tiles(list, &expert.up, tiles.clone(), panel, up);
                for (tile, (gate, up)) in tiles.zip(gate.iter_mut().zip(&mut **up)) {
                    let rows = tile * TILE..((tile + 1) * TILE).min(units);
                    let (gate, up) = (&mut gate[..pairs.len()], &mut up[..pairs.len()]);
                    add_bias(gate, &expert.gate_bias[rows.clone()]);
                    add_bias(up, &expert.up_bias[rows.clone()]);
                    for (i, &pair) in pairs.iter().enumerate() {
                        inner.add_gate_up(pair, rows.clone(), &mut gate[i], &mut up[i]);
                    }
                    swiglu(runtime.isa, gate, up, experts.alpha, experts.limit);
                    // SAFETY: a pair belongs to one expert, and a tile's units to one task.
                    unsafe { write(&act, pairs, gate, rows, units) };
                }
            }
        }
    });
    Ok(())
}

/// out [pairs, D] from act [pairs, I].
fn mlp2(
    runtime: &Runtime,
    act: &[f32],
    experts: &Experts,
    groups: &Groups,
    inner: &Inner,
    out: &mut [f32],
) -> Result<()> {
    let Expert { down, .. } = &experts.experts[0];
    let (width, cols) = (down.rows(), down.cols());
    let input = Input::new(runtime, act, cols, down.kind())?;
    let cut = groups.lists();
    let lists = Lists::new(runtime, &input, cols, cut.iter().map(|(_, range)| &groups.pairs[range.clone()]).collect())?;
    let mut panels = Panels::new(&runtime.arena, runtime.pool.threads(), cols)?;
    let panels = panels.split();
    let out = Disjoint::new(out);
    run(runtime, &cut, width, |Share { expert, tiles, lists: own }, thread| {
        let expert = &experts.experts[expert];
        let mut scratch = panels[thread].lock().unwrap_or_else(|e| e.into_inner());
        let Scratch { panel, out: [values, _] } = &mut *scratch;
        for list in own {
            let pairs = lists.tokens(list);
            for tiles in lists.runs(list, &tiles) {
                lists.tiles(list, &expert.down, tiles.clone(), panel, values);
                for (tile, values) in tiles.zip(&mut **values) {
                    let rows = tile * TILE..((tile + 1) * TILE).min(width);
                    let values = &mut values[..pairs.len()];
                    add_bias(values, &expert.down_bias[rows.clone()]);
                    for (&pair, values) in pairs.iter().zip(&mut *values) {
                        inner.add_down(pair, rows.clone(), values);
                    }
                    // SAFETY: a pair belongs to one expert, and a tile's rows to one task.
                    unsafe { write(&out, pairs, values, rows, width) };
                }
            }
        }
    });
    Ok(())
}

/// values [pairs, TILE] += bias, which has fewer in a last tile.
fn add_bias(values: &mut [[f32; TILE]], bias: &[f32]) {
    let mut all = [0.0; TILE];
    all[..bias.len()].copy_from_slice(bias);
    for values in values {
        values.iter_mut().zip(all).for_each(|(v, b)| *v += b);
    }
}

/// out [pairs, width], these columns = values [pairs, TILE].
///
/// # Safety
/// No other task writes them.
unsafe fn write(out: &Disjoint<f32>, pairs: &[u32], values: &[[f32; TILE]], columns: Range<usize>, width: usize) {
    for (&pair, values) in pairs.iter().zip(values) {
        let at = pair as usize * width;
        // SAFETY: promised by the caller.
        let out = unsafe { out.part(at + columns.start..at + columns.end) };
        // A known length needs no call.
        match out.as_chunks_mut::<TILE>() {
            ([whole], []) => *whole = *values,
            _ => out.copy_from_slice(&values[..out.len()]),
        }
    }
}

/// x [T, D] += the weighted outputs, best route first; pair p's output is row p, or `places[p]`.
pub fn combine(runtime: &Runtime, out: &[f32], places: Option<&[u32]>, routes: &Routes, width: usize, x: &mut [f32]) {
    combine_weighted(runtime, out, places, (&routes.weights, routes.per_token), width, x);
}

/// The same with other weights [T, k].
pub fn combine_weighted(
    runtime: &Runtime,
    out: &[f32],
    places: Option<&[u32]>,
    (weights, k): (&[f32], usize),
    width: usize,
    x: &mut [f32],
) {
    let tokens = x.len() / width;
    let x = Disjoint::new(x);
    let row = |pair: usize| {
        let row = places.map_or(pair, |places| places[pair] as usize);
        &out[row * width..(row + 1) * width]
    };
    runtime.pool.run_ranges(tokens, 8, |range, _| {
        for token in range {
            // SAFETY: one row for each token.
            let x = unsafe { x.part(token * width..(token + 1) * width) };
            for (first, x) in (0..width).step_by(COLUMNS).zip(x.chunks_mut(COLUMNS)) {
                let mut sums = [0.0; COLUMNS];
                for pair in token * k..(token + 1) * k {
                    let out = &row(pair)[first..first + x.len()];
                    sums.iter_mut().zip(out).for_each(|(sum, v)| *sum += weights[pair] * v);
                }
                x.iter_mut().zip(sums).for_each(|(x, sum)| *x += sum);
            }
        }
    });
}

/// A tile's units of some pairs, gate [pairs, TILE] = SwiGLU of gate and up. Not-a-number stays.
pub(super) fn swiglu(isa: Isa, gate: &mut [[f32; TILE]], up: &[[f32; TILE]], alpha: f32, limit: f32) {
    let (gate, up) = (gate.as_flattened_mut(), up.as_flattened());
    // SAFETY: wider ones are only chosen where the features were detected; any machine has plain numbers.
    unsafe {
        match isa.of_floats() {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => swiglu_avx2(gate, up, alpha, limit),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => swiglu_avx512(gate, up, alpha, limit),
            _ => swiglu_in::<[f32; 8]>(gate, up, alpha, limit),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn swiglu_avx2(gate: &mut [f32], up: &[f32], alpha: f32, limit: f32) {
    // SAFETY: the features are present.
    unsafe { swiglu_in::<Eight>(gate, up, alpha, limit) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512dq,avx2,fma")]
unsafe fn swiglu_avx512(gate: &mut [f32], up: &[f32], alpha: f32, limit: f32) {
    // SAFETY: the features are present.
    unsafe { swiglu_in::<Sixteen>(gate, up, alpha, limit) }
}

/// [`Lanes::exp`] takes no larger numbers.
const LARGEST: f32 = 88.0;

/// # Safety
/// The machine has the instruction set of L.
#[inline(always)]
unsafe fn swiglu_in<L: Lanes>(gate: &mut [f32], up: &[f32], alpha: f32, limit: f32) {
    assert!(gate.len().is_multiple_of(L::LANES) && gate.len() <= up.len());
    // SAFETY: promised by the caller; `LANES` numbers lie at each place.
    unsafe {
        let (zero, one, largest) = (L::splat(0.0), L::splat(1.0), L::splat(LARGEST));
        let (low, high, minus_alpha) = (L::splat(-limit), L::splat(limit), L::splat(-alpha));
        for at in (0..gate.len()).step_by(L::LANES) {
            let place = gate.as_mut_ptr().add(at);
            // The second of two is what stays where one is not-a-number.
            let g = high.min(L::load(place));
            let u = low.max(high.min(L::load(up.as_ptr().add(at))));
            let x = minus_alpha.mul(g);
            // Beyond that it soon becomes infinite, else a huge gate would not vanish.
            let beyond = zero.max(x.sub(largest));
            let e = beyond.mul_add(L::splat(f32::MAX), largest.min(x).exp());
            g.div(one.add(e)).mul(u.add(one)).store(place);
        }
    }
}
