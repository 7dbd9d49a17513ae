//! Checking a log that lies there, also while a server writes it: the first broken place, or what there is.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::AuditError;
use super::anchor::{self, Anchor, AnchorKey};
use super::chain;
use super::walk::{Broken, Walk};

/// What is checked, and with what.
#[derive(Default)]
pub struct Verify {
    /// The server's secret: without it anchors are counted, not checked.
    pub key: Option<AnchorKey>,
    /// The first entry that there should be; entries before it were put elsewhere.
    pub first: Option<u64>,
    /// An entry and its hash that were written down elsewhere.
    pub witness: Option<Anchor>,
}

/// What was found.
#[derive(Debug, PartialEq, Serialize)]
pub struct Report {
    /// Nothing is wrong.
    pub ok: bool,
    /// The first place that is.
    pub broken: Option<Broken>,
    /// Files that were read.
    pub files: usize,
    /// The first entry.
    pub first: u64,
    /// The last entry.
    pub last: u64,
    /// Its hash; with `last` it is what to write down as a witness.
    pub sha256: String,
    /// Anchors in the chain.
    pub anchors: u64,
    /// They were checked with the server's secret.
    pub anchors_checked: bool,
    /// The last entry before an anchor: what stands after it can be cut off unseen.
    pub anchored: u64,
    /// Places that crashes have torn and later starts have noted.
    pub torn: u64,
    /// Bytes at the end that a crash has left; the next start notes them.
    pub torn_end: u64,
}

impl Verify {
    /// Checks a folder, or one file by itself.
    pub fn run(&self, path: &Path) -> Result<Report, AuditError> {
        let metadata = std::fs::metadata(path).map_err(|error| AuditError::io(path, "read", error))?;
        let files = if metadata.is_dir() { chain::files(path)? } else { vec![(self.first_of(path), path.to_owned())] };
        let anchor = match metadata.is_dir() {
            true => anchor::read(path, self.key.as_ref()),
            false => Ok(None),
        };
        let (anchor, broken) = match anchor {
            Ok(None) if metadata.is_dir() => (None, Some(Broken::of_log(&anchor::path(path), "missing"))),
            Ok(anchor) => (anchor, None),
            Err(AuditError::Broken(broken)) => (None, Some(broken)),
            Err(error) => return Err(error),
        };
        let first = files.first().map_or(1, |(first, _)| *first);
        let wanted = anchor.into_iter().chain(self.witness).filter(|wanted| wanted.seq >= first).collect();
        let mut walk = Walk::new(first.saturating_sub(1), self.key.as_ref(), wanted);
        let broken = match self.walk(&mut walk, path, &files, first) {
            Ok(()) => broken,
            Err(AuditError::Broken(found)) => Some(found),
            Err(error) => return Err(error),
        };
        Ok(self.report(&walk, files.len(), first, anchor, broken))
    }

    fn walk(&self, walk: &mut Walk, path: &Path, files: &[(u64, PathBuf)], first: u64) -> Result<(), AuditError> {
        let wanted = self.first.unwrap_or(1);
        if path.is_dir() && first != wanted {
            let problem = format!("begins with entry {first}, wanted {wanted}: the files before it are missing");
            return Err(Broken::of_log(path, problem).into());
        }
        for (_, file) in files {
            walk.file(file)?;
        }
        Ok(walk.finish(path, true)?)
    }

    /// A file by itself begins where its first entry says.
    fn first_of(&self, path: &Path) -> u64 {
        self.first.or_else(|| chain::first_of_name(path)).unwrap_or(1)
    }

    fn report(&self, walk: &Walk, files: usize, first: u64, anchor: Option<Anchor>, broken: Option<Broken>) -> Report {
        let anchored = anchor.map_or(0, |anchor| anchor.seq).max(walk.anchored).min(walk.seq);
        Report {
            ok: broken.is_none(),
            files,
            first,
            last: walk.seq,
            sha256: walk.hash.map(|hash| crate::keys::hex(&hash)).unwrap_or_default(),
            anchors: walk.anchors,
            anchors_checked: self.key.is_some(),
            anchored,
            torn: walk.torn,
            torn_end: if broken.is_none() { walk.torn_end() } else { 0 },
            broken,
        }
    }
}
