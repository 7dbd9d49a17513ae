//! Reads little-endian values one after the other from a GGUF file's head; every step is checked and none allocates.

use std::path::Path;

use crate::checkpoint::{Error, Result, limits};

/// A place in the file, and what is being read there, for messages.
pub(super) struct Cursor<'a> {
    data: &'a [u8],
    at: usize,
    file: &'a Path,
    /// What we are in the midst of: a key, a tensor.
    place: String,
}

impl<'a> Cursor<'a> {
    /// At the start of `bytes`, of which only the first 100 MB can be read this way.
    pub fn new(bytes: &'a [u8], file: &'a Path) -> Self {
        let data = bytes.get(..limits::HEADER_BYTES).unwrap_or(bytes);
        Self { data, at: 0, file, place: "the head".into() }
    }

    pub fn file(&self) -> &'a Path {
        self.file
    }

    /// Bytes read so far.
    pub fn at(&self) -> usize {
        self.at
    }

    /// The bytes read since the cursor was at `start`.
    pub fn since(&self, start: usize) -> &'a [u8] {
        &self.data[start..self.at]
    }

    /// From here on messages say that `place` was being read.
    pub fn enter(&mut self, place: String) {
        self.place = place;
    }

    /// An error at this place.
    pub fn fail(&self, wanted: impl Into<String>, found: impl Into<String>) -> Error {
        Error::file(self.file, format!("{} in {}", wanted.into(), self.place), found.into())
    }

    /// The next `n` bytes.
    pub fn take(&mut self, n: u64, what: &'static str) -> Result<&'a [u8]> {
        let left = &self.data[self.at..];
        match usize::try_from(n).ok().and_then(|n| left.get(..n)) {
            Some(taken) => {
                self.at += taken.len();
                Ok(taken)
            }
            None => Err(self.fail(
                format!("{n} bytes for {what}"),
                format!("{} bytes left after byte {} (cut short, or over 100 MB of metadata)", left.len(), self.at),
            )),
        }
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N]> {
        let taken = self.take(N as u64, what)?;
        taken.try_into().map_err(|_| self.fail(what, "too few bytes"))
    }

    pub fn u32(&mut self, what: &'static str) -> Result<u32> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub fn u64(&mut self, what: &'static str) -> Result<u64> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A string: its length, then its bytes.
    pub fn string(&mut self, what: &'static str) -> Result<&'a [u8]> {
        let length = self.u64(what)?;
        self.take(length, what)
    }

    /// A string that names something: UTF-8, not empty, not long.
    pub fn name(&mut self, what: &'static str) -> Result<String> {
        let bytes = self.string(what)?;
        if bytes.is_empty() || bytes.len() > limits::NAME_BYTES {
            let wanted = format!("{what} of 1 to {} bytes", limits::NAME_BYTES);
            return Err(self.fail(wanted, format!("{} bytes", bytes.len())));
        }
        let name = std::str::from_utf8(bytes).map_err(|_| self.fail(format!("{what} in UTF-8"), "other bytes"))?;
        Ok(name.into())
    }
}
