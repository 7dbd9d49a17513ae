//! Holds experts with adapters to experts whose weights have the products of the factors added, in both phases.

use super::reference::{self, Plain};
use super::train_tests::{ALPHA, LIMIT, experts, plain, routes, zeros};
use super::*;
use crate::kv::PageTable;
use crate::ops::low_rank::reference::Plain as Factors;
use crate::testing::{Numbers, close, f32s, f64s, runtimes, same_bits, tensor, training_step};
use crate::{FloatPart, Floats, Runtime};

const E: usize = 4;
const SCALE: f64 = 0.5;

/// Factors in f64: one for each expert, or one; in the order A, B, A', B'.
struct Adapter {
    rank: usize,
    lists: [Vec<Vec<f64>>; 4],
}

impl Adapter {
    fn random(numbers: &mut Numbers, rank: usize, d: usize, units: usize, shared: bool) -> Self {
        let outer = if shared { 1 } else { E };
        let mut list = |n: usize, size: usize| (0..n).map(|_| f64s(numbers, size * rank)).collect();
        Self { rank, lists: [list(outer, d), list(E, 2 * units), list(E, units), list(outer, d)] }
    }

    fn of(&self, which: usize, expert: usize) -> &Vec<f64> {
        let list = &self.lists[which];
        &list[if list.len() == 1 { 0 } else { expert }]
    }

    fn factors(&self, pair: usize, expert: usize) -> Factors {
        let [a, b] = [0, 1].map(|i| self.of(2 * pair + i, expert).clone());
        Factors { a, b, rank: self.rank, scale: SCALE }
    }

    /// The expert with s B A in its weights.
    fn merged(&self, e: &mut Plain, expert: usize, d: usize) -> Plain {
        let [gate, up, down, gate_bias, up_bias, down_bias] = e.parts().map(|part| part.clone());
        let mut all = Plain { gate, up, down, gate_bias, up_bias, down_bias };
        let add = |to: &mut f64, by: f64| *to += by;
        for (row, by) in self.factors(0, expert).product().chunks_exact(d).enumerate() {
            let half = if row % 2 == 0 { &mut all.gate } else { &mut all.up };
            half[row / 2 * d..][..d].iter_mut().zip(by).for_each(|(to, by)| add(to, *by));
        }
        all.down.iter_mut().zip(self.factors(1, expert).product()).for_each(|(to, by)| add(to, by));
        all
    }

    fn lent(&self) -> ExpertsAdapter {
        let list = |which: usize| -> Vec<FloatPart> {
            let one = |v: &Vec<f64>| Floats::new(f32s(v)).part(0..v.len()).unwrap();
            self.lists[which].iter().map(one).collect()
        };
        let [gate_up, down] = [0, 2].map(|at| Pair { a: list(at), b: list(at + 1) });
        ExpertsAdapter { rank: self.rank, scale: SCALE as f32, gate_up, down }
    }

    /// The gradients of the lists from those of the merged weights: dA = s Bᵀ dW, dB = s dW Aᵀ.
    fn project(&self, grads: &mut [Plain], d: usize) -> [Vec<Vec<f64>>; 4] {
        let mut out =
            [0, 1, 2, 3].map(|which| self.lists[which].iter().map(|v| vec![0.0; v.len()]).collect::<Vec<_>>());
        for (expert, grad) in grads.iter_mut().enumerate() {
            let rows = grad.gate.chunks_exact(d).zip(grad.up.chunks_exact(d));
            let both: Vec<f64> = rows.flat_map(|(g, u)| [g, u].concat()).collect();
            for (pair, (dw, cols)) in [(both, d), (grad.down.clone(), grad.gate_bias.len())].into_iter().enumerate() {
                let (a, b) = (self.of(2 * pair, expert), self.of(2 * pair + 1, expert));
                let place = |which: usize| if self.lists[which].len() == 1 { 0 } else { expert };
                for (n, dw) in dw.chunks_exact(cols).enumerate() {
                    for (c, dw) in dw.iter().enumerate() {
                        for r in 0..self.rank {
                            out[2 * pair][place(2 * pair)][r * cols + c] += SCALE * b[n * self.rank + r] * dw;
                            out[2 * pair + 1][place(2 * pair + 1)][n * self.rank + r] += SCALE * dw * a[r * cols + c];
                        }
                    }
                }
            }
        }
        out
    }
}

struct Case {
    d: usize,
    base: Vec<Plain>,
    ids: Vec<u32>,
    t: Vec<f64>,
    dy: Vec<f64>,
}

impl Case {
    fn new(numbers: &mut Numbers, tokens: usize, d: usize, units: usize) -> Self {
        let base = (0..E).map(|_| plain(numbers, d, units)).collect();
        // Expert 2 gets no token.
        let ids = (0..tokens).flat_map(|_| if numbers.below(3) == 0 { [1, 0] } else { [3, 1] }).collect();
        Self { d, base, ids, t: f64s(numbers, tokens * d), dy: f64s(numbers, tokens * d) }
    }

    /// y [T, D] of the experts that `adapter` makes for each token.
    fn forward(&mut self, adapter: &dyn Fn(usize) -> Option<usize>, all: &[Adapter]) -> Vec<f64> {
        let (d, mut y) = (self.d, vec![0.0; self.t.len()]);
        for (pair, &id) in self.ids.iter().enumerate() {
            let (token, id) = (pair / 2, id as usize);
            let e = &mut self.base[id];
            let merged = adapter(token).map(|which| all[which].merged(e, id, d));
            let out = reference::plain(&self.t[token * d..][..d], merged.as_ref().unwrap_or(&*e), LIMIT, ALPHA);
            let w = 0.75 - 0.25 * (pair % 2) as f64;
            y[token * d..][..d].iter_mut().zip(out).for_each(|(y, o)| *y += w * o);
        }
        y
    }

