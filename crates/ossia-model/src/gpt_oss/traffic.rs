//! How many bytes of memory a decoded token reads: what bandwidth bounds.

use super::forward::Transformer;

impl Transformer {
    /// Bytes of weights that one token alone in its step reads (SPEC 6).
    pub fn bytes_per_token(&self) -> usize {
        let blocks = self.blocks.iter().map(|block| {
            let (attention, mlp) = (&block.attention, &block.mlp);
            let expert = &mlp.experts.experts[0];
            let one = expert.gate.bytes() + expert.up.bytes() + expert.down.bytes();
            attention.qkv.bytes() + attention.out.bytes() + mlp.router.bytes() + mlp.experts_per_token * one
        });
        blocks.sum::<usize>() + self.unembedding.bytes()
    }
}
