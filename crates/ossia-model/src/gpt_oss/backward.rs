//! The gradients of gpt-oss: `forward.rs` read backwards, by hand (SPEC 7).
//!
//! A sweep forward keeps what each block has made, or, where memory is short, only its input; then, from the last block
//! to the first, the block is computed again if it must be, and its gradients are added. Letters as in `forward.rs`; R
//! rows that are to predict their next token. `dx` is the gradient of the residual stream [T, D]; what an op's result
//! would be called y, its gradient is called dy.

use std::ops::Range;

use ossia_kernels::kv::PageTable;
use ossia_kernels::ops::cross_entropy::{self, Targets};
use ossia_kernels::ops::experts::{self, ExpertsGrad, Hidden};
use ossia_kernels::ops::linear::{self, LinearGrad, Write};
use ossia_kernels::ops::rms_norm;
use ossia_kernels::ops::rope::{self, Rope};
use ossia_kernels::ops::router::{self, Balance, Routes};
use ossia_kernels::ops::{attention, embed};
use ossia_kernels::{Phase, Result, Runtime, Sequence, Step, Tap, Tensor};

use super::balance::{Balancing, Loads};
use super::forward::{AttentionBlock, Block, MlpBlock, Transformer};

/// Where the gradients of a model are added; see [`super::parameters::Parameters::gradients`] and
/// [`super::adapter::AdapterParameters::gradients`]. What is not there is frozen, and costs neither time nor memory.
pub struct Gradients<'a> {
    /// [V, D].
    pub embedding: Option<&'a mut [f32]>,
    /// One after the other.
    pub blocks: Vec<BlockGrad<'a>>,
    /// [D].
    pub norm: Option<&'a mut [f32]>,
    /// [V, D].
    pub unembedding: LinearGrad<'a>,
}

/// Those of a block.
#[derive(Default)]
pub struct BlockGrad<'a> {
    /// Its first half.
    pub attention: AttentionGrad<'a>,
    /// Its second half.
    pub mlp: MlpGrad<'a>,
}

/// Those of the attention.
#[derive(Default)]
pub struct AttentionGrad<'a> {
    /// [D].
    pub norm: Option<&'a mut [f32]>,
    /// [(H + 2K) d, D].
    pub qkv: LinearGrad<'a>,
    /// [H].
    pub sinks: Option<&'a mut [f32]>,
    /// [D, H d].
    pub out: LinearGrad<'a>,
}

/// Those of the experts.
#[derive(Default)]
pub struct MlpGrad<'a> {
    /// [D].
    pub norm: Option<&'a mut [f32]>,
    /// [E, D].
    pub router: LinearGrad<'a>,
    /// Of all experts and of what is attached to them.
    pub experts: ExpertsGrad<'a>,
}

/// Documents laid end to end; none sees another.
#[derive(Clone, Copy)]
pub struct Batch<'a> {
    /// T tokens.
    pub tokens: &'a [u32],
    /// The rows of each document, in order and without gaps.
    pub documents: &'a [Range<usize>],
    /// Rows that are to predict, ascending [R].
    pub rows: &'a [u32],
    /// What they are to predict, and how much each counts [R].
    pub targets: Targets<'a>,
    /// Whether blocks are computed twice rather than kept: three fifths of nano's memory, a tenth slower, the same bits.
    pub recompute: bool,
    /// The slot of the adapter that all tokens go through, and whose gradients are asked for; none is the base model.
    pub adapter: Option<usize>,
}

impl<'a> Batch<'a> {
    /// Whether every gradient of it is zero: no row counts, and nothing is asked of the router.
    fn teaches_nothing(&self, balancing: &Balancing) -> bool {
        let counts = self.targets.weights.iter().any(|&weight| weight != 0.0);
        !counts && balancing.aux == 0.0 && balancing.z == 0.0
    }

    fn step<'s>(&'s self, runtime: &'s Runtime, none: &'s PageTable, tap: Option<&'s mut dyn Tap>) -> Result<Step<'s>> {
        let adapter = self.adapter;
        let document =
            |rows: &Range<usize>| Sequence { rows: rows.clone(), start: 0, full: none, sliding: none, adapter };
        let sequences = self.documents.iter().map(document).collect();
        let step =
            Step { runtime, phase: Phase::Training, sequences, kv: &mut [], logits_rows: self.rows.to_vec(), tap };
        step.begin(self.tokens)?;
        Ok(step)
    }
}

/// What a batch cost.
pub struct Losses {
    /// Of each predicting row, in nats, unweighted [R].
    pub nll: Vec<f32>,
    /// How the router spread the tokens.
    pub loads: Loads,
}

