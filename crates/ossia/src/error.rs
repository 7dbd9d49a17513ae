//! What ends a command: one clear line on stderr, exit status 1; wrong usage 2.

use std::path::{Path, PathBuf};

use crate::hub::HubError;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The command line asks for something that cannot be.
    #[error("{0}")]
    Usage(String),
    /// Finding or fetching a model.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// Reading a checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] ossia_model::checkpoint::Error),
    /// Loading or running a model.
    #[error(transparent)]
    Model(#[from] ossia_model::Error),
    /// Training.
    #[error(transparent)]
    Train(#[from] ossia_train::Error),
    /// Tokenizer or conversation.
    #[error(transparent)]
    Text(#[from] ossia_text::TextError),
    /// A sampling parameter out of range.
    #[error(transparent)]
    Parameter(#[from] ossia_kernels::ops::sample::BadParam),
    /// No token can be chosen.
    #[error(transparent)]
    NoChoice(#[from] ossia_kernels::ops::sample::NoChoice),
    /// A file or stream.
    #[error("{path}: cannot {action}: {error}")]
    Io {
        /// Where.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        error: std::io::Error,
    },
    /// Stopped by a signal with everything saved: the same command goes on. Schedulers know the status (EX_TEMPFAIL).
    #[error("{0}")]
    Stopped(String),
    /// Anything else that is fully said in one line.
    #[error("{0}")]
    Message(String),
}

impl Failure {
    /// A failed access to `path`.
    pub fn io(path: impl AsRef<Path>, action: &'static str, error: std::io::Error) -> Self {
        Self::Io { path: path.as_ref().to_owned(), action, error }
    }

    /// The exit status.
    pub fn status(&self) -> u8 {
        match self {
            Failure::Usage(_) | Failure::Parameter(_) => 2,
            Failure::Stopped(_) => 75,
            _ => 1,
        }
    }
}
