//! Checkpoints on disk: any published layout becomes a list of named tensors and a config, memory-mapped, not copied.
//!
//! Nothing here knows a model family: names stay as the file has them, bytes as the file stores them. Everything that
//! a file claims is checked here once (lengths, offsets, counts, overlaps), so that a [`RawTensor`]'s `bytes` always
//! has exactly the length that its `dtype` and `shape` say. No claim of a file makes us allocate more than a bounded
//! amount: see [`limits`].

mod error;
mod folder;
pub mod gguf;
mod map;
pub mod safetensors;
pub mod write;
pub mod write_gguf;

use std::collections::HashSet;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ossia_kernels::{Bytes, DType};

pub use error::{Error, Result};
pub(crate) use folder::is_flat;
pub use folder::read_json;
pub use gguf::{GgufMetadata, GgufValue};

/// What a checkpoint may claim before we refuse to follow; far above every real one, low enough to keep the memory
/// that a hostile file can make us use under 256 MB.
pub mod limits {
    /// Bytes of all safetensors headers of a checkpoint, or of a GGUF file's metadata (the format's own limit).
    pub const HEADER_BYTES: usize = 100_000_000;
    /// Bytes of config.json: a parsed value takes about a hundred times its text.
    pub const CONFIG_BYTES: usize = 1 << 20;
    /// Bytes of model.safetensors.index.json.
    pub const INDEX_BYTES: usize = 64 << 20;
    /// Tensors in a checkpoint (gpt-oss-120b with one tensor per expert has 19,000).
    pub const TENSORS: usize = 1 << 16;
    /// Bytes of a tensor's name or a metadata key.
    pub const NAME_BYTES: usize = 512;
    /// Dimensions of a tensor.
    pub const DIMENSIONS: usize = 8;
    /// Files of a checkpoint.
    pub const SHARDS: usize = 1024;
}

/// How a checkpoint names its tensors and its config.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Hugging Face: config.json and safetensors (SPEC 2.1).
    HuggingFace,
    /// OpenAI's `original/` folder (SPEC 2.2).
    Original,
    /// A llama.cpp file (SPEC 2.3).
    Gguf,
}

/// What a checkpoint says about itself.
#[derive(Debug)]
pub enum Metadata {
    /// A config.json.
    Json {
        /// The parsed file, always an object.
        value: serde_json::Value,
        /// Where it came from, for messages.
        file: PathBuf,
    },
    /// The metadata of a GGUF file.
    Gguf(GgufMetadata),
}

/// A tensor as its file stores it.
#[derive(Clone, Debug)]
pub struct RawTensor {
    /// The name in the file.
    pub name: String,
    /// The number format.
    pub dtype: DType,
    /// Row-major, slowest dimension first, in every layout.
    pub shape: Vec<usize>,
    /// The stored bytes: exactly `dtype.size_of(product of shape)`.
    pub bytes: Bytes,
    /// The file that holds it.
    pub file: Arc<Path>,
}

/// An open checkpoint.
#[derive(Debug)]
pub struct Checkpoint {
    source: String,
    layout: Layout,
    metadata: Metadata,
    tensors: Vec<RawTensor>,
    /// Indices into `tensors`, sorted by name.
    by_name: Vec<u32>,
    folder: Option<PathBuf>,
}

impl Checkpoint {
    /// Opens a folder (HF layout, or OpenAI's `original/` itself or inside; HF where both are there) or a GGUF file
    /// (known by its first bytes, not its name).
    pub fn open(path: &Path) -> Result<Self> {
        let kind = std::fs::metadata(path).map_err(|e| Error::io(path, "open", e))?;
        if kind.is_dir() {
            return folder::open(path);
        }
        let magic = first_bytes(path)?;
        if magic != *b"GGUF" {
            let found = format!("a file that starts with bytes {magic:02x?}; for safetensors name their folder");
            return Err(Error::file(path, "a checkpoint folder or a GGUF file", found));
        }
        let (metadata, tensors) = gguf::parse(&map::map(path)?, path)?;
        Self::new(path.display().to_string(), Layout::Gguf, Metadata::Gguf(metadata), tensors, None)
    }

