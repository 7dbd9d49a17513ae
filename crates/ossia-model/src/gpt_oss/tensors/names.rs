//! What each layout calls the tensors: SPEC 2.1 to 2.3.

use crate::checkpoint::{Checkpoint, Layout};

/// The names of one layout. Those of a block are suffixes to [`Names::in_block`].
#[derive(Clone, Copy)]
pub struct Names {
    pub embedding: &'static str,
    pub unembedding: &'static str,
    pub norm: &'static str,
    block: &'static str,
    pub attention_norm: &'static str,
    pub mlp_norm: &'static str,
    /// q, k and v in one matrix, where the file has it.
    pub qkv: &'static str,
    pub q_k_v: [&'static str; 3],
    pub out: &'static str,
    pub sinks: &'static str,
    /// The first that is there.
    pub routers: &'static [&'static str],
}

const HUGGING_FACE: Names = Names {
    embedding: "model.embed_tokens.weight",
    unembedding: "lm_head.weight",
    norm: "model.norm.weight",
    block: "model.layers.",
    attention_norm: "input_layernorm.weight",
    mlp_norm: "post_attention_layernorm.weight",
    qkv: "self_attn.qkv_proj",
    q_k_v: ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    out: "self_attn.o_proj",
    sinks: "self_attn.sinks",
    routers: &["mlp.router", "mlp.router.linear"],
};

const ORIGINAL: Names = Names {
    embedding: "embedding.weight",
    unembedding: "unembedding.weight",
    norm: "norm.scale",
    block: "block.",
    attention_norm: "attn.norm.scale",
    mlp_norm: "mlp.norm.scale",
    qkv: "attn.qkv",
    q_k_v: ["attn.q", "attn.k", "attn.v"],
    out: "attn.out",
    sinks: "attn.sinks",
    routers: &["mlp.gate"],
};

const GGUF: Names = Names {
    embedding: "token_embd.weight",
    unembedding: "output.weight",
    norm: "output_norm.weight",
    block: "blk.",
    attention_norm: "attn_norm.weight",
    mlp_norm: "post_attention_norm.weight",
    qkv: "attn_qkv",
    q_k_v: ["attn_q", "attn_k", "attn_v"],
    out: "attn_output",
    sinks: "attn_sinks.weight",
    routers: &["ffn_gate_inp"],
};

impl Names {
    /// The names that `checkpoint`'s layout uses.
    pub fn of(checkpoint: &Checkpoint) -> Self {
        Self::of_layout(checkpoint.layout())
    }

    /// The names of a layout.
    pub fn of_layout(layout: Layout) -> Self {
        match layout {
            Layout::HuggingFace => HUGGING_FACE,
            Layout::Original => ORIGINAL,
            Layout::Gguf => GGUF,
        }
    }

    /// The full name of a block's tensor.
    pub fn in_block(&self, layer: usize, suffix: &str) -> String {
        format!("{}{layer}.{suffix}", self.block)
    }
}
