//! A job's folder: the files that it learns from, its configuration, the run, and what is kept of it.
//!
//! ```text
//! JOB/training_file.jsonl  validation_file.jsonl  config.toml   what was asked
//! JOB/lock  pid  said.jsonl  stderr.txt                          the child
//! JOB/run/                                                       its run
//! JOB/adapter/  checkpoints/step-N/                              what stays when the job has succeeded
//! ```

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::child::Child;
use crate::app::Shared;
use crate::error::ApiError;
use crate::ids;
use crate::routes::responses::lost;

/// The training file's name.
pub const TRAINING_FILE: &str = "training_file.jsonl";
/// The configuration's.
pub const CONFIG: &str = "config.toml";
/// The run's folder.
pub const RUN: &str = "run";
const ADAPTER: &str = "adapter";
const CHECKPOINTS: &str = "checkpoints";
/// What an adapter is.
const PARTS: [&str; 2] = ["adapter_config.json", "adapter_model.safetensors"];
/// A process that nobody wants any more may take so long to end.
const GRACE: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug, Clone)]
pub struct Folder(PathBuf);

impl Folder {
    /// Of a job; it need not be there.
    pub fn of(root: &Path, job_id: &str) -> Self {
        Self(root.join(job_id))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Makes it, for its owner's eyes only, and writes the configuration.
    pub fn make(&self, settings: &str) -> io::Result<()> {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&self.0)?;
        std::fs::write(self.0.join(CONFIG), settings)
    }

    /// Writes a file of the database under `name`; false where it is not there any more.
    pub async fn fetch(&self, app: &Shared, owner: &str, file_id: &str, name: &str) -> Result<bool, Fault> {
        let store = &app.keeping.store;
        let Some(file) = store.file(owner, file_id).await.map_err(lost)? else { return Ok(false) };
        let temporary = self.0.join(format!(".tmp-{name}"));
        let mut out = std::fs::File::create(&temporary)?;
        let mut written = 0;
        for position in 0.. {
            let Some(chunk) = store.file_chunk(file_id, position).await.map_err(lost)? else { break };
            out.write_all(&chunk)?;
            written += chunk.len() as i64;
        }
        if written != file.num_bytes {
            return Ok(false);
        }
        std::fs::rename(temporary, self.0.join(name))?;
        Ok(true)
    }

    /// Checkpoints of the run that are whole, by their step.
    pub fn checkpoints(&self) -> io::Result<BTreeMap<i64, PathBuf>> {
        let entries = match std::fs::read_dir(self.0.join(RUN).join(CHECKPOINTS)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
            entries => entries?,
        };
        let mut found = BTreeMap::new();
        for entry in entries {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let step = name.strip_prefix("step-").and_then(|step| step.parse().ok());
            if let Some(step) = step.filter(|_| PARTS.iter().all(|part| path.join(part).is_file())) {
                found.insert(step, path);
            }
        }
        Ok(found)
    }

    /// Keeps the adapter of a checkpoint, which the run may delete at any time, without copying it; false where it is kept
    /// already.
    pub fn keep_checkpoint(&self, step: i64, from: &Path) -> io::Result<bool> {
        let place = self.checkpoint(step);
        if place.exists() {
            return Ok(false);
        }
        let temporary = self.0.join(".tmp-checkpoint");
        remove(&temporary)?;
        std::fs::create_dir_all(&temporary)?;
        for part in PARTS {
            std::fs::hard_link(from.join(part), temporary.join(part))?;
        }
        sync(&temporary)?;
        std::fs::create_dir_all(self.0.join(CHECKPOINTS))?;
        std::fs::rename(temporary, place)?;
        sync(&self.0.join(CHECKPOINTS))?;
        sync(&self.0)?;
        Ok(true)
    }

    /// Where the adapter of a checkpoint is kept.
    pub fn checkpoint(&self, step: i64) -> PathBuf {
        self.0.join(CHECKPOINTS).join(format!("step-{step}"))
    }

    /// Where the finished adapter is kept.
    pub fn adapter(&self) -> PathBuf {
        self.0.join(ADAPTER)
    }

    /// Takes the finished adapter out of the run; false where there is none.
    pub fn keep_adapter(&self) -> io::Result<bool> {
        let made = self.0.join(RUN).join(ADAPTER);
        if !PARTS.iter().all(|part| made.join(part).is_file()) {
            return Ok(false);
        }
        let place = self.adapter();
        remove(&place)?;
        std::fs::rename(made, place)?;
        // The database is about to say that it is there.
        sync(&self.0)?;
        Ok(true)
    }

    /// Deletes everything but adapters.
    pub fn clean(&self) -> io::Result<()> {
        for entry in std::fs::read_dir(&self.0)? {
            let entry = entry?;
            if entry.file_name() != ADAPTER && entry.file_name() != CHECKPOINTS {
                remove(&entry.path())?;
            }
        }
        Ok(())
    }

    /// Deletes all of it.
    pub fn delete(&self) -> io::Result<()> {
        remove(&self.0)
    }
}

/// Why a job cannot go on here.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The server's own trouble; the job waits.
    #[error(transparent)]
    Ours(#[from] ApiError),
    /// The folder cannot be used; the job fails.
    #[error("the job's folder cannot be used: {0}")]
    Folder(#[from] io::Error),
}

/// Makes the names in a folder durable, where the system has a way to.
fn sync(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { std::fs::File::open(folder)?.sync_all() } else { Ok(()) }
}

/// Deletes a file or a folder, if it is there.
pub fn remove(path: &Path) -> io::Result<()> {
    let gone = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    match gone {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        gone => gone,
    }
}

/// Ends processes that nobody wants any more, and deletes what they have left, for all jobs but those that are to go on.
pub async fn tidy(app: &Shared, root: &Path) -> Result<(), Fault> {
    let entries = match std::fs::read_dir(root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !ids::is_plausible(&name) {
            continue;
        }
        let folder = Folder::of(root, &name);
        match app.keeping.store.job_status(&name).await.map_err(lost)?.as_deref() {
            // One that is unknown may be of another database: it is left alone.
            None | Some("queued" | "validating_files" | "running") => {}
            Some("paused") => end(&folder, true).await?,
            Some("succeeded") => {
                end(&folder, false).await?;
                folder.clean()?;
            }
            _ => {
                end(&folder, false).await?;
                folder.delete()?;
            }
        }
    }
    Ok(())
}

/// Ends the process in a folder, if there is one, after it had time to save if it is to.
async fn end(folder: &Folder, saves: bool) -> io::Result<()> {
    let Some(mut child) = Child::left_in(folder.path())? else { return Ok(()) };
    if saves {
        child.ask_to_end();
    } else {
        child.kill();
    }
    let end = tokio::time::Instant::now() + GRACE;
    while !child.has_ended()? && tokio::time::Instant::now() < end {
        tokio::time::sleep(super::LOOK).await;
    }
    child.kill();
    Ok(())
}
