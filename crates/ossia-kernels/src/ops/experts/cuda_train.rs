//! The launchers of training; what is no product is in `train.cu`, products are those of `linear`. Experts are seen in bf16, gates
//! and ups interleaved, one expert after the other at equal distances.

use super::{Experts, ExpertsGrad};
use crate::cuda::{Argument, Gpu, Shape, Slice};
use crate::ops::linear::Write;
use crate::ops::linear::cuda_train::{self as linear, Groups, Kind, Product};
use crate::ops::router::Routes;
use crate::{Error, Result, Tensor};

/// The file of kernels.
const FILE: &str = "experts.train";

/// A launch of so many blocks of 256 threads.
///
/// # Safety
/// As [`Gpu::launch`].
unsafe fn launch(gpu: &Gpu, kernel: &str, blocks: usize, arguments: &[Argument]) -> Result<()> {
    // SAFETY: promised by the caller.
    unsafe { gpu.launch(FILE, kernel, Shape { grid: (blocks, 1, 1), threads: 256, shared: 0 }, arguments) }
}

/// Where the device has the experts' weights and biases: of the first, and how far apart they are.
struct Weights {
    gate_up: Argument,
    gate_up_bias: Argument,
    down: Argument,
    down_bias: Argument,
    /// Numbers from one expert to the next, of weights and of biases.
    steps: (usize, usize),
}

impl Weights {
    fn of(gpu: &Gpu, experts: &Experts) -> Result<Self> {
        if !experts.adapters.is_empty() {
            let found = "one that is attached".to_owned();
            return Err(Error::CudaUnsupported { what: "adapters are not computed", wanted: "no adapter", found });
        }
        let at = |e: usize| experts.experts[e].gate.elements().at(0, 0).as_ptr().addr();
        let count = experts.experts.len();
        let step = if count > 1 { at(1) - at(0) } else { 0 };
        assert!(
            (1..count).all(|e| at(e) == at(0) + e * step),
            "experts: those that are trained lie at equal distances"
        );
        let halves = |m: &crate::Matrix| {
            gpu.seen_halves(m.elements().at(0, 0).as_ptr().cast()).expect("experts: weights that are trained are seen")
        };
        let first = &experts.experts[0];
        // The device has the biases of gates and ups as the run has them, under the gates' name.
        let bias = |e: usize| gpu.floats(&experts.experts[e].gate_bias);
        let biases = if count > 1 { bias(1)?.distance(bias(0)?) / 4 } else { 0 };
        Ok(Self {
            gate_up: halves(&first.gate),
            gate_up_bias: bias(0)?,
            down: halves(&first.down),
            down_bias: gpu.floats(&first.down_bias)?,
            steps: (step / 4, biases),
        })
    }
}

/// Pairs sorted by expert.
struct Pairs<'a> {
    gpu: &'a Gpu,
    experts: &'a Experts,
    weights: Weights,
    chosen: &'a Slice,
    route_weights: &'a Slice,
    /// The pair of each row, the row of each pair.
    pairs: Slice,
    places: Slice,
    starts: Slice,
    /// Tokens, experts of a token, pairs.
    tokens: usize,
    k: usize,
    len: usize,
    /// D, I.
    sizes: (usize, usize),
}

impl<'a> Pairs<'a> {
    fn new(gpu: &'a Gpu, experts: &'a Experts, routes: &'a Routes, tokens: usize) -> Result<Self> {
        let routed = routes.device.as_ref().expect("routes are where the tokens are");
        let (count, k, first) = (experts.experts.len(), routes.per_token, &experts.experts[0]);
        let len = tokens * k;
        let (pairs, places, starts) = (gpu.take(len)?, gpu.take(len)?, gpu.take(count + 1)?);
        let arguments =
            [(&routed.experts).into(), len.into(), count.into(), (&pairs).into(), (&places).into(), (&starts).into()];
        let shape = Shape { grid: (1, 1, 1), threads: 1024, shared: 0 };
        // SAFETY: (chosen, n, experts, pairs, places, starts); the router takes no more than 1024 experts.
        unsafe { gpu.launch(FILE, "experts_sort", shape, &arguments)? };
        let weights = Weights::of(gpu, experts)?;
        let sizes = (first.down.rows(), first.gate.rows());
        let (chosen, route_weights) = (&routed.experts, &routed.weights);
        Ok(Self { gpu, experts, weights, chosen, route_weights, pairs, places, starts, tokens, k, len, sizes })
    }

