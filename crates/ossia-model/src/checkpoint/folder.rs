//! A checkpoint folder: finds config.json and the safetensors files of the HF layout or of OpenAI's `original/`.
//!
//! The index, where there is one, decides which files belong; a count is never read out of their names (SPEC 2.1).
//! Every name in an index is a plain file name in the same folder: nothing outside the folder is opened, except
//! through links that the folder's owner made (the Hugging Face cache is built of them).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use super::safetensors::{self, Budget, Text};
use super::{Checkpoint, Error, Layout, Metadata, RawTensor, Result, limits, map};

const INDEX: &str = "model.safetensors.index.json";
const SINGLE: &str = "model.safetensors";

/// Opens the checkpoint in folder `path`.
pub(super) fn open(path: &Path) -> Result<Checkpoint> {
    let inner = path.join("original");
    let has_inner = inner.join("config.json").is_file();
    if !path.join("config.json").is_file() {
        if has_inner {
            return open_as(path, &inner, Layout::Original);
        }
        let found = "none here and none in original/ (a GGUF file is named itself, not its folder)";
        return Err(Error::file(path, "config.json", found));
    }
    if has_inner && safetensors_in(path)?.is_empty() {
        return open_as(path, &inner, Layout::Original);
    }
    let config = read_config(path)?;
    let layout = if is_flat(&config) { Layout::Original } else { Layout::HuggingFace };
    open_with(path, path, layout, config)
}

fn open_as(folder: &Path, holding: &Path, layout: Layout) -> Result<Checkpoint> {
    open_with(folder, holding, layout, read_config(holding)?)
}

/// `folder` is what the user named, `holding` has the weights.
fn open_with(folder: &Path, holding: &Path, layout: Layout, config: Value) -> Result<Checkpoint> {
    let tensors = match layout {
        Layout::HuggingFace if holding.join(INDEX).exists() => indexed(holding)?,
        Layout::HuggingFace if holding.join(SINGLE).exists() => read_files(holding, &[SINGLE.to_owned()])?,
        _ => read_files(holding, &safetensors_in(holding)?)?,
    };
    let metadata = Metadata::Json { value: config, file: holding.join("config.json") };
    Checkpoint::new(holding.display().to_string(), layout, metadata, tensors, Some(folder.into()))
}

/// Whether a config.json is the flat one of `original/` (SPEC 1).
pub(crate) fn is_flat(config: &Value) -> bool {
    config.get("num_experts").is_some() && config.get("model_type").is_none()
}

fn read_config(folder: &Path) -> Result<Value> {
    let file = folder.join("config.json");
    let value = read_json(&file, limits::CONFIG_BYTES)?;
    if !value.is_object() {
        return Err(Error::file(&file, "a JSON object", "another JSON value"));
    }
    Ok(value)
}

/// The JSON value in the regular file `file`, which may have at most `most` bytes and 127 levels.
pub fn read_json(file: &Path, most: usize) -> Result<Value> {
    serde_json::from_slice(&read_capped(file, most)?).map_err(|e| Error::file(file, "valid JSON", e.to_string()))
}

fn read_capped(file: &Path, most: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = most as u64 + 1;
    map::open_regular(file)?.take(limit).read_to_end(&mut bytes).map_err(|e| Error::io(file, "read", e))?;
    if bytes.len() > most {
        return Err(Error::file(file, format!("at most {most} bytes"), "more"));
    }
    Ok(bytes)
}

/// The names of all `*.safetensors` in `folder`, sorted.
pub(super) fn safetensors_in(folder: &Path) -> Result<Vec<String>> {
    let fail = |e| Error::io(folder, "list", e);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(fail)? {
        match entry.map_err(fail)?.file_name().into_string() {
            Ok(name) if name.ends_with(".safetensors") => names.push(name),
            _ => continue,
        }
        if names.len() > limits::SHARDS {
            return Err(Error::file(folder, format!("at most {} safetensors files", limits::SHARDS), "more"));
        }
    }
    names.sort();
    Ok(names)
}

fn read_files(folder: &Path, names: &[String]) -> Result<Vec<RawTensor>> {
    if names.is_empty() {
        return Err(Error::file(folder, format!("{SINGLE} or other *.safetensors beside config.json"), "none"));
    }
    let mut budget = Budget::default();
    let mut tensors = Vec::new();
    for name in names {
        let file = folder.join(name);
        tensors.extend(safetensors::parse(&map::map(&file)?, &file, &mut budget)?);
    }
    Ok(tensors)
}

