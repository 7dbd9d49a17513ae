//! The metadata of a GGUF file: typed values by key. Arrays stay as the file stores them until they are asked for.
//!
//! The walk at opening checks that every value lies inside the file and copies it (12 MB in a released file), so that
//! no text points into a map that could change; the getters check types and say what they wanted.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ossia_kernels::Bytes;

use super::cursor::Cursor;
use crate::checkpoint::{Error, Result};

/// The levels of arrays inside arrays that are followed.
const MOST_NESTED: usize = 4;
/// The most strings of one array that are handed out (gpt-oss has 446,189 merges).
const MOST_STRINGS: usize = 1 << 22;

/// A value; integers and floats of all widths are one kind each.
#[derive(Clone, Debug)]
pub enum GgufValue {
    /// An unsigned integer.
    Unsigned(u64),
    /// A signed integer.
    Signed(i64),
    /// A float of 32 or 64 bits.
    Float(f64),
    /// A boolean.
    Bool(bool),
    /// A string, which need not be UTF-8.
    String(Bytes),
    /// An array, still as the file stores it.
    Array {
        /// GGUF's number for the type of the elements.
        kind: u32,
        /// The number of elements.
        len: usize,
        /// The elements.
        bytes: Bytes,
    },
}

/// The keys and values of a GGUF file.
#[derive(Debug)]
pub struct GgufMetadata {
    file: PathBuf,
    values: BTreeMap<String, GgufValue>,
}

impl GgufMetadata {
    pub(super) fn read(cursor: &mut Cursor, num_keys: usize) -> Result<Self> {
        let mut values = BTreeMap::new();
        for number in 0..num_keys {
            cursor.enter(format!("metadata key {number}"));
            let key = cursor.name("a key")?;
            cursor.enter(format!("the value of key {key}"));
            let kind = cursor.u32("the type of a value")?;
            let value = read_value(cursor, kind)?;
            if values.contains_key(&key) {
                return Err(Error::key(cursor.file(), &key, "every key once", "it twice"));
            }
            values.insert(key, value);
        }
        Ok(Self { file: cursor.file().into(), values })
    }

    /// The file, for messages.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// All keys and values, sorted by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &GgufValue)> {
        self.values.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// The value of `key`, of any type.
    pub fn get(&self, key: &str) -> Option<&GgufValue> {
        self.values.get(key)
    }

    /// The non-negative integer at `key`; an error where it is something else.
    pub fn u64(&self, key: &str) -> Result<Option<u64>> {
        self.typed(key, "a non-negative integer", |value| match value {
            GgufValue::Unsigned(n) => Some(*n),
            GgufValue::Signed(n) => u64::try_from(*n).ok(),
            _ => None,
        })
    }

    /// The number at `key`.
    pub fn f64(&self, key: &str) -> Result<Option<f64>> {
        self.typed(key, "a number", |value| match value {
            GgufValue::Float(x) => Some(*x),
            GgufValue::Unsigned(n) => Some(*n as f64),
            GgufValue::Signed(n) => Some(*n as f64),
            _ => None,
        })
    }

    /// The boolean at `key`.
    pub fn bool(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "a boolean", |value| match value {
            GgufValue::Bool(b) => Some(*b),
            _ => None,
        })
    }

    /// The string at `key`.
    pub fn str(&self, key: &str) -> Result<Option<&str>> {
        self.typed(key, "a string in UTF-8", |value| match value {
            GgufValue::String(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        })
    }

    /// The array of strings at `key`.
    pub fn strings(&self, key: &str) -> Result<Option<Vec<&str>>> {
        let wanted = format!("an array of at most {MOST_STRINGS} strings in UTF-8");
        self.typed(key, &wanted, |value| match value {
            GgufValue::Array { kind: 8, len, bytes } if *len <= MOST_STRINGS => split_strings(bytes, *len),
            _ => None,
        })
    }

    /// The array of integers at `key` (token types, end-of-sequence ids).
    pub fn integers(&self, key: &str) -> Result<Option<Vec<i64>>> {
        self.typed(key, &format!("an array of at most {MOST_STRINGS} integers"), |value| match value {
            GgufValue::Array { kind, len, bytes } if *len <= MOST_STRINGS => split_integers(*kind, bytes),
            _ => None,
        })
    }

    /// The array of booleans at `key`.
    pub fn bools(&self, key: &str) -> Result<Option<Vec<bool>>> {
        self.typed(key, "an array of booleans", |value| match value {
            GgufValue::Array { kind: 7, len, bytes } if *len <= MOST_STRINGS => {
                Some(bytes.iter().map(|&b| b != 0).collect())
            }
            _ => None,
        })
    }

    fn typed<'a, T>(&'a self, key: &str, wanted: &str, read: impl Fn(&'a GgufValue) -> Option<T>) -> Result<Option<T>> {
        let Some(value) = self.values.get(key) else { return Ok(None) };
        let fail = || Error::key(&self.file, key, wanted, describe(value));
        read(value).map(Some).ok_or_else(fail)
    }
}

