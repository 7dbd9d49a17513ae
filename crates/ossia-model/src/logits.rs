//! Logits of a step, where they were made: on a GPU the best token of each row is known without copying any.

use std::cell::OnceCell;

use ossia_kernels::arena::Arena;
use ossia_kernels::cuda::Device;
use ossia_kernels::ops::sample;
use ossia_kernels::{Result, Tensor};

/// Rows of logits [R, V].
pub struct StepLogits {
    made: Tensor,
    /// The lowest id of each row's largest logit, or nothing where one is not finite; only on a device.
    best: Option<Vec<Option<u32>>>,
    /// Where they were copied to when somebody asked for a row.
    copy: OnceCell<Tensor>,
    arena: Arena,
}

impl StepLogits {
    pub(crate) fn new(made: Tensor, device: &Device, arena: &Arena) -> Result<Self> {
        let best = sample::best(&made, device)?;
        Ok(Self { made, best, copy: OnceCell::new(), arena: arena.clone() })
    }

    /// Whether all of them are.
    pub(crate) fn is_finite(&self) -> bool {
        match &self.best {
            Some(best) => best.iter().all(Option::is_some),
            None => self.made.host().iter().all(|v| v.is_finite()),
        }
    }

    /// The token that greedy sampling takes of a row, where that is known without the row.
    pub fn best(&self, row: usize) -> Option<u32> {
        self.best.as_ref()?[row]
    }

    /// The logits [V] of a row. The first call copies all rows from a device.
    pub fn row(&self, row: usize) -> Result<&[f32]> {
        if self.made.is_host() {
            return Ok(self.made.row(row));
        }
        if let Some(copy) = self.copy.get() {
            return Ok(copy.row(row));
        }
        let copy = self.made.copy_to_host(&self.arena)?;
        Ok(self.copy.get_or_init(|| copy).row(row))
    }

    /// All rows, in this machine's memory.
    pub fn into_host(self) -> Result<Tensor> {
        match self.copy.into_inner() {
            Some(copy) => Ok(copy),
            None => self.made.into_host(&self.arena),
        }
    }
}
