//! The shape of a gpt-oss model and its constants, whatever file said so: SPEC 1.
//!
//! A `Config` that exists has passed [`check`]: every count is positive and bounded, products fit into memory, and the
//! divisibilities that kernels rely on hold. So the code behind it multiplies and divides without asking.

mod check;
mod gguf;
mod json;
mod preset;

pub use preset::PRESETS;

use crate::checkpoint::{Checkpoint, Error, Metadata, Result};

/// What a layer's attention can see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerKind {
    /// The last `sliding_window` tokens, the query itself included.
    Sliding,
    /// Everything before it.
    Full,
}

/// Which kind of file a config was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// config.json with `rope_scaling` and `rope_theta`, as released.
    RopeScaling,
    /// config.json with `rope_parameters`, as transformers 5 writes it.
    RopeParameters,
    /// The flat config.json of `original/`.
    Original,
    /// The metadata of a GGUF file.
    Gguf,
    /// One of [`PRESETS`].
    Preset,
}

/// The constants of RoPE with YaRN: SPEC 5.1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rope {
    /// The base of the frequencies.
    pub theta: f64,
    /// By how much YaRN stretches the context.
    pub factor: f64,
    /// Rotations within the original context above which a frequency stays as it is.
    pub beta_fast: f64,
    /// Rotations within the original context below which a frequency is divided by `factor`.
    pub beta_slow: f64,
    /// Tokens of the context before stretching.
    pub original_context: usize,
    /// Whether the ends of the ramp are rounded outward; false in gpt-oss.
    pub truncate: bool,
}

impl Rope {
    /// The ends `(low, high)` of the ramp between unscaled and scaled frequencies, in units of frequency indices.
    pub fn ramp(&self, head_dim: usize) -> (f64, f64) {
        let half = head_dim as f64 / 2.0;
        let at =
            |beta: f64| half * (self.original_context as f64 / (beta * std::f64::consts::TAU)).ln() / self.theta.ln();
        let (mut low, mut high) = (at(self.beta_fast), at(self.beta_slow));
        if self.truncate {
            (low, high) = (low.floor(), high.ceil());
        }
        (low.max(0.0), high.min(head_dim as f64 - 1.0))
    }

    /// The factor on cos and sin, 0.1 ln(factor) + 1.
    pub fn concentration(&self) -> f64 {
        0.1 * self.factor.ln() + 1.0
    }
}

/// The shape and constants of a gpt-oss model. Letters as in SPEC: V, H, I, L, E, k, W.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// V: rows of the embedding table.
    pub vocab_size: usize,
    /// H: width of the residual stream.
    pub hidden_size: usize,
    /// I: units inside an expert.
    pub intermediate_size: usize,
    /// L: layers.
    pub num_layers: usize,
    /// Query heads.
    pub num_heads: usize,
    /// Key and value heads; each serves `num_heads / num_kv_heads` query heads.
    pub num_kv_heads: usize,
    /// d: numbers per head; not H / heads.
    pub head_dim: usize,
    /// E: experts per layer.
    pub num_experts: usize,
    /// k: experts that a token is sent to.
    pub experts_per_token: usize,
    /// W: tokens that a sliding layer sees, the query included.
    pub sliding_window: usize,
    /// One entry per layer.
    pub layer_types: Vec<LayerKind>,
    /// Epsilon of every RMSNorm.
    pub rms_norm_eps: f32,
    /// Clamp of the expert's gate (from above) and up (both sides): SPEC 5.4.
    pub swiglu_limit: f32,
    /// Factor inside the expert's sigmoid.
    pub swiglu_alpha: f32,
    /// Positions.
    pub rope: Rope,
    /// Tokens of the longest context.
    pub max_context: usize,
    /// Tokens that end an answer, as far as the config says; may be empty.
    pub eos_ids: Vec<u32>,
    /// The padding token, where the config says one.
    pub pad_id: Option<u32>,
    /// Where this came from.
    pub dialect: Dialect,
}

/// The factor inside the expert's sigmoid; a constant in every published file (SPEC 5.4).
const SWIGLU_ALPHA: f64 = 1.702;
/// The clamp inside the expert; a constant where the file does not say (SPEC 2.3).
const SWIGLU_LIMIT: f64 = 7.0;
/// Where the file does not say (SPEC 1).
const RMS_NORM_EPS: f64 = 1e-5;

impl Config {
    /// The config of an open checkpoint, checked. Errors name the file and key, what was wanted and found.
    pub fn from_checkpoint(checkpoint: &Checkpoint) -> Result<Self> {
        match checkpoint.metadata() {
            Metadata::Json { value, file } => Self::from_json(value, file),
            Metadata::Gguf(metadata) => {
                let Some(table) = checkpoint.get("token_embd.weight") else {
                    return Err(Error::missing_tensor(checkpoint.source(), "token_embd.weight", "the embedding table"));
                };
                Self::from_gguf(metadata, table.shape.first().copied().unwrap_or(0))
            }
        }
    }

    /// Numbers that a token's embedding is turned into by the query heads: `num_heads * head_dim`.
    pub fn query_size(&self) -> usize {
        self.num_heads * self.head_dim
    }

    /// Numbers of all key heads, and of all value heads: `num_kv_heads * head_dim`.
    pub fn kv_size(&self) -> usize {
        self.num_kv_heads * self.head_dim
    }

    /// Parameters and bytes of the whole model: SPEC 1.1.
    pub fn param_counts(&self) -> ParamCounts {
        let (h, i, e) = (self.hidden_size as u128, self.intermediate_size as u128, self.num_experts as u128);
        let (q, kv, k) = (self.query_size() as u128, self.kv_size() as u128, self.experts_per_token as u128);
        let table = self.vocab_size as u128 * h;
        let attention = (q + 2 * kv) * (h + 1) + (q + 1) * h + self.num_heads as u128;
        let dense = attention + 2 * h + e * (h + 1);
        let matrices = 3 * h * i;
        let biases = 2 * i + h;
        let layers = self.num_layers as u128;
        let total = 2 * table + h + layers * (dense + e * (matrices + biases));
        let active = table + h + layers * (dense + k * (matrices + biases));
        let quantized = layers * e * matrices;
        ParamCounts { total, active, packed_bytes: 2 * (total - quantized) + quantized / 32 * 17 }
    }
}

/// How large a model is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParamCounts {
    /// All parameters.
    pub total: u128,
    /// Parameters that one token uses, counted as OpenAI does: k experts, the unembedding but not the embedding.
    pub active: u128,
    /// Bytes of all tensors in the released formats: MXFP4 experts, the rest BF16.
    pub packed_bytes: u128,
}
