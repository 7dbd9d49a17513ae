//! Lists of tokens that meet the same weights: all of a dense layer's, those of one expert.
//!
//! Kernels for many tokens want those of a list side by side: see `packed`.

#[cfg(target_arch = "x86_64")]
use super::packed::Packed;
use super::{Input, Panel, TILE, tile};
use crate::cpu::isa::Isa;
use crate::matrix::Matrix;
use crate::{Result, Runtime};

/// Tokens of a list, at most.
pub const MOST_TOKENS: usize = 128;

/// Some lists of tokens of an input.
pub struct Lists<'a> {
    isa: Isa,
    x: &'a Input<'a>,
    lists: Vec<&'a [u32]>,
    #[cfg(target_arch = "x86_64")]
    packed: Option<Packed>,
}

impl<'a> Lists<'a> {
    /// Makes `lists` of tokens of `x`, rows of `cols`, ready. None is longer than [`MOST_TOKENS`].
    pub fn new(runtime: &Runtime, x: &'a Input<'a>, cols: usize, lists: Vec<&'a [u32]>) -> Result<Self> {
        assert!(lists.iter().all(|list| list.len() <= MOST_TOKENS));
        #[cfg(target_arch = "x86_64")]
        let packed = Packed::new(runtime, x, cols, &lists)?;
        let isa = runtime.isa;
        let _ = cols;
        Ok(Self {
            isa,
            x,
            lists,
            #[cfg(target_arch = "x86_64")]
            packed,
        })
    }

    /// Bytes of scratch for up to `lists` lists that have up to `tokens` tokens in all.
    pub fn scratch_bytes(lists: usize, tokens: usize, cols: usize) -> usize {
        #[cfg(target_arch = "x86_64")]
        return Packed::scratch_bytes(lists, tokens, cols);
        #[cfg(not(target_arch = "x86_64"))]
        {
            let _ = (lists, tokens, cols);
            0
        }
    }

    /// The tokens of a list.
    pub fn tokens(&self, list: usize) -> &'a [u32] {
        self.lists[list]
    }

    /// out[i][r] = W[row + r] · x[tokens[i]] for a list and the sixteen rows from `row` on; rows past the last repeat it.
    pub fn tile(&self, list: usize, m: &Matrix, row: usize, panel: &mut Panel, out: &mut [[f32; TILE]]) {
        let tokens = self.lists[list];
        assert!(row < m.rows() && tokens.len() == out.len());
        // The wider kernels for integers take sixteen rows or none; the scalar ones give the same bits.
        let integers = m.kind().is_quantized() && !matches!(self.x, Input::Float(_));
        let isa = if integers && m.rows() < TILE { Isa::Scalar } else { self.isa };
        #[allow(unused_mut)]
        let mut done = 0;
        #[cfg(target_arch = "x86_64")]
        if let (true, Some(packed)) = (isa == self.isa, &self.packed) {
            done = packed.tile(list, self.x, m, row, panel, out);
        }
        if done == tokens.len() {
            return;
        }
        let (tokens, out) = (&tokens[done..], &mut out[done..]);
        tile(isa.without_amx(), m, row, self.x, tokens, panel, out);
    }
}
