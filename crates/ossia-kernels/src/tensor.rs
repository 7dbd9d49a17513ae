//! Activations: row-major matrices of f32. Rows are tokens, columns are channels.

use std::borrow::Cow;

use crate::arena::{Arena, Slice};
use crate::cuda::{self, Device, Gpu};
use crate::ops::rms_norm;
use crate::{Result, Runtime};

/// Where the numbers live. The only type that names every device: each op holds one exhaustive `match` over it.
pub enum Buffer {
    /// Scratch of this machine's memory.
    Cpu(Slice<f32>),
    /// Scratch of a GPU's memory.
    Cuda(cuda::Slice),
}

/// A matrix of activations, in scratch.
pub struct Tensor {
    rows: usize,
    cols: usize,
    data: Buffer,
}

impl Tensor {
    /// A matrix in the machine's memory whose values are left over from earlier use; the caller fills it.
    pub fn scratch(arena: &Arena, rows: usize, cols: usize) -> Result<Self> {
        Ok(Self { rows, cols, data: Buffer::Cpu(arena.take(rows * cols)?) })
    }

    /// The same where `runtime` computes.
    pub fn new(runtime: &Runtime, rows: usize, cols: usize) -> Result<Self> {
        match &runtime.device {
            Device::Cpu => Self::scratch(&runtime.arena, rows, cols),
            Device::Cuda(gpu) => Self::on_gpu(gpu, rows, cols),
        }
    }

    /// Zeros where `runtime` computes.
    pub fn zeros(runtime: &Runtime, rows: usize, cols: usize) -> Result<Self> {
        let mut zeros = Self::new(runtime, rows, cols)?;
        match &mut zeros.data {
            Buffer::Cpu(values) => values.fill(0.0),
            Buffer::Cuda(slice) => slice.clear()?,
        }
        Ok(zeros)
    }

    /// A copy in the same memory.
    pub fn copy(&self, runtime: &Runtime) -> Result<Self> {
        let mut copy = Self::new(runtime, self.rows, self.cols)?;
        match (&mut copy.data, &self.data) {
            (Buffer::Cpu(to), Buffer::Cpu(from)) => to.copy_from_slice(from),
            (Buffer::Cuda(to), Buffer::Cuda(from)) => to.copy_from(from)?,
            _ => unreachable!("made where the runtime computes"),
        }
        Ok(copy)
    }

    /// The same in a GPU's memory.
    pub(crate) fn on_gpu(gpu: &Gpu, rows: usize, cols: usize) -> Result<Self> {
        Ok(Self { rows, cols, data: Buffer::Cuda(gpu.take(rows * cols)?) })
    }

    /// A matrix in scratch that was lent already.
    pub(crate) fn lent(slice: cuda::Slice, rows: usize, cols: usize) -> Self {
        Self { rows, cols, data: Buffer::Cuda(slice) }
    }

    /// Numbers of the host, in a GPU's memory.
    #[cfg(test)]
    pub(crate) fn from_host(gpu: &Gpu, rows: usize, cols: usize, values: &[f32]) -> Result<Self> {
        assert_eq!(values.len(), rows * cols, "a matrix of this shape");
        Ok(Self { rows, cols, data: Buffer::Cuda(gpu.uploaded(values)?) })
    }

    /// Tokens.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Channels.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The device's memory.
    pub fn buffer(&self) -> &Buffer {
        &self.data
    }

    /// The values on the host, row by row.
    ///
    /// # Panics
    /// Where they are on a device: see [`Tensor::values`].
    pub fn host(&self) -> &[f32] {
        match &self.data {
            Buffer::Cpu(values) => values,
            Buffer::Cuda(_) => panic!("the tensor is on a GPU"),
        }
    }

    /// The values on the host, to be changed.
    ///
    /// # Panics
    /// Where they are on a device.
    pub fn host_mut(&mut self) -> &mut [f32] {
        match &mut self.data {
            Buffer::Cpu(values) => values,
            Buffer::Cuda(_) => panic!("the tensor is on a GPU"),
        }
    }

    /// The values, row by row, wherever they are: a copy where they are on a device.
    pub fn values(&self) -> Result<Cow<'_, [f32]>> {
        match &self.data {
            Buffer::Cpu(values) => Ok(Cow::Borrowed(values)),
            Buffer::Cuda(slice) => slice.download().map(Cow::Owned),
        }
    }

    /// Whether all values are finite; `device` is where they are.
    pub fn is_finite(&self, device: &Device) -> Result<bool> {
        match (device, &self.data) {
            (Device::Cuda(gpu), Buffer::Cuda(_)) => rms_norm::is_finite(gpu, self),
            _ => Ok(self.host().iter().all(|v| v.is_finite())),
        }
    }

    /// Whether the values are in this machine's memory.
    pub fn is_host(&self) -> bool {
        matches!(self.data, Buffer::Cpu(_))
    }

    /// The same matrix in this machine's memory.
    pub fn into_host(self, arena: &Arena) -> Result<Self> {
        if self.is_host() { Ok(self) } else { self.copy_to_host(arena) }
    }

    /// A copy in this machine's memory.
    pub fn copy_to_host(&self, arena: &Arena) -> Result<Self> {
        let mut host = Self::scratch(arena, self.rows, self.cols)?;
        match &self.data {
            Buffer::Cpu(values) => host.host_mut().copy_from_slice(values),
            Buffer::Cuda(slice) => slice.download_to(host.host_mut())?,
        }
        Ok(host)
    }

    /// The numbers on a device, for a kernel.
    ///
    /// # Panics
    /// Where they are not there.
    pub(crate) fn device(&self) -> &cuda::Slice {
        match &self.data {
            Buffer::Cuda(slice) => slice,
            Buffer::Cpu(_) => panic!("the tensor is not on a GPU"),
        }
    }

    /// One token's channels.
    pub fn row(&self, row: usize) -> &[f32] {
        &self.host()[row * self.cols..(row + 1) * self.cols]
    }
}
