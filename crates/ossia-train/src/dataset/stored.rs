//! Shards that stay on disk: a document is read when it is drawn, so that data of any size take no memory.
//!
//! A file is verified as a whole at the beginning (the memory of one shard, for a moment) and opened anew for each
//! document: there may be more shards than a process may hold open files. Who writes over one in a run can change what is
//! learned, but a document that is none any more is an error.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::document::Document;
use super::shard::{self, Shard};
use super::{DatasetError, VocabularyId};

/// A verified shard's file.
#[derive(Debug)]
pub struct ShardFile {
    path: PathBuf,
    vocabulary: VocabularyId,
    num_documents: usize,
    num_tokens: usize,
}

impl ShardFile {
    /// Verifies a shard, as [`Shard::read`] does.
    pub fn open(path: &Path, vocabulary: VocabularyId) -> Result<Self, DatasetError> {
        let shard = Shard::read(path, vocabulary)?;
        let (num_documents, num_tokens) = (shard.num_documents(), shard.num_tokens());
        Ok(Self { path: path.to_owned(), vocabulary, num_documents, num_tokens })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The number of tokens of all documents.
    pub fn num_tokens(&self) -> usize {
        self.num_tokens
    }

    /// A document by its place, from 0.
    fn document(&self, index: usize) -> Result<Option<Document>, DatasetError> {
        if index >= self.num_documents {
            return Ok(None);
        }
        let mut file = File::open(&self.path).map_err(|error| DatasetError::io(&self.path, "open", error))?;
        let mut read = |at, num_bytes| self.read(&mut file, at, num_bytes);
        let ends = match index.checked_sub(1) {
            None => [0, u64::from_le_bytes(array(&read(shard::ends_at(0), 8)?, 0))],
            Some(before) => {
                let bytes = read(shard::ends_at(before), 16)?;
                [u64::from_le_bytes(array(&bytes, 0)), u64::from_le_bytes(array(&bytes, 8))]
            }
        };
        let [start, end] = ends;
        if start >= end || end > self.num_tokens as u64 {
            let found = format!("document {index} from {start} to {end}");
            let advice = "it was changed while it was in use: begin again";
            return Err(DatasetError::shard(&self.path, format!("{} tokens", self.num_tokens), found, advice));
        }
        let length = (end - start) as usize;
        let tokens = read(shard::tokens_at(self.num_documents, start), 4 * length)?;
        let tokens: Vec<u32> = tokens.as_chunks::<4>().0.iter().map(|&bytes| u32::from_le_bytes(bytes)).collect();
        let classes = read(shard::classes_at(self.num_documents, self.num_tokens, start), length)?;
        shard::check_document(&tokens, &classes, self.vocabulary.num_ids)
            .map_err(|problem| DatasetError::Document { index, problem })?;
        Ok(Some(Document { tokens, classes }))
    }

    fn read(&self, file: &mut File, at: u64, num_bytes: usize) -> Result<Vec<u8>, DatasetError> {
        let mut bytes = vec![0; num_bytes];
        let read = file.seek(SeekFrom::Start(at)).and_then(|_| file.read_exact(&mut bytes));
        read.map_err(|error| DatasetError::io(&self.path, "read", error))?;
        Ok(bytes)
    }
}

/// The `N` bytes from `at` on, which the caller has read.
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

/// Where batches draw from: a shard in memory or one on disk.
#[derive(Debug)]
pub enum Documents {
    /// In memory.
    Memory(Shard),
    /// On disk.
    File(ShardFile),
}

impl From<Shard> for Documents {
    fn from(shard: Shard) -> Self {
        Self::Memory(shard)
    }
}

impl From<ShardFile> for Documents {
    fn from(shard: ShardFile) -> Self {
        Self::File(shard)
    }
}

impl Documents {
    /// The vocabulary of the ids.
    pub fn vocabulary(&self) -> VocabularyId {
        match self {
            Self::Memory(shard) => shard.vocabulary(),
            Self::File(shard) => shard.vocabulary,
        }
    }

    /// The number of documents.
    pub fn num_documents(&self) -> usize {
        match self {
            Self::Memory(shard) => shard.num_documents(),
            Self::File(shard) => shard.num_documents,
        }
    }

    /// A document by its place, from 0; nothing past the last one. Fails where a file cannot be read any more.
    pub fn document(&self, index: usize) -> Result<Option<Document>, DatasetError> {
        match self {
            Self::Memory(shard) => Ok(shard
                .document(index)
                .map(|document| Document { tokens: document.tokens.to_vec(), classes: document.classes.to_vec() })),
            Self::File(shard) => shard.document(index),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Rng, shard, vocabulary};
    use super::*;

    fn file(rng: &mut Rng, folder: &Path) -> (Shard, ShardFile) {
        let shard = shard(rng, 30, 50);
        let path = folder.join("a.shard");
        shard.write(&path).unwrap();
        (shard, ShardFile::open(&path, vocabulary()).unwrap())
    }

    #[test]
    fn a_file_gives_the_documents_of_the_shard() {
        let dir = tempfile::tempdir().unwrap();
        let (shard, file) = file(&mut Rng(1), dir.path());
        assert_eq!(file.num_tokens(), shard.num_tokens());
        let (memory, file) = (Documents::from(shard), Documents::from(file));
        assert_eq!((file.num_documents(), file.vocabulary()), (memory.num_documents(), memory.vocabulary()));
        for index in [0, 29, 1, 7, 30, usize::MAX] {
            assert_eq!(file.document(index).unwrap(), memory.document(index).unwrap(), "document {index}");
        }
        assert!(memory.document(29).unwrap().is_some() && memory.document(30).unwrap().is_none());
    }

    #[test]
    fn a_file_that_changes_in_use_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let (_, file) = file(&mut Rng(2), dir.path());
        let mut bytes = std::fs::read(file.path()).unwrap();
        for byte in &mut bytes[96..96 + 16] {
            *byte = 0xff;
        }
        std::fs::write(file.path(), &bytes).unwrap();
        let error = file.document(1).unwrap_err().to_string();
        assert!(error.contains("a.shard") && error.contains("changed while it was in use"), "{error}");
        std::fs::write(file.path(), &bytes[..100]).unwrap();
        assert!(file.document(20).unwrap_err().to_string().contains("cannot read"));
        assert!(ShardFile::open(file.path(), vocabulary()).is_err());
    }
}
