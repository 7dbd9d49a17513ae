//! Weight matrices, in the form in which their file holds them.
//!
//! W is [rows, cols] = [out, in]. A matrix is two strided planes of bytes, elements and scales, so one kernel serves
//! planar MXFP4 (safetensors: blocks and scales apart), interleaved MXFP4 and Q8_0 (GGUF: the scale inside each block)
//! and views such as "every other row" (gate and up units lie interleaved in one tensor, SPEC 2.1).

use half::{bf16, f16};

use crate::mxfp4::{self, GROUP};
use crate::{Bytes, DType, Error, Result};

/// How the elements of a group of 32 are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 32-bit floats.
    F32,
    /// 16-bit IEEE floats.
    F16,
    /// Upper halves of 32-bit floats.
    BF16,
    /// Signed bytes under an F16 scale.
    Q8,
    /// E2M1 codes; a byte holds elements 2j (low nibble) and 2j+1. The safetensors layouts.
    Mxfp4Pairs,
    /// E2M1 codes; a byte holds elements j (low nibble) and j+16. GGUF.
    Mxfp4Halves,
}

impl Kind {
    /// Bytes of a group's elements.
    pub const fn group_bytes(self) -> usize {
        match self {
            Kind::F32 => 128,
            Kind::F16 | Kind::BF16 => 64,
            Kind::Q8 => 32,
            Kind::Mxfp4Pairs | Kind::Mxfp4Halves => 16,
        }
    }

    /// Bytes of a group's scale.
    pub const fn scale_bytes(self) -> usize {
        match self {
            Kind::F32 | Kind::F16 | Kind::BF16 => 0,
            Kind::Q8 => 2,
            Kind::Mxfp4Pairs | Kind::Mxfp4Halves => 1,
        }
    }

    /// Whether the elements are small integers under a scale, which 8-bit activations can be multiplied with.
    pub const fn is_quantized(self) -> bool {
        self.scale_bytes() > 0
    }

    const fn name(self) -> &'static str {
        match self {
            Kind::F32 => "F32",
            Kind::F16 => "F16",
            Kind::BF16 => "BF16",
            Kind::Q8 => "Q8_0",
            Kind::Mxfp4Pairs | Kind::Mxfp4Halves => "MXFP4",
        }
    }
}

/// Bytes at a fixed distance from row to row and from group to group.
#[derive(Clone, Debug)]
pub struct Plane {
    bytes: Bytes,
    row_stride: usize,
    group_stride: usize,
}

impl Plane {
    /// The bytes from the start of group `group` of row `row` on.
    pub fn at(&self, row: usize, group: usize) -> &[u8] {
        &self.bytes[row * self.row_stride + group * self.group_stride..]
    }

    /// Bytes from one row to the next.
    pub fn row_stride(&self) -> usize {
        self.row_stride
    }

    /// Bytes from one group to the next.
    pub fn group_stride(&self) -> usize {
        self.group_stride
    }
}

/// W [rows, cols], read in place.
#[derive(Clone, Debug)]
pub struct Matrix {
    rows: usize,
    cols: usize,
    kind: Kind,
    elements: Plane,
    scales: Plane,
    half: Option<usize>,
}

impl Matrix {
    /// A matrix whose rows follow each other without a gap, as tensors of this type are stored.
    /// `U8` and `I32` are no weights; planar MXFP4 has [`Matrix::mxfp4`].
    pub fn new(dtype: DType, rows: usize, cols: usize, bytes: Bytes) -> Result<Self> {
        let (kind, lead) = match dtype {
            DType::F32 => (Kind::F32, 0),
            DType::F16 => (Kind::F16, 0),
            DType::BF16 => (Kind::BF16, 0),
            DType::Q8_0 => (Kind::Q8, 2),
            DType::Mxfp4 => (Kind::Mxfp4Halves, 1),
            DType::U8 | DType::I32 => unreachable!("{dtype} tensors hold no weights"),
        };
        let group_stride = kind.group_bytes() + kind.scale_bytes();
        let row_stride = (cols / GROUP) * group_stride;
        let elements = bytes.slice(lead.min(bytes.len())..bytes.len()).expect("a tail of itself");
        let elements = Plane { bytes: elements, row_stride, group_stride };
        Self::from_planes(kind, rows, cols, elements, Plane { bytes, row_stride, group_stride })
    }

    /// MXFP4 as safetensors hold it: blocks [rows, cols/32, 16] and scales [rows, cols/32] in separate tensors.
    pub fn mxfp4(rows: usize, cols: usize, blocks: Bytes, scales: Bytes) -> Result<Self> {
        let groups = cols / GROUP;
        let elements = Plane { bytes: blocks, row_stride: groups * 16, group_stride: 16 };
        Self::from_planes(
            Kind::Mxfp4Pairs,
            rows,
            cols,
            elements,
            Plane { bytes: scales, row_stride: groups, group_stride: 1 },
        )
    }

