//! Writes a GGUF file (version 3) as a stream: metadata and descriptions first, then each tensor's bytes in order, in
//! memory that does not grow. Like safetensors, it appears under its name only when it is whole.

use std::path::Path;

use ossia_kernels::{Bytes, DType};

use super::write::{Pending, TensorSpec};
use super::{Error, GgufValue, Result, first_bytes};

/// Tensor data lie at multiples of this many bytes: the format's default.
const ALIGNMENT: u64 = 32;

/// A GGUF file being written.
#[derive(Debug)]
pub struct GgufWriter {
    out: Pending,
    /// Sizes in bytes of the tensors that have not begun.
    sizes: std::vec::IntoIter<u64>,
    /// Bytes of the current tensor still to come, and the padding behind it.
    left: u64,
    padding: u64,
}

impl GgufWriter {
    /// Starts the file `path` with this metadata and these tensors, both in this order. Shapes are row-major, as
    /// everywhere; whole numbers are written as 32 bits where they fit, floats always.
    pub fn create(path: &Path, metadata: &[(String, GgufValue)], specs: &[TensorSpec]) -> Result<Self> {
        let mut head = b"GGUF".to_vec();
        head.extend(3u32.to_le_bytes());
        head.extend((specs.len() as u64).to_le_bytes());
        head.extend((metadata.len() as u64).to_le_bytes());
        for (key, value) in metadata {
            put_text(&mut head, key.as_bytes());
            put_value(&mut head, value);
        }
        let mut sizes = Vec::with_capacity(specs.len());
        let mut offset = 0u64;
        for spec in specs {
            let size = put_description(&mut head, spec, offset, path)?;
            sizes.push(size);
            let end = offset.checked_add(size).and_then(|end| end.checked_next_multiple_of(ALIGNMENT));
            offset = end.ok_or_else(|| Error::file(path, "a file size that fits into 64 bits", "a larger one"))?;
        }
        head.resize(head.len().next_multiple_of(ALIGNMENT as usize), 0);
        let mut out = Pending::create(path)?;
        out.write(&head)?;
        Ok(Self { out, sizes: sizes.into_iter(), left: 0, padding: 0 })
    }

    /// Appends bytes of tensor data; the tensors follow each other, pieces may end anywhere.
    pub fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            if self.left == 0 {
                let Some(size) = self.sizes.next() else { return Err(self.wrong_length("more")) };
                (self.left, self.padding) = (size, size.next_multiple_of(ALIGNMENT) - size);
            }
            let (now, later) = bytes.split_at(bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX)));
            self.out.write(now)?;
            self.left -= now.len() as u64;
            bytes = later;
            if self.left == 0 {
                self.out.write(&[0; ALIGNMENT as usize][..self.padding as usize])?;
            }
        }
        Ok(())
    }

    /// Makes the file durable and visible; fails where bytes are missing.
    pub fn finish(self) -> Result<()> {
        if self.left != 0 || self.sizes.len() != 0 {
            return Err(self.wrong_length("fewer"));
        }
        self.out.finish()
    }

    fn wrong_length(&self, found: &str) -> Error {
        Error::file(self.out.path(), "as many bytes of tensor data as the head says", found)
    }
}

/// Fails where `path` is a file of another kind: only a GGUF file is replaced by one.
pub fn refuse_other_kinds(path: &Path) -> Result<()> {
    if !path.is_file() || first_bytes(path).is_ok_and(|magic| magic == *b"GGUF") {
        return Ok(());
    }
    Err(Error::file(path, "no file, or a GGUF file to replace", "a file of another kind"))
}

/// Appends the tensor's description, gives its size in bytes.
fn put_description(head: &mut Vec<u8>, spec: &TensorSpec, offset: u64, path: &Path) -> Result<u64> {
    let fail = |wanted: &str| Error::tensor(path, &spec.name, wanted, format!("{} {:?}", spec.dtype, spec.shape));
    let kind = type_number(spec.dtype).ok_or_else(|| fail("a type that gpt-oss files have"))?;
    let size = spec.bytes().filter(|&n| n > 0).ok_or_else(|| fail("a size that fits into memory, whole blocks"))?;
    put_text(head, spec.name.as_bytes());
    head.extend((spec.shape.len() as u32).to_le_bytes());
    spec.shape.iter().rev().for_each(|&d| head.extend((d as u64).to_le_bytes()));
    head.extend(kind.to_le_bytes());
    head.extend(offset.to_le_bytes());
    Ok(size as u64)
}

/// ggml's type numbers (SPEC 2.3).
fn type_number(dtype: DType) -> Option<u32> {
    Some(match dtype {
        DType::F32 => 0,
        DType::F16 => 1,
        DType::Q8_0 => 8,
        DType::BF16 => 30,
        DType::Mxfp4 => 39,
        DType::U8 | DType::I32 => return None,
    })
}

fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text);
}

/// Appends a value with its type before it.
fn put_value(out: &mut Vec<u8>, value: &GgufValue) {
    let mut put = |kind: u32, bytes: &[u8]| {
        out.extend(kind.to_le_bytes());
        out.extend(bytes);
    };
    match value {
        GgufValue::Unsigned(n) => match u32::try_from(*n) {
            Ok(n) => put(4, &n.to_le_bytes()),
            Err(_) => put(10, &n.to_le_bytes()),
        },
        GgufValue::Signed(n) => match i32::try_from(*n) {
            Ok(n) => put(5, &n.to_le_bytes()),
            Err(_) => put(11, &n.to_le_bytes()),
        },
        GgufValue::Float(x) => put(6, &(*x as f32).to_le_bytes()),
        GgufValue::Bool(b) => put(7, &[u8::from(*b)]),
        GgufValue::String(text) => {
            put(8, &(text.len() as u64).to_le_bytes());
            out.extend(&text[..]);
        }
        GgufValue::Array { kind, len, bytes } => {
            put(9, &kind.to_le_bytes());
            out.extend((*len as u64).to_le_bytes());
            out.extend(&bytes[..]);
        }
    }
}

/// A string as a value.
pub fn text(text: &str) -> GgufValue {
    GgufValue::String(Bytes::new(text.as_bytes().to_vec()))
}

/// Strings as a value.
pub fn texts<S: AsRef<str>>(texts: &[S]) -> GgufValue {
    let mut bytes = Vec::new();
    texts.iter().for_each(|text| put_text(&mut bytes, text.as_ref().as_bytes()));
    GgufValue::Array { kind: 8, len: texts.len(), bytes: Bytes::new(bytes) }
}

/// Whole numbers of 32 bits as a value.
pub fn integers(numbers: &[i32]) -> GgufValue {
    let bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
    GgufValue::Array { kind: 5, len: numbers.len(), bytes: Bytes::new(bytes) }
}

/// Booleans as a value.
pub fn bools(values: &[bool]) -> GgufValue {
    let bytes: Vec<u8> = values.iter().map(|&b| b.into()).collect();
    GgufValue::Array { kind: 7, len: values.len(), bytes: Bytes::new(bytes) }
}
