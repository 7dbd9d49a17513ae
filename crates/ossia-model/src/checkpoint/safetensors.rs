//! One safetensors file: eight bytes of header length, a JSON header, then the tensors without gaps.
//!
//! The header is read as a stream into bounded memory rather than by the `safetensors` crate, whose errors do not name
//! the tensor and whose tables grow with what the file claims; the tests hold the two against each other. Rules: every
//! name once, every byte of the data belongs to exactly one tensor, sizes follow from dtype and shape.

use std::cell::RefCell;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use ossia_kernels::{Bytes, DType};
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{Error, RawTensor, Result, limits, map, stored_bytes};

/// What a checkpoint's files may still claim together.
#[derive(Debug)]
pub struct Budget {
    /// Bytes of headers left.
    pub header_bytes: usize,
    /// Tensors left.
    pub tensors: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { header_bytes: limits::HEADER_BYTES, tensors: limits::TENSORS }
    }
}

/// The tensors of the safetensors file at `path`, mapped into memory.
pub fn open(path: &Path) -> Result<Vec<RawTensor>> {
    parse(&map::map(path)?, path, &mut Budget::default())
}

/// The tensors of the safetensors file whose contents are `bytes`, in the order in which they lie in the file.
///
/// `file` is only for messages. What the header takes is taken from `budget`.
pub fn parse(bytes: &Bytes, file: &Path, budget: &mut Budget) -> Result<Vec<RawTensor>> {
    let (header, data) = split(bytes, file, budget)?;
    let mut entries = read_header(&header, file, budget)?;
    entries.sort_by_key(|e| (e.range[0], e.range[1]));
    let file: Arc<Path> = file.into();
    let mut end = 0;
    let mut tensors = Vec::with_capacity(entries.len());
    for entry in entries {
        let tensor = entry.place(&data, &file, end)?;
        end += tensor.bytes.len();
        tensors.push(tensor);
    }
    if end != data.len() {
        let found = format!("{} bytes that belong to no tensor", data.len() - end);
        return Err(Error::file(&file, format!("{end} bytes of tensor data"), found));
    }
    Ok(tensors)
}

/// The header's bytes and the data's.
fn split(bytes: &Bytes, file: &Path, budget: &mut Budget) -> Result<(Bytes, Bytes)> {
    let Some(length) = bytes.first_chunk::<8>().map(|b| u64::from_le_bytes(*b)) else {
        let found = format!("a file of {} bytes", bytes.len());
        return Err(Error::file(file, "a safetensors file (8 bytes of header length, then the header)", found));
    };
    let wanted = usize::try_from(length).unwrap_or(usize::MAX);
    if wanted > budget.header_bytes {
        let found = format!("a header length of {length}");
        return Err(Error::file(file, format!("a header of at most {} bytes", budget.header_bytes), found));
    }
    budget.header_bytes -= wanted;
    match (bytes.slice(8..8 + wanted), bytes.slice(8 + wanted..bytes.len())) {
        (Some(header), Some(data)) => Ok((header, data)),
        _ => {
            let found = format!("a file of {} bytes (cut short?)", bytes.len());
            Err(Error::file(file, format!("a header of {length} bytes"), found))
        }
    }
}

fn read_header(header: &[u8], file: &Path, budget: &mut Budget) -> Result<Vec<Entry>> {
    let current = RefCell::new(None);
    let mut json = serde_json::Deserializer::from_slice(header);
    let seed = Entries { current: &current, most: budget.tensors };
    let entries = seed.deserialize(&mut json).and_then(|entries| json.end().map(|()| entries));
    let entries = entries.map_err(|e| match current.take() {
        Some(name) => Error::tensor(file, &name, "dtype, shape and data_offsets in the header", e.to_string()),
        None => Error::file(file, "a JSON object of tensors as header", e.to_string()),
    })?;
    budget.tensors -= entries.len();
    Ok(entries)
}

/// One tensor as the header claims it.
struct Entry {
    name: String,
    dtype: String,
    shape: Vec<u64>,
    range: [u64; 2],
}

