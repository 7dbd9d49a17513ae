//! Sums of squares of ranges of a run, in f64: the length of gradients, and whether all numbers are finite, since of f32 only
//! what is not finite has a square that is not.
//!
//! Shapes: x [n], one number for each range.

mod cpu;
mod cuda;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use std::ops::Range;

use crate::cuda::Device;
use crate::{Result, Runtime};

/// The sum over each of `ranges` of the run x, which is held where the runtime is a device's.
pub fn forward(runtime: &Runtime, x: &[f32], ranges: &[Range<usize>]) -> Result<Vec<f64>> {
    match &runtime.device {
        Device::Cpu => Ok(cpu::forward(runtime, x, ranges)),
        Device::Cuda(gpu) => cuda::forward(gpu, x, ranges),
    }
}

pub use cuda::scratch_len as gpu_scratch_len;
