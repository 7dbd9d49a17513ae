//! Adapters of experts: gate and up get s B_e (A_e t), the output s B'_e (A'_e act), in both phases and directions.
//!
//! Shapes: A [r, D], B [2 I, r] with rows 2j for the gate's units and 2j + 1 for those of up; A' [r, I], B' [D, r]. A
//! list holds a matrix for each expert, or one that all share: what touches the residual stream (A, B') may be shared,
//! which has two fifths of the numbers less and sees every token.

use std::ops::Range;

use super::Experts;
use super::train::Pairs;
use crate::arena::Slice;
use crate::cpu::disjoint::Disjoint;
use crate::cpu::gemm::{self, Outer, Product, Target, View, Weight, Write};
use crate::ops::low_rank::cuda::Factors;
use crate::ops::low_rank::{add_products, products, scale};
use crate::ops::router::Routes;
use crate::{FloatPart, Result, Runtime};

/// The two factors of one of an expert's matrices, for all experts.
#[derive(Clone, Debug)]
pub struct Pair {
    /// [r, inputs], one for each expert or one.
    pub a: Vec<FloatPart>,
    /// [outputs, r], one for each expert or one.
    pub b: Vec<FloatPart>,
}

/// What an adapter adds to the experts of a block.
#[derive(Clone, Debug)]
pub struct ExpertsAdapter {
    /// r.
    pub rank: usize,
    /// s.
    pub scale: f32,
    /// A and B of gate and up.
    pub gate_up: Pair,
    /// A' and B'.
    pub down: Pair,
}

/// Where the gradients of an [`ExpertsAdapter`] are added: lists as long as its own.
pub struct ExpertsAdapterGrad<'a> {
    /// Of A.
    pub gate_up_a: Vec<&'a mut [f32]>,
    /// Of B.
    pub gate_up_b: Vec<&'a mut [f32]>,
    /// Of A'.
    pub down_a: Vec<&'a mut [f32]>,
    /// Of B'.
    pub down_b: Vec<&'a mut [f32]>,
}

/// The expert's own, or the one that all share.
fn of<T>(list: &[T], expert: usize) -> &T {
    &list[if list.len() == 1 { 0 } else { expert }]
}

impl ExpertsAdapter {
    /// Of gate and up, and of the output.
    pub(super) fn factors(&self) -> [Factors<'_>; 2] {
        [&self.gate_up, &self.down].map(|Pair { a, b }| Factors {
            a,
            b,
            rank: self.rank,
            scale: self.scale,
            outputs: 0..b[0].len() / self.rank,
        })
    }

    /// # Panics
    /// Where the sizes are not those of `e` experts of `i` units over `d` channels.
    pub(super) fn check(&self, e: usize, d: usize, i: usize) {
        let fits = |list: &[FloatPart], size: usize| {
            (list.len() == 1 || list.len() == e) && list.iter().all(|part| part.len() == size * self.rank)
        };
        assert!(self.rank > 0, "experts: a rank");
        assert!(fits(&self.gate_up.a, d) && fits(&self.gate_up.b, 2 * i), "experts: adapters fit");
        assert!(fits(&self.down.a, i) && fits(&self.down.b, d), "experts: adapters fit");
    }
}

/// Inference: u = s A x of every pair whose token has an adapter.
pub struct Inner<'a> {
    runtime: &'a Runtime,
    /// The adapter and the expert of each pair, or empty where no token has one.
    pairs: Vec<Option<(&'a ExpertsAdapter, usize)>>,
    /// [pairs, largest rank].
    u: Option<Slice<f32>>,
    width: usize,
}

impl<'a> Inner<'a> {
    /// A t, where pair p is token p / k.
    pub fn gate_up(
        runtime: &'a Runtime,
        experts: &'a Experts,
        routes: &Routes,
        slots: &[Option<usize>],
        t: &[f32],
    ) -> Result<Self> {
        let mut inner = Self::new(runtime, experts, routes, slots);
        let k = routes.per_token;
        inner.fill(t, |pair| pair / k, |adapter| &adapter.gate_up)?;
        Ok(inner)
    }

    /// A' act, a row for each pair.
    pub fn down(
        runtime: &'a Runtime,
        experts: &'a Experts,
        routes: &Routes,
        slots: &[Option<usize>],
        act: &[f32],
    ) -> Result<Self> {
        let mut inner = Self::new(runtime, experts, routes, slots);
        inner.fill(act, |pair| pair, |adapter| &adapter.down)?;
        Ok(inner)
    }

    fn new(runtime: &'a Runtime, experts: &'a Experts, routes: &Routes, slots: &[Option<usize>]) -> Self {
        let adapter = |pair: usize| experts.adapters.get(*slots.get(pair / routes.per_token)?);
        let pairs: Vec<_> = routes
            .experts
            .iter()
            .enumerate()
            .map(|(pair, &expert)| adapter(pair).map(|adapter| (adapter, expert as usize)))
            .collect();
        let width = pairs.iter().flatten().map(|(adapter, _)| adapter.rank).max().unwrap_or(0);
        let pairs = if width == 0 { Vec::new() } else { pairs };
        Self { runtime, pairs, u: None, width }
    }

