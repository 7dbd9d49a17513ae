//! What was read, onto disk as it comes: shards of bounded size, and lines of items.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use super::error::{Error, Result};
use super::items::{self, Item, Items};
use crate::dataset::{Document, Shard, VocabularyId};

/// The name of what is learned from.
pub(super) const TRAIN: &str = "train";
/// The name of what is measured by.
pub(super) const VALIDATION: &str = "validation";

/// Tokens after which a shard is written: 20 MiB of memory.
const SHARD_TOKENS: usize = 1 << 22;

/// A series of shards and a file of items under one name.
pub(super) struct Writer<'a> {
    folder: &'a Path,
    name: &'static str,
    vocabulary: VocabularyId,
    shard_tokens: usize,
    shard: Shard,
    num_shards: usize,
    items: Option<(PathBuf, BufWriter<File>)>,
}

/// Where the shard `number` of `name` lies.
pub(super) fn shard_path(folder: &Path, name: &str, number: usize) -> PathBuf {
    folder.join(format!("{name}-{number:05}.shard"))
}

/// Where the items of `name` lie.
fn items_path(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}-items.jsonl"))
}

impl<'a> Writer<'a> {
    pub fn new(folder: &'a Path, name: &'static str, vocabulary: VocabularyId) -> Self {
        let shard = Shard::new(vocabulary);
        Self { folder, name, vocabulary, shard_tokens: SHARD_TOKENS, shard, num_shards: 0, items: None }
    }

    /// With shards of about so many tokens.
    #[cfg(test)]
    pub fn of_tokens(mut self, shard_tokens: usize) -> Self {
        self.shard_tokens = shard_tokens;
        self
    }

    /// Adds documents that stay in one shard.
    pub fn documents(&mut self, documents: &[Document]) -> Result<()> {
        documents.iter().try_for_each(|document| self.shard.push(document))?;
        if self.shard.num_tokens() >= self.shard_tokens {
            self.write_shard()?;
        }
        Ok(())
    }

    /// Adds an item.
    pub fn item(&mut self, item: &Item) -> Result<()> {
        let (path, out) = match &mut self.items {
            Some(there) => there,
            none => {
                let path = items_path(self.folder, self.name);
                let file = File::create(&path).map_err(|error| Error::io(&path, "write", error))?;
                none.insert((path, BufWriter::new(file)))
            }
        };
        items::write(out, item).map_err(|error| Error::io(path, "write", error))
    }

    /// Writes what is left; gives the number of shards.
    pub fn finish(mut self) -> Result<usize> {
        if self.shard.num_documents() > 0 {
            self.write_shard()?;
        }
        if let Some((path, out)) = self.items {
            let whole = out.into_inner().map_err(std::io::IntoInnerError::into_error);
            whole.and_then(|file| file.sync_all()).map_err(|error| Error::io(&path, "write", error))?;
        }
        Ok(self.num_shards)
    }

    fn write_shard(&mut self) -> Result<()> {
        let shard = std::mem::replace(&mut self.shard, Shard::new(self.vocabulary));
        shard.write(&shard_path(self.folder, self.name, self.num_shards))?;
        self.num_shards += 1;
        Ok(())
    }
}

/// The items of `name`, none where none were written.
pub(super) fn open_items(folder: &Path, name: &str) -> Result<Items> {
    let path = items_path(folder, name);
    if path.exists() { Items::open(&path) } else { Ok(Items::none()) }
}

/// Removes what a series that was broken off has left.
pub(super) fn clear(folder: &Path) -> Result<()> {
    let entries = std::fs::read_dir(folder).map_err(|error| Error::io(folder, "list", error))?;
    for entry in entries {
        let path = entry.map_err(|error| Error::io(folder, "list", error))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_ours =
            [TRAIN, VALIDATION].iter().any(|start| name.strip_prefix(start).is_some_and(|rest| rest.starts_with('-')))
                && [".shard", "-items.jsonl"].iter().any(|end| name.ends_with(end));
        if is_ours {
            std::fs::remove_file(&path).map_err(|error| Error::io(&path, "remove", error))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::support::harmony;
    use super::*;
    use crate::dataset::{Documents, ShardFile};

    #[test]
    fn shards_are_written_as_they_fill_and_pairs_stay_together() {
        let dir = tempfile::tempdir().unwrap();
        let vocabulary = VocabularyId::of(harmony().tokenizer());
        let mut writer = Writer::new(dir.path(), TRAIN, vocabulary).of_tokens(50);
        let document = |n: u32| Document { tokens: vec![n; 11], classes: vec![1; 11] };
        for n in 0..10 {
            writer.documents(&[document(2 * n), document(2 * n + 1)]).unwrap();
            assert!(writer.shard.num_tokens() < 50, "memory is bounded");
        }
        assert_eq!(writer.finish().unwrap(), 4);
        let mut all = Vec::new();
        for number in 0..4 {
            let shard = ShardFile::open(&shard_path(dir.path(), TRAIN, number), vocabulary).unwrap();
            let shard = Documents::from(shard);
            assert_eq!(shard.num_documents() % 2, 0);
            all.extend((0..shard.num_documents()).map(|index| shard.document(index).unwrap().unwrap().tokens[0]));
        }
        assert!(all.into_iter().eq(0..20));
        std::fs::write(dir.path().join("train.txt"), "").unwrap();
        clear(dir.path()).unwrap();
        let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["train.txt"]);
        assert!(open_items(dir.path(), TRAIN).unwrap().is_empty());
    }
}
