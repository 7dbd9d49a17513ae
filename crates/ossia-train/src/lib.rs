//! Training gpt-oss from nothing: recipes, data, optimizers, safe checkpoints, metrics.
//!
//! `generate` makes conversations, `dataset` turns them into shards and batches, `metrics` keeps what happened and
//! `plot` draws it. Never uses the serving engine, and is never used by it.
#![forbid(unsafe_code)]

pub mod check;
pub mod dataset;
mod error;
pub mod eval;
pub mod finetune;
pub mod generate;
mod init;
mod losses;
pub mod metrics;
pub mod optimizer;
pub mod plot;
pub mod prepare;
pub mod recipe;
pub mod run;
pub mod saved;
pub mod schedule;
pub mod trainer;

pub use error::{Error, Result};
