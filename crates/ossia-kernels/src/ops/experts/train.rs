//! Both directions for training: float weights, many tokens, products by `cpu::gemm`.
//!
//! Pairs (a token and one of its experts) are laid out expert by expert, tokens ascending, so each expert's share is a
//! block of rows. With u = dy D and da = w u, the gradients are (SPEC 5.4, 7.2), s = sigmoid(alpha gate):
//!
//! ```text
//! dw    = act · u + c · dy                          dD += w dyᵀ act     dc += w dy
//! dgate = da (up + 1) s (1 + alpha gate (1 - s))    where the gate was not clamped, else 0
//! dup   = da gate s                                 where up was not clamped (the limits themselves count as not)
//! dt    = dgate G + dup U,  over the token's experts best first
//! ```

use super::adapter::{Adapted, ExpertsAdapterGrad};
use super::cpu::{Groups, combine};
use super::{Expert, Experts, ExpertsAdapter, cuda_train};
use crate::arena::{Arena, Slice};
use crate::cpu::columns::{self, ColumnSum};
use crate::cpu::disjoint::Disjoint;
use crate::cpu::gemm::{self, Outer, Product, Target, View, Weight, Write};
use crate::cpu::lanes::{LANES, Lanes, dot, exp, fma, versions};
use crate::cuda::{self, Device};
use crate::ops::router::Routes;
use crate::{Result, Runtime, Step, Tensor};

/// Where the gradients of one expert are added.
pub struct ExpertGrad<'a> {
    /// [2 I, D]: rows 2j for the gate's units, 2j + 1 for those of up.
    pub gate_up: &'a mut [f32],
    /// [2 I], in the same order.
    pub gate_up_bias: &'a mut [f32],
    /// [D, I].
    pub down: &'a mut [f32],
    /// [D].
    pub down_bias: &'a mut [f32],
}

/// Where the gradients of all experts are added. What is not there is frozen.
#[derive(Default)]
pub struct ExpertsGrad<'a> {
    /// By id, or empty.
    pub experts: Vec<ExpertGrad<'a>>,
    /// Those of the step's adapter.
    pub adapter: Option<ExpertsAdapterGrad<'a>>,
}

/// Gate and up before the clamps [pairs, 2 I], expert by expert.
pub struct Hidden(pub(super) Kept);

/// Where they are.
pub(super) enum Kept {
    Cpu(Slice<f32>),
    Cuda(cuda::Slice),
}

impl Hidden {
    /// Bytes of scratch for `tokens` with `k` experts of `i` units each.
    pub fn bytes(tokens: usize, k: usize, i: usize) -> usize {
        Arena::size_of::<f32>(tokens * k * 2 * i)
    }
}

/// Rows of pairs, expert by expert.
pub(super) struct Pairs<'a> {
    pub runtime: &'a Runtime,
    experts: &'a Experts,
    adapter: Option<&'a ExpertsAdapter>,
    routes: &'a Routes,
    groups: Groups,
    /// D, I.
    pub sizes: (usize, usize),
}

