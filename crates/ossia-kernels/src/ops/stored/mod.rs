//! What the forward pass of training sees of the weights: the numbers themselves, or what a file will hold of them.
//!
//! On a device matrices are seen in bf16 in any case, and what decides or is small (routers, norms, biases, sinks) in f32.
//!
//! Shapes: weights and seen [n], tensors as ranges of both.

mod cpu;
mod cuda;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use std::ops::Range;

use crate::cuda::{Device, Gpu};
use crate::{Result, Runtime};

/// How a tensor is to be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As it is.
    Whole,
    /// As BF16 holds it.
    Bf16,
    /// As MXFP4 holds it; the tensor is whole groups along its input.
    Mxfp4,
}

/// A tensor of the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its numbers.
    pub range: Range<usize>,
    /// Whether a device needs it in f32.
    pub exact: bool,
}

fn exact(tensors: &[Stored]) -> Vec<Range<usize>> {
    tensors.iter().filter(|tensor| tensor.exact).map(|tensor| tensor.range.clone()).collect()
}

/// Takes the run that will be seen, as [`Runtime::hold`] does. `tensors` are ascending.
pub fn hold(runtime: &Runtime, seen: &[f32], tensors: &[Stored]) -> Result<()> {
    match &runtime.device {
        Device::Cpu => Ok(()),
        Device::Cuda(gpu) => gpu.hold_seen(seen, &exact(tensors)),
    }
}

/// Bytes that a device takes for that.
pub fn gpu_bytes(len: usize, tensors: &[Stored]) -> usize {
    Gpu::seen_bytes(len, &exact(tensors))
}

/// Shows the run `weights` anew: `tensors` are all of it, in order, `form` says how each is seen.
pub fn look(
    runtime: &Runtime,
    weights: &[f32],
    seen: &mut [f32],
    tensors: &[Stored],
    form: &(dyn Fn(usize) -> Form + Sync),
) -> Result<()> {
    match &runtime.device {
        Device::Cpu => {
            cpu::look(runtime, weights, seen, tensors, form);
            Ok(())
        }
        Device::Cuda(gpu) => cuda::look(gpu, weights, seen, tensors, form),
    }
}
