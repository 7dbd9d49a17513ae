//! gpt-oss for Ossia: checkpoints in every published layout, and the forward pass.
//!
//! Knows no text and no request. The one memory map of the project is in `checkpoint/map.rs`.
#![deny(unsafe_code)]

pub mod checkpoint;
mod fault;
pub mod gpt_oss;
pub mod kv_cache;
mod logits;
mod model;
mod on_gpu;
mod plan;
mod stop;

pub use fault::Fault;
pub use logits::StepLogits;
pub use model::{Error, Logits, Model, Options, Paged, Work};
pub use plan::{DoesNotFit, Plan};
pub use stop::Stop;
