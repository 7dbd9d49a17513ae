//! The number formats that checkpoints use.

/// How the elements of a stored tensor are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    /// 32-bit IEEE float.
    F32,
    /// 16-bit IEEE float.
    F16,
    /// The upper half of an `F32`.
    BF16,
    /// ggml's block of 32: an `F16` scale, then 32 signed bytes (34 bytes).
    Q8_0,
    /// ggml's block of 32: an E8M0 scale byte, then 16 bytes of E2M1 codes, halves paired (17 bytes). SPEC 3.
    Mxfp4,
    /// Plain bytes: the separate blocks and scales of the safetensors layouts.
    U8,
    /// 32-bit signed integer (token ids in test files).
    I32,
}

impl DType {
    /// Elements per block and bytes per block; a block is the smallest run that can be stored.
    pub const fn block(self) -> (usize, usize) {
        match self {
            DType::F32 | DType::I32 => (1, 4),
            DType::F16 | DType::BF16 => (1, 2),
            DType::U8 => (1, 1),
            DType::Q8_0 => (32, 34),
            DType::Mxfp4 => (32, 17),
        }
    }

    /// Bytes of `elements` elements; `None` where they are no whole number of blocks or the product overflows.
    pub fn size_of(self, elements: usize) -> Option<usize> {
        let (block, bytes) = self.block();
        elements.is_multiple_of(block).then(|| (elements / block).checked_mul(bytes)).flatten()
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            DType::F32 => "F32",
            DType::F16 => "F16",
            DType::BF16 => "BF16",
            DType::Q8_0 => "Q8_0",
            DType::Mxfp4 => "MXFP4",
            DType::U8 => "U8",
            DType::I32 => "I32",
        })
    }
}
