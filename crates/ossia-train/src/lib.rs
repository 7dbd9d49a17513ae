//! Training gpt-oss from nothing: recipes, data, optimizers, safe checkpoints, metrics.
//!
//! `generate` makes conversations, `dataset` turns them into shards and batches, `metrics` keeps what happened and
//! `plot` draws it. Never uses the serving engine, and is never used by it.
#![forbid(unsafe_code)]

pub mod check;
pub mod dataset;
mod error;
pub mod generate;
pub mod metrics;
pub mod plot;

pub use error::{Error, Result};