impl Entry {
    /// The tensor, where it starts at byte `start` of `data` and ends inside.
    fn place(self, data: &Bytes, file: &Arc<Path>, start: usize) -> Result<RawTensor> {
        let fail = |wanted: String, found: String| Err(Error::tensor(file, &self.name, wanted, found));
        let Some(dtype) = dtype(&self.dtype) else {
            return fail("dtype BF16, F16, F32, U8 or I32".into(), format!("dtype {}", self.dtype));
        };
        let shape: Option<Vec<usize>> = self.shape.iter().map(|&d| usize::try_from(d).ok()).collect();
        let Some((shape, size)) = shape.and_then(|s| stored_bytes(dtype, &s).map(|size| (s, size))) else {
            return fail("a shape that fits into memory".into(), format!("shape {:?}", self.shape));
        };
        let [from, to] = self.range;
        let Some(claimed) = to.checked_sub(from) else {
            return fail("data_offsets in ascending order".into(), format!("{from} to {to}"));
        };
        if claimed != size as u64 {
            return fail(
                format!("{size} bytes ({dtype} {shape:?})"),
                format!("data_offsets {from} to {to}, {claimed} bytes"),
            );
        }
        if from != start as u64 {
            let what = if from < start as u64 { "it to overlap the tensor before it" } else { "a gap before it" };
            return fail(format!("data from byte {start} on"), format!("{what}, data from byte {from} on"));
        }
        match data.slice(start..start.saturating_add(size)) {
            Some(bytes) => Ok(RawTensor { name: self.name, dtype, shape, bytes, file: file.clone() }),
            None => {
                fail(format!("data up to byte {to}"), format!("{} bytes of data in the file (cut short?)", data.len()))
            }
        }
    }
}

fn dtype(name: &str) -> Option<DType> {
    Some(match name {
        "BF16" => DType::BF16,
        "F16" => DType::F16,
        "F32" => DType::F32,
        "U8" => DType::U8,
        "I32" => DType::I32,
        _ => return None,
    })
}

/// Reads the header's object; `current` holds the name of the tensor being read, for messages.
struct Entries<'a> {
    current: &'a RefCell<Option<String>>,
    most: usize,
}

impl<'de> DeserializeSeed<'de> for Entries<'_> {
    type Value = Vec<Entry>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> std::result::Result<Self::Value, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Entries<'_> {
    type Value = Vec<Entry>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(name) = map.next_key_seed(Text(limits::NAME_BYTES))? {
            if name == "__metadata__" {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            if entries.len() == self.most {
                return Err(A::Error::custom(format_args!("more than {} tensors", self.most)));
            }
            *self.current.borrow_mut() = Some(name.clone());
            entries.push(map.next_value_seed(Body(name))?);
            *self.current.borrow_mut() = None;
        }
        Ok(entries)
    }
}

/// Reads `{"dtype": .., "shape": .., "data_offsets": ..}` of the tensor with this name.
struct Body(String);

impl<'de> DeserializeSeed<'de> for Body {
    type Value = Entry;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> std::result::Result<Entry, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Body {
    type Value = Entry;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with dtype, shape and data_offsets")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Entry, A::Error> {
        let (mut dtype, mut shape, mut range) = (None, None, None);
        while let Some(key) = map.next_key_seed(Text(limits::NAME_BYTES))? {
            let twice = match key.as_str() {
                "dtype" => dtype.replace(map.next_value_seed(Text(32))?).is_some(),
                "shape" => shape.replace(map.next_value_seed(Numbers(limits::DIMENSIONS))?).is_some(),
                "data_offsets" => range.replace(map.next_value_seed(Numbers(2))?).is_some(),
                _ => map.next_value::<IgnoredAny>().map(|_| false)?,
            };
            if twice {
                return Err(A::Error::custom(format_args!("{key} twice")));
            }
        }
        let missing = |what| A::Error::custom(format_args!("no {what}"));
        let range: Vec<u64> = range.ok_or_else(|| missing("data_offsets"))?;
        Ok(Entry {
            name: self.0,
            dtype: dtype.ok_or_else(|| missing("dtype"))?,
            shape: shape.ok_or_else(|| missing("shape"))?,
            range: range.try_into().map_err(|_| A::Error::custom("data_offsets that are not two numbers"))?,
        })
    }
}

/// Reads a string of at most so many bytes.
pub(super) struct Text(pub usize);

impl<'de> DeserializeSeed<'de> for Text {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> std::result::Result<String, D::Error> {
        json.deserialize_str(self)
    }
}

impl Visitor<'_> for Text {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a string of at most {} bytes", self.0)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> std::result::Result<String, E> {
        if text.len() > self.0 {
            return Err(E::custom(format_args!("a string of {} bytes where {} are the most", text.len(), self.0)));
        }
        Ok(text.into())
    }
}

/// Reads an array of at most so many non-negative integers.
struct Numbers(usize);

impl<'de> DeserializeSeed<'de> for Numbers {
    type Value = Vec<u64>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> std::result::Result<Vec<u64>, D::Error> {
        json.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Numbers {
    type Value = Vec<u64>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an array of at most {} whole numbers", self.0)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<Vec<u64>, A::Error> {
        let mut numbers = Vec::new();
        while let Some(number) = seq.next_element::<u64>()? {
            if numbers.len() == self.0 {
                return Err(A::Error::custom(format_args!("more than {} numbers", self.0)));
            }
            numbers.push(number);
        }
        Ok(numbers)
    }
}
