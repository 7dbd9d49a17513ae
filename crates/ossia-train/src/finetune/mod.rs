//! Fine-tuning: a model that exists learns from a user's own data, as an adapter or as a whole.
//!
//! `config` is what a user can say, `data` turns files into documents, `subject` is what is trained and `tuner` moves it;
//! `sft`, `dpo` and `grpo` are the ways to learn; `run` goes from the first measurement to the finished adapter, and
//! `kept` is what it leaves on disk. Nothing here opens a socket.

mod begin;
mod check;
pub mod config;
pub mod data;
pub mod dpo;
pub mod finder;
pub mod graders;
pub mod grpo;
pub mod kept;
pub mod objective;
pub mod outcome;
pub mod plan;
pub mod run;
pub mod sft;
pub mod subject;
pub mod tuner;

pub use config::{Config, Method};
pub use run::{Base, Job, Watcher, run};
