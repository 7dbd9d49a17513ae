//! Continuous batching: many requests, one model, one thread that owns it.
//!
//! Token ids in, token ids out; no text and no network. A request's tokens depend on the request alone: not on who else
//! runs, how prompts are cut, what the prefix cache holds or whether its pages were taken away for a while.
#![forbid(unsafe_code)]

mod adapter;
mod core;
mod engine;
mod pages;
mod prefix_cache;
mod queue;
mod request;
mod runner;
mod scheduler;
mod sequence;
mod stats;
mod timing;

pub use adapter::{Adapter, AttachError, NewAdapter};
pub use core::EngineOptions;
pub use engine::{Engine, Limits, Ticket};
pub use request::{Constraint, Event, Finish, PromptLogprob, Refused, Request, Sink, TokenMask};
pub use runner::{Rows, Runner, Shape, StepError};
pub use stats::{PageStats, Stats};