    fn infer(
        &self,
        runtime: &Runtime,
        experts: &Experts,
        tokens: std::ops::Range<usize>,
        slots: &[Option<usize>],
    ) -> Vec<f32> {
        let d = self.d;
        let routes = routes(runtime, 2, &self.ids[2 * tokens.start..2 * tokens.end]);
        let mut y = vec![0.0; tokens.len() * d];
        let t = f32s(&self.t[tokens.start * d..tokens.end * d]);
        cpu::add_forward(runtime, &t, &routes, experts, &slots[tokens], &mut y).unwrap();
        y
    }
}

const SHAPES: [(usize, usize, usize, usize); 3] = [(1, 32, 32, 1), (5, 64, 32, 16), (150, 32, 96, 5)];

#[test]
fn inference_equals_merged_experts_whoever_shares_the_step() {
    let mut numbers = Numbers(111);
    for (tokens, d, units, rank) in SHAPES {
        let mut case = Case::new(&mut numbers, tokens, d, units);
        let all =
            [true, false].map(|shared| Adapter::random(&mut numbers, rank + usize::from(shared), d, units, shared));
        let mut experts = experts(&case.base, d, units);
        all.iter().enumerate().for_each(|(slot, adapter)| experts.attach(slot, adapter.lent()));
        let slot = |token: usize| (token % 3).checked_sub(1);
        let want = case.forward(&slot, &all);
        let slots: Vec<Option<usize>> = (0..tokens).map(slot).collect();
        for runtime in runtimes() {
            let got = case.infer(&runtime, &experts, 0..tokens, &slots);
            close(&got, &want, 1e-5, "y");
            for token in 0..tokens {
                let alone = case.infer(&runtime, &experts, token..token + 1, &slots);
                same_bits(&alone, &got[token * d..(token + 1) * d], "alone");
            }
        }
    }
}

#[test]
fn training_equals_merged_experts_in_both_directions() {
    let mut numbers = Numbers(112);
    let none = PageTable::default();
    for (tokens, d, units, rank) in SHAPES {
        for shared in [true, false] {
            let mut case = Case::new(&mut numbers, tokens, d, units);
            let adapter = [Adapter::random(&mut numbers, rank, d, units, shared)];
            let y = case.forward(&|_| Some(0), &adapter);
            let merged: Vec<Plain> =
                case.base.iter_mut().enumerate().map(|(id, e)| adapter[0].merged(e, id, d)).collect();
            let mut grads: Vec<Plain> = case.base.iter_mut().map(zeros).collect();
            let (mut dt, mut dw) = (vec![0.0; tokens * d], Vec::new());
            for (pair, &id) in case.ids.iter().enumerate() {
                let (rows, id) = (pair / 2 * d..(pair / 2 + 1) * d, id as usize);
                let (t, dy, w) = (&case.t[rows.clone()], &case.dy[rows.clone()], 0.75 - 0.25 * (pair % 2) as f64);
                let dt = &mut dt[rows];
                dw.push(reference::backward(t, &merged[id], (LIMIT, ALPHA), w, dy, &mut grads[id], dt));
            }
            let wanted = adapter[0].project(&mut grads, d);
            let mut experts = experts(&case.base, d, units);
            experts.attach(2, adapter[0].lent());
            for runtime in runtimes().into_iter().filter(|r| r.precision == Precision::F32) {
                let mut step = training_step(&runtime, &[tokens], &none);
                step.sequences[0].adapter = Some(2);
                let routes = routes(&runtime, 2, &case.ids);
                let [t, dy] = [&case.t, &case.dy].map(|v| tensor(&runtime, tokens, d, &f32s(v)));
                let mut got = tensor(&runtime, tokens, d, &vec![0.0; tokens * d]);
                let hidden = add_forward_saving(&mut step, &t, &routes, &experts, &mut got).unwrap();
                close(got.host(), &y, 1e-5, "y");
                let mut store = wanted.each_ref().map(|l| l.iter().map(|v| vec![0.0; v.len()]).collect::<Vec<_>>());
                let [gate_up_a, gate_up_b, down_a, down_b] =
                    store.each_mut().map(|list| list.iter_mut().map(Vec::as_mut_slice).collect());
                let grad = ExpertsAdapterGrad { gate_up_a, gate_up_b, down_a, down_b };
                let mut grad = ExpertsGrad { experts: Vec::new(), adapter: Some(grad) };
                let (mut got, mut got_dw) = (
                    tensor(&runtime, tokens, d, &vec![f32::NAN; tokens * d]),
                    tensor(&runtime, tokens, 2, &vec![f32::NAN; 2 * tokens]),
                );
                backward(&mut step, &t, &routes, &experts, Some(hidden), &dy, &mut grad, &mut got, &mut got_dw)
                    .unwrap();
                close(got.host(), &dt, 1e-5, "dt");
                close(got_dw.host(), &dw, 1e-5, "dw");
                for (got, want) in store.iter().flatten().zip(wanted.iter().flatten()) {
                    // Sums over units of both signs, each as large as the clamps allow.
                    close(got, want, 1e-4, "dA, dB");
                }
                // Computed again, and frozen.
                let mut again = tensor(&runtime, tokens, d, &vec![f32::NAN; tokens * d]);
                let grad = &mut ExpertsGrad::default();
                backward(&mut step, &t, &routes, &experts, None, &dy, grad, &mut again, &mut got_dw).unwrap();
                same_bits(again.host(), got.host(), "without what was kept");
            }
        }
    }
}
