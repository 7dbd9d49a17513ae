//! A flag that ends a step early: whoever no longer wants an answer need not wait for a long chunk of its prompt.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Nothing, or a flag that others may raise from another thread or a signal's handler.
#[derive(Clone, Debug, Default)]
pub struct Stop(Option<Arc<AtomicBool>>);

impl Stop {
    /// This flag.
    pub fn at(flag: Arc<AtomicBool>) -> Self {
        Self(Some(flag))
    }

    /// Whether it is raised.
    pub fn is_raised(&self) -> bool {
        self.0.as_ref().is_some_and(|flag| flag.load(Ordering::Relaxed))
    }
}
