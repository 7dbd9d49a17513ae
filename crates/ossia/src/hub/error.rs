//! What can go wrong between a model's name and its files. Each message is one line: what, where, what was wanted and found,
//! and what to do about it.

use super::digest::Digest;
use std::path::PathBuf;

/// A failure to find or fetch a model.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// A file that is named and is not there.
    #[error("there is no file {name}: look at the path, or list what was fetched with `ossia list`")]
    Missing {
        /// As asked for.
        name: String,
    },
    /// A name that is neither a path nor a repository.
    #[error(
        "{name:?} is neither a folder, a .gguf file nor a model's name: give a path, or a name such as gpt-oss-20b or openai/gpt-oss-20b"
    )]
    Name {
        /// As asked for.
        name: String,
    },
    /// A good name that the cache does not hold.
    #[error("{repo} is not on this machine: looked for {}; fetch it with `ossia pull {name}`, or give the path of a folder", looked_for.display())]
    NotCached {
        /// As asked for.
        name: String,
        /// The repository that the name stands for.
        repo: String,
        /// The file or folder that was not there.
        looked_for: PathBuf,
    },
    /// A folder or snapshot without a model in it.
    #[error("{}: no model here: wanted config.json with *.safetensors, an original/ folder, or one .gguf file; found {found}", path.display())]
    NoModel {
        /// The folder.
        path: PathBuf,
        /// What is in it.
        found: String,
    },
    /// A repository or folder with several .gguf files.
    #[error("{place} holds several .gguf files ({names}): {todo}")]
    Choose {
        /// The repository or folder.
        place: String,
        /// Their names.
        names: String,
        /// How to choose.
        todo: String,
    },
    /// `HF_HUB_OFFLINE` forbids the network.
    #[error("HF_HUB_OFFLINE is set, so {repo} is not fetched: unset it to download, or copy the model into {}", cache.display())]
    Offline {
        /// The repository.
        repo: String,
        /// The cache's folder.
        cache: PathBuf,
    },
    /// An environment variable that cannot be used.
    #[error("{variable}: wanted {wanted}, found {found}")]
    Setting {
        /// Its name.
        variable: &'static str,
        /// What it may be.
        wanted: &'static str,
        /// What it is, secrets left out.
        found: String,
    },
    /// The file system refused.
    #[error("{}: {action} failed: {source}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The download does not fit on the disk.
    #[error(
        "{}: not enough room: {needed} bytes are still to come, {free} are free; free some, or set HF_HOME to a folder on a larger disk", path.display()
    )]
    Room {
        /// The cache's folder.
        path: PathBuf,
        /// Bytes to download.
        needed: u64,
        /// Bytes free.
        free: u64,
    },
    /// Another process is writing the same file.
    #[error("{}: another program is downloading this file: wait for it, then run the command again", path.display())]
    Busy {
        /// The partial file.
        path: PathBuf,
    },
    /// The connection failed or broke, even after the retries.
    #[error("{url}: {reason}; run the command again to go on where it stopped")]
    Network {
        /// What was asked for, without a query.
        url: String,
        /// Why it failed.
        reason: String,
    },
    /// The server answered, but not with what was asked for.
    #[error("{url}: the server answered {status}: {advice}")]
    Status {
        /// What was asked for, without a query.
        url: String,
        /// The HTTP status.
        status: u16,
        /// What this means here.
        advice: String,
    },
    /// The server's description of the repository cannot be used.
    #[error("{url}: {problem}; nothing was fetched")]
    Listing {
        /// The address of the description.
        url: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A file that the repository does not have.
    #[error("{repo} has no {wanted}: it has {found}")]
    NoFile {
        /// The repository.
        repo: String,
        /// What was looked for.
        wanted: String,
        /// What there is.
        found: String,
    },
    /// The bytes are not those that the server promised.
    #[error(
        "{file}: wrong content: wanted {wanted}, found {found}; it was deleted, run the command again to fetch it anew"
    )]
    Hash {
        /// The file's name in its repository.
        file: String,
        /// The hash that the repository gives.
        wanted: Digest,
        /// The hash of what came.
        found: Digest,
    },
}

impl HubError {
    /// What happened, without advice: for a failure that is about to be retried.
    pub(super) fn reason(&self) -> String {
        match self {
            HubError::Network { url, reason } => format!("{url}: {reason}"),
            HubError::Status { url, status, .. } => format!("{url}: the server answered {status}"),
            other => other.to_string(),
        }
    }

    /// Wraps an error of the file system.
    pub(super) fn file(path: &std::path::Path, action: &'static str) -> impl FnOnce(std::io::Error) -> HubError {
        let path = path.to_owned();
        move |source| HubError::File { path, action, source }
    }
}
