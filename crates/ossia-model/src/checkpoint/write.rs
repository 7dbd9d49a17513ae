//! Writes safetensors as a stream: the header first, then each tensor's bytes in order, in memory that does not grow.
//!
//! A file appears under its name only when it is whole: it is written beside it, synced, then renamed. Shards are named
//! as OpenAI names them, from zero, with the last index after "of" (SPEC 2.1).

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use ossia_kernels::DType;
use serde_json::{Map, Value, json};

use super::{Error, Result, folder, stored_bytes};

/// A tensor to be written: all but its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// The name.
    pub name: String,
    /// The number format: BF16, F16, F32, U8 or I32; in GGUF also Q8_0 and MXFP4, but not U8 and I32.
    pub dtype: DType,
    /// Row-major.
    pub shape: Vec<usize>,
}

impl TensorSpec {
    /// Bytes of the tensor; `None` where the product overflows.
    pub fn bytes(&self) -> Option<usize> {
        stored_bytes(self.dtype, &self.shape)
    }
}

/// Puts tensors into the order of the reference serializer: widest numbers first, then by name. Every tensor then
/// lies at a multiple of its element size.
pub fn sort_for_file(specs: &mut [TensorSpec]) {
    specs.sort_by(|a, b| b.dtype.block().1.cmp(&a.dtype.block().1).then_with(|| a.name.cmp(&b.name)));
}

/// A safetensors file being written.
#[derive(Debug)]
pub struct Writer {
    out: Pending,
    /// Bytes of tensor data still to come.
    left: u64,
}

impl Writer {
    /// Starts the file `path` with these tensors in this order and `metadata` as its `__metadata__`.
    pub fn create(path: &Path, specs: &[TensorSpec], metadata: &[(&str, &str)]) -> Result<Self> {
        let (header, left) = header(path, specs, metadata)?;
        let mut out = Pending::create(path)?;
        out.write(&(header.len() as u64).to_le_bytes())?;
        out.write(&header)?;
        Ok(Self { out, left })
    }

    /// Appends bytes of tensor data; the tensors follow each other without gaps, pieces may end anywhere.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        match self.left.checked_sub(bytes.len() as u64) {
            Some(left) => self.left = left,
            None => return Err(self.wrong_length(format!("{} more than that", bytes.len() as u64 - self.left))),
        }
        self.out.write(bytes)
    }

    /// Makes the file durable and visible; fails where bytes are missing.
    pub fn finish(self) -> Result<()> {
        if self.left != 0 {
            return Err(self.wrong_length(format!("{} fewer", self.left)));
        }
        self.out.finish()
    }

    fn wrong_length(&self, found: String) -> Error {
        Error::file(&self.out.path, "as many bytes of tensor data as the header says", found)
    }
}

/// The header's text, padded to a multiple of eight, and the bytes of data that it describes.
fn header(path: &Path, specs: &[TensorSpec], metadata: &[(&str, &str)]) -> Result<(Vec<u8>, u64)> {
    let mut map = Map::new();
    if !metadata.is_empty() {
        let pairs: Map<String, Value> = metadata.iter().map(|&(k, v)| (k.into(), v.into())).collect();
        map.insert("__metadata__".into(), pairs.into());
    }
    let mut end = 0u64;
    for spec in specs {
        let fail = |wanted: &str| Error::tensor(path, &spec.name, wanted, format!("{} {:?}", spec.dtype, spec.shape));
        let dtype = match spec.dtype {
            DType::Q8_0 | DType::Mxfp4 => return Err(fail("a dtype that safetensors has")),
            dtype => dtype.to_string(),
        };
        let size = spec.bytes().ok_or_else(|| fail("a size that fits into memory"))? as u64;
        let start = end;
        end = end.checked_add(size).ok_or_else(|| fail("a file size that fits into 64 bits"))?;
        let entry = json!({"dtype": dtype, "shape": spec.shape, "data_offsets": [start, end]});
        if map.insert(spec.name.clone(), entry).is_some() {
            return Err(Error::tensor(path, &spec.name, "every name once", "it twice"));
        }
    }
    let mut text = Value::from(map).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    Ok((text, end))
}

/// The name of shard `index` of `count`: `model.safetensors` where it is the only one.
pub fn shard_name(index: usize, count: usize) -> String {
    match count {
        0 | 1 => "model.safetensors".into(),
        _ => format!("model-{index:05}-of-{:05}.safetensors", count - 1),
    }
}