/// A value in few words, for messages and listings.
fn describe(value: &GgufValue) -> String {
    match value {
        GgufValue::Unsigned(n) => n.to_string(),
        GgufValue::Signed(n) => n.to_string(),
        GgufValue::Float(x) => x.to_string(),
        GgufValue::Bool(b) => b.to_string(),
        GgufValue::String(bytes) => {
            let head = bytes.get(..64).unwrap_or(bytes);
            format!("the string {:?}", String::from_utf8_lossy(head))
        }
        GgufValue::Array { kind, len, .. } => format!("an array of {len} {}", kind_name(*kind)),
    }
}

impl std::fmt::Display for GgufValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&describe(self))
    }
}

fn kind_name(kind: u32) -> &'static str {
    match kind {
        7 => "booleans",
        8 => "strings",
        9 => "arrays",
        6 | 12 => "floats",
        _ => "integers",
    }
}

/// Bytes of a value of fixed width; `None` for strings, arrays and unknown types.
fn width(kind: u32) -> Option<u64> {
    match kind {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}

fn read_value(cursor: &mut Cursor, kind: u32) -> Result<GgufValue> {
    Ok(match kind {
        8 => GgufValue::String(Bytes::new(cursor.string("a string")?.to_vec())),
        9 => {
            let kind = cursor.u32("the type of an array")?;
            let len = cursor.u64("the length of an array")?;
            let start = cursor.at();
            skip_array(cursor, kind, len, MOST_NESTED)?;
            let bytes = Bytes::new(cursor.since(start).to_vec());
            // Every element took a byte or more, so the length fits.
            GgufValue::Array { kind, len: len as usize, bytes }
        }
        _ => scalar(cursor, kind)?,
    })
}

fn scalar(cursor: &mut Cursor, kind: u32) -> Result<GgufValue> {
    let what = "a value";
    Ok(match kind {
        0 => GgufValue::Unsigned(u8::from_le_bytes(cursor.array(what)?).into()),
        1 => GgufValue::Signed(i8::from_le_bytes(cursor.array(what)?).into()),
        2 => GgufValue::Unsigned(u16::from_le_bytes(cursor.array(what)?).into()),
        3 => GgufValue::Signed(i16::from_le_bytes(cursor.array(what)?).into()),
        4 => GgufValue::Unsigned(u32::from_le_bytes(cursor.array(what)?).into()),
        5 => GgufValue::Signed(i32::from_le_bytes(cursor.array(what)?).into()),
        6 => GgufValue::Float(f32::from_le_bytes(cursor.array(what)?).into()),
        7 => match cursor.array::<1>(what)? {
            [0] => GgufValue::Bool(false),
            [1] => GgufValue::Bool(true),
            [other] => return Err(cursor.fail("a boolean of 0 or 1", other.to_string())),
        },
        10 => GgufValue::Unsigned(u64::from_le_bytes(cursor.array(what)?)),
        11 => GgufValue::Signed(i64::from_le_bytes(cursor.array(what)?)),
        12 => GgufValue::Float(f64::from_le_bytes(cursor.array(what)?)),
        _ => return Err(cursor.fail("a value type of 0 to 12", kind.to_string())),
    })
}

/// Walks over an array's elements.
fn skip_array(cursor: &mut Cursor, kind: u32, len: u64, levels: usize) -> Result<()> {
    if let Some(width) = width(kind) {
        // An overflowing product is more than any file has.
        cursor.take(width.saturating_mul(len), "an array")?;
        return Ok(());
    }
    for _ in 0..len {
        match kind {
            8 => drop(cursor.string("a string of an array")?),
            9 if levels == 0 => return Err(cursor.fail(format!("at most {MOST_NESTED} levels of arrays"), "more")),
            9 => {
                let inner = cursor.u32("the type of an inner array")?;
                let length = cursor.u64("the length of an inner array")?;
                skip_array(cursor, inner, length, levels - 1)?;
            }
            _ => return Err(cursor.fail("an element type of 0 to 12", kind.to_string())),
        }
    }
    Ok(())
}

fn split_strings(mut bytes: &[u8], len: usize) -> Option<Vec<&str>> {
    let mut strings = Vec::with_capacity(len.min(bytes.len() / 8));
    while let Some((length, rest)) = bytes.split_first_chunk::<8>() {
        let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
        strings.push(std::str::from_utf8(rest.get(..length)?).ok()?);
        bytes = rest.get(length..)?;
    }
    (strings.len() == len).then_some(strings)
}

fn split_integers(kind: u32, bytes: &[u8]) -> Option<Vec<i64>> {
    fn each<const N: usize>(bytes: &[u8], read: impl Fn([u8; N]) -> Option<i64>) -> Option<Vec<i64>> {
        bytes.as_chunks::<N>().0.iter().map(|&chunk| read(chunk)).collect()
    }
    match kind {
        0 => each(bytes, |b| Some(u8::from_le_bytes(b).into())),
        1 => each(bytes, |b| Some(i8::from_le_bytes(b).into())),
        2 => each(bytes, |b| Some(u16::from_le_bytes(b).into())),
        3 => each(bytes, |b| Some(i16::from_le_bytes(b).into())),
        4 => each(bytes, |b| Some(u32::from_le_bytes(b).into())),
        5 => each(bytes, |b| Some(i32::from_le_bytes(b).into())),
        10 => each(bytes, |b| i64::try_from(u64::from_le_bytes(b)).ok()),
        11 => each(bytes, |b| Some(i64::from_le_bytes(b))),
        _ => None,
    }
}