/// The tensors of the files that the index names, each file holding exactly what the index says.
fn indexed(folder: &Path) -> Result<Vec<RawTensor>> {
    let file = folder.join(INDEX);
    let index = read_index(&read_capped(&file, limits::INDEX_BYTES)?, &file)?;
    for shard in &index.shards {
        if !folder.join(shard).exists() {
            return Err(Error::file(&file, format!("the file {shard} that it names"), "no such file beside it"));
        }
    }
    let tensors = read_files(folder, &index.shards)?;
    check_index(&index, &tensors, &file)?;
    Ok(tensors)
}

fn check_index(index: &Index, tensors: &[RawTensor], file: &Path) -> Result<()> {
    let mut seen = HashSet::new();
    for tensor in tensors {
        let holder = tensor.file.file_name().unwrap_or_default().to_string_lossy();
        let named = index.entries.get(&tensor.name).and_then(|&shard| index.shards.get(shard));
        match named {
            Some(shard) if *shard == holder => seen.insert(tensor.name.as_str()),
            Some(shard) => {
                return Err(Error::tensor(file, &tensor.name, format!("it in {shard}"), format!("it in {holder}")));
            }
            None => {
                return Err(Error::tensor(
                    file,
                    &tensor.name,
                    format!("an entry for it, since {holder} holds it"),
                    "none",
                ));
            }
        };
    }
    match index.entries.iter().filter(|(name, _)| !seen.contains(name.as_str())).min() {
        None => Ok(()),
        Some((name, &shard)) => {
            let shard = index.shards.get(shard).map_or("its file", String::as_str);
            Err(Error::tensor(file, name, format!("it in {shard}"), "no tensor of this name there"))
        }
    }
}

/// What an index says.
#[derive(Debug)]
pub(super) struct Index {
    /// File names, sorted.
    pub shards: Vec<String>,
    /// Tensor name to index into `shards`.
    pub entries: HashMap<String, usize>,
}

/// Reads an index from its text.
pub(super) fn read_index(text: &[u8], file: &Path) -> Result<Index> {
    let mut json = serde_json::Deserializer::from_slice(text);
    let map = json.deserialize_map(Top).and_then(|map| json.end().map(|()| map));
    let map = map.map_err(|e| Error::file(file, "an object with weight_map {tensor: file name}", e.to_string()))?;
    if map.is_empty() {
        return Err(Error::file(file, "a weight_map that names tensors", "an empty one"));
    }
    let shards: Vec<String> = map.keys().cloned().collect();
    if let Some(bad) = shards.iter().find(|name| !is_plain_name(name)) {
        return Err(Error::file(file, "plain *.safetensors file names of the same folder", format!("{bad:?}")));
    }
    let mut entries = HashMap::new();
    for (shard, names) in map.into_values().enumerate() {
        for name in names {
            if entries.contains_key(&name) {
                return Err(Error::tensor(file, &name, "one entry", "two"));
            }
            entries.insert(name, shard);
        }
    }
    Ok(Index { shards, entries })
}

/// Whether `name` is one visible file name and no path.
fn is_plain_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '+' | ' ');
    name.ends_with(".safetensors") && !name.starts_with('.') && name.chars().all(plain)
}

type Shards = BTreeMap<String, Vec<String>>;

/// Reads the index's outer object.
struct Top;

impl<'de> Visitor<'de> for Top {
    type Value = Shards;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with weight_map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Shards, A::Error> {
        let mut found = None;
        while let Some(key) = map.next_key_seed(Text(limits::NAME_BYTES))? {
            if key == "weight_map" {
                if found.replace(map.next_value_seed(WeightMap)?).is_some() {
                    return Err(A::Error::custom("weight_map twice"));
                }
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        found.ok_or_else(|| A::Error::custom("no weight_map"))
    }
}

/// Reads `{tensor: file}` into the tensors of each file.
struct WeightMap;

impl<'de> DeserializeSeed<'de> for WeightMap {
    type Value = Shards;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> std::result::Result<Shards, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for WeightMap {
    type Value = Shards;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object that maps tensors to file names")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Shards, A::Error> {
        let mut shards = Shards::new();
        let mut left = limits::TENSORS;
        while let Some(tensor) = map.next_key_seed(Text(limits::NAME_BYTES))? {
            let shard = map.next_value_seed(Text(limits::NAME_BYTES))?;
            shards.entry(shard).or_default().push(tensor);
            left = left.checked_sub(1).ok_or_else(|| A::Error::custom("too many tensors"))?;
            if shards.len() > limits::SHARDS {
                return Err(A::Error::custom(format_args!("more than {} files", limits::SHARDS)));
            }
        }
        Ok(shards)
    }
}

/// Where the index of `folder` lies.
pub(super) fn index_path(folder: &Path) -> PathBuf {
    folder.join(INDEX)
}
