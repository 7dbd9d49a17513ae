//! What can be wrong with a user's data. Each variant prints one line: where, what is wrong, what to do.

use std::path::{Path, PathBuf};

use crate::dataset::DatasetError;

/// An error of the data of a fine-tuning run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system could not read or write a file.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file that holds no examples at all.
    #[error("{}: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// An example that cannot be used.
    #[error("{}:{line}: {problem} (on_bad = \"skip\" passes over such examples and counts them)", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line on which the example begins, from 1.
        line: u64,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// No example is left.
    #[error("no example to learn from in {files}: {why}")]
    Empty {
        /// The files.
        files: String,
        /// Where they went.
        why: String,
    },
    /// A setting that cannot be.
    #[error("{what}: wanted {wanted}, found {found}")]
    Setting {
        /// Which.
        what: &'static str,
        /// What would do.
        wanted: &'static str,
        /// What was given.
        found: String,
    },
    /// Shards could not be written or read.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
}

/// Result of this folder.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(super) fn io(path: &Path, action: &'static str, source: std::io::Error) -> Self {
        Self::Io { path: path.to_owned(), action, source }
    }

    pub(super) fn file(path: &Path, problem: impl Into<String>) -> Self {
        Self::File { path: path.to_owned(), problem: problem.into() }
    }
}

/// Why one example cannot be used; the caller knows file and line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Bad {
    /// It says something wrong.
    Wrong(String),
    /// It has more tokens than a document may have.
    TooLong(String),
}

impl Bad {
    pub fn text(self) -> String {
        match self {
            Self::Wrong(text) | Self::TooLong(text) => text,
        }
    }
}

impl From<String> for Bad {
    fn from(text: String) -> Self {
        Self::Wrong(text)
    }
}

impl From<&str> for Bad {
    fn from(text: &str) -> Self {
        Self::Wrong(text.to_owned())
    }
}
