//! Items of reinforcement fine-tuning on disk: a prompt as tokens and what a grader is told, one JSON object a line. In
//! memory are only the places of the lines.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::{Error, Result};

/// What the model is asked, and what its answer is graded by.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Item {
    /// The tokens from which the model answers.
    pub prompt: Vec<u32>,
    /// The whole example as it was read, for a grader's `{{item....}}`.
    pub item: Value,
}

/// Items in a file.
#[derive(Debug)]
pub struct Items {
    path: PathBuf,
    file: Option<Mutex<File>>,
    /// Where each line begins, and where the last one ends.
    starts: Vec<u64>,
}

impl Items {
    /// None at all.
    pub fn none() -> Self {
        Self { path: PathBuf::new(), file: None, starts: vec![0] }
    }

    /// Opens a file that [`write`] has filled.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|error| Error::io(path, "open", error))?;
        let mut source = BufReader::new(file);
        let mut starts = vec![0];
        let mut line = Vec::new();
        loop {
            line.clear();
            let num = source.read_until(b'\n', &mut line).map_err(|error| Error::io(path, "read", error))?;
            if num == 0 {
                break;
            }
            starts.push(starts.last().copied().unwrap_or_default() + num as u64);
        }
        Ok(Self { path: path.to_owned(), file: Some(Mutex::new(source.into_inner())), starts })
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.starts.len() - 1
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The item at `index`, which is below [`Items::len`]. Fails where the file cannot be read any more.
    pub fn get(&self, index: usize) -> Result<Item> {
        let gone = |problem: &str| Error::file(&self.path, format!("item {index}: {problem}"));
        let (Some(file), Some(&start), Some(&end)) = (&self.file, self.starts.get(index), self.starts.get(index + 1))
        else {
            return Err(gone("there are fewer"));
        };
        let mut line = vec![0; (end - start) as usize];
        // A thread that panicked while it read has left nothing but a place in the file.
        let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
        let read = file.seek(SeekFrom::Start(start)).and_then(|_| file.read_exact(&mut line));
        read.map_err(|error| Error::io(&self.path, "read", error))?;
        serde_json::from_slice(&line).map_err(|_| gone("was changed while it was in use: begin again"))
    }
}

/// Writes items one after the other.
pub(super) fn write(out: &mut dyn Write, item: &Item) -> std::io::Result<()> {
    serde_json::to_writer(&mut *out, item)?;
    out.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn items_come_back_in_any_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("items.jsonl");
        let items: Vec<Item> =
            (0..5).map(|n| Item { prompt: vec![n; n as usize], item: json!({"n": n, "text": "a\nb"}) }).collect();
        let mut bytes = Vec::new();
        items.iter().for_each(|item| write(&mut bytes, item).unwrap());
        std::fs::write(&path, &bytes).unwrap();
        let found = Items::open(&path).unwrap();
        assert_eq!(found.len(), 5);
        for place in [4, 0, 3, 3, 1] {
            assert_eq!(found.get(place).unwrap(), items[place]);
        }
        assert!(found.get(5).unwrap_err().to_string().ends_with("item 5: there are fewer"));
        assert!(Items::none().is_empty() && Items::none().get(0).is_err());
        std::fs::write(&path, vec![b'x'; bytes.len()]).unwrap();
        assert!(found.get(2).unwrap_err().to_string().contains("changed while it was in use"));
    }
}