    fn fill(
        &mut self,
        x: &[f32],
        row_of: impl Fn(usize) -> usize + Sync,
        factors: impl Fn(&'a ExpertsAdapter) -> &'a Pair + Sync,
    ) -> Result<()> {
        if self.pairs.is_empty() {
            return Ok(());
        }
        let mut u = self.runtime.arena.take::<f32>(self.pairs.len() * self.width)?;
        let out = Disjoint::new(&mut u);
        self.runtime.pool.run_ranges(self.pairs.len(), 1, |range, _| {
            for pair in range {
                let Some((adapter, expert)) = self.pairs[pair] else { continue };
                let a = of(&factors(adapter).a, expert);
                let cols = a.len() / adapter.rank;
                let x = &x[row_of(pair) * cols..][..cols];
                // SAFETY: one row for each pair.
                let u = unsafe { out.part(pair * self.width..pair * self.width + adapter.rank) };
                products(self.runtime.isa, a, x, adapter.scale, u);
            }
        });
        self.u = Some(u);
        Ok(())
    }

    fn pair(&self, pair: u32) -> Option<(&'a ExpertsAdapter, usize, &[f32])> {
        let (adapter, expert) = (*self.pairs.get(pair as usize)?)?;
        let u = &self.u.as_ref()?[pair as usize * self.width..][..adapter.rank];
        Some((adapter, expert, u))
    }

    /// gate and up of some units of a pair += B u.
    pub fn add_gate_up(&self, pair: u32, units: Range<usize>, gate: &mut [f32], up: &mut [f32]) {
        let Some((adapter, expert, u)) = self.pair(pair) else { return };
        let rank = adapter.rank;
        let b = &of(&adapter.gate_up.b, expert)[units.start * 2 * rank..units.end * 2 * rank];
        add_products(self.runtime.isa, b, 2 * rank, u, &mut gate[..units.len()]);
        add_products(self.runtime.isa, &b[rank..], 2 * rank, u, &mut up[..units.len()]);
    }

    /// Some rows of a pair's output += B' u.
    pub fn add_down(&self, pair: u32, rows: Range<usize>, out: &mut [f32]) {
        let Some((adapter, expert, u)) = self.pair(pair) else { return };
        let b = &of(&adapter.down.b, expert)[rows.start * adapter.rank..];
        add_products(self.runtime.isa, b, adapter.rank, u, &mut out[..rows.len()]);
    }
}

/// Training: an adapter and the pairs that go through it, which are all.
pub(super) struct Adapted<'a> {
    pub pairs: &'a Pairs<'a>,
    pub adapter: &'a ExpertsAdapter,
}

/// A factor of each expert as a weight.
type Factor<'f, 'w> = &'f (dyn Fn(usize) -> Weight<'w> + 'f);

impl<'a> Adapted<'a> {
    fn view(&self, list: &'a [FloatPart], expert: usize, cols: usize) -> View<'a> {
        View::new(of::<FloatPart>(list, expert), cols)
    }

    /// Rows of B for the gate (0) or for up (1).
    fn half(&self, expert: usize, half: usize) -> View<'a> {
        self.view(&self.adapter.gate_up.b, expert, self.adapter.rank).every_other(half)
    }

    /// out (=, +=) x times a factor of each expert, rows of pairs; out has `stride` columns, from `offset` on.
    fn apply(
        &self,
        x: View,
        factor: Factor<'_, 'a>,
        out: &Disjoint<f32>,
        (stride, offset): (usize, usize),
        write: Write,
    ) -> Result<()> {
        let product = |(expert, _, rows): (usize, _, Range<usize>)| {
            let y = Target { data: out, stride, offset: rows.start * stride + offset };
            Product { x: x.rows_of(rows), weight: factor(expert), bias: None, y, write }
        };
        gemm::apply(self.pairs.runtime, &self.pairs.blocks().map(product).collect::<Vec<_>>())
    }

    /// s times the sum of x times a factor over `terms` [pairs, r].
    fn thin(&self, terms: &[(View, Factor<'_, 'a>)]) -> Result<Slice<f32>> {
        let rank = self.adapter.rank;
        let mut u = self.pairs.runtime.arena.take::<f32>(self.pairs.len() * rank)?;
        let out = Disjoint::new(&mut u);
        for (i, (x, factor)) in terms.iter().enumerate() {
            let write = if i == 0 { Write::Set } else { Write::Add };
            self.apply(*x, *factor, &out, (rank, 0), write)?;
        }
        scale(&mut u, self.adapter.scale);
        Ok(u)
    }

    /// s A t.
    fn inner_gate_up(&self, t: View) -> Result<Slice<f32>> {
        self.thin(&[(t, &|e| Weight::PlainRows(self.view(&self.adapter.gate_up.a, e, t.cols)))])
    }