    /// A checkpoint in memory; its layout is HF for [`Metadata::Json`] and GGUF otherwise.
    ///
    /// Fails where two tensors share a name or a tensor's bytes do not fit its dtype and shape.
    pub fn from_parts(source: String, metadata: Metadata, tensors: Vec<RawTensor>) -> Result<Self> {
        let layout = match metadata {
            Metadata::Json { .. } => Layout::HuggingFace,
            Metadata::Gguf(_) => Layout::Gguf,
        };
        tensors.iter().try_for_each(check_length)?;
        Self::new(source, layout, metadata, tensors, None)
    }

    fn new(
        source: String,
        layout: Layout,
        metadata: Metadata,
        tensors: Vec<RawTensor>,
        folder: Option<PathBuf>,
    ) -> Result<Self> {
        let by_name = index_by_name(&tensors)?;
        Ok(Self { source, layout, metadata, tensors, by_name, folder })
    }

    /// Where the checkpoint came from, for messages: a path, or what [`Self::from_parts`] was given.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// How tensors and config are named.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// The config as the checkpoint has it.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The tensor called `name`.
    pub fn get(&self, name: &str) -> Option<&RawTensor> {
        let at = self.by_name.binary_search_by(|&i| self.tensors[i as usize].name.as_str().cmp(name)).ok()?;
        self.tensors.get(self.by_name[at] as usize)
    }

    /// All tensors, in the order of the files.
    pub fn tensors(&self) -> impl Iterator<Item = &RawTensor> {
        self.tensors.iter()
    }

    /// The folder where tokenizer.json and generation_config.json would lie; none for GGUF and for memory.
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    /// Fails with the first tensor, in file order, that is not among `used`: a reader calls this when it has all it
    /// wants, so that a checkpoint of another shape is not taken for ours.
    pub fn check_unused(&self, used: &HashSet<&str>) -> Result<()> {
        let mut unused = self.tensors.iter().filter(|t| !used.contains(t.name.as_str()));
        match unused.next() {
            None => Ok(()),
            Some(first) => Err(Error::unexpected_tensor(first, unused.count())),
        }
    }
}

fn first_bytes(path: &Path) -> Result<[u8; 4]> {
    let mut magic = Vec::with_capacity(4);
    let file = map::open_regular(path)?;
    file.take(4).read_to_end(&mut magic).map_err(|e| Error::io(path, "read", e))?;
    magic.as_slice().try_into().map_err(|_| {
        Error::file(path, "a checkpoint folder or a GGUF file", format!("a file of {} bytes", magic.len()))
    })
}

/// The bytes of a tensor by its dtype and shape; the only place where they are multiplied.
fn stored_bytes(dtype: DType, shape: &[usize]) -> Option<usize> {
    let elements = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))?;
    let whole_rows = shape.last().is_none_or(|row| row.is_multiple_of(dtype.block().0));
    dtype.size_of(elements).filter(|_| whole_rows)
}

fn check_length(tensor: &RawTensor) -> Result<()> {
    if stored_bytes(tensor.dtype, &tensor.shape) == Some(tensor.bytes.len()) {
        return Ok(());
    }
    let wanted = format!("the bytes of {} {:?}", tensor.dtype, tensor.shape);
    Err(Error::tensor(&tensor.file, &tensor.name, wanted, format!("{} bytes", tensor.bytes.len())))
}

fn index_by_name(tensors: &[RawTensor]) -> Result<Vec<u32>> {
    let mut by_name: Vec<u32> = (0u32..).take(tensors.len()).collect();
    by_name.sort_by_key(|&i| tensors[i as usize].name.as_str());
    for pair in by_name.windows(2) {
        let (a, b) = (&tensors[pair[0] as usize], &tensors[pair[1] as usize]);
        if a.name == b.name {
            return Err(Error::tensor(&b.file, &b.name, "every name once", format!("it also in {}", a.file.display())));
        }
    }
    Ok(by_name)
}