/// Splits tensors, in order, into shards of at most `most` bytes each (a larger tensor gets one of its own).
pub fn split_into_shards(specs: Vec<TensorSpec>, most: usize) -> Vec<Vec<TensorSpec>> {
    let mut shards = vec![Vec::new()];
    let mut size = 0usize;
    for spec in specs {
        let bytes = spec.bytes().unwrap_or(usize::MAX);
        size = size.saturating_add(bytes);
        match shards.last_mut() {
            Some(shard) if shard.is_empty() || size <= most => shard.push(spec),
            _ => {
                shards.push(vec![spec]);
                size = bytes;
            }
        }
    }
    shards
}

/// Fails where folder `dir` holds safetensors files or an index that writing `count` shards would not replace: a reader
/// would take them for a part of the new checkpoint.
pub fn refuse_others(dir: &Path, count: usize) -> Result<()> {
    let ours: Vec<String> = (0..count).map(|index| shard_name(index, count)).collect();
    let mut others = folder::safetensors_in(dir)?;
    others.retain(|name| !ours.contains(name));
    if count < 2 && folder::index_path(dir).exists() {
        others.push("model.safetensors.index.json".into());
    }
    match others.first() {
        None => Ok(()),
        Some(other) => Err(Error::file(dir, "a folder without another checkpoint's files", other.as_str())),
    }
}

/// Writes model.safetensors.index.json for these shards, named by [`shard_name`], into `dir`.
pub fn write_index(dir: &Path, shards: &[Vec<TensorSpec>]) -> Result<()> {
    let total: usize = shards.iter().flatten().filter_map(TensorSpec::bytes).sum();
    let mut pairs: Vec<(&str, String)> = Vec::new();
    for (index, shard) in shards.iter().enumerate() {
        pairs.extend(shard.iter().map(|s| (s.name.as_str(), shard_name(index, shards.len()))));
    }
    pairs.sort();
    let weight_map: Map<String, Value> = pairs.into_iter().map(|(name, file)| (name.into(), file.into())).collect();
    write_json(&folder::index_path(dir), &json!({"metadata": {"total_size": total}, "weight_map": weight_map}))
}

/// Writes `value` to `path`, indented, whole or not at all.
pub fn write_json(path: &Path, value: &Value) -> Result<()> {
    write_file(path, format!("{value:#}\n").as_bytes())
}

/// Writes `bytes` to `path`, whole or not at all.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut out = Pending::create(path)?;
    out.write(bytes)?;
    out.finish()
}

/// A file under a temporary name, removed again unless it is finished.
#[derive(Debug)]
pub(super) struct Pending {
    /// `None` once it is finished.
    file: Option<File>,
    path: PathBuf,
    temporary: PathBuf,
}

impl Pending {
    pub fn create(path: &Path) -> Result<Self> {
        // A rename puts the new file in the place of whatever is there, be it /dev/null.
        if let Ok(kind) = std::fs::metadata(path)
            && !kind.is_file()
        {
            let found = if kind.is_dir() { "a folder" } else { "a pipe, socket or device" };
            return Err(Error::file(path, "a regular file to replace, or none", found));
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let temporary = path.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
        let file = File::create(&temporary).map_err(|e| Error::io(&temporary, "create", e))?;
        Ok(Self { file: Some(file), path: path.into(), temporary })
    }

    /// Where the file will be.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        file.write_all(bytes).map_err(|e| Error::io(&self.path, "write", e))
    }

    pub fn finish(mut self) -> Result<()> {
        let Some(file) = self.file.take() else { return Ok(()) };
        let made = file.sync_all().and_then(|()| std::fs::rename(&self.temporary, &self.path));
        if let Err(e) = made.and_then(|()| sync_folder(&self.path)) {
            self.file = Some(file);
            return Err(Error::io(&self.path, "finish writing", e));
        }
        Ok(())
    }
}

/// Makes a rename inside the file's folder durable, where the system has a way to.
fn sync_folder(path: &Path) -> std::io::Result<()> {
    if !cfg!(unix) {
        return Ok(());
    }
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}

impl Drop for Pending {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            // Nothing can be done about a failure here, and the real error is already on its way.
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}
