//! The crate's one error type: each variant prints one line that says where, what was found and what to do.

use std::path::{Path, PathBuf};

/// What can go wrong with tokenizers and conversations.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// A tokenizer file could not be read.
    #[error("{path}: cannot be read: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A tokenizer is larger than any real one.
    #[error("{origin}: {what} is {found}, more than the limit of {limit}")]
    TooLarge {
        /// The file where it is known, else "tokenizer.json" or "GGUF tokenizer".
        origin: String,
        /// What was counted.
        what: &'static str,
        /// The count found.
        found: usize,
        /// The largest count accepted.
        limit: usize,
    },
    /// A tokenizer that is malformed, or of a kind that is not supported.
    #[error("{origin}: {problem}")]
    Tokenizer {
        /// The file where it is known, else "tokenizer.json" or "GGUF tokenizer".
        origin: String,
        /// What was wanted and found.
        problem: String,
    },
    /// Text holds a byte that the vocabulary has no token for (only small vocabularies).
    #[error("this tokenizer has no token for byte 0x{byte:02x} (byte {at} of the text): its vocabulary is too small")]
    NoTokenForByte {
        /// The byte.
        byte: u8,
        /// Its offset in the text, in bytes.
        at: usize,
    },
    /// Harmony needs a special token that the vocabulary lacks.
    #[error("this tokenizer has no {0}: conversations need harmony's special tokens, only raw token ids work here")]
    MissingSpecial(&'static str),
    /// No byte-level tokenizer of the size asked for.
    #[error("a byte-level tokenizer of {found} tokens: wanted {least} to {most}")]
    VocabSize {
        /// The size asked for.
        found: usize,
        /// The smallest size possible.
        least: usize,
        /// The largest size accepted.
        most: usize,
    },
    /// A message that harmony cannot express.
    #[error("message {index}: {problem}")]
    Message {
        /// Its place in the conversation, from 0.
        index: usize,
        /// What is wrong with it.
        problem: &'static str,
    },
}

impl TextError {
    /// Names the file that a tokenizer was read from.
    pub(crate) fn in_file(mut self, path: &Path) -> Self {
        if let TextError::Tokenizer { origin, .. } | TextError::TooLarge { origin, .. } = &mut self {
            *origin = path.display().to_string();
        }
        self
    }
}