impl Transformer {
    /// Adds the gradients of sum w (nll + z lse²) + the losses of `balancing` to `grads`. A batch that teaches nothing is
    /// run forward alone.
    pub fn backward(
        &self,
        runtime: &Runtime,
        batch: &Batch,
        balancing: &Balancing,
        grads: &mut Gradients,
    ) -> Result<Losses> {
        let none = PageTable::default();
        let mut loads = Loads::of(self);
        if batch.teaches_nothing(balancing) {
            let nll = self.run_forward(runtime, batch, Some(&mut loads))?;
            return Ok(Losses { nll, loads });
        }
        let (x, mut kept) = self.sweep(&mut batch.step(runtime, &none, Some(&mut loads))?, batch)?;
        let mut step = batch.step(runtime, &none, None)?;
        let t = rms_norm::forward_logits_rows(&mut step, &x, &self.norm)?; // [R, D]
        let (nll, dt) =
            cross_entropy::backward(&mut step, &t, &self.unembedding, batch.targets, &mut grads.unembedding)?;
        drop(t);
        let mut dx = Tensor::zeros(runtime, x.rows(), x.cols())?; // [T, D]
        rms_norm::backward_logits_rows(&mut step, &x, &self.norm, &dt, grads.norm.as_deref_mut(), &mut dx)?;
        drop((x, dt));
        for (layer, (block, grad)) in self.blocks.iter().zip(&mut grads.blocks).enumerate().rev() {
            let kept = kept.pop().expect("something for each block");
            let (load, z) = loads.gradient(layer, balancing);
            block.backward(&mut step, kept, &self.rope, &Balance { load: &load, z }, grad, &mut dx)?;
        }
        if let Some(embedding) = &mut grads.embedding {
            embed::backward(&mut step, batch.tokens, &dx, embedding)?;
        }
        Ok(Losses { nll, loads })
    }

    /// nll [R] of the rows that are to predict, without gradients.
    pub fn evaluate(&self, runtime: &Runtime, batch: &Batch) -> Result<Vec<f32>> {
        self.run_forward(runtime, batch, None)
    }

    fn run_forward(&self, runtime: &Runtime, batch: &Batch, loads: Option<&mut Loads>) -> Result<Vec<f32>> {
        let none = PageTable::default();
        let mut step = batch.step(runtime, &none, loads.map(|loads| loads as &mut dyn Tap))?;
        let mut x = embed::forward(&mut step, batch.tokens, &self.embedding)?;
        for block in &self.blocks {
            block.forward(&mut step, &mut x, &self.rope)?;
        }
        let t = rms_norm::forward_logits_rows(&mut step, &x, &self.norm)?; // [R, D]
        cross_entropy::forward(&mut step, &t, &self.unembedding, batch.targets.ids)
    }

    /// The residual stream after the last block, and what is kept of each.
    fn sweep(&self, step: &mut Step, batch: &Batch) -> Result<(Tensor, Vec<Kept>)> {
        let mut x = embed::forward(step, batch.tokens, &self.embedding)?; // [T, D]
        let mut kept = Vec::with_capacity(self.blocks.len());
        for block in &self.blocks {
            let input = x.copy(step.runtime)?;
            let made = if batch.recompute {
                block.forward(step, &mut x, &self.rope)?;
                None
            } else {
                Some(block.forward_saving(step, &input, &mut x, &self.rope)?)
            };
            kept.push(Kept { x: input, made });
        }
        Ok((x, kept))
    }
}

/// What is kept of a block.
struct Kept {
    /// Its input [T, D].
    x: Tensor,
    /// What it made of it, unless it is to be computed again.
    made: Option<(Saved, SavedMlp)>,
}

impl Block {
    fn backward(
        &self,
        step: &mut Step,
        kept: Kept,
        rope: &Rope,
        balance: &Balance,
        grad: &mut BlockGrad,
        dx: &mut Tensor,
    ) -> Result<()> {
        let Kept { x, made } = kept;
        let (attention, mlp) = match made {
            Some(made) => made,
            None => {
                let mut y = x.copy(step.runtime)?; // [T, D], the residual stream between the halves
                let attention = self.attention.forward_saving(step, &x, &mut y, rope)?;
                (attention, self.mlp.begin(step, y)?)
            }
        };
        self.mlp.backward(step, mlp, balance, &mut grad.mlp, dx)?;
        self.attention.backward(step, x, attention, rope, &mut grad.attention, dx)
    }

