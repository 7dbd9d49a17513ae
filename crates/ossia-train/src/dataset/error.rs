//! What can be wrong with training data. Each variant prints one line: where, what was wanted, what was found, what to
//! do.

use std::path::{Path, PathBuf};

use ossia_text::TextError;

/// An error of the data side of training.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// The system could not read or write a file.
    #[error("{path}: cannot {action}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried: "open", "read", "write".
        action: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file that is not a usable shard.
    #[error("{path}: wanted {wanted}, found {found}: {advice}")]
    Shard {
        /// The file.
        path: PathBuf,
        /// What a usable shard has.
        wanted: String,
        /// What this one has.
        found: String,
        /// What to do.
        advice: &'static str,
    },
    /// A document that a shard cannot hold.
    #[error("document {index}: {problem}")]
    Document {
        /// Its place in the shard, from 0.
        index: usize,
        /// What was wanted and found.
        problem: String,
    },
    /// A conversation of which no turn can be learned.
    #[error("message {index}: {problem}")]
    Turn {
        /// The message's place in the conversation, from 0.
        index: usize,
        /// What is wrong, and what to do.
        problem: &'static str,
    },
    /// A setting or cursor that does not fit the data.
    #[error("{what}: wanted {wanted}, found {found}: {advice}")]
    Setting {
        /// Which one.
        what: &'static str,
        /// What would fit.
        wanted: String,
        /// What was given.
        found: String,
        /// What to do.
        advice: &'static str,
    },
    /// Text that cannot be rendered or encoded.
    #[error(transparent)]
    Text(#[from] TextError),
}

impl DatasetError {
    pub(super) fn io(path: &Path, action: &'static str, source: std::io::Error) -> Self {
        Self::Io { path: path.to_owned(), action, source }
    }

    pub(super) fn shard(
        path: &Path,
        wanted: impl Into<String>,
        found: impl Into<String>,
        advice: &'static str,
    ) -> Self {
        Self::Shard { path: path.to_owned(), wanted: wanted.into(), found: found.into(), advice }
    }

    pub(super) fn setting(
        what: &'static str,
        wanted: impl Into<String>,
        found: impl Into<String>,
        advice: &'static str,
    ) -> Self {
        Self::Setting { what, wanted: wanted.into(), found: found.into(), advice }
    }
}