    fn from_planes(kind: Kind, rows: usize, cols: usize, elements: Plane, scales: Plane) -> Result<Self> {
        if !cols.is_multiple_of(GROUP) || cols == 0 {
            return Err(Error::MatrixCols { rows, cols });
        }
        for (plane, bytes) in [(&elements, kind.group_bytes()), (&scales, kind.scale_bytes())] {
            let last =
                rows.saturating_sub(1).saturating_mul(plane.row_stride) + (cols / GROUP - 1) * plane.group_stride;
            let wanted = last.saturating_add(bytes);
            if plane.bytes.len() < wanted {
                return Err(Error::MatrixBytes { rows, cols, kind: kind.name(), wanted, found: plane.bytes.len() });
            }
        }
        Ok(Self { rows, cols, kind, elements, scales, half: None })
    }

    /// Rows `range` as a matrix of their own, over the same bytes.
    pub fn rows_of(&self, range: std::ops::Range<usize>) -> Self {
        self.strided(range.start, 1, range.len())
    }

    /// Every other row, from row `first` on: the gate units (0) or the up units (1) of an interleaved matrix.
    pub fn every_other(&self, first: usize) -> Self {
        Self { half: Some(first), ..self.strided(first, 2, self.rows / 2) }
    }

    fn strided(&self, first: usize, step: usize, rows: usize) -> Self {
        assert!(rows == 0 || first + (rows - 1) * step < self.rows, "a view must lie inside its matrix");
        let view = |plane: &Plane| Plane {
            bytes: plane
                .bytes
                .slice((first * plane.row_stride).min(plane.bytes.len())..plane.bytes.len())
                .expect("inside"),
            row_stride: plane.row_stride * step,
            group_stride: plane.group_stride,
        };
        Self { rows, elements: view(&self.elements), scales: view(&self.scales), ..*self }
    }

    /// Outputs.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Inputs.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Groups of 32 in a row.
    pub fn groups(&self) -> usize {
        self.cols / GROUP
    }

    /// Which of two matrices whose rows lie in turn this is, if it is one: see [`Matrix::every_other`].
    pub fn half(&self) -> Option<usize> {
        self.half
    }

    /// The number format.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The elements, without scales.
    pub fn elements(&self) -> &Plane {
        &self.elements
    }

    /// The scales, where the kind has them.
    pub fn scales(&self) -> &Plane {
        &self.scales
    }

    /// Bytes that a pass over the whole matrix reads.
    pub fn bytes(&self) -> usize {
        self.rows * self.groups() * (self.kind.group_bytes() + self.kind.scale_bytes())
    }

    /// The scale of one group, exactly; 1 for plain floats.
    pub fn scale(&self, row: usize, group: usize) -> f32 {
        match self.kind {
            Kind::F32 | Kind::F16 | Kind::BF16 => 1.0,
            Kind::Q8 => {
                let bytes = self.scales.at(row, group);
                f16::from_le_bytes([bytes[0], bytes[1]]).to_f32()
            }
            Kind::Mxfp4Pairs | Kind::Mxfp4Halves => mxfp4::scale(self.scales.at(row, group)[0]),
        }
    }

    /// The 32 values of one group, exactly.
    #[inline]
    pub fn group(&self, row: usize, group: usize) -> [f32; GROUP] {
        let bytes = self.elements.at(row, group);
        let scale = self.scale(row, group);
        // The kind is asked once, not for every element.
        match self.kind {
            Kind::F32 => {
                let mut values = [0.0; GROUP];
                let bytes = bytes[..4 * GROUP].as_chunks().0;
                values.iter_mut().zip(bytes).for_each(|(value, bytes)| *value = f32::from_le_bytes(*bytes));
                values
            }
            Kind::F16 => std::array::from_fn(|i| f16::from_le_bytes([bytes[2 * i], bytes[2 * i + 1]]).to_f32()),
            Kind::BF16 => std::array::from_fn(|i| bf16::from_le_bytes([bytes[2 * i], bytes[2 * i + 1]]).to_f32()),
            Kind::Q8 => std::array::from_fn(|i| f32::from(bytes[i] as i8) * scale),
            Kind::Mxfp4Pairs => {
                std::array::from_fn(|i| 0.5 * f32::from(mxfp4::DOUBLED[nibble(bytes[i / 2], i % 2)]) * scale)
            }
            Kind::Mxfp4Halves => {
                std::array::from_fn(|i| 0.5 * f32::from(mxfp4::DOUBLED[nibble(bytes[i % 16], i / 16)]) * scale)
            }
        }
    }

    /// Row `row`, exactly, into `out` [cols].
    pub fn row_into(&self, row: usize, out: &mut [f32]) {
        for (group, out) in out.chunks_exact_mut(GROUP).enumerate() {
            out.copy_from_slice(&self.group(row, group));
        }
    }
}

/// The low (0) or high (1) nibble.
fn nibble(byte: u8, which: usize) -> usize {
    usize::from(if which == 0 { byte & 15 } else { byte >> 4 })
}
