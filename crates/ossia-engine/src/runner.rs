//! What the engine needs of a model. The real one is `ossia_model::Model`; tests have one that sees which pages it is given.

use std::panic::{AssertUnwindSafe, catch_unwind};

use ossia_model::gpt_oss::adapter;
use ossia_model::gpt_oss::config::LayerKind;
use ossia_model::kv_cache::PageCounts;
use ossia_model::{Error, Model, Paged, StepLogits};

use crate::adapter::{AttachError, NewAdapter};

/// A model that computes steps over pages that the engine gives out.
pub trait Runner: Send + 'static {
    /// Rows of logits.
    type Logits: Rows;

    /// What it can do.
    fn shape(&self) -> Shape;

    /// One step. May be called again with the same work, whole or in parts, when it failed.
    fn step(&mut self, work: &[Paged]) -> Result<Self::Logits, StepError>;

    /// Attaches an adapter; its slot is what [`Paged::adapter`] names. An error, for a person, where it does not fit.
    fn attach(&mut self, new: &NewAdapter) -> Result<usize, AttachError>;

    /// Takes it away. No sequence names its slot any more.
    fn detach(&mut self, slot: usize);

    /// Copies a page in all layers of a kind.
    fn copy_page(&mut self, kind: LayerKind, from: u32, to: u32);
}

/// Rows of logits.
pub trait Rows {
    /// The logits [V] of a row. An error, for a person, where they could not be had.
    fn row(&self, row: usize) -> Result<&[f32], String>;

    /// The token that greedy sampling takes of a row, where that is known without the row.
    fn best(&self, row: usize) -> Option<u32>;
}

/// What a model can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Tokens of the vocabulary.
    pub vocab: usize,
    /// Positions of a sequence.
    pub context: usize,
    /// Sequences at once.
    pub sequences: usize,
    /// New tokens of a step.
    pub tokens: usize,
    /// Rows of logits of a step.
    pub logits_rows: usize,
    /// Positions that a layer with a window sees.
    pub window: usize,
    /// Pages.
    pub pages: PageCounts,
}

/// A step that failed. Nothing counts as computed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepError {
    /// The numbers of one row are broken.
    Row {
        /// The row in the batch.
        row: usize,
        /// What is told to its client.
        message: String,
    },
    /// The whole step broke.
    Whole(String),
}

impl Rows for StepLogits {
    fn row(&self, row: usize) -> Result<&[f32], String> {
        StepLogits::row(self, row).map_err(|error| error.to_string())
    }

    fn best(&self, row: usize) -> Option<u32> {
        StepLogits::best(self, row)
    }
}

impl Runner for Model {
    type Logits = StepLogits;

    fn shape(&self) -> Shape {
        let options = self.options();
        Shape {
            vocab: self.config().vocab_size,
            context: options.context,
            sequences: options.sequences,
            tokens: options.batch_tokens(),
            logits_rows: options.logits_rows,
            window: self.config().sliding_window,
            pages: options.pages(self.config()),
        }
    }

    fn step(&mut self, work: &[Paged]) -> Result<StepLogits, StepError> {
        match catch_unwind(AssertUnwindSafe(|| self.step_paged(work))) {
            Ok(Ok(logits)) => Ok(logits),
            Ok(Err(Error::Fault(fault))) => Err(StepError::Row { row: fault.row, message: fault.to_string() }),
            Ok(Err(error)) => Err(StepError::Whole(error.to_string())),
            Err(_) => Err(StepError::Whole("the model's step panicked; its message is in the server's log".into())),
        }
    }

    fn attach(&mut self, new: &NewAdapter) -> Result<usize, AttachError> {
        Model::attach(self, &new.parameters, &new.values).map_err(|error| match error {
            // Where nothing is attached there will never be more room.
            adapter::Error::Room { held: 1.., .. } => AttachError::NoRoom(error.to_string()),
            error => AttachError::Refused(error.to_string()),
        })
    }

    fn detach(&mut self, slot: usize) {
        Model::detach(self, slot);
    }

    fn copy_page(&mut self, kind: LayerKind, from: u32, to: u32) {
        Model::copy_page(self, kind, from, to);
    }
}
