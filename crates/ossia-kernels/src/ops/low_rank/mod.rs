//! y += s B (A x): what an adapter adds to some outputs of a linear layer.
//!
//! Shapes: A [r, K], B [N, r], x [T, K]; y [T, N] is a range of columns of the layer's output. With u = s A x and
//! v = s dy B the gradients are dB += dyᵀ u, dA += vᵀ x, dx += v A.
//!
//! The numbers are f32 in both precisions, lent and never copied. In inference an element of u or of the sum over r is
//! `cpu::lanes`' dot product, so a token's bits do not depend on its company or on how prompts are cut, and tokens of
//! different adapters share a step; in training both products are `cpu::gemm`'s, and a step has one adapter.

mod cpu;
pub(crate) mod cuda;
#[cfg(test)]
pub(crate) mod reference;
#[cfg(test)]
mod tests;
mod train;

use std::sync::{Arc, OnceLock};

use crate::arena::Arena;
use crate::cuda::Gpu;
use crate::{FloatPart, Result};

pub(crate) use cpu::{Share, add, add_products, products};
pub(crate) use train::{add_backward, add_forward, scale};

/// An adapter's part for some outputs of a linear layer.
#[derive(Clone, Debug)]
pub struct LowRank {
    a: FloatPart,
    b: FloatPart,
    rank: usize,
    scale: f32,
    first: usize,
}

impl LowRank {
    /// A [rank, K] and B [N, rank] for the outputs from `first` on, scaled by `scale`.
    ///
    /// # Panics
    /// Where the numbers are not whole rows of `rank`.
    pub fn new(a: FloatPart, b: FloatPart, rank: usize, scale: f32, first: usize) -> Self {
        assert!(rank > 0 && a.len().is_multiple_of(rank) && b.len().is_multiple_of(rank), "low_rank: whole rows");
        Self { a, b, rank, scale, first }
    }

    /// K.
    pub fn cols(&self) -> usize {
        self.a.len() / self.rank
    }

    pub(crate) fn factors(&self) -> cuda::Factors<'_> {
        let (a, b) = (std::slice::from_ref(&self.a), std::slice::from_ref(&self.b));
        cuda::Factors { a, b, rank: self.rank, scale: self.scale, outputs: self.outputs() }
    }

    /// The outputs.
    pub fn outputs(&self) -> std::ops::Range<usize> {
        self.first..self.first + self.b.len() / self.rank
    }
}

/// What is attached to a weight, by slot.
#[derive(Clone, Debug)]
pub struct Slots<T> {
    values: Vec<Option<T>>,
    /// A device's copy of them all, until one changes.
    copy: OnceLock<Arc<cuda::Attached>>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { values: Vec::new(), copy: OnceLock::new() }
    }
}

impl<T> Slots<T> {
    /// Puts `value` into `slot`; what was there is dropped.
    pub fn put(&mut self, slot: usize, value: T) {
        if self.values.len() <= slot {
            self.values.resize_with(slot + 1, || None);
        }
        self.values[slot] = Some(value);
        self.copy.take();
    }

    /// Empties `slot`.
    pub fn clear(&mut self, slot: usize) {
        if let Some(place) = self.values.get_mut(slot) {
            *place = None;
        }
        self.copy.take();
    }

    /// What is in `slot`.
    pub fn get(&self, slot: Option<usize>) -> Option<&T> {
        self.values.get(slot?)?.as_ref()
    }

    /// Whether all are empty.
    pub fn is_empty(&self) -> bool {
        self.values.iter().all(Option::is_none)
    }

    /// The first empty slot.
    pub fn vacant(&self) -> usize {
        self.values.iter().position(Option::is_none).unwrap_or(self.values.len())
    }

    /// The slots that hold something, in order.
    pub(crate) fn used(&self) -> impl Iterator<Item = (usize, &T)> {
        self.values.iter().enumerate().filter_map(|(slot, value)| Some((slot, value.as_ref()?)))
    }

    /// What a device has of them; `factors` are those of a slot. Nothing where all are empty.
    pub(crate) fn on_gpu<'a>(
        &'a self,
        gpu: &Gpu,
        factors: impl Fn(&'a T) -> Vec<cuda::Factors<'a>>,
    ) -> Result<Option<Arc<cuda::Attached>>> {
        if self.is_empty() {
            return Ok(None);
        }
        if let Some(copy) = self.copy.get() {
            return Ok(Some(copy.clone()));
        }
        let all: Vec<_> = self.values.iter().map(|value| value.as_ref().map_or(Vec::new(), &factors)).collect();
        let made = Arc::new(cuda::Attached::new(gpu, &all)?);
        Ok(Some(self.copy.get_or_init(|| made).clone()))
    }
}

/// Where the gradients of a [`LowRank`] are added.
pub struct LowRankGrad<'a> {
    /// [r, K].
    pub a: &'a mut [f32],
    /// [N, r].
    pub b: &'a mut [f32],
}

/// Bytes of scratch for `tokens` rows through adapters of `rank` for `parts` ranges of outputs, in either phase, besides
/// that of `cpu::gemm`.
pub fn scratch_bytes(tokens: usize, parts: usize, rank: usize) -> usize {
    Arena::size_of::<f32>(tokens * parts * rank).max(2 * Arena::size_of::<f32>(tokens * rank))
}
