//! The two hashes by which a repository names its files: SHA-256 for large ones, and git's SHA-1 of a blob for small ones.
//! A file in the cache is named by its hash, so a name is also what its content must be.

use super::error::HubError;
use sha1::Sha1;
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// A file's hash, in lower-case hex.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Digest {
    /// Of the content: 64 digits.
    Sha256(String),
    /// Of `blob SIZE\0` and the content: 40 digits.
    GitBlob(String),
}

impl Digest {
    /// Reads hex digits; the length says which hash it is.
    pub fn parse(hex: &str) -> Option<Self> {
        let is_hex = hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        match hex.len() {
            64 if is_hex => Some(Digest::Sha256(hex.to_owned())),
            40 if is_hex => Some(Digest::GitBlob(hex.to_owned())),
            _ => None,
        }
    }

    /// What a file of the cache was promised to be: the name of the blob behind it. None for files elsewhere.
    pub fn promised(path: &Path) -> Option<Self> {
        let blob = path.canonicalize().ok()?;
        let in_cache = blob.parent()?.file_name()? == "blobs";
        Digest::parse(blob.file_name()?.to_str()?).filter(|_| in_cache)
    }

    /// The hash of the same kind that a file really has; `read` hears how many bytes each piece had.
    pub fn found(&self, path: &Path, read: &mut dyn FnMut(u64)) -> Result<Self, HubError> {
        let mut file = File::open(path).map_err(HubError::file(path, "opening"))?;
        let size = file.metadata().map_err(HubError::file(path, "reading"))?.len();
        let mut hasher = Hasher::new(self, size);
        hash_rest(&mut file, path, &mut hasher, read)?;
        Ok(hasher.finish())
    }

    /// The hex digits: the file's name among the cache's blobs.
    pub fn hex(&self) -> &str {
        match self {
            Digest::Sha256(hex) | Digest::GitBlob(hex) => hex,
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Digest::Sha256(hex) => write!(f, "sha256 {hex}"),
            Digest::GitBlob(hex) => write!(f, "git blob {hex}"),
        }
    }
}

/// A hash being computed, of the same kind as the one it will be compared with.
pub(super) enum Hasher {
    Sha256(Sha256),
    GitBlob(Sha1),
}

impl Hasher {
    /// For content of `size` bytes that should have the hash `like`.
    pub fn new(like: &Digest, size: u64) -> Self {
        match like {
            Digest::Sha256(_) => Hasher::Sha256(Sha256::new()),
            Digest::GitBlob(_) => Hasher::GitBlob(Sha1::new_with_prefix(format!("blob {size}\0"))),
        }
    }

    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Hasher::Sha256(hasher) => hasher.update(bytes),
            Hasher::GitBlob(hasher) => hasher.update(bytes),
        }
    }

    pub fn finish(self) -> Digest {
        match self {
            Hasher::Sha256(hasher) => Digest::Sha256(hex(&hasher.finalize())),
            Hasher::GitBlob(hasher) => Digest::GitBlob(hex(&hasher.finalize())),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The SHA-256 of a file in hex; `read` hears how many bytes each piece had.
pub fn sha256_of(path: &Path, read: &mut dyn FnMut(u64)) -> Result<String, HubError> {
    let mut file = File::open(path).map_err(HubError::file(path, "opening"))?;
    let mut hasher = Hasher::Sha256(Sha256::new());
    hash_rest(&mut file, path, &mut hasher, read)?;
    Ok(hasher.finish().hex().to_owned())
}

/// Feeds the rest of `file` to `hasher`; returns how many bytes that were.
pub(super) fn hash_rest(
    file: &mut File,
    path: &Path,
    hasher: &mut Hasher,
    read: &mut dyn FnMut(u64),
) -> Result<u64, HubError> {
    let mut buffer = vec![0; 1 << 18];
    let mut total = 0;
    loop {
        let count = file.read(&mut buffer).map_err(HubError::file(path, "reading"))?;
        if count == 0 {
            return Ok(total);
        }
        hasher.update(&buffer[..count]);
        total += count as u64;
        read(count as u64);
    }
}
