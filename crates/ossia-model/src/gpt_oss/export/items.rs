//! The parts of a model, what every layout calls them, and their shapes: SPEC 2.1 to 2.3.
//!
//! Letters: D hidden size, E experts, I units of an expert, V vocabulary.

use crate::checkpoint::Layout;
use crate::gpt_oss::config::Config;
use crate::gpt_oss::tensors::names::Names;

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

impl Linear {
    /// The name in a block, without ".weight" or ".bias".
    pub fn stem(self, layout: Layout) -> &'static str {
        let names = Names::of_layout(layout);
        match self {
            Linear::Q => names.q_k_v[0],
            Linear::K => names.q_k_v[1],
            Linear::V => names.q_k_v[2],
            Linear::Out => names.out,
            Linear::Router => names.routers[0],
        }
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
        Some((Names::of_layout(layout).qkv, first))
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
        let names = Names::of_layout(layout);
        let ending = |layer, stem, ending| names.in_block(layer, &format!("{stem}{ending}"));
        match self {
            Item::Embedding => names.embedding.to_owned(),
            Item::Unembedding => names.unembedding.to_owned(),
            Item::Norm => names.norm.to_owned(),
            Item::AttentionNorm(l) => names.in_block(l, names.attention_norm),
            Item::MlpNorm(l) => names.in_block(l, names.mlp_norm),
            Item::Sinks(l) => names.in_block(l, names.sinks),
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
