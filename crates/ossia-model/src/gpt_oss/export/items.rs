//! The parts of a model, what every layout calls them, and their shapes: SPEC 2.1 to 2.3.
//!
//! Letters: D hidden size, E experts, I units of an expert, V vocabulary.

use crate::checkpoint::Layout;
use crate::gpt_oss::config::Config;

/// A linear layer outside the experts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Linear {
    Q,
    K,
    V,
    Out,
    Router,
}

/// A matrix of every expert. Safetensors have gate and up in one, rows in turn; GGUF has them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    GateUp,
    Gate,
    Up,
    Down,
}

/// A part of the model; the number is its layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Item {
    Embedding,
    Unembedding,
    Norm,
    AttentionNorm(usize),
    MlpNorm(usize),
    Sinks(usize),
    Weight(usize, Linear),
    Bias(usize, Linear),
    Experts(usize, Which),
    ExpertBiases(usize, Which),
}

/// The column of `layout` in the tables below.
fn pick(layout: Layout, [hugging_face, original, gguf]: [&'static str; 3]) -> &'static str {
    match layout {
        Layout::HuggingFace => hugging_face,
        Layout::Original => original,
        Layout::Gguf => gguf,
    }
}

/// What stands before the names of layer `layer`.
pub(super) fn in_block(layout: Layout, layer: usize, rest: &str) -> String {
    format!("{}{layer}.{rest}", pick(layout, ["model.layers.", "block.", "blk."]))
}

impl Linear {
    /// The name in a block, without ".weight" or ".bias".
    pub fn stem(self, layout: Layout) -> &'static str {
        let names = match self {
            Linear::Q => ["self_attn.q_proj", "attn.q", "attn_q"],
            Linear::K => ["self_attn.k_proj", "attn.k", "attn_k"],
            Linear::V => ["self_attn.v_proj", "attn.v", "attn_v"],
            Linear::Out => ["self_attn.o_proj", "attn.out", "attn_output"],
            Linear::Router => ["mlp.router", "mlp.gate", "ffn_gate_inp"],
        };
        pick(layout, names)
    }

    /// Rows, columns.
    pub fn shape(self, config: &Config) -> [usize; 2] {
        let d = config.hidden_size;
        match self {
            Linear::Q => [config.query_size(), d],
            Linear::K | Linear::V => [config.kv_size(), d],
            Linear::Out => [d, config.query_size()],
            Linear::Router => [config.num_experts, d],
        }
    }

    /// Where a file has q, k and v in one matrix: its stem, and the first row of this one in it.
    pub fn fused(self, layout: Layout, config: &Config) -> Option<(&'static str, usize)> {
        let first = match self {
            Linear::Q => 0,
            Linear::K => config.query_size(),
            Linear::V => config.query_size() + config.kv_size(),
            Linear::Out | Linear::Router => return None,
        };
        Some((pick(layout, ["self_attn.qkv_proj", "attn.qkv", "attn_qkv"]), first))
    }
}

impl Which {
    /// The name in a block of the layouts that have this matrix.
    pub fn stem(self, layout: Layout) -> &'static str {
        let names = match self {
            Which::GateUp | Which::Gate => ["mlp.experts.gate_up_proj", "mlp.mlp1", "ffn_gate_exps"],
            Which::Up => ["mlp.experts.gate_up_proj", "mlp.mlp1", "ffn_up_exps"],
            Which::Down => ["mlp.experts.down_proj", "mlp.mlp2", "ffn_down_exps"],
        };
        pick(layout, names)
    }

    /// Rows and columns of one expert's matrix.
    pub fn shape(self, config: &Config) -> [usize; 2] {
        let (d, i) = (config.hidden_size, config.intermediate_size);
        match self {
            Which::GateUp => [2 * i, d],
            Which::Gate | Which::Up => [i, d],
            Which::Down => [d, i],
        }
    }
}

impl Item {
    /// The name in a file that is written: Hugging Face's or GGUF's. Packed and dequantized experts of the former add
    /// their own endings.
    pub fn name(self, layout: Layout) -> String {
        let outside = |names| pick(layout, names).to_owned();
        let inside = |layer, names| in_block(layout, layer, pick(layout, names));
        let ending = |layer, stem, ending| in_block(layout, layer, &format!("{stem}{ending}"));
        match self {
            Item::Embedding => outside(["model.embed_tokens.weight", "embedding.weight", "token_embd.weight"]),
            Item::Unembedding => outside(["lm_head.weight", "unembedding.weight", "output.weight"]),
            Item::Norm => outside(["model.norm.weight", "norm.scale", "output_norm.weight"]),
            Item::AttentionNorm(l) => inside(l, ["input_layernorm.weight", "attn.norm.scale", "attn_norm.weight"]),
            Item::MlpNorm(l) => {
                inside(l, ["post_attention_layernorm.weight", "mlp.norm.scale", "post_attention_norm.weight"])
            }
            Item::Sinks(l) => inside(l, ["self_attn.sinks", "attn.sinks", "attn_sinks.weight"]),
            Item::Weight(l, linear) => ending(l, linear.stem(layout), ".weight"),
            Item::Bias(l, linear) => ending(l, linear.stem(layout), ".bias"),
            Item::Experts(l, which) => ending(l, which.stem(layout), pick(layout, ["", "_weight", ".weight"])),
            Item::ExpertBiases(l, which) => ending(l, which.stem(layout), pick(layout, ["_bias", "_bias", ".bias"])),
        }
    }

    /// The shape, row-major.
    pub fn shape(self, config: &Config) -> Vec<usize> {
        let (d, e, v) = (config.hidden_size, config.num_experts, config.vocab_size);
        match self {
            Item::Embedding | Item::Unembedding => vec![v, d],
            Item::Norm | Item::AttentionNorm(_) | Item::MlpNorm(_) => vec![d],
            Item::Sinks(_) => vec![config.num_heads],
            Item::Weight(_, linear) => linear.shape(config).into(),
            Item::Bias(_, linear) => vec![linear.shape(config)[0]],
            Item::Experts(_, which) => [&[e], &which.shape(config)[..]].concat(),
            Item::ExpertBiases(_, which) => vec![e, which.shape(config)[0]],
        }
    }
}

/// All parts in model order, the experts' matrices as `experts` names them.
pub(super) fn items(config: &Config, experts: &[Which]) -> Vec<Item> {
    let mut items = vec![Item::Embedding];
    for layer in 0..config.num_layers {
        let linear = |linear| [Item::Weight(layer, linear), Item::Bias(layer, linear)];
        items.push(Item::AttentionNorm(layer));
        items.extend([Linear::Q, Linear::K, Linear::V, Linear::Out].into_iter().flat_map(linear));
        items.extend([Item::Sinks(layer), Item::MlpNorm(layer)]);
        items.extend(linear(Linear::Router));
        items.extend(experts.iter().flat_map(|&w| [Item::Experts(layer, w), Item::ExpertBiases(layer, w)]));
    }
    items.extend([Item::Norm, Item::Unembedding]);
    items
}
