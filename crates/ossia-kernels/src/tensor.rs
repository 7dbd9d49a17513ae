//! Activations: row-major matrices of f32. Rows are tokens, columns are channels.

use crate::Result;
use crate::arena::{Arena, Slice};

/// Where the numbers live. The only type that names every device: each op holds one exhaustive `match` over it.
pub enum Buffer {
    /// Scratch of this machine's memory.
    Cpu(Slice<f32>),
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
    pub fn host(&self) -> &[f32] {
        match &self.data {
            Buffer::Cpu(values) => values,
        }
    }

    /// The values on the host, to be changed.
    pub fn host_mut(&mut self) -> &mut [f32] {
        match &mut self.data {
            Buffer::Cpu(values) => values,
        }
    }

    /// One token's channels.
    pub fn row(&self, row: usize) -> &[f32] {
        &self.host()[row * self.cols..(row + 1) * self.cols]
    }
}
