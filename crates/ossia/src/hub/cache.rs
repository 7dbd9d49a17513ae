//! The Hugging Face cache: names of repositories, their folders, and which models of the family it holds.
//! A name becomes part of a path, so only the characters that Hugging Face allows are let in.

use super::error::HubError;
use super::layout::{self, Layout};
use super::settings::Settings;
use std::io::Read;
use std::path::{Path, PathBuf};

/// A repository's checked name, `org/name`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Repo(String);

impl Repo {
    /// `org/name`, or a bare `gpt-oss...`, which is OpenAI's.
    pub fn named(name: &str) -> Option<Self> {
        let full = if name.contains('/') { name.to_owned() } else { format!("openai/{name}") };
        let (org, model) = full.split_once('/')?;
        let known = name.contains('/') || name.starts_with("gpt-oss");
        (known && is_part(org) && is_part(model)).then(|| Repo(full.clone()))
    }

    /// `org/name`.
    pub fn id(&self) -> &str {
        &self.0
    }

    /// The repository's folder in `cache`.
    pub fn folder(&self, cache: &Path) -> PathBuf {
        cache.join(format!("models--{}", self.0.replace('/', "--")))
    }

    /// The file that holds the newest fetched revision.
    pub fn reference(&self, cache: &Path) -> PathBuf {
        self.folder(cache).join("refs").join("main")
    }

    /// The newest fetched revision.
    pub fn revision(&self, cache: &Path) -> Option<String> {
        let text = std::fs::read_to_string(self.reference(cache)).ok()?;
        Some(text.trim().to_owned()).filter(|revision| is_part(revision))
    }

    /// The folder of a revision's files.
    pub fn snapshot(&self, cache: &Path, revision: &str) -> PathBuf {
        self.folder(cache).join("snapshots").join(revision)
    }

    fn from_folder(name: &str) -> Option<Self> {
        let (org, model) = name.strip_prefix("models--")?.split_once("--")?;
        Repo::named(&format!("{org}/{model}"))
    }
}

/// One component of a name: no separators, and nothing that a path could read otherwise.
fn is_part(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    !text.is_empty()
        && text.len() <= 96
        && text.bytes().all(allowed)
        && !text.starts_with(['.', '-'])
        && !text.contains("..")
}

/// A model of the family in the cache.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct CachedModel {
    /// `org/name`.
    pub repo: String,
    /// The commit.
    pub revision: String,
    /// What to give as MODEL when the name alone does not choose it.
    pub path: PathBuf,
    /// Of all files that the snapshot links to.
    pub bytes: u64,
    /// How the files are laid out.
    pub layout: Layout,
    /// Whether every file that the snapshot names is there.
    pub complete: bool,
}

/// Every gpt-oss model in the cache, sorted by name and revision; an absent cache holds none.
pub fn list(settings: &Settings) -> Result<Vec<CachedModel>, HubError> {
    let mut models = Vec::new();
    if !settings.cache.is_dir() {
        return Ok(models);
    }
    for repo in layout::names(&settings.cache)?.iter().filter_map(|name| Repo::from_folder(name)) {
        let snapshots = repo.folder(&settings.cache).join("snapshots");
        for revision in layout::names(&snapshots).unwrap_or_default() {
            let snapshot = snapshots.join(&revision);
            models.extend(models_in(&snapshot).into_iter().map(|(path, layout)| {
                let (bytes, complete) = weigh(&path);
                CachedModel { repo: repo.id().to_owned(), revision: revision.clone(), path, bytes, layout, complete }
            }));
        }
    }
    Ok(models)
}

/// The family's models in a snapshot: its folder, its `original/`, each .gguf file.
fn models_in(snapshot: &Path) -> Vec<(PathBuf, Layout)> {
    let folders = [snapshot.to_owned(), snapshot.join("original")].into_iter().filter(|folder| is_ours(folder));
    let mut found: Vec<(PathBuf, Layout)> = folders.map(|folder| (folder, Layout::Folder)).collect();
    for name in layout::names(snapshot).unwrap_or_default() {
        let path = snapshot.join(&name);
        if layout::is_gguf(&name) && gguf_is_ours(&path) {
            found.push((path, Layout::Gguf));
        }
    }
    found
}

/// Whether a folder's config.json is gpt-oss', in either dialect, beside weights.
fn is_ours(folder: &Path) -> bool {
    let weights = layout::names(folder).unwrap_or_default().iter().any(|name| name.ends_with(".safetensors"));
    let Some(config) = read_start(&folder.join("config.json"), 1 << 20) else { return false };
    let Ok(config) = serde_json::from_slice::<serde_json::Value>(&config) else { return false };
    let has = |key: &str| config.get(key).is_some();
    let original = has("num_experts") && has("swiglu_limit") && has("rope_ntk_beta");
    weights && (config.get("model_type").is_some_and(|kind| kind == "gpt_oss") || original)
}

/// Whether a GGUF's first metadata name gpt-oss as the architecture.
fn gguf_is_ours(path: &Path) -> bool {
    let start = read_start(path, 1 << 16).unwrap_or_default();
    let key = b"general.architecture";
    let Some(at) = start.windows(key.len()).position(|window| window == key) else { return false };
    // After the key: the value's type (4 bytes) and length (8 bytes), then the string.
    start.get(at + key.len() + 12..).is_some_and(|value| value.starts_with(b"gpt-oss"))
}

fn read_start(path: &Path, limit: u64) -> Option<Vec<u8>> {
    let mut start = Vec::new();
    std::fs::File::open(path).ok()?.take(limit).read_to_end(&mut start).ok()?;
    Some(start)
}

/// The bytes of a file, or of the files directly in a folder (a .gguf there is another model); and whether none is missing.
fn weigh(path: &Path) -> (u64, bool) {
    if !path.is_dir() {
        let size = std::fs::metadata(path).map(|m| m.len());
        return (size.as_ref().map_or(0, |&bytes| bytes), size.is_ok());
    }
    let names = layout::names(path).unwrap_or_default();
    let own = names.iter().filter(|name| !layout::is_gguf(name));
    let files = own.map(|name| std::fs::metadata(path.join(name)));
    let (bytes, links_hold) = files.fold((0, true), |(bytes, whole), file| match file {
        Ok(file) => (bytes + if file.is_file() { file.len() } else { 0 }, whole),
        Err(_) => (bytes, false),
    });
    (bytes, links_hold && shards_of(path).iter().all(|shard| names.contains(shard)))
}

/// The shards that a folder's index names.
fn shards_of(folder: &Path) -> Vec<String> {
    let index = read_start(&folder.join("model.safetensors.index.json"), 1 << 26).unwrap_or_default();
    let index: serde_json::Value = serde_json::from_slice(&index).unwrap_or_default();
    let map = index.get("weight_map").and_then(|map| map.as_object());
    let mut shards: Vec<String> =
        map.into_iter().flat_map(|m| m.values()).filter_map(|v| v.as_str().map(str::to_owned)).collect();
    shards.sort();
    shards.dedup();
    shards
}
