//! How many bytes of memory a decoded token reads: what bandwidth bounds.

use ossia_kernels::Matrix;
use ossia_kernels::ops::linear::Linear;

use super::forward::Transformer;

impl Transformer {
    /// Bytes of weights that one token alone in its step reads (SPEC 6).
    pub fn bytes_per_token(&self) -> usize {
        self.sum(Matrix::bytes, Matrix::bytes)
    }

    /// The same on a GPU, where dense weights are bf16 and routers f32.
    pub fn gpu_bytes_per_token(&self) -> usize {
        self.sum(|dense| 2 * dense.rows() * dense.cols(), |router| 4 * router.rows() * router.cols())
    }

    fn sum(&self, dense: fn(&Matrix) -> usize, router: fn(&Matrix) -> usize) -> usize {
        let of = |linear: &Linear, bytes: fn(&Matrix) -> usize| -> usize {
            linear.parts().iter().map(|part| bytes(&part.weight)).sum()
        };
        let blocks = self.blocks.iter().map(|block| {
            let (attention, mlp) = (&block.attention, &block.mlp);
            let expert = &mlp.experts.experts[0];
            let one = expert.gate.bytes() + expert.up.bytes() + expert.down.bytes();
            of(&attention.qkv, dense)
                + of(&attention.out, dense)
                + of(&mlp.router, router)
                + mlp.experts_per_token * one
        });
        blocks.sum::<usize>() + of(&self.unembedding, dense)
    }
}