impl<'a> Pairs<'a> {
    fn new(runtime: &'a Runtime, (experts, slot): (&'a Experts, Option<usize>), routes: &'a Routes) -> Self {
        let first = &experts.experts[0];
        let sizes = (first.down.rows(), first.gate.rows());
        let adapter = experts.adapters.get(slot);
        Self { runtime, experts, adapter, routes, groups: Groups::new(routes, experts.experts.len()), sizes }
    }

    pub fn len(&self) -> usize {
        self.groups.pairs.len()
    }

    /// The pairs with their adapter.
    fn adapted(&'a self) -> Option<Adapted<'a>> {
        self.adapter.map(|adapter| Adapted { pairs: self, adapter })
    }

    /// The rows of each active expert.
    pub fn blocks(&self) -> impl Iterator<Item = (usize, &'a Expert, std::ops::Range<usize>)> + '_ {
        self.groups.active.iter().map(|(e, rows)| (*e, &self.experts.experts[*e], rows.clone()))
    }

    /// The rows of tokens [T, D], one for each pair.
    fn gather(&self, tokens: &[f32]) -> Result<Slice<f32>> {
        let d = self.sizes.0;
        let mut out = self.runtime.arena.take::<f32>(self.len() * d)?;
        let rows = Disjoint::new(&mut out);
        self.runtime.pool.run_ranges(self.len(), 128, |range, _| {
            for row in range {
                let token = self.groups.pairs[row] as usize / self.routes.per_token;
                // SAFETY: one row for each pair.
                unsafe { rows.part(row * d..(row + 1) * d) }.copy_from_slice(&tokens[token * d..(token + 1) * d]);
            }
        });
        Ok(out)
    }

    /// Gate and up before the clamps [pairs, 2 I], gate in the first half of a row.
    fn gate_up(&self, t: &[f32]) -> Result<Slice<f32>> {
        let (d, i) = self.sizes;
        let mut h = self.runtime.arena.take::<f32>(self.len() * 2 * i)?;
        let out = Disjoint::new(&mut h);
        let mut products = Vec::new();
        for (_, expert, rows) in self.blocks() {
            let x = View::new(t, d).rows_of(rows.clone());
            for (half, (weight, bias)) in
                [(&expert.gate, &expert.gate_bias), (&expert.up, &expert.up_bias)].into_iter().enumerate()
            {
                let y = Target { data: &out, stride: 2 * i, offset: rows.start * 2 * i + half * i };
                products.push(Product { x, weight: Weight::Rows(weight), bias: Some(bias), y, write: Write::Set });
            }
        }
        gemm::apply(self.runtime, &products)?;
        drop(products);
        if let Some(adapted) = self.adapted() {
            adapted.add_gate_up(View::new(t, d), &mut h)?;
        }
        Ok(h)
    }

    /// out [pairs, N] (=, +=) x [pairs, K] times a weight of each expert.
    fn apply<'w>(
        &self,
        x: View,
        out: &Disjoint<f32>,
        write: Write,
        weight: impl Fn(&'a Expert) -> (Weight<'w>, Option<&'w [f32]>),
    ) -> Result<()>
    where
        'a: 'w,
    {
        let product = |(_, expert, rows): (usize, &'a Expert, std::ops::Range<usize>)| {
            let (weight, bias) = weight(expert);
            let stride = weight.outputs();
            let y = Target { data: out, stride, offset: rows.start * stride };
            Product { x: x.rows_of(rows), weight, bias, y, write }
        };
        gemm::apply(self.runtime, &self.blocks().map(product).collect::<Vec<_>>())
    }

    /// Calls `work(row, pair)` for all rows, on all threads.
    fn each(&self, work: impl Fn(usize, usize) + Sync) {
        self.runtime.pool.run_ranges(self.len(), 64, |range, _| {
            range.for_each(|row| work(row, self.groups.pairs[row] as usize));
        });
    }

    /// The rows in the order of pairs.
    fn places(&self) -> Vec<u32> {
        let mut places = vec![0; self.len()];
        self.groups.pairs.iter().enumerate().for_each(|(row, &pair)| places[pair as usize] = row as u32);
        places
    }
}

pub fn add_forward(
    runtime: &Runtime,
    t: &[f32],
    routes: &Routes,
    (experts, slot): (&Experts, Option<usize>),
    x: &mut [f32],
) -> Result<Hidden> {
    let pairs = Pairs::new(runtime, (experts, slot), routes);
    let (d, i) = pairs.sizes;
    let rows = pairs.gather(t)?;
    let h = pairs.gate_up(&rows)?;
    drop(rows);
    let mut act = runtime.arena.take::<f32>(pairs.len() * i)?;
    let out = Disjoint::new(&mut act);
    pairs.each(|row, _| {
        // SAFETY: one row for each pair.
        let act = unsafe { out.part(row * i..(row + 1) * i) };
        activate(runtime.isa, &h[row * 2 * i..(row + 1) * 2 * i], experts.alpha, experts.limit, act);
    });
    let mut down = runtime.arena.take::<f32>(pairs.len() * d)?;
    let out = Disjoint::new(&mut down);
    pairs.apply(View::new(&act, i), &out, Write::Set, |e| (Weight::Rows(&e.down), Some(&e.down_bias)))?;
    if let Some(adapted) = pairs.adapted() {
        adapted.add_down(View::new(&act, i), &mut down)?;
    }
    combine(runtime, &down, Some(&pairs.places()), routes, d, x);
    Ok(Hidden(Kept::Cpu(h)))
}

/// Adds the gradients of the experts to `grads`; writes those of t [T, D] to dt and those of the routes' weights
/// [T, k] to `d_weights`, where dy [T, D] comes back for the sum that the op has added. Without `hidden` that is computed
/// again.
#[allow(clippy::too_many_arguments)]
pub fn backward(
    step: &mut Step,
    t: &Tensor,
    routes: &Routes,
    experts: &Experts,
    hidden: Option<Hidden>,
    dy: &Tensor,
    grads: &mut ExpertsGrad,
    dt: &mut Tensor,
    d_weights: &mut Tensor,
) -> Result<()> {
    let runtime = step.runtime;
    if let Device::Cuda(gpu) = &runtime.device {
        let hidden = hidden.map(|Hidden(kept)| match kept {
            Kept::Cuda(h) => h,
            Kept::Cpu(_) => unreachable!("kept where the runtime computes"),
        });
        return cuda_train::backward(gpu, t, routes, experts, hidden, dy, grads, dt, d_weights);
    }
    let pairs = Pairs::new(runtime, (experts, step.adapter()), routes);
    let adapted = pairs.adapted();
    let (d, i) = pairs.sizes;
    let all = grads.experts.len();
    assert!((all == 0 || all == experts.experts.len()) && d_weights.host().len() == pairs.len(), "experts: shapes");
    assert!(t.cols() == d && dy.cols() == d && dt.cols() == d && dt.rows() == t.rows(), "experts: shapes");
    let (t_rows, mut dy_rows) = (pairs.gather(t.host())?, pairs.gather(dy.host())?);
    let mut h = match hidden {
        Some(Hidden(Kept::Cpu(h))) => h,
        Some(Hidden(Kept::Cuda(_))) => unreachable!("kept where the runtime computes"),
        None => pairs.gate_up(&t_rows)?,
    };
    let mut u = runtime.arena.take::<f32>(pairs.len() * i)?;
    let out = Disjoint::new(&mut u);
    pairs.apply(View::new(&dy_rows, d), &out, Write::Set, |e| (Weight::Columns(&e.down), None))?;
    let v = adapted.as_ref().map(|a| a.back_down(View::new(&dy_rows, d), &mut u)).transpose()?;
    activation_gradients(&pairs, &dy_rows, &mut h, &mut u, d_weights.host_mut());
    if !grads.experts.is_empty() {
        add_weight_gradients(&pairs, (&t_rows, &dy_rows, &h, &u), &mut grads.experts)?;
    }
    let dh = View::new(&h, 2 * i);
    if let (Some(adapted), Some(v), Some(grad)) = (&adapted, v, &mut grads.adapter) {
        adapted.add_down_gradients(View::new(&u, i), View::new(&dy_rows, d), &v, grad)?;
    }
    let v = adapted.as_ref().map(|a| a.back_gate_up(dh)).transpose()?;
    if let (Some(adapted), Some(v), Some(grad)) = (&adapted, &v, &mut grads.adapter) {
        adapted.add_gate_up_gradients(View::new(&t_rows, d), dh, v, grad)?;
    }
    drop((t_rows, u));
    let out = Disjoint::new(&mut dy_rows);
    pairs.apply(dh.columns(0, i), &out, Write::Set, |e| (Weight::Columns(&e.gate), None))?;
    pairs.apply(dh.columns(i, i), &out, Write::Add, |e| (Weight::Columns(&e.up), None))?;
    if let (Some(adapted), Some(v)) = (&adapted, &v) {
        adapted.add_input(v, &out)?;
    }
    drop(v);
    let ones = vec![1.0; pairs.len()];
    dt.host_mut().fill(0.0);
    super::cpu::combine_weighted(runtime, &dy_rows, Some(&pairs.places()), (&ones, routes.per_token), d, dt.host_mut());
    Ok(())
}

/// Turns h [pairs, 2 I] into its gradient and u [pairs, I] into w act, and fills `d_weights`.
fn activation_gradients(pairs: &Pairs, dy: &[f32], h: &mut [f32], u: &mut [f32], d_weights: &mut [f32]) {
    let (d, i) = pairs.sizes;
    let (h, u, d_weights) = (Disjoint::new(h), Disjoint::new(u), Disjoint::new(d_weights));
    let Experts { experts, alpha, limit, .. } = pairs.experts;
    pairs.each(|row, pair| {
        let expert = &experts[pairs.routes.experts[pair] as usize];
        let dy = &dy[row * d..(row + 1) * d];
        // SAFETY: one row and one weight for each pair.
        let (h, u, dw) = unsafe {
            (h.part(row * 2 * i..(row + 1) * 2 * i), u.part(row * i..(row + 1) * i), d_weights.part(pair..pair + 1))
        };
        let weight = pairs.routes.weights[pair];
        dw[0] = row_gradients(pairs.runtime.isa, h, u, weight, *alpha, *limit, &expert.down_bias, dy);
    });
}

/// Adds to `grads`: the outer products and the column sums of each expert's rows.
fn add_weight_gradients(
    pairs: &Pairs,
    (t, dy, dh, act): (&[f32], &[f32], &[f32], &[f32]),
    grads: &mut [ExpertGrad],
) -> Result<()> {
    let (d, i) = pairs.sizes;
    let weights: Vec<f32> = pairs.groups.pairs.iter().map(|&pair| pairs.routes.weights[pair as usize]).collect();
    let parts: Vec<[Disjoint<f32>; 4]> =
        grads.iter_mut().map(|g| [&mut *g.gate_up, g.gate_up_bias, g.down, g.down_bias].map(Disjoint::new)).collect();
    let (mut outers, mut sums) = (Vec::new(), Vec::new());
    for (e, _, rows) in pairs.blocks() {
        let [gate_up, gate_up_bias, down, down_bias] = &parts[e];
        let view = |data, cols| View::new(data, cols).rows_of(rows.clone());
        let (t, dy, dh, act) = (view(t, d), view(dy, d), view(dh, 2 * i), view(act, i));
        for half in [0, 1] {
            let dh = dh.columns(half * i, i);
            let gradient = Target { data: gate_up, stride: 2 * d, offset: half * d };
            outers.push(Outer { dy: dh, x: t, gradient });
            sums.push(ColumnSum { rows: dh, weights: None, out: gate_up_bias, offset: half, stride: 2 });
        }
        outers.push(Outer { dy, x: act, gradient: Target { data: down, stride: i, offset: 0 } });
        let weights = Some(&weights[rows.clone()]);
        sums.push(ColumnSum { rows: dy, weights, out: down_bias, offset: 0, stride: 1 });
    }
    columns::add(pairs.runtime, &sums);
    gemm::outer(pairs.runtime, &outers)
}

/// Bytes of scratch for both directions, the most of them at once.
pub fn train_scratch_bytes(threads: usize, tokens: usize, k: usize, d: usize, i: usize) -> usize {
    let pairs = tokens * k;
    2 * Arena::size_of::<f32>(pairs * d) + 3 * Arena::size_of::<f32>(pairs * i) + gemm::scratch_bytes(threads)
}

versions! {
    fn activate(h: &[f32], alpha: f32, limit: f32, act: &mut [f32]) = activate_body
}

/// Calls `work` with sixteen lanes of gate and up at a time; I is a multiple of 32.
#[inline(always)]
fn activate_body<const FMA: bool>(h: &[f32], alpha: f32, limit: f32, act: &mut [f32]) {
    let (gate, up) = h.split_at(h.len() / 2);
    let lanes = gate.as_chunks::<LANES>().0.iter().zip(up.as_chunks::<LANES>().0);
    for ((gate, up), act) in lanes.zip(act.as_chunks_mut::<LANES>().0) {
        let (gate, s) = (clamp_above(gate, limit), sigmoid::<FMA>(gate, alpha, limit));
        let up = clamp(up, limit);
        for j in 0..LANES {
            act[j] = gate[j] * s[j] * (up[j] + 1.0);
        }
    }
}

/// min(gate, limit); not-a-number stays.
#[inline(always)]
fn clamp_above(gate: &Lanes, limit: f32) -> Lanes {
    gate.map(|g| if g > limit { limit } else { g })
}

#[inline(always)]
fn clamp(up: &Lanes, limit: f32) -> Lanes {
    up.map(|u| {
        if u > limit {
            limit
        } else if u < -limit {
            -limit
        } else {
            u
        }
    })
}

/// sigmoid(alpha min(gate, limit)).
#[inline(always)]
fn sigmoid<const FMA: bool>(gate: &Lanes, alpha: f32, limit: f32) -> Lanes {
    exp::<FMA>(clamp_above(gate, limit).map(|g| -alpha * g)).map(|e| 1.0 / (1.0 + e))
}

versions! {
    /// One pair: h becomes dh, u becomes w act; the result is dw.
    fn row_gradients(
        h: &mut [f32], u: &mut [f32], weight: f32, alpha: f32, limit: f32, bias: &[f32], dy: &[f32],
    ) -> f32 = row_gradients_body
}

#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn row_gradients_body<const FMA: bool>(
    h: &mut [f32],
    u: &mut [f32],
    weight: f32,
    alpha: f32,
    limit: f32,
    bias: &[f32],
    dy: &[f32],
) -> f32 {
    let (gates, ups) = h.split_at_mut(u.len());
    let gates = gates.as_chunks_mut::<LANES>().0.iter_mut();
    let ups = ups.as_chunks_mut::<LANES>().0.iter_mut();
    let mut acc = [0.0; LANES];
    for ((h_gate, h_up), u) in gates.zip(ups).zip(u.as_chunks_mut::<LANES>().0) {
        let (gate, up) = (clamp_above(h_gate, limit), clamp(h_up, limit));
        let s = sigmoid::<FMA>(h_gate, alpha, limit);
        for j in 0..LANES {
            let act = gate[j] * s[j] * (up[j] + 1.0);
            acc[j] = fma::<FMA>(act, u[j], acc[j]);
            let da = weight * u[j];
            let slope = s[j] * fma::<FMA>(alpha * gate[j], 1.0 - s[j], 1.0);
            let (gate_open, up_open) = (h_gate[j] <= limit, h_up[j] >= -limit && h_up[j] <= limit);
            h_gate[j] = if gate_open { da * (up[j] + 1.0) * slope } else { 0.0 };
            h_up[j] = if up_open { da * gate[j] * s[j] } else { 0.0 };
            u[j] = weight * act;
        }
    }
    crate::cpu::lanes::sum(acc) + dot::<FMA>(bias, dy)
}