    /// s A' act.
    fn inner_down(&self, act: View) -> Result<Slice<f32>> {
        self.thin(&[(act, &|e| Weight::PlainRows(self.view(&self.adapter.down.a, e, act.cols)))])
    }

    /// h [pairs, 2 I], gate in the first half, += s B A t.
    pub fn add_gate_up(&self, t: View, h: &mut [f32]) -> Result<()> {
        let u = self.inner_gate_up(t)?;
        let (u, units) = (View::new(&u, self.adapter.rank), self.pairs.sizes.1);
        let out = Disjoint::new(h);
        for half in [0, 1] {
            let factor: Factor = &|e| Weight::PlainRows(self.half(e, half));
            self.apply(u, factor, &out, (2 * units, half * units), Write::Add)?;
        }
        Ok(())
    }

    /// out [pairs, D] += s B' A' act.
    pub fn add_down(&self, act: View, out: &mut [f32]) -> Result<()> {
        let u = self.inner_down(act)?;
        let (rank, d) = (self.adapter.rank, self.pairs.sizes.0);
        let factor: Factor = &|e| Weight::PlainRows(self.view(&self.adapter.down.b, e, rank));
        self.apply(View::new(&u, rank), factor, &Disjoint::new(out), (d, 0), Write::Add)
    }

    /// u [pairs, I] += s dy B' A', what comes back for act; gives s dy B'.
    pub fn back_down(&self, dy: View, u: &mut [f32]) -> Result<Slice<f32>> {
        let (rank, units) = (self.adapter.rank, self.pairs.sizes.1);
        let v = self.thin(&[(dy, &|e| Weight::PlainColumns(self.view(&self.adapter.down.b, e, rank)))])?;
        let factor: Factor = &|e| Weight::PlainColumns(self.view(&self.adapter.down.a, e, units));
        self.apply(View::new(&v, rank), factor, &Disjoint::new(u), (units, 0), Write::Add)?;
        Ok(v)
    }

    /// s dh B, where dh [pairs, 2 I] comes back.
    pub fn back_gate_up(&self, dh: View) -> Result<Slice<f32>> {
        let units = self.pairs.sizes.1;
        self.thin(&[
            (dh.columns(0, units), &|e| Weight::PlainColumns(self.half(e, 0))),
            (dh.columns(units, units), &|e| Weight::PlainColumns(self.half(e, 1))),
        ])
    }

    /// dt [pairs, D] += v A.
    pub fn add_input(&self, v: &[f32], dt: &Disjoint<f32>) -> Result<()> {
        let (rank, d) = (self.adapter.rank, self.pairs.sizes.0);
        let factor: Factor = &|e| Weight::PlainColumns(self.view(&self.adapter.gate_up.a, e, d));
        self.apply(View::new(v, rank), factor, dt, (d, 0), Write::Add)
    }

    /// dB' += dyᵀ s A' (w act), dA' += vᵀ (w act): `act` is already weighted, dy and v are not.
    pub fn add_down_gradients(&self, act: View, dy: View, v: &[f32], grad: &mut ExpertsAdapterGrad) -> Result<()> {
        let u = self.inner_down(act)?;
        let rank = self.adapter.rank;
        self.outer(&[(dy, View::new(&u, rank), (rank, 0))], &mut grad.down_b)?;
        self.outer(&[(View::new(v, rank), act, (act.cols, 0))], &mut grad.down_a)
    }

    /// dB += dhᵀ s A t, dA += vᵀ t.
    pub fn add_gate_up_gradients(&self, t: View, dh: View, v: &[f32], grad: &mut ExpertsAdapterGrad) -> Result<()> {
        let u = self.inner_gate_up(t)?;
        let (rank, units) = (self.adapter.rank, self.pairs.sizes.1);
        let u = View::new(&u, rank);
        let half = |half: usize| (dh.columns(half * units, units), u, (2 * rank, half * rank));
        self.outer(&[half(0), half(1)], &mut grad.gate_up_b)?;
        self.outer(&[(View::new(v, rank), t, (t.cols, 0))], &mut grad.gate_up_a)
    }

    /// The gradient of each expert += dyᵀ x over its rows, at (stride, offset); of one that all share, over all rows.
    fn outer(&self, factors: &[(View, View, (usize, usize))], grads: &mut [&mut [f32]]) -> Result<()> {
        let shared = grads.len() == 1;
        let grads: Vec<Disjoint<f32>> = grads.iter_mut().map(|grad| Disjoint::new(grad)).collect();
        let mut outers = Vec::new();
        let mut push = |expert: usize, rows: Range<usize>| {
            outers.extend(factors.iter().map(|&(dy, x, (stride, offset))| Outer {
                dy: dy.rows_of(rows.clone()),
                x: x.rows_of(rows.clone()),
                gradient: Target { data: &grads[expert], stride, offset },
            }));
        };
        if shared {
            push(0, 0..self.pairs.len());
        } else {
            self.pairs.blocks().for_each(|(expert, _, rows)| push(expert, rows));
        }
        gemm::outer(self.pairs.runtime, &outers)
    }
}
