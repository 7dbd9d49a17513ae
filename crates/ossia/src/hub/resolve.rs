//! From what a user calls a model to the place of its files: a path that exists wins, then a name in the cache.
//! Never touches the network: a missing model is an error that says how to fetch it.

use super::cache::Repo;
use super::error::HubError;
use super::layout::{self, Layout};
use super::settings::Settings;
use std::path::{Path, PathBuf};

/// Where a model's files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// A folder with config.json and *.safetensors, or a .gguf file.
    pub path: PathBuf,
    /// Which of the two.
    pub layout: Layout,
    /// The repository and revision, if it was found by name.
    pub repo: Option<(String, String)>,
}

/// Finds the model `name`: a folder, a .gguf file, or a repository in the cache.
pub fn resolve(name: &str, settings: &Settings) -> Result<Located, HubError> {
    let path = Path::new(name);
    if path.is_dir() {
        let (path, layout) = layout::model_in(path)?;
        return Ok(Located { path, layout, repo: None });
    }
    if path.is_file() && layout::is_gguf(name) {
        return Ok(Located { path: path.to_owned(), layout: Layout::Gguf, repo: None });
    }
    if layout::is_gguf(name) && !path.exists() {
        return Err(HubError::Missing { name: name.to_owned() });
    }
    let repo = Repo::named(name).filter(|_| !path.exists() && !layout::is_gguf(name));
    in_cache(name, &repo.ok_or_else(|| HubError::Name { name: name.to_owned() })?, settings)
}

fn in_cache(name: &str, repo: &Repo, settings: &Settings) -> Result<Located, HubError> {
    let missing =
        |looked_for: PathBuf| HubError::NotCached { name: name.to_owned(), repo: repo.id().to_owned(), looked_for };
    let reference = repo.reference(&settings.cache);
    let revision = repo.revision(&settings.cache).ok_or_else(|| missing(reference))?;
    let snapshot = repo.snapshot(&settings.cache, &revision);
    if !snapshot.is_dir() {
        return Err(missing(snapshot));
    }
    let (path, layout) = layout::model_in(&snapshot)?;
    Ok(Located { path, layout, repo: Some((repo.id().to_owned(), revision)) })
}
