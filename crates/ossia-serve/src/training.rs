//! Does fine-tuning jobs: one at a time, each by a child process, the same program as this one, in a folder of its own. So
//! what breaks in training never touches serving.
//!
//! Contract: the queue is the table of jobs (`store::jobs`); what a server that died was doing is done first after the next
//! start. A child holds the lock of its job's folder for as long as it lives (`child`), so there are never two for a
//! job: one that outlived its server is followed further by the next. What a child has to say is in files of the folder
//! (`progress`); `work` turns it into the job's status, events and checkpoints. A server that goes down tells the child
//! to save and end; the job goes on from there after the next start.

mod child;
mod folder;
mod progress;
mod work;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::app::Shared;

/// Whether the server goes down is looked at this often while nothing is to be done.
const LOOK: Duration = Duration::from_millis(100);
/// After the database has failed, it is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// Where the adapter of a job that has succeeded is, or of a checkpoint of it.
pub(crate) fn adapter_folder(root: &Path, job_id: &str, step: Option<i64>) -> PathBuf {
    let folder = folder::Folder::of(root, job_id);
    step.map_or_else(|| folder.adapter(), |step| folder.checkpoint(step))
}

/// Deletes what is kept of a job.
pub(crate) fn delete_folder(root: &Path, job_id: &str) -> std::io::Result<()> {
    folder::Folder::of(root, job_id).delete()
}

/// How jobs are done.
#[derive(Debug, Clone)]
pub struct TrainingOptions {
    /// The program.
    pub program: PathBuf,
    /// What stands before a job's own arguments: the command, the model.
    pub arguments: Vec<OsString>,
    /// The folder of the jobs' folders.
    pub folder: PathBuf,
    /// How long what may take.
    pub times: Times,
}

/// How long what may take.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// From one look at the child to the next.
    pub look: Duration,
    /// A job that is paused may take so long to save; it waits for the end of an update.
    pub pause: Duration,
    /// The same where the server goes down.
    pub down: Duration,
    /// A child that has said nothing for so long hangs.
    pub silence: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            look: Duration::from_millis(250),
            pause: Duration::from_secs(600),
            down: Duration::from_secs(20),
            silence: Duration::from_secs(6 * 3600),
        }
    }
}

/// The door to the runner: routes knock, the runner looks at the database.
pub struct Training {
    options: OnceLock<TrainingOptions>,
    wake: Notify,
    num_running: watch::Sender<usize>,
}

impl Default for Training {
    fn default() -> Self {
        Self { options: OnceLock::new(), wake: Notify::new(), num_running: watch::Sender::new(0) }
    }
}

impl Training {
    /// Whether jobs are done here.
    pub fn is_on(&self) -> bool {
        self.options.get().is_some()
    }

    /// Something has changed in the table of jobs.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Waits until no child is there: a server that goes down has told it to end.
    pub async fn wait_idle(&self) {
        // The sender lives as long as this does.
        let _ = self.num_running.subscribe().wait_for(|running| *running == 0).await;
    }
}

/// Begins to do jobs, until the server goes down. What servers before this one have left behind is put right first.
pub fn start(app: &Shared, options: TrainingOptions) {
    if app.keeping.training.options.set(options).is_err() {
        return;
    }
    app.keeping.training.num_running.send_modify(|running| *running += 1);
    let app = app.clone();
    tokio::spawn(async move {
        run(&app).await;
        app.keeping.training.num_running.send_modify(|running| *running = running.saturating_sub(1));
    });
}

async fn run(app: &Shared) {
    let Some(options) = app.keeping.training.options.get() else { return };
    while app.is_ready() {
        if let Err(error) = folder::tidy(app, &options.folder).await {
            tracing::error!(%error, "folders of fine-tuning jobs could not be tidied");
        }
        let waited = match app.keeping.store.next_job().await {
            Ok(Some(job)) => work::run(app, options, job).await.err(),
            Ok(None) => {
                wait(app).await;
                None
            }
            Err(error) => Some(crate::routes::responses::lost(error)),
        };
        if waited.is_some() {
            let end = tokio::time::Instant::now() + AGAIN;
            while app.is_ready() && tokio::time::Instant::now() < end {
                tokio::time::sleep(LOOK).await;
            }
        }
    }
}

/// Until somebody knocks, or the server goes down.
async fn wait(app: &Shared) {
    while app.is_ready() {
        if tokio::time::timeout(LOOK, app.keeping.training.wake.notified()).await.is_ok() {
            return;
        }
    }
}
