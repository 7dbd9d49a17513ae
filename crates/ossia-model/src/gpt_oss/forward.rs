//! gpt-oss, top to bottom: embedding, blocks of attention and experts, unembedding (SPEC 5).
//!
//! Letters: T tokens of the batch, R rows that want logits, D hidden size, H query heads, K key/value heads, d channels
//! of a head, E experts, k experts of a token, I units of an expert, V vocabulary. Every line is one op of
//! `ossia_kernels::ops`; how an op runs on a device is that op's own business.

use ossia_kernels::ops::attention::{self, Shape};
use ossia_kernels::ops::experts::{self, Experts};
use ossia_kernels::ops::linear::{self, Linear};
use ossia_kernels::ops::low_rank::Slots;
use ossia_kernels::ops::rms_norm::{self, Norm};
use ossia_kernels::ops::rope::{self, Projection, Rope};
use ossia_kernels::ops::{embed, router, rows};
use ossia_kernels::{Matrix, Result, Step, Tensor};

use crate::stop::Stop;

/// The weights of a gpt-oss model.
pub struct Transformer {
    /// E [V, D].
    pub embedding: Matrix,
    /// One after the other.
    pub blocks: Vec<Block>,
    /// g [D].
    pub norm: Norm,
    /// U [V, D], no bias.
    pub unembedding: Linear,
    /// The same for all blocks.
    pub rope: Rope,
    /// Which slots hold an adapter; its numbers hang on the weights (see `adapter`), never in the way of this file.
    pub adapters: Slots<()>,
    /// Once it is raised, the blocks that are left are passed over, and what comes out means nothing.
    pub stop: Stop,
}

/// Attention, then experts.
pub struct Block {
    /// Its first half.
    pub attention: AttentionBlock,
    /// Its second half.
    pub mlp: MlpBlock,
}

/// y = x + Wo attention(rmsnorm(x)) + bo.
pub struct AttentionBlock {
    /// g1 [D].
    pub norm: Norm,
    /// Wq, Wk, Wv [(H + 2K) d, D] with biases.
    pub qkv: Linear,
    /// One learned logit for each query head [H].
    pub sinks: Vec<f32>,
    /// Wo [D, H d], bo [D].
    pub out: Linear,
    /// Heads, window, layer.
    pub shape: Shape,
}

/// x = y + moe(rmsnorm(y)).
pub struct MlpBlock {
    /// g2 [D].
    pub norm: Norm,
    /// Wr [E, D], br [E].
    pub router: Linear,
    /// k.
    pub experts_per_token: usize,
    /// E experts.
    pub experts: Experts,
}

impl Transformer {
    /// Tokens [T] in, logits [R, V] of `step.logits_rows` out.
    pub fn forward(&self, step: &mut Step, tokens: &[u32]) -> Result<Tensor> {
        let mut x = embed::forward(step, tokens, &self.embedding)?; // [T, D]
        let (last, blocks) = self.blocks.split_last().expect("a model has blocks");
        for block in blocks.iter().take_while(|_| !self.stop.is_raised()) {
            block.forward(step, &mut x, &self.rope)?;
        }
        let x = match self.stop.is_raised() {
            true => rows::wanted(step, x)?,
            false => last.forward_wanted(step, x, &self.rope)?,
        }; // [R, D]
        let t = rms_norm::forward(step, &x, &self.norm)?; // [R, D]
        linear::forward(step, &t, &self.unembedding) // [R, V]
    }
}

impl Block {
    pub(super) fn forward(&self, step: &mut Step, x: &mut Tensor, rope: &Rope) -> Result<()> {
        self.attention.forward(step, x, rope)?;
        self.mlp.forward(step, x)
    }

    /// The last block. Nothing comes after it but logits, and the keys and values that it leaves: once attention has what it
    /// needs, the rows that want no logits go no further.
    fn forward_wanted(&self, step: &mut Step, x: Tensor, rope: &Rope) -> Result<Tensor> {
        let mut x = self.attention.forward_wanted(step, x, rope)?; // [R, D]
        if x.rows() > 0 {
            self.mlp.forward(step, &mut x)?;
        }
        Ok(x)
    }
}

impl AttentionBlock {
    fn forward(&self, step: &mut Step, x: &mut Tensor, rope: &Rope) -> Result<()> {
        let Shape { heads, window, layer } = self.shape;
        let projection = Projection { norm: &self.norm, linear: &self.qkv, rope, heads, layer, window };
        let qkv = rope::project(step, x, &projection)?; // [T, (H + 2K) d], k and v also to the pages
        let t = attention::forward(step, &qkv, &self.sinks, &self.shape)?; // [T, H d]
        linear::add_forward(step, &t, &self.out, x) // [T, D]
    }

    fn forward_wanted(&self, step: &mut Step, x: Tensor, rope: &Rope) -> Result<Tensor> {
        let Shape { heads, window, layer } = self.shape;
        let projection = Projection { norm: &self.norm, linear: &self.qkv, rope, heads, layer, window };
        let qkv = rope::project(step, &x, &projection)?; // [T, (H + 2K) d], k and v also to the pages
        if step.logits_rows.is_empty() {
            return rows::wanted(step, x);
        }
        let t = attention::forward(step, &qkv, &self.sinks, &self.shape)?; // [T, H d]
        drop(qkv);
        let (t, mut x) = (rows::wanted(step, t)?, rows::wanted(step, x)?); // [R, H d], [R, D]
        linear::add_forward(step, &t, &self.out, &mut x)?; // [R, D]
        Ok(x)
    }
}

impl MlpBlock {
    fn forward(&self, step: &mut Step, x: &mut Tensor) -> Result<()> {
        let (t, routes) = router::norm_forward(step, x, &self.norm, &self.router, self.experts_per_token)?; // [T, D], [T, k]
        experts::add_forward(step, &t, &routes, &self.experts, x) // [T, D]
    }
}