    fn groups(&self, step: usize) -> Option<Groups<'_>> {
        let (count, bias_step) = (self.experts.experts.len(), self.weights.steps.1);
        Some(Groups { starts: &self.starts, count, step, bias_step })
    }

    /// The rows of x [T, D], one for each pair.
    fn gather(&self, x: &Tensor) -> Result<Slice> {
        let rows = self.gpu.take(self.len * self.sizes.0)?;
        let arguments = [x.device().into(), (&self.pairs).into(), (&rows).into(), self.k.into(), self.sizes.0.into()];
        // SAFETY: (x, pairs, rows, k, cols).
        unsafe { launch(self.gpu, "experts_gather", self.len, &arguments)? };
        Ok(rows)
    }

    /// Gate and up before the clamps [pairs, 2 I], interleaved.
    fn gate_up(&self, rows: &Slice) -> Result<Slice> {
        let (d, i) = self.sizes;
        let h = self.gpu.take(self.len * 2 * i)?;
        self.rows(rows.into(), (self.weights.gate_up, self.weights.gate_up_bias), &h, (2 * i, d))?;
        Ok(h)
    }

    /// c [pairs, n] = a [pairs, depth] times the weights of each row's expert, and biases.
    fn rows(&self, a: Argument, (b, bias): (Argument, Argument), c: &Slice, (n, depth): (usize, usize)) -> Result<()> {
        let product = Product { a, b, bias, c: c.into(), m: self.len, n, depth };
        linear::product(self.gpu, Kind::Rows, &product, self.groups(self.weights.steps.0), Write::Set)
    }

    /// c [pairs, n] = a [pairs, depth] times the columns of each row's expert.
    fn columns(&self, a: &Slice, b: Argument, c: &Slice, (n, depth): (usize, usize)) -> Result<()> {
        let product = Product { a: a.into(), b, bias: Argument::NULL, c: c.into(), m: self.len, n, depth };
        linear::product(self.gpu, Kind::Columns, &product, self.groups(self.weights.steps.0), Write::Set)
    }

    /// y (=, +=) what the rows of each token say, times the routes' weights or 1.
    fn bring(&self, rows: &Slice, weights: Argument, y: &Tensor, write: Write) -> Result<()> {
        let add = usize::from(write == Write::Add).into();
        let cols = self.sizes.0.into();
        let arguments = [rows.into(), (&self.places).into(), weights, y.device().into(), self.k.into(), cols, add];
        // SAFETY: (rows, places, weights, y, k, cols, add).
        unsafe { launch(self.gpu, "experts_bring", self.tokens, &arguments) }
    }
}

/// x += the experts; what `backward` would otherwise compute again.
pub(super) fn add_forward(gpu: &Gpu, t: &Tensor, routes: &Routes, experts: &Experts, x: &Tensor) -> Result<Slice> {
    let pairs = Pairs::new(gpu, experts, routes, t.rows())?;
    let (d, i) = pairs.sizes;
    let h = pairs.gate_up(&pairs.gather(t)?)?;
    let act = gpu.take(pairs.len * i)?;
    let arguments = [(&h).into(), (&act).into(), i.into(), experts.limit.into(), experts.alpha.into()];
    // SAFETY: (h, act, units, limit, alpha).
    unsafe { launch(gpu, "experts_activate", pairs.len, &arguments)? };
    let down = gpu.take(pairs.len * d)?;
    pairs.rows((&act).into(), (pairs.weights.down, pairs.weights.down_bias), &down, (d, i))?;
    pairs.bring(&down, pairs.route_weights.into(), x, Write::Add)?;
    Ok(h)
}

