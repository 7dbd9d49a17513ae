//! Fetching a model: describe, choose, weigh against the disk, download each file, and only then show it in the cache.
//! Links and the reference are written last, so a program that looks meanwhile sees the model whole or not at all.

use super::cache::Repo;
use super::download::{Blob, Pauses, fetch};
use super::error::HubError;
use super::http::Client;
use super::remote::{Choice, RemoteFile, fetch_listing, file_url};
use super::settings::Settings;
use std::path::{Path, PathBuf};

/// What to fetch of a repository.
#[derive(Debug, Clone, Default)]
pub struct PullOptions {
    /// The `original/` folder in place of the Hugging Face layout.
    pub original: bool,
    /// This one file.
    pub file: Option<String>,
}

/// A model that is now on disk.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Pulled {
    /// `org/name`.
    pub repo: String,
    /// The commit.
    pub revision: String,
    /// What to give as MODEL.
    pub path: PathBuf,
    /// Number of files.
    pub num_files: usize,
    /// Of all of them.
    pub bytes: u64,
    /// Those that came over the network this time.
    pub received_bytes: u64,
}

/// Hears how a download goes.
pub trait Progress {
    /// Once, before the first file: all bytes, and those already on disk.
    fn plan(&mut self, total: u64, present: u64);
    /// A file begins.
    fn file(&mut self, name: &str, bytes: u64);
    /// Bytes came.
    fn add(&mut self, bytes: u64);
    /// Bytes that were counted must come again.
    fn take_back(&mut self, bytes: u64);
    /// An attempt failed and another follows.
    fn retry(&mut self, reason: &str);
}

/// Hears nothing.
#[derive(Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn plan(&mut self, _: u64, _: u64) {}
    fn file(&mut self, _: &str, _: u64) {}
    fn add(&mut self, _: u64) {}
    fn take_back(&mut self, _: u64) {}
    fn retry(&mut self, _: &str) {}
}

/// Fetches the model `name` into the cache, as far as it is not there yet.
pub fn pull(
    name: &str,
    options: &PullOptions,
    settings: &Settings,
    progress: &mut dyn Progress,
) -> Result<Pulled, HubError> {
    let repo = Repo::named(name).ok_or_else(|| HubError::Name { name: name.to_owned() })?;
    if settings.offline {
        return Err(HubError::Offline { repo: repo.id().to_owned(), cache: settings.cache.clone() });
    }
    let client = Client::new(settings);
    let mut pauses = Pauses::new(settings);
    let listing = fetch_listing(&client, &repo, &mut pauses, progress)?;
    let choice = listing.choose(&repo, options)?;
    let folder = repo.folder(&settings.cache);
    let blobs = folder.join("blobs");
    std::fs::create_dir_all(&blobs).map_err(HubError::file(&blobs, "creating"))?;
    let bytes = weigh(&choice, &blobs, progress)?;
    let mut received_bytes = 0;
    for file in &choice.files {
        progress.file(&file.path, file.size);
        let url = file_url(&client, &repo, &listing.commit, &file.path);
        received_bytes += fetch(&client, &url, file, &blobs, &mut pauses, progress)?;
    }
    let snapshot = repo.snapshot(&settings.cache, &listing.commit);
    choice.files.iter().try_for_each(|file| link(&snapshot, file))?;
    write_whole(&repo.reference(&settings.cache), &listing.commit)?;
    let path = if choice.model.is_empty() { snapshot } else { snapshot.join(&choice.model) };
    let num_files = choice.files.len();
    Ok(Pulled { repo: repo.id().to_owned(), revision: listing.commit, path, num_files, bytes, received_bytes })
}

/// Adds up the files, tells the plan, and refuses what does not fit. Returns the bytes of all files.
fn weigh(choice: &Choice, blobs: &Path, progress: &mut dyn Progress) -> Result<u64, HubError> {
    let sum = |count: &dyn Fn(&RemoteFile) -> u64| choice.files.iter().map(count).fold(0, u64::saturating_add);
    let total = sum(&|file| file.size);
    let present = sum(&|file| Blob::new(blobs, &file.digest).present(file.size));
    progress.plan(total, present);
    let free = fs4::available_space(blobs).map_err(HubError::file(blobs, "asking for the free room"))?;
    let needed = total - present;
    if needed > free {
        return Err(HubError::Room { path: blobs.to_owned(), needed, free });
    }
    Ok(total)
}

/// Shows a fetched file under its name in the snapshot.
fn link(snapshot: &Path, file: &RemoteFile) -> Result<(), HubError> {
    let place = snapshot.join(&file.path);
    let folder = place.parent().unwrap_or(snapshot);
    std::fs::create_dir_all(folder).map_err(HubError::file(folder, "creating"))?;
    let up = "../".repeat(2 + file.path.matches('/').count());
    let target = PathBuf::from(format!("{up}blobs/{}", file.digest.hex()));
    if std::fs::read_link(&place).is_ok_and(|found| found == target) {
        return Ok(());
    }
    let fresh = folder.join(format!(".{}.new", file.digest.hex()));
    let _ = std::fs::remove_file(&fresh); // left by an interrupted run
    make_link(&target, &fresh).map_err(HubError::file(&fresh, "linking"))?;
    std::fs::rename(&fresh, &place).map_err(HubError::file(&place, "renaming into place"))
}

#[cfg(unix)]
fn make_link(target: &Path, link: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

/// Symbolic links need a privilege on other systems: a second name of the same file serves as well.
#[cfg(not(unix))]
fn make_link(target: &Path, link: &Path) -> std::io::Result<()> {
    let folder = link.parent().unwrap_or(Path::new(""));
    std::fs::hard_link(folder.join(target), link)
}

/// Replaces a small file in one go.
fn write_whole(path: &Path, text: &str) -> Result<(), HubError> {
    let folder = path.parent().unwrap_or(Path::new(""));
    std::fs::create_dir_all(folder).map_err(HubError::file(folder, "creating"))?;
    let fresh = path.with_extension("new");
    std::fs::write(&fresh, text).map_err(HubError::file(&fresh, "writing"))?;
    std::fs::rename(&fresh, path).map_err(HubError::file(path, "renaming into place"))
}
