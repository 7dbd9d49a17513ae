//! Fine-tuning.

pub mod data;
pub mod graders;
