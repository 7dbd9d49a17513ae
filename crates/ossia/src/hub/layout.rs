//! What kind of model a folder holds, told from the names of its files only: the reader decides by content later.
//! Prefers the Hugging Face layout, then `original/`, then GGUF, as all three may lie in one snapshot.

use super::error::HubError;
use std::path::{Path, PathBuf};

/// How a model's files are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// A folder with config.json and *.safetensors. OpenAI's layout has the same two, with other names inside.
    Folder,
    /// One .gguf file.
    Gguf,
}

/// The model in `folder`: the folder itself, its `original/`, or its only .gguf file.
pub(super) fn model_in(folder: &Path) -> Result<(PathBuf, Layout), HubError> {
    let names = names(folder)?;
    let original = folder.join("original");
    if is_checkpoint(&names) {
        return Ok((folder.to_owned(), Layout::Folder));
    }
    if original.is_dir() && is_checkpoint(&self::names(&original)?) {
        return Ok((original, Layout::Folder));
    }
    let ggufs: Vec<&String> = names.iter().filter(|name| is_gguf(name)).collect();
    match ggufs[..] {
        [one] => Ok((folder.join(one), Layout::Gguf)),
        [] => Err(HubError::NoModel { path: folder.to_owned(), found: describe(&names) }),
        _ => Err(HubError::Choose {
            place: folder.display().to_string(),
            names: describe(&names),
            todo: "give the path of one of them".to_owned(),
        }),
    }
}

/// Whether a file's name says GGUF.
pub(super) fn is_gguf(name: &str) -> bool {
    name.to_ascii_lowercase().ends_with(".gguf")
}

fn is_checkpoint(names: &[String]) -> bool {
    names.iter().any(|name| name == "config.json") && names.iter().any(|name| name.ends_with(".safetensors"))
}

/// The names in a folder, sorted; those that are no Unicode are left out, since no model's file is called so.
pub(super) fn names(folder: &Path) -> Result<Vec<String>, HubError> {
    let entries = std::fs::read_dir(folder).map_err(HubError::file(folder, "listing"))?;
    let mut names: Vec<String> = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    Ok(names)
}

/// Some names for a message.
pub(super) fn describe(names: &[impl AsRef<str>]) -> String {
    const SHOWN: usize = 8;
    let shown: Vec<&str> = names.iter().take(SHOWN).map(AsRef::as_ref).collect();
    match names.len() {
        0 => "nothing".to_owned(),
        n if n > SHOWN => format!("{} and {} more", shown.join(", "), n - SHOWN),
        _ => shown.join(", "),
    }
}
