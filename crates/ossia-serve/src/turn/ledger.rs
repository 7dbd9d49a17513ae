//! Who pays: quotas, counters and logs hear of every generation here, whatever API it came by and however it ended.

use std::sync::Arc;

use super::{FinishReason, Usage};
use crate::auth::Identity;
use crate::error::ApiError;

/// Told of every generation.
pub trait Ledger: Send + Sync {
    /// Before a generation with so many prompt tokens: an error refuses it.
    fn admit(&self, identity: &Identity, prompt_tokens: usize) -> Result<(), ApiError>;

    /// After it, exactly once: what it took, and why it ended (None: the client went away).
    fn spent(&self, identity: &Identity, usage: &Usage, finish: Option<&FinishReason>);
}

/// A generation's entry: tells the ledger once, at the latest when it is dropped.
pub(super) struct Entry {
    ledger: Arc<dyn Ledger>,
    identity: Identity,
    closed: bool,
    /// As far as it is known.
    pub usage: Usage,
}

impl Entry {
    /// Opens an entry, if the ledger admits it.
    pub fn open(ledger: &Arc<dyn Ledger>, identity: Identity, prompt_tokens: usize) -> Result<Self, ApiError> {
        ledger.admit(&identity, prompt_tokens)?;
        let usage = Usage { prompt_tokens, ..Usage::default() };
        Ok(Self { ledger: Arc::clone(ledger), identity, closed: false, usage })
    }

    /// The generation has ended.
    pub fn close(&mut self, finish: Option<&FinishReason>) {
        if !std::mem::replace(&mut self.closed, true) {
            self.ledger.spent(&self.identity, &self.usage, finish);
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.close(None);
    }
}

/// A ledger that admits everything and keeps nothing.
pub struct NoLedger;

impl Ledger for NoLedger {
    fn admit(&self, _: &Identity, _: usize) -> Result<(), ApiError> {
        Ok(())
    }

    fn spent(&self, _: &Identity, _: &Usage, _: Option<&FinishReason>) {}
}
