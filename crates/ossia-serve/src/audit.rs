//! The audit log: who asked what kind of thing of which model, when, and how many tokens it took. JSON lines that are only
//! ever appended to; each holds the SHA-256 of the line before it, and now and then a line holds an HMAC under the
//! server's secret (an anchor), so that nobody without the secret can change, remove or reorder what stands before it.
//!
//! Promises: every request that reached a handler has one entry, made when nothing of it is left, so that its tokens are
//! known and no way of ending forgets it. No request waits for the disk. What cannot be logged is refused: while the log
//! cannot be written new requests get 503, and the entries of running ones are kept until it can. What is said and
//! answered is in it only where that is switched on. docs/security.md says what is detected and what is not.

mod anchor;
mod chain;
mod entry;
mod trail;
mod verify;
mod walk;
mod writer;

#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

pub use anchor::{Anchor, AnchorKey};
pub use chain::{Chain, Place};
pub use entry::{Content, Event, RequestEntry, unhex};
pub use trail::{Started, Trail};
pub use verify::{Report, Verify};
pub use walk::Broken;

use crate::auth::Identity;
use crate::error::ApiError;

/// The log's folder in a data folder.
pub const FOLDER: &str = "audit";
/// Entries that may wait for the disk, those of running requests among them.
const MOST_WAITING: usize = 16_384;
/// Bytes of contents that may wait for the disk.
const MOST_WAITING_BYTES: usize = 256 << 20;
/// The end waits so long for entries of requests that are still running, and for the disk.
const CLOSING: Duration = Duration::from_secs(5);

/// What a log is to be.
#[derive(Debug, Clone)]
pub struct AuditOptions {
    /// Requests and answers are logged too.
    pub content: bool,
    /// A file that is longer is followed by the next one.
    pub most_bytes: u64,
}

impl Default for AuditOptions {
    fn default() -> Self {
        Self { content: false, most_bytes: 64 << 20 }
    }
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// A file or the folder.
    #[error("{path}: cannot {action}: {error}")]
    Io {
        /// Which.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        error: std::io::Error,
    },
    /// Another server writes it.
    #[error("{0}: another server writes this audit log: stop it, or give this one its own --data")]
    Taken(PathBuf),
    /// The log is not what a server has left.
    #[error("{0}. `ossia audit verify` says more. To begin a new log, move the folder away and keep it")]
    Broken(#[from] Broken),
}

impl AuditError {
    pub(crate) fn io(path: &Path, action: &'static str, error: std::io::Error) -> Self {
        Self::Io { path: path.to_owned(), action, error }
    }
}

/// What the log's writer and its users both see.
#[derive(Default)]
pub(crate) struct State {
    /// The log cannot be written at the moment.
    failing: AtomicBool,
    /// Bytes of contents that wait.
    waiting_bytes: AtomicUsize,
    /// Entries that are on the disk.
    written: AtomicU64,
    /// Requests that were refused because they could not be logged.
    refused: AtomicU64,
}

/// A log that is being written.
pub struct Audit {
    sender: mpsc::Sender<Event>,
    state: Arc<State>,
    content: bool,
    model: Arc<str>,
    closing: watch::Sender<bool>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Audit {
    /// Opens the log in a data folder, sets aside what a crash has torn, and begins to write. Inside a tokio runtime.
    pub fn open(data: &Path, secret: &[u8], model: &str, options: &AuditOptions) -> Result<Self, AuditError> {
        let folder = data.join(FOLDER);
        let place = Place { folder: folder.clone(), key: AnchorKey::new(secret), most_bytes: options.most_bytes };
        let mut chain = Chain::open(place)?;
        let start = Event::Start { version: env!("CARGO_PKG_VERSION").to_owned(), model: model.to_owned() };
        let begun = chain.mend().and_then(|()| chain.append(&[start])).and_then(|()| chain.anchor());
        begun.map_err(|error| AuditError::io(&folder, "write to", error))?;
        let (sender, receiver) = mpsc::channel(MOST_WAITING);
        let (closing, closed) = watch::channel(false);
        let state = Arc::new(State::default());
        let task = tokio::spawn(writer::run(chain, receiver, Arc::clone(&state), closed));
        let (model, task) = (model.into(), Mutex::new(Some(task)));
        Ok(Self { sender, state, content: options.content, model, closing, task })
    }

    /// Makes room for a request's entry, which is written when the last copy of the trail is gone.
    pub fn begin(&self, identity: &Identity, id: &str, route: &str) -> Result<Trail, ApiError> {
        let refused = |_| {
            self.state.refused.fetch_add(1, Ordering::Relaxed);
            ApiError::NotLogged
        };
        if self.state.failing.load(Ordering::Relaxed)
            || self.state.waiting_bytes.load(Ordering::Relaxed) > MOST_WAITING_BYTES
        {
            return Err(refused(()));
        }
        let permit = self.sender.clone().try_reserve_owned().map_err(|_| refused(()))?;
        let started = Started { id, route, key: &identity.key_id, name: &identity.name, model: &self.model };
        Ok(Trail::new(permit, Arc::clone(&self.state), started, self.content))
    }

    /// Writes what is left and the last anchor.
    pub async fn close(&self) {
        self.closing.send_replace(true);
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task
            && tokio::time::timeout(2 * CLOSING, task).await.is_err()
        {
            tracing::error!("the end of the audit log could not be written");
        }
    }

    /// Its counts in Prometheus' text format.
    pub fn write_metrics(&self, out: &mut String) {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let failing = u64::from(self.state.failing.load(Ordering::Relaxed));
        for (name, kind, help, value) in [
            ("ossia_audit_entries_total", "counter", "Entries of requests on the disk.", load(&self.state.written)),
            ("ossia_audit_refused_total", "counter", "Requests refused unlogged.", load(&self.state.refused)),
            ("ossia_audit_failing", "gauge", "1 while the audit log cannot be written.", failing),
        ] {
            // Writing to a String cannot fail.
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
        }
    }
}
