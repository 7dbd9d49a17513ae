//! Holds the versions of `experts` together over ragged shapes.

use super::*;
use crate::cpu::dot::TILE;
use crate::matrix::Kind;
use crate::testing::{KINDS, Numbers, close, runtimes, same_bits};
use crate::{Precision, Runtime};

const D: usize = 64;

fn experts(numbers: &mut Numbers, kind: Kind, count: usize, units: usize) -> Experts {
    let expert = |_| {
        // Interleaved rows, seen as two views.
        let both = numbers.matrix(kind, 2 * units, D);
        Expert {
            gate: both.every_other(0),
            up: both.every_other(1),
            down: numbers.matrix(kind, D, units),
            gate_bias: numbers.vec(units).iter().map(|v| 9.0 * v).collect(),
            up_bias: numbers.vec(units).iter().map(|v| 9.0 * v).collect(),
            down_bias: numbers.vec(D),
        }
    };
    Experts::new((0..count).map(expert).collect(), 7.0, 1.702)
}

fn routes(runtime: &Runtime, per_token: usize, ids: &[u32]) -> Routes {
    let mut experts = runtime.arena.take(ids.len()).unwrap();
    let mut weights = runtime.arena.take(ids.len()).unwrap();
    experts.copy_from_slice(ids);
    weights.iter_mut().enumerate().for_each(|(i, w)| *w = 0.9 - 0.3 * (i % per_token) as f32);
    Routes { per_token, experts, weights, device: None }
}

fn run(runtime: &Runtime, t: &[f32], routes: &Routes, experts: &Experts, x: &[f32]) -> Vec<f32> {
    let mut y = x.to_vec();
    cpu::add_forward(runtime, t, routes, experts, &[], &mut y).unwrap();
    y
}

/// 70 tokens on expert 1, some on 0, none on 2: more than a block, a ragged rest, an expert without work.
fn ids(numbers: &mut Numbers, tokens: usize) -> Vec<u32> {
    (0..tokens).flat_map(|_| if numbers.below(3) == 0 { [1, 0] } else { [1, 3] }).collect()
}

#[test]
fn equals_the_reference() {
    let mut numbers = Numbers(30);
    for kind in KINDS {
        for (tokens, units) in [(1, 32), (2, 96), (33, 64), (70, 32)] {
            let experts = experts(&mut numbers, kind, 4, units);
            let (t, x, ids) = (numbers.vec(tokens * D), numbers.vec(tokens * D), ids(&mut numbers, tokens));
            for runtime in runtimes() {
                let routes = routes(&runtime, 2, &ids);
                let want = reference::add_forward(&t, &routes, &experts, &x);
                let fast = runtime.precision == Precision::Fast && kind.is_quantized();
                let got = run(&runtime, &t, &routes, &experts, &x);
                close(&got, &want, if fast { 2e-2 } else { 3e-6 }, &format!("{kind:?} {tokens} tokens"));
            }
        }
    }
}

#[test]
fn a_token_alone_has_the_same_bits() {
    let mut numbers = Numbers(31);
    for kind in KINDS {
        let experts = experts(&mut numbers, kind, 4, 64);
        let (t, x, ids) = (numbers.vec(70 * D), numbers.vec(70 * D), ids(&mut numbers, 70));
        for runtime in runtimes() {
            let all = run(&runtime, &t, &routes(&runtime, 2, &ids), &experts, &x);
            for i in 0..70 {
                let row = i * D..(i + 1) * D;
                let alone = routes(&runtime, 2, &ids[2 * i..2 * i + 2]);
                same_bits(&run(&runtime, &t[row.clone()], &alone, &experts, &x[row.clone()]), &all[row], "one token");
            }
        }
    }
}

#[test]
fn a_fault_stays_visible_through_the_clamps() {
    let mut numbers = Numbers(32);
    let experts = experts(&mut numbers, Kind::Mxfp4Pairs, 4, 32);
    for runtime in runtimes() {
        let mut t = numbers.vec(D);
        t[5] = f32::NAN;
        let y = run(&runtime, &t, &routes(&runtime, 2, &[0, 1]), &experts, &[0.0; D]);
        assert!(y.iter().all(|v| v.is_nan()));
    }
}

#[test]
fn scratch_is_as_planned() {
    let mut numbers = Numbers(33);
    let experts = experts(&mut numbers, Kind::Q8, 4, 96);
    for runtime in runtimes() {
        let ids = ids(&mut numbers, 40);
        let before = 2 * Arena::size_of::<f32>(80);
        run(&runtime, &numbers.vec(40 * D), &routes(&runtime, 2, &ids), &experts, &numbers.vec(40 * D));
        let planned = scratch_bytes(runtime.isa, runtime.precision, runtime.pool.threads(), 40, (4, 2), D, 96);
        // What lists of tokens may need depends on how they fall.
        let spare = Lists::scratch_bytes(runtime.isa, 4, 80, D.max(96));
        let (peak, planned) = (runtime.arena.peak(), planned + before);
        assert!(peak <= planned && peak + spare >= planned, "{peak} of {planned}, {:?}", runtime.isa);
    }
}

/// Up to gates whose e^x no float holds.
#[test]
fn swiglu_of_any_number() {
    let (alpha, limit) = (1.702f64, 7.0f64);
    let numbers = [f32::MIN, -1e30, -1e4, -60.0, -51.0, -20.0, -3.0, -1e-3, 0.0, 0.5, 6.9, 7.0, 7.1, 1e30];
    for isa in Isa::all() {
        for gate in numbers {
            for up in numbers {
                let mut got = [[gate; TILE]; 3];
                cpu::swiglu(isa, &mut got, &[[up; TILE]; 3], alpha as f32, limit as f32);
                let g = f64::from(gate).min(limit);
                let want = g / (1.0 + (-alpha * g).exp()) * (f64::from(up).clamp(-limit, limit) + 1.0);
                let near = |got: f32| (f64::from(got) - want).abs() <= 1e-6 * want.abs() + 1e-7;
                assert!(got.as_flattened().iter().all(|&got| near(got)), "{}: {gate}, {up}", isa.name());
            }
        }
        for (gate, up) in [(f32::NAN, 1.0), (1.0, f32::NAN), (f32::NEG_INFINITY, 1.0)] {
            let mut got = [[gate; TILE]; 1];
            cpu::swiglu(isa, &mut got, &[[up; TILE]; 1], alpha as f32, limit as f32);
            assert!(got.as_flattened().iter().all(|v| v.is_nan()), "{}", isa.name());
        }
    }
}
