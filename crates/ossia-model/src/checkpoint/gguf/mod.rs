//! A GGUF file, versions 2 and 3, little-endian: typed metadata, tensor descriptions, then aligned tensor data.
//!
//! Only the tensor types of gpt-oss files are known (F32, F16, BF16, Q8_0, MXFP4; SPEC 2.3). Nothing is allocated by a
//! claimed count: a count only bounds a walk that ends where the bytes end.

mod cursor;
mod metadata;

use std::path::Path;
use std::sync::Arc;

use ossia_kernels::{Bytes, DType};

use self::cursor::Cursor;
pub use self::metadata::{GgufMetadata, GgufValue};
use super::{Error, RawTensor, Result, limits, stored_bytes};

/// The metadata and the tensors of the GGUF file whose contents are `bytes`; `file` is only for messages.
pub fn parse(bytes: &Bytes, file: &Path) -> Result<(GgufMetadata, Vec<RawTensor>)> {
    let mut cursor = Cursor::new(bytes, file);
    read_version(&mut cursor)?;
    let num_tensors = bounded(&mut cursor, "tensors")?;
    let num_keys = bounded(&mut cursor, "metadata keys")?;
    let metadata = GgufMetadata::read(&mut cursor, num_keys)?;
    if let Some(parts @ 2..) = metadata.u64("split.count")? {
        let found = format!("one of {parts} parts (join them with llama.cpp's gguf-split --merge)");
        return Err(Error::file(file, "a whole GGUF file", found));
    }
    let mut claims = Vec::new();
    for number in 0..num_tensors {
        claims.push(Claim::read(&mut cursor, number)?);
    }
    let start = data_start(&metadata, cursor.at(), file)?;
    let tensors = place(claims, bytes, start, file)?;
    Ok((metadata, tensors))
}

fn read_version(cursor: &mut Cursor) -> Result<()> {
    let magic = cursor.array::<4>("the magic GGUF")?;
    if magic != *b"GGUF" {
        return Err(cursor.fail("the magic GGUF", format!("bytes {magic:02x?}")));
    }
    match cursor.u32("the version")? {
        2 | 3 => Ok(()),
        v if matches!(v.swap_bytes(), 1..=3) => Err(cursor.fail("a little-endian GGUF file", "a big-endian one")),
        v => Err(cursor.fail("GGUF version 2 or 3", format!("version {v}"))),
    }
}

fn bounded(cursor: &mut Cursor, what: &'static str) -> Result<usize> {
    let count = cursor.u64("a count")?;
    usize::try_from(count)
        .ok()
        .filter(|&n| n <= limits::TENSORS)
        .ok_or_else(|| cursor.fail(format!("at most {} {what}", limits::TENSORS), format!("a count of {count} {what}")))
}

/// The byte at which tensor data starts.
fn data_start(metadata: &GgufMetadata, header_end: usize, file: &Path) -> Result<(usize, u64)> {
    let alignment = metadata.u64("general.alignment")?.unwrap_or(32);
    if !alignment.is_power_of_two() || !(8..=1 << 20).contains(&alignment) {
        let wanted = "a power of two from 8 to 1048576";
        return Err(Error::key(file, "general.alignment", wanted, alignment.to_string()));
    }
    // Both are far below 2^63: the header is capped and so is the alignment.
    Ok((header_end.next_multiple_of(alignment as usize), alignment))
}

/// One tensor as the file describes it.
struct Claim {
    name: String,
    dims: Vec<u64>,
    kind: u32,
    offset: u64,
}

impl Claim {
    fn read(cursor: &mut Cursor, number: usize) -> Result<Self> {
        cursor.enter(format!("description {number} of the tensors"));
        let name = cursor.name("a tensor's name")?;
        cursor.enter(format!("tensor {name}"));
        let rank = cursor.u32("the number of dimensions")?;
        if !(1..=4).contains(&rank) {
            return Err(Error::tensor(cursor.file(), &name, "1 to 4 dimensions", rank.to_string()));
        }
        let dims = (0..rank).map(|_| cursor.u64("a dimension")).collect::<Result<Vec<_>>>()?;
        let kind = cursor.u32("the tensor's type")?;
        Ok(Self { name, dims, kind, offset: cursor.u64("the tensor's offset")? })
    }

    /// The tensor without its bytes: dtype, row-major shape, size in bytes.
    fn layout(&self, file: &Path) -> Result<(DType, Vec<usize>, usize)> {
        let fail = |wanted: &str, found: String| Err(Error::tensor(file, &self.name, wanted, found));
        let Some(dtype) = dtype(self.kind) else {
            let found = format!("type {} ({})", self.kind, type_name(self.kind));
            return fail("type F32, F16, BF16, Q8_0 or MXFP4", found);
        };
        let shape: Option<Vec<usize>> = self.dims.iter().rev().map(|&d| usize::try_from(d).ok()).collect();
        match shape.and_then(|s| stored_bytes(dtype, &s).map(|size| (s, size))) {
            Some((_, 0)) => fail("no empty dimension", format!("dimensions {:?}", self.dims)),
            Some((shape, size)) => Ok((dtype, shape, size)),
            None => fail(
                &format!("dimensions that fit into memory, the first a multiple of {}", dtype.block().0),
                format!("{dtype} with dimensions {:?}", self.dims),
            ),
        }
    }
}

/// Gives each claim its bytes, which must lie inside the file and overlap no other's.
fn place(mut claims: Vec<Claim>, bytes: &Bytes, start: (usize, u64), file: &Path) -> Result<Vec<RawTensor>> {
    claims.sort_by_key(|c| c.offset);
    let (start, alignment) = start;
    let left = bytes.len().saturating_sub(start);
    let file: Arc<Path> = file.into();
    let mut end = 0usize;
    let mut tensors = Vec::with_capacity(claims.len());
    for claim in claims {
        let (dtype, shape, size) = claim.layout(&file)?;
        let fail = |wanted: String, found: String| Err(Error::tensor(&file, &claim.name, wanted, found));
        if !claim.offset.is_multiple_of(alignment) {
            return fail(format!("an offset that is a multiple of {alignment}"), format!("offset {}", claim.offset));
        }
        let from = usize::try_from(claim.offset).unwrap_or(usize::MAX);
        if from < end {
            return fail(
                format!("data from byte {end} on"),
                format!("it to overlap the tensor before it, data from byte {from} on"),
            );
        }
        let Some(to) = from.checked_add(size).filter(|&to| to <= left) else {
            return fail(
                format!("{size} bytes at offset {}", claim.offset),
                format!("{left} bytes of data in the file (cut short?)"),
            );
        };
        let Some(bytes) = bytes.slice(start + from..start + to) else {
            return fail("data inside the file".into(), "data outside".into());
        };
        end = to;
        tensors.push(RawTensor { name: claim.name, dtype, shape, bytes, file: file.clone() });
    }
    Ok(tensors)
}

/// ggml's type numbers (SPEC 2.3).
fn dtype(kind: u32) -> Option<DType> {
    Some(match kind {
        0 => DType::F32,
        1 => DType::F16,
        8 => DType::Q8_0,
        30 => DType::BF16,
        39 => DType::Mxfp4,
        _ => return None,
    })
}

/// The names of common types that we do not read.
fn type_name(kind: u32) -> &'static str {
    match kind {
        2 => "Q4_0",
        3 => "Q4_1",
        6 => "Q5_0",
        7 => "Q5_1",
        10 => "Q2_K",
        11 => "Q3_K",
        12 => "Q4_K",
        13 => "Q5_K",
        14 => "Q6_K",
        16..=23 | 29 => "an IQ type",
        _ => "unknown",
    }
}
