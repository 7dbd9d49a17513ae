//! What can go wrong in this crate. Shapes are promises between ops and asserted; the world's faults are returned.

/// An error of an op.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The scratch arena is too small for this step.
    #[error(
        "scratch memory: the step needs {needed} more bytes, the plan reserved {capacity} in all; use a smaller batch or chunk"
    )]
    Scratch {
        /// Bytes asked for.
        needed: usize,
        /// Bytes in the arena.
        capacity: usize,
    },
    /// A weight's bytes do not hold the matrix they should.
    #[error("weight matrix {rows} x {cols} ({kind}): wanted {wanted} bytes, found {found}")]
    MatrixBytes {
        /// Rows (outputs).
        rows: usize,
        /// Columns (inputs).
        cols: usize,
        /// The number format.
        kind: &'static str,
        /// Bytes that the shape asks for.
        wanted: usize,
        /// Bytes at hand.
        found: usize,
    },
    /// Quantized formats and the dot kernels work in groups of 32 along the input.
    #[error("weight matrix {rows} x {cols}: the number of columns must be a multiple of 32")]
    MatrixCols {
        /// Rows (outputs).
        rows: usize,
        /// Columns (inputs).
        cols: usize,
    },
    /// A GPU or its driver has said no.
    #[error("GPU: {what}: {reason}")]
    Cuda {
        /// What was to be done.
        what: &'static str,
        /// What came back, and what to do where that is known.
        reason: String,
    },
    /// The GPU has no memory left.
    #[error("GPU memory: {needed} more bytes are needed, {free} are free; use a shorter context or fewer sequences")]
    CudaMemory {
        /// Bytes asked for.
        needed: usize,
        /// Bytes free on the device.
        free: usize,
    },
    /// What the GPU's kernels cannot do yet.
    #[error("on a GPU {what}: wanted {wanted}, found {found}; use --device cpu")]
    CudaUnsupported {
        /// Where.
        what: &'static str,
        /// What would do.
        wanted: &'static str,
        /// What is there.
        found: String,
    },
    /// A token id lies outside the embedding table.
    #[error("token id {id} is outside the vocabulary of {vocab}")]
    TokenId {
        /// The id.
        id: u32,
        /// Rows of the table.
        vocab: usize,
    },
}

/// Result of an op.
pub type Result<T> = std::result::Result<T, Error>;