    /// `forward` from `input`, a copy of x [T, D], with what `backward` needs.
    fn forward_saving(
        &self,
        step: &mut Step,
        input: &Tensor,
        x: &mut Tensor,
        rope: &Rope,
    ) -> Result<(Saved, SavedMlp)> {
        let attention = self.attention.forward_saving(step, input, x, rope)?;
        let y = x.copy(step.runtime)?; // [T, D]
        let mut mlp = self.mlp.begin(step, y)?;
        mlp.hidden = Some(experts::add_forward_saving(step, &mlp.t, &mlp.routes, &self.mlp.experts, x)?);
        Ok((attention, mlp))
    }
}

/// What the attention's backward needs of its forward.
struct Saved {
    t: Tensor,
    qkv: Tensor,
    o: Tensor,
    lse: Tensor,
}

/// What the experts' backward needs of their forward.
struct SavedMlp {
    /// Their input before the norm [T, D].
    y: Tensor,
    t: Tensor,
    routes: Routes,
    logits: Tensor,
    /// Where it was kept.
    hidden: Option<Hidden>,
}

impl AttentionBlock {
    /// `forward`, with what `backward` needs.
    fn forward_saving(&self, step: &mut Step, x: &Tensor, y: &mut Tensor, rope: &Rope) -> Result<Saved> {
        let t = rms_norm::forward(step, x, &self.norm)?; // [T, D]
        let mut qkv = linear::forward(step, &t, &self.qkv)?; // [T, (H + 2K) d]
        rope::forward(step, &mut qkv, rope, self.shape.heads, self.shape.layer, self.shape.window)?;
        let (o, lse) = attention::forward_saving(step, &qkv, &self.sinks, &self.shape)?; // [T, H d], [T, H]
        linear::add_forward(step, &o, &self.out, y)?; // [T, D]
        Ok(Saved { t, qkv, o, lse })
    }

    fn backward(
        &self,
        step: &mut Step,
        x: Tensor,
        saved: Saved,
        rope: &Rope,
        grad: &mut AttentionGrad,
        dx: &mut Tensor,
    ) -> Result<()> {
        let Saved { t, qkv, o, lse } = saved;
        let mut d_o = Tensor::new(step.runtime, o.rows(), o.cols())?; // [T, H d]
        let mut d_qkv = Tensor::new(step.runtime, qkv.rows(), qkv.cols())?; // [T, (H + 2K) d]
        linear::backward(step, &o, &self.out, dx, &mut grad.out, &mut d_o, Write::Set)?;
        let d_sinks = grad.sinks.as_deref_mut();
        attention::backward(step, &qkv, &self.sinks, &self.shape, &o, &lse, &d_o, &mut d_qkv, d_sinks)?;
        drop((qkv, o, lse, d_o));
        rope::backward(step, &mut d_qkv, rope, self.shape.heads)?;
        let mut dt = Tensor::new(step.runtime, t.rows(), t.cols())?; // [T, D]
        linear::backward(step, &t, &self.qkv, &d_qkv, &mut grad.qkv, &mut dt, Write::Set)?;
        rms_norm::backward(step, &x, &self.norm, &dt, grad.norm.as_deref_mut(), dx) // [T, D]
    }
}

impl MlpBlock {
    /// Norm and routes of y [T, D].
    fn begin(&self, step: &mut Step, y: Tensor) -> Result<SavedMlp> {
        let t = rms_norm::forward(step, &y, &self.norm)?; // [T, D]
        let (routes, logits) = router::forward_saving(step, &t, &self.router, self.experts_per_token)?; // [T, k], [T, E]
        Ok(SavedMlp { y, t, routes, logits, hidden: None })
    }

    fn backward(
        &self,
        step: &mut Step,
        saved: SavedMlp,
        balance: &Balance,
        grad: &mut MlpGrad,
        dx: &mut Tensor,
    ) -> Result<()> {
        let SavedMlp { y, t, routes, logits, hidden } = saved;
        let mut dt = Tensor::new(step.runtime, t.rows(), t.cols())?; // [T, D]
        let mut d_weights = Tensor::new(step.runtime, t.rows(), routes.per_token)?; // [T, k]
        experts::backward(step, &t, &routes, &self.experts, hidden, dx, &mut grad.experts, &mut dt, &mut d_weights)?;
        router::backward(step, &t, &self.router, (&routes, &logits), &d_weights, balance, &mut grad.router, &mut dt)?;
        rms_norm::backward(step, &y, &self.norm, &dt, grad.norm.as_deref_mut(), dx) // [T, D]
    }
}
