//! The numbers of Ossia: one folder per op, every device, both directions.
//!
//! This crate knows no model, no file and no network. See `ARCHITECTURE.md` for the rules that hold here.

pub mod arena;
mod bytes;
pub mod cpu;
pub mod cuda;
mod dtype;
mod error;
pub mod kv;
pub mod matrix;
pub mod mxfp4;
pub mod ops;
pub mod pool;
pub mod quantize_mxfp4;
pub mod quantize_weights;
mod runs;
mod step;
mod tensor;
#[cfg(test)]
mod testing;

pub use bytes::{Bytes, FloatPart, Floats};
pub use dtype::DType;
pub use error::{Error, Result};
pub use matrix::Matrix;
pub use step::{Phase, Precision, Runtime, Sequence, Step, Tap};
pub use tensor::{Buffer, Tensor};
