//! Adapters of a running engine: brought to the model's thread, used by any number of requests, and gone from the model
//! when nobody has them any more.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};

use ossia_kernels::Floats;
use ossia_model::gpt_oss::adapter::AdapterParameters;

use crate::runner::Runner;

/// An adapter as it comes from its files. Clones share its numbers.
#[derive(Clone)]
pub struct NewAdapter {
    /// Where its factors are.
    pub parameters: AdapterParameters,
    /// Their numbers.
    pub values: Floats,
}

/// Why an adapter was not attached; a text for a person.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttachError {
    /// Those that are attached leave too little of the memory that was planned for adapters.
    #[error("{0}")]
    NoRoom(String),
    /// It does not fit the model or its plan at all, or the engine ends.
    #[error("{0}")]
    Refused(String),
}

/// An adapter that is attached. A request holds it for as long as it waits or runs; when the last holder lets it go, it is
/// taken from the model.
pub struct Adapter {
    slot: usize,
    /// Never the same for two of an engine: what one has computed is not found by another in the same slot.
    salt: u64,
    gone: Box<dyn Fn(usize) + Send + Sync>,
}

impl Adapter {
    /// `number` counts the adapters of an engine; `gone` is told the slot when nobody holds it any more.
    pub(crate) fn new(slot: usize, number: u64, gone: Box<dyn Fn(usize) + Send + Sync>) -> Arc<Self> {
        // splitmix64.
        let z = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Arc::new(Self { slot, salt: z ^ (z >> 31), gone })
    }

    /// Its place in the model.
    pub fn slot(&self) -> usize {
        self.slot
    }

    /// A request's salt, for what was computed through this adapter.
    pub(crate) fn salted(&self, salt: u64) -> u64 {
        salt.wrapping_add(self.salt)
    }
}

impl Drop for Adapter {
    fn drop(&mut self) {
        (self.gone)(self.slot);
    }
}

impl std::fmt::Debug for Adapter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Adapter({})", self.slot)
    }
}

/// What is to be done to the model between two steps.
pub(crate) enum Errand {
    /// Attach this one, and tell its slot, or why not.
    Attach(Box<NewAdapter>, mpsc::SyncSender<Result<usize, AttachError>>),
    /// Nobody holds the adapter in this slot any more.
    Detach(usize),
}

impl Errand {
    /// Does it. What panics in it harms nobody.
    pub fn run(self, runner: &mut impl Runner) {
        match self {
            Self::Attach(new, told) => {
                let done = catch_unwind(AssertUnwindSafe(|| runner.attach(&new)));
                let done =
                    done.unwrap_or_else(|_| Err(AttachError::Refused("attaching the adapter panicked".to_owned())));
                // Who asks waits for the answer.
                let _ = told.send(done);
            }
            Self::Detach(slot) => {
                // A slot that cannot be freed stays taken, and is used by nobody.
                let _ = catch_unwind(AssertUnwindSafe(|| runner.detach(slot)));
            }
        }
    }
}
