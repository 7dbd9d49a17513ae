//! Going through the chain, line by line: every entry must follow from the one before. Bytes that are no entry are allowed
//! only where a torn note accounts for exactly them, or at the very end, where a crash leaves them.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use ring::digest;
use serde::Serialize;

use super::AuditError;
use super::anchor::{Anchor, AnchorKey};
use super::entry::{self, Checked, GENESIS, Hash, unhex};

/// A longer line is no entry.
const LONGEST_LINE: u64 = 64 << 20;
/// Read from the disk at once.
const BUFFER: usize = 1 << 20;

/// The first place where a log is not what a server wrote.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize)]
#[error("{}{}: {problem}", file.display(), line.map(|line| format!(":{line}")).unwrap_or_default())]
pub struct Broken {
    /// Which file; the folder where it is none of them.
    pub file: PathBuf,
    /// Its line, from 1.
    pub line: Option<u64>,
    /// The entry that should be there.
    pub seq: Option<u64>,
    /// What is wrong.
    pub problem: String,
}

impl Broken {
    /// Where no line is to blame.
    pub(super) fn of_log(path: &Path, problem: impl Into<String>) -> Self {
        Self { file: path.to_owned(), line: None, seq: None, problem: problem.into() }
    }
}

/// Bytes since the last entry that followed.
struct Gap {
    digest: digest::Context,
    bytes: u64,
    first: Broken,
    /// None of its lines is an entry.
    is_torn: bool,
}

/// See the module.
pub struct Walk<'k> {
    key: Option<&'k AnchorKey>,
    /// An entry that must be there with this hash.
    wanted: Vec<Anchor>,
    /// The last entry that followed, and its hash; None: not known, so that the next one is believed.
    pub seq: u64,
    pub hash: Option<Hash>,
    /// How many followed, how many of them are anchors and torn notes.
    pub entries: u64,
    pub anchors: u64,
    pub torn: u64,
    /// The last entry before an anchor of the chain.
    pub anchored: u64,
    /// The last line of the last file has no newline.
    pub is_open: bool,
    gap: Option<Gap>,
    file: PathBuf,
    line: u64,
}

impl<'k> Walk<'k> {
    /// Begins after entry `after`; its hash is known only at the very beginning.
    pub fn new(after: u64, key: Option<&'k AnchorKey>, wanted: Vec<Anchor>) -> Self {
        Self {
            key,
            wanted,
            seq: after,
            hash: (after == 0).then_some(GENESIS),
            entries: 0,
            anchors: 0,
            torn: 0,
            anchored: 0,
            is_open: false,
            gap: None,
            file: PathBuf::new(),
            line: 0,
        }
    }

