//! What can be wrong with a checkpoint, as one line that names the file, the tensor or key, what was wanted and found.
//!
//! Files are hostile: names and values from them are shown with control characters escaped and cut to a bounded
//! length, so that a message is always one line of text whatever the file holds.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::RawTensor;

/// The result of reading or writing a checkpoint.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a checkpoint could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused.
    #[error("{}: cannot {action}: {source}", Shown::path(file))]
    Io {
        /// The file or folder.
        file: PathBuf,
        /// What was tried, e.g. "open".
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The file as a whole is not what it should be.
    #[error("{}: wanted {}, found {}", Shown::path(file), Shown::new(wanted), Shown::new(found))]
    File {
        /// The file or folder.
        file: PathBuf,
        /// What would have been right.
        wanted: String,
        /// What is there.
        found: String,
    },
    /// One tensor is not what it should be.
    #[error(
        "{}: tensor {}: wanted {}, found {}",
        Shown::path(file),
        Shown::new(tensor),
        Shown::new(wanted),
        Shown::new(found)
    )]
    Tensor {
        /// The file that holds the tensor, or that should hold it.
        file: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// What would have been right.
        wanted: String,
        /// What is there.
        found: String,
    },
    /// One entry of a config file or of a GGUF file's metadata is not what it should be.
    #[error(
        "{}: key {}: wanted {}, found {}",
        Shown::path(file),
        Shown::new(key),
        Shown::new(wanted),
        Shown::new(found)
    )]
    Key {
        /// The file.
        file: PathBuf,
        /// The key, with a dot between the levels of an object.
        key: String,
        /// What would have been right.
        wanted: String,
        /// What is there.
        found: String,
    },
}

impl Error {
    /// The system refused `action` ("open", "write" ...) on `file`.
    pub fn io(file: &Path, action: &'static str, source: io::Error) -> Self {
        Self::Io { file: file.into(), action, source }
    }

    /// `file` as a whole is wrong.
    pub fn file(file: &Path, wanted: impl Into<String>, found: impl Into<String>) -> Self {
        Self::File { file: file.into(), wanted: wanted.into(), found: found.into() }
    }

    /// Tensor `tensor` of `file` is wrong.
    pub fn tensor(file: &Path, tensor: &str, wanted: impl Into<String>, found: impl Into<String>) -> Self {
        Self::Tensor { file: file.into(), tensor: cut(tensor), wanted: wanted.into(), found: found.into() }
    }

    /// Entry `key` of `file` is wrong.
    pub fn key(file: &Path, key: &str, wanted: impl Into<String>, found: impl Into<String>) -> Self {
        Self::Key { file: file.into(), key: cut(key), wanted: wanted.into(), found: found.into() }
    }

    /// A tensor that the model needs is not there; `source` is [`super::Checkpoint::source`], `wanted` says e.g. its
    /// shape.
    pub fn missing_tensor(source: &str, tensor: &str, wanted: impl Into<String>) -> Self {
        Self::tensor(Path::new(source), tensor, wanted, "no tensor of this name")
    }

    /// The tensor has another shape than the config demands.
    pub fn wrong_shape(tensor: &RawTensor, wanted: &[usize]) -> Self {
        Self::tensor(&tensor.file, &tensor.name, format!("shape {wanted:?}"), format!("shape {:?}", tensor.shape))
    }

    /// The tensor has a number format that cannot stand here; `wanted` lists those that can.
    pub fn wrong_dtype(tensor: &RawTensor, wanted: &str) -> Self {
        let found = format!("{} of shape {:?}", tensor.dtype, tensor.shape);
        Self::tensor(&tensor.file, &tensor.name, wanted, found)
    }

    /// The checkpoint holds a tensor that the model has no place for; `others` counts further ones.
    pub fn unexpected_tensor(tensor: &RawTensor, others: usize) -> Self {
        let more = if others == 0 { String::new() } else { format!(", and {others} more like it") };
        let found = format!("{} of shape {:?}{more}", tensor.dtype, tensor.shape);
        Self::tensor(&tensor.file, &tensor.name, "only tensors that a gpt-oss model of this config has", found)
    }

    /// Scale number `index` of the tensor is 255, the NaN of E8M0 (SPEC 3).
    pub fn nan_scale(tensor: &RawTensor, index: usize) -> Self {
        Self::tensor(&tensor.file, &tensor.name, "scale bytes of 0 to 254", format!("255 (NaN) at scale {index}"))
    }
}

/// At most the first 256 characters: errors must not carry a hostile file's megabytes.
fn cut(text: &str) -> String {
    text.chars().take(MOST_SHOWN).collect()
}

const MOST_SHOWN: usize = 256;

/// Text from outside, shown on one line: control characters escaped, cut to a bounded length.
struct Shown<'a> {
    text: std::borrow::Cow<'a, str>,
    most: usize,
}

impl<'a> Shown<'a> {
    fn new(text: &'a str) -> Self {
        Self { text: text.into(), most: MOST_SHOWN }
    }

    fn path(path: &'a Path) -> Self {
        Self { text: path.to_string_lossy(), most: 4096 }
    }
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.text.chars().take(self.most) {
            let hidden = c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}');
            if hidden { write!(f, "{}", c.escape_default()) } else { write!(f, "{c}") }?;
        }
        if self.text.chars().nth(self.most).is_some() { f.write_str("...") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::Error;
    use std::path::Path;

    #[test]
    fn a_message_is_one_bounded_line_whatever_the_name() {
        let name = format!("a\nb\u{1b}[31m\u{2028}{}", "x".repeat(10_000));
        let line = Error::tensor(Path::new("f\n.gguf"), &name, "y", "z\r\n").to_string();
        assert!(!line.contains(['\n', '\r', '\u{1b}', '\u{2028}']), "{line}");
        assert!(line.starts_with(r"f\n.gguf: tensor a\nb\u{1b}[31m"), "{line}");
        assert!(line.ends_with(r"wanted y, found z\r\n") && line.len() < 600, "{line}");
    }
}
