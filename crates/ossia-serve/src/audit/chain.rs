//! The writing end of the chain. A file's name holds the number of its first entry; the last file is written to, by
//! appending only, and is followed by the next when it is long enough. After any failure a chain is opened anew, which
//! finds out what has reached the disk.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::AuditError;
use super::anchor::{self, Anchor, AnchorKey};
use super::entry::{self, Event, GENESIS, Hash};
use super::walk::{Broken, Walk};
use crate::keys::{hex, private_folder};

/// Entries between two anchors, at most.
const ANCHOR_EVERY: u64 = 1000;

/// Where a chain is and what it needs.
#[derive(Clone)]
pub struct Place {
    /// Of all its files.
    pub folder: PathBuf,
    /// Makes its anchors.
    pub key: AnchorKey,
    /// A file that is longer is followed by the next one.
    pub most_bytes: u64,
}

/// See the module.
pub struct Chain {
    place: Place,
    file: Option<File>,
    /// Of the file.
    len: u64,
    /// The last entry, and its hash.
    last: Anchor,
    /// The newest anchor outside the chain.
    anchored: u64,
    /// The numbers of the events that were given last, in their order.
    given: Vec<u64>,
    /// What is to be done before anything is appended.
    left: Option<Left>,
    /// Held while it lives.
    _lock: File,
}

/// What an earlier end has left.
struct Left {
    /// The last file.
    path: PathBuf,
    /// It does not end with a newline.
    is_open: bool,
    /// Bytes at its end that are no entry, and their hash.
    torn: Option<(u64, Hash)>,
}

/// The log's files and the numbers of their first entries, in order.
pub fn files(folder: &Path) -> Result<Vec<(u64, PathBuf)>, AuditError> {
    let io = |error| AuditError::io(folder, "list", error);
    let mut files = Vec::new();
    for found in std::fs::read_dir(folder).map_err(io)? {
        let path = found.map_err(io)?.path();
        if let Some(first) = first_of_name(&path) {
            files.push((first, path));
        }
    }
    files.sort();
    Ok(files)
}

/// The number of a file's first entry, by its name.
pub fn first_of_name(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    name.strip_prefix("audit-")?.strip_suffix(".jsonl")?.parse().ok()
}

impl Chain {
    /// Opens the log, or begins one, and writes nothing yet: [`Chain::mend`] comes next. Fails where what was anchored is
    /// not there.
    pub fn open(place: Place) -> Result<Self, AuditError> {
        let Place { folder, key, .. } = &place;
        private_folder(folder).map_err(|error| AuditError::io(folder, "make", error))?;
        let lock = locked(folder)?;
        let files = files(folder)?;
        let anchor = match anchor::read(folder, Some(key))? {
            Some(anchor) => anchor,
            None if files.is_empty() => Anchor { seq: 0, hash: GENESIS },
            None => return Err(Broken::of_log(&anchor::path(folder), "missing beside a log").into()),
        };
        let walk = walked(folder, &files, anchor, key)?;
        let last = Anchor { seq: walk.seq, hash: walk.hash.unwrap_or(anchor.hash) };
        let (is_open, torn) = (walk.is_open, walk.torn_note());
        let left = files.into_iter().last().map(|(_, path)| Left { path, is_open, torn });
        Ok(Self { file: None, len: 0, last, anchored: anchor.seq, given: Vec::new(), left, place, _lock: lock })
    }

    /// Where it is.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The number of the last entry.
    pub fn last(&self) -> u64 {
        self.last.seq
    }

    /// The numbers of the events that were given last, in their order; those of a failed try too.
    pub fn given(&self) -> &[u64] {
        &self.given
    }

    /// Ends what a crash has left open, with a note that names the bytes that are no entry.
    pub fn mend(&mut self) -> std::io::Result<()> {
        if self.anchored == 0 {
            // Before the first entry, so that a log without its anchor is known for one that has lost it.
            anchor::write(&self.place.folder, &self.place.key, &Anchor { seq: 0, hash: GENESIS })?;
        }
        let Some(Left { path, is_open, torn }) = self.left.take() else { return Ok(()) };
        let mut file = appended(&path)?;
        if is_open {
            file.write_all(b"\n")?;
        }
        self.len = file.metadata()?.len();
        self.file = Some(file);
        if let Some((bytes, sha256)) = torn {
            tracing::warn!(bytes, "the audit log ended in a torn entry, which was set aside");
            let mut note = Vec::new();
            self.push(&Event::Torn { bytes, sha256: hex(&sha256) }, &mut note)?;
            self.write(&note)?;
        }
        Ok(())
    }