    /// Goes through one file. A gap at its end stays open.
    pub fn file(&mut self, path: &Path) -> Result<(), AuditError> {
        if let Some(gap) = self.gap.take() {
            return Err(gap.first.into());
        }
        let io = |error| AuditError::io(path, "read", error);
        let mut reader = BufReader::with_capacity(BUFFER, File::open(path).map_err(io)?);
        (self.file, self.line, self.is_open) = (path.to_owned(), 0, false);
        let mut line = Vec::new();
        loop {
            line.clear();
            reader.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line).map_err(io)?;
            if line.is_empty() {
                return Ok(());
            }
            self.line += 1;
            self.is_open = line.last() != Some(&b'\n');
            self.step(&line)?;
        }
    }

    /// One line, with its newline if it has one.
    fn step(&mut self, line: &[u8]) -> Result<(), Broken> {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        let checked = serde_json::from_slice::<Checked>(text);
        let is_entry = checked.is_ok();
        let followed = match checked {
            Err(_) => Err("not an entry".to_owned()),
            Ok(checked) => self.follows(&checked).map(|()| checked),
        };
        match followed {
            Ok(checked) => {
                if !self.accounts_for_gap(&checked) {
                    self.widen(line, is_entry, String::new());
                    return Ok(());
                }
                self.take(&checked, text)
            }
            Err(problem) => {
                self.widen(line, is_entry, problem);
                Ok(())
            }
        }
    }

    fn follows(&self, found: &Checked) -> Result<(), String> {
        let wanted = self.seq.saturating_add(1);
        if found.seq != wanted {
            return Err(format!("entry {wanted} should be here, found {}", found.seq));
        }
        let prev = unhex(found.prev).ok_or("not an entry")?;
        match self.hash {
            Some(hash) if hash != prev => {
                Err(format!("does not follow from entry {}: one of the two was changed", self.seq))
            }
            _ => Ok(()),
        }
    }

    /// After a gap only the note that names it goes on.
    fn accounts_for_gap(&self, found: &Checked) -> bool {
        let Some(gap) = &self.gap else { return found.event != "torn" };
        let sha256 = entry::sized(gap.digest.clone().finish());
        found.event == "torn" && found.bytes == Some(gap.bytes) && found.sha256.and_then(unhex) == Some(sha256)
    }

    fn take(&mut self, found: &Checked, text: &[u8]) -> Result<(), Broken> {
        let before = Anchor { seq: self.seq, hash: unhex(found.prev).unwrap_or(GENESIS) };
        match found.event {
            "anchor" => {
                let mac = found.mac.unwrap_or_default();
                if self.key.is_some_and(|key| !key.is_signed(before.seq, &before.hash, mac)) {
                    return Err(self.here("an anchor that was not made with this server's secret".to_owned()));
                }
                self.anchors += 1;
                self.anchored = before.seq;
            }
            "torn" => self.torn += 1,
            _ => {}
        }
        self.gap = None;
        let hash = entry::hash(text);
        (self.seq, self.hash, self.entries) = (found.seq, Some(hash), self.entries + 1);
        match self.wanted.iter().find(|wanted| wanted.seq == found.seq) {
            Some(wanted) if wanted.hash != hash => {
                Err(self.here("not the entry that was anchored: it, or one before it, was changed".to_owned()))
            }
            _ => Ok(()),
        }
    }

    fn widen(&mut self, line: &[u8], is_entry: bool, problem: String) {
        let first = match problem.is_empty() {
            true => self.here("a torn note that names other bytes than are there".to_owned()),
            false => self.here(problem),
        };
        let new = || Gap { digest: digest::Context::new(&digest::SHA256), bytes: 0, first, is_torn: true };
        let gap = self.gap.get_or_insert_with(new);
        gap.digest.update(line);
        gap.bytes += line.len() as u64;
        gap.is_torn &= !is_entry;
    }

    fn here(&self, problem: String) -> Broken {
        Broken { file: self.file.clone(), line: Some(self.line), seq: Some(self.seq + 1), problem }
    }

    /// Bytes at the end that are no entry, if a crash can have left them.
    pub fn torn_end(&self) -> u64 {
        self.gap.as_ref().map_or(0, |gap| gap.bytes)
    }

    /// What a torn note has to say about them, with the newline that ends them: how many bytes, and their hash.
    pub fn torn_note(&self) -> Option<(u64, Hash)> {
        let gap = self.gap.as_ref()?;
        let (mut digest, mut bytes) = (gap.digest.clone(), gap.bytes);
        if self.is_open {
            digest.update(b"\n");
            bytes += 1;
        }
        Some((bytes, entry::sized(digest.finish())))
    }

    /// At the end: what was anchored is there. `strict`: and nothing after it looks like entries that do not follow.
    pub fn finish(&self, folder: &Path, strict: bool) -> Result<(), Broken> {
        let missing = self.wanted.iter().find(|wanted| wanted.seq > self.seq);
        let gap = self.gap.as_ref().filter(|gap| (strict && !gap.is_torn) || missing.is_some());
        match (gap, missing) {
            (Some(gap), _) => Err(gap.first.clone()),
            (None, Some(wanted)) => {
                let problem =
                    format!("ends with entry {}, but entry {} was anchored: the end is missing", self.seq, wanted.seq);
                Err(Broken::of_log(folder, problem))
            }
            (None, None) => Ok(()),
        }
    }
}