/// Gradients of the experts are added, dt and `d_weights` [T, k] are written.
#[allow(clippy::too_many_arguments)]
pub(super) fn backward(
    gpu: &Gpu,
    t: &Tensor,
    routes: &Routes,
    experts: &Experts,
    hidden: Option<Slice>,
    dy: &Tensor,
    grads: &ExpertsGrad,
    dt: &Tensor,
    d_weights: &Tensor,
) -> Result<()> {
    let pairs = Pairs::new(gpu, experts, routes, t.rows())?;
    let (d, i) = pairs.sizes;
    let (t_rows, dy_rows) = (pairs.gather(t)?, pairs.gather(dy)?);
    let h = hidden.map_or_else(|| pairs.gate_up(&t_rows), Ok)?;
    let (u, row_weights) = (gpu.take(pairs.len * i)?, gpu.take(pairs.len)?);
    pairs.columns(&dy_rows, pairs.weights.down, &u, (i, d))?;
    let arguments = [
        (&h).into(),
        (&u).into(),
        (&dy_rows).into(),
        (&pairs.pairs).into(),
        pairs.chosen.into(),
        pairs.route_weights.into(),
        pairs.weights.down_bias,
        Argument::long(pairs.weights.steps.1),
        d_weights.device().into(),
        (&row_weights).into(),
        i.into(),
        d.into(),
        experts.limit.into(),
        experts.alpha.into(),
    ];
    // SAFETY: (h, u, dy, pairs, chosen, weights, bias, step, d_weights, row_weights, units, cols, limit, alpha).
    unsafe { launch(gpu, "experts_turn", pairs.len, &arguments)? };
    add_weight_gradients(&pairs, (&t_rows, &dy_rows, &h, &u), &row_weights, grads)?;
    drop((t_rows, u));
    pairs.columns(&h, pairs.weights.gate_up, &dy_rows, (d, 2 * i))?;
    pairs.bring(&dy_rows, Argument::NULL, dt, Write::Set)
}

/// dG, dU, dD and those of the biases, of rows t and dy, dh and w act.
fn add_weight_gradients(
    pairs: &Pairs,
    (t, dy, dh, act): (&Slice, &Slice, &Slice, &Slice),
    weights: &Slice,
    grads: &ExpertsGrad,
) -> Result<()> {
    let Some(first) = grads.experts.first() else { return Ok(()) };
    let (gpu, (d, i)) = (pairs.gpu, pairs.sizes);
    let start = |e: usize| grads.experts[e].gate_up.as_ptr().addr();
    let step = if grads.experts.len() > 1 { (start(1) - start(0)) / 4 } else { 0 };
    let even = (0..grads.experts.len()).all(|e| start(e) == start(0) + 4 * e * step);
    assert!(even && grads.experts.len() == pairs.experts.experts.len(), "experts: gradients lie at equal distances");
    let groups = pairs.groups(step);
    let none = Argument::NULL;
    for (a, b, c, m, n) in [(dh, t, &first.gate_up, 2 * i, d), (dy, act, &first.down, d, i)] {
        assert!(c.len() == m * n, "experts: gradient sizes");
        let product = Product { a: a.into(), b: b.into(), bias: none, c: gpu.part(c), m, n, depth: pairs.len };
        linear::product(gpu, Kind::Outer, &product, groups, Write::Add)?;
    }
    linear::add_rows(gpu, (dh.into(), none), (pairs.len, 2 * i), groups, gpu.part(first.gate_up_bias))?;
    linear::add_rows(gpu, (dy.into(), weights.into()), (pairs.len, d), groups, gpu.part(first.down_bias))
}

/// Numbers of four bytes of scratch that either direction takes for `tokens` with `k` of `e` experts each, besides what the forward
/// pass keeps, [`hidden_len`].
pub fn train_scratch_len(tokens: usize, (e, k): (usize, usize), d: usize, i: usize) -> usize {
    let pairs = tokens * k;
    3 * pairs + e + 1 + (2 * d + i) * pairs + hidden_len(tokens, k, i)
}

/// Numbers of what the forward pass keeps.
pub fn hidden_len(tokens: usize, k: usize, i: usize) -> usize {
    tokens * k * 2 * i
}
