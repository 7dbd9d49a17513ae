//! Lists of tokens that meet the same weights: all of a dense layer's, those of one expert.
//!
//! Kernels for many tokens want those of a list side by side: see `packed`.

use std::ops::Range;

#[cfg(target_arch = "x86_64")]
use super::packed::Packed;
use super::{Input, Panel, TILE, tile};
use crate::cpu::isa::Isa;
use crate::matrix::Matrix;
use crate::{Result, Runtime};

/// Tokens of a list, at most.
pub const MOST_TOKENS: usize = 128;

/// Tiles that are taken at once, at most.
pub const MOST_TILES: usize = 4;

/// What a tile's rows give with a list's tokens: [tokens, rows].
pub type Products = [[f32; TILE]; MOST_TOKENS];

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
    pub fn scratch_bytes(isa: Isa, lists: usize, tokens: usize, cols: usize) -> usize {
        #[cfg(target_arch = "x86_64")]
        return Packed::scratch_bytes(isa, lists, tokens, cols);
        #[cfg(not(target_arch = "x86_64"))]
        {
            let _ = (isa, lists, tokens, cols);
            0
        }
    }

    /// The tokens of a list.
    pub fn tokens(&self, list: usize) -> &'a [u32] {
        self.lists[list]
    }

    /// Cuts tiles into runs that are taken at once for a list: single tiles, or up to [`MOST_TILES`].
    pub fn runs(&self, list: usize, tiles: &Range<usize>) -> impl Iterator<Item = Range<usize>> + use<> {
        #[cfg(target_arch = "x86_64")]
        let size = self.packed.as_ref().map_or(1, |packed| packed.tiles_at_once(list));
        #[cfg(not(target_arch = "x86_64"))]
        let (size, _) = (1, list);
        let end = tiles.end;
        tiles.clone().step_by(size).map(move |tile| tile..end.min(tile + size))
    }

    /// out[t][i][r] = W[16 (tiles.start + t) + r] · x[tokens[i]] for a list and some tiles of sixteen rows, one of
    /// [`Self::runs`]; rows past the last repeat it.
    pub fn tiles(&self, list: usize, m: &Matrix, tiles: Range<usize>, panel: &mut Panel, out: &mut [Products]) {
        let tokens = self.lists[list];
        assert!((tiles.end - 1) * TILE < m.rows());
        // The wider kernels for integers take sixteen rows or none; the scalar ones give the same bits.
        let integers = m.kind().is_quantized() && !matches!(self.x, Input::Float(_));
        let isa = if integers && m.rows() < TILE { Isa::Scalar } else { self.isa };
        let out = &mut out[..tiles.len()];
        #[allow(unused_mut)]
        let mut done = 0;
        #[cfg(target_arch = "x86_64")]
        if let (true, Some(packed)) = (isa == self.isa, &self.packed) {
            done = packed.tiles((list, tokens.len()), m, tiles.clone(), panel, out);
        }
        if done == tokens.len() {
            return;
        }
        for (number, out) in tiles.zip(out) {
            let out = &mut out[done..tokens.len()];
            tile(isa, m, number * TILE, self.x, &tokens[done..], panel, out);
        }
    }
}