    /// Appends events and waits until they are on the disk. After an error some of them may be there: open it anew.
    pub fn append(&mut self, events: &[Event]) -> std::io::Result<()> {
        self.given.clear();
        if self.len >= self.place.most_bytes {
            self.anchor()?;
            self.file = None;
        }
        let mut lines = Vec::new();
        let mut anchor = None;
        for event in events {
            self.push(event, &mut lines)?;
            self.given.push(self.last.seq);
            if self.last.seq - anchor.map_or(self.anchored, |anchor: Anchor| anchor.seq) >= ANCHOR_EVERY {
                anchor = Some(self.last);
                self.push(&self.anchor_event(), &mut lines)?;
            }
        }
        self.write(&lines)?;
        anchor.map_or(Ok(()), |anchor| self.keep(anchor))
    }

    /// Anchors the last entry, unless it is.
    pub fn anchor(&mut self) -> std::io::Result<()> {
        if !self.is_unanchored() {
            return Ok(());
        }
        let (anchor, mut line) = (self.last, Vec::new());
        self.push(&self.anchor_event(), &mut line)?;
        self.write(&line)?;
        self.keep(anchor)
    }

    /// Whether an entry other than an anchor stands after the newest anchor.
    pub fn is_unanchored(&self) -> bool {
        self.last.seq > self.anchored + 1 || self.anchored == 0 && self.last.seq > 0
    }

    fn anchor_event(&self) -> Event {
        Event::Anchor { mac: self.place.key.sign(self.last.seq, &self.last.hash) }
    }

    fn keep(&mut self, anchor: Anchor) -> std::io::Result<()> {
        anchor::write(&self.place.folder, &self.place.key, &anchor)?;
        self.anchored = anchor.seq;
        // Whoever collects the server's log has a witness that the server cannot change later.
        tracing::info!(seq = anchor.seq, sha256 = hex(&anchor.hash), "audit anchor");
        Ok(())
    }

    fn push(&mut self, event: &Event, lines: &mut Vec<u8>) -> std::io::Result<()> {
        let line = entry::encode(self.last.seq + 1, &self.last.hash, event)?;
        self.last = Anchor { seq: self.last.seq + 1, hash: entry::hash(&line) };
        lines.extend(line);
        lines.push(b'\n');
        Ok(())
    }

    fn write(&mut self, lines: &[u8]) -> std::io::Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        let first = self.first_of(lines);
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let file = appended(&self.place.folder.join(format!("audit-{first:020}.jsonl")))?;
                File::open(&self.place.folder)?.sync_all()?;
                self.len = 0;
                self.file.insert(file)
            }
        };
        file.write_all(lines)?;
        file.sync_data()?;
        self.len += lines.len() as u64;
        Ok(())
    }

    /// The number of the first of these lines, the last of which is the chain's last.
    fn first_of(&self, lines: &[u8]) -> u64 {
        let num_lines = lines.iter().filter(|byte| **byte == b'\n').count() as u64;
        (self.last.seq + 1).saturating_sub(num_lines)
    }
}

/// From the file that holds the newest anchor to the end.
fn walked<'k>(
    folder: &Path,
    files: &[(u64, PathBuf)],
    anchor: Anchor,
    key: &'k AnchorKey,
) -> Result<Walk<'k>, AuditError> {
    let from = files.iter().rposition(|(first, _)| *first <= anchor.seq.max(1));
    let (_, files) = files.split_at(from.unwrap_or(0));
    let first = files.first().map_or(1, |(first, _)| *first);
    if first > anchor.seq.max(1) {
        return Err(
            Broken::of_log(folder, format!("entry {} was anchored, but its file is missing", anchor.seq)).into()
        );
    }
    let mut walk = Walk::new(first.saturating_sub(1), Some(key), vec![anchor]);
    for (_, path) in files {
        walk.file(path)?;
    }
    walk.finish(folder, false)?;
    Ok(walk)
}

fn locked(folder: &Path) -> Result<File, AuditError> {
    let path = folder.join("lock");
    let file = appended(&path).map_err(|error| AuditError::io(&path, "open", error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(AuditError::Taken(folder.to_owned())),
        Err(std::fs::TryLockError::Error(error)) => Err(AuditError::io(&path, "lock", error)),
    }
}

fn appended(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.append(true).create(true).open(path)
}
