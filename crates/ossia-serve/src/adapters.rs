//! Names that mean the served model with an adapter: those that were registered when the server was started, for
//! everybody (`MODEL:NAME`), and those that fine-tuning jobs have made, for the key that made them (`ft:…`). A request
//! names them; no path ever comes from one.
//!
//! An adapter of a job is read when it is first asked for, and the newest few stay. One that leaves, because it was deleted
//! or others came, is taken from the model when the last request that uses it has ended.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ossia_engine::{Adapter, AttachError, Engine, NewAdapter};
use ossia_kernels::Floats;
use ossia_model::gpt_oss::adapter::peft;
use ossia_model::gpt_oss::config::Config;

use crate::app::App;
use crate::auth::Identity;
use crate::clock;
use crate::error::ApiError;
use crate::routes::responses::lost;
use crate::training::adapter_folder;

/// Adapters of jobs that are held at once, where the memory that was planned for adapters has room for them.
pub const MOST_HELD: usize = 8;

/// Ten of them are waited for room that a request which has ended is about to leave.
const MOMENT: Duration = Duration::from_millis(20);
/// Between the name of a job's model and a checkpoint's step.
const CHECKPOINT: &str = ":ckpt-step-";

/// See the module.
pub struct Adapters {
    config: Config,
    /// The folder of the jobs' folders.
    jobs: PathBuf,
    registered: BTreeMap<String, Registered>,
    /// By the whole name, with the time of the last use.
    learned: Mutex<BTreeMap<String, (u64, Arc<Adapter>)>>,
    /// One is read at a time.
    reading: tokio::sync::Mutex<u64>,
}

struct Registered {
    created: u64,
    adapter: Arc<Adapter>,
}

/// Why an adapter cannot be registered.
#[derive(Debug, thiserror::Error)]
#[error("adapter {name}: {problem}")]
pub struct AdapterError {
    /// What it was to be called.
    pub name: String,
    /// What is wrong.
    pub problem: String,
}

/// What a request is answered with.
#[derive(Debug, Clone)]
pub struct Chosen {
    /// The name to answer with.
    pub name: String,
    /// None is the model as it is.
    pub adapter: Option<Arc<Adapter>>,
}

impl Adapters {
    /// None are registered. `config` is the served model's, `jobs` the folder of the jobs' folders.
    pub fn new(config: Config, jobs: PathBuf) -> Self {
        let (registered, learned, reading) = Default::default();
        Self { config, jobs, registered, learned, reading }
    }

    /// Reads the PEFT folder `folder` and lets everybody use it as `name`.
    pub fn register(&mut self, engine: &Engine, name: &str, folder: &Path) -> Result<(), AdapterError> {
        let wrong = |problem: String| AdapterError { name: name.to_owned(), problem };
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
            return Err(wrong("a name has letters, digits, hyphens, underscores and points".to_owned()));
        }
        if self.registered.contains_key(name) {
            return Err(wrong("the name is given twice".to_owned()));
        }
        let new = read(folder, &self.config).map_err(wrong)?;
        let adapter = engine.attach(new).map_err(|error| wrong(error.to_string()))?;
        self.registered.insert(name.to_owned(), Registered { created: clock::now_s(), adapter });
        Ok(())
    }

    /// The folder of the jobs' folders.
    pub(crate) fn jobs(&self) -> &Path {
        &self.jobs
    }

    /// Names and ages of those that are registered.
    pub fn registered(&self) -> impl Iterator<Item = (&str, u64)> {
        self.registered.iter().map(|(name, entry)| (name.as_str(), entry.created))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, (u64, Arc<Adapter>)>> {
        // Every change is one call.
        self.learned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets go of a job's model and its checkpoints.
    pub fn forget(&self, model: &str) {
        let is_of =
            |name: &str| name.strip_prefix(model).is_some_and(|rest| rest.is_empty() || rest.starts_with(CHECKPOINT));
        let gone: Vec<_> = self.lock().extract_if(.., |name, _| is_of(name)).collect();
        drop(gone);
    }

    /// Reads a PEFT folder and attaches it. Where there is no room, those of jobs go, the one that was not used for the
    /// longest time first; one that a request still uses leaves its room when that has ended, which is a moment after its
    /// answer.
    fn attach(&self, engine: &Engine, folder: &Path) -> Result<Arc<Adapter>, AttachError> {
        let new = read(folder, &self.config).map_err(AttachError::Refused)?;
        let mut moments = 10;
        loop {
            match engine.attach(new.clone()) {
                Err(AttachError::NoRoom(error)) if !self.let_go() => {
                    if moments == 0 {
                        return Err(AttachError::NoRoom(error));
                    }
                    moments -= 1;
                    std::thread::sleep(MOMENT);
                }
                Err(AttachError::NoRoom(_)) => {}
                done => return done,
            }
        }
    }

    /// Lets go of the adapter that was not used for the longest time; false where none is held.
    fn let_go(&self) -> bool {
        let mut learned = self.lock();
        let oldest = learned.iter().min_by_key(|(_, (used, _))| *used).map(|(name, _)| name.clone());
        let gone = oldest.and_then(|oldest| learned.remove(&oldest));
        drop(learned);
        gone.is_some()
    }

    /// Keeps an adapter that was read, in the place of the one that was not used for the longest time.
    fn keep(&self, name: &str, now: u64, adapter: Arc<Adapter>) {
        let mut learned = self.lock();
        learned.insert(name.to_owned(), (now, adapter));
        let is_full = learned.len() > MOST_HELD;
        drop(learned);
        if is_full {
            self.let_go();
        }
    }
}

/// Reads a PEFT folder; an error in one line.
fn read(folder: &Path, config: &Config) -> Result<NewAdapter, String> {
    let (parameters, values) = peft::load(folder, config).map_err(|error| error.to_string())?;
    Ok(NewAdapter { parameters, values: Floats::new(values) })
}

impl App {
    /// What a request means by the model that it names; nothing is the served model.
    pub async fn chosen(&self, identity: &Identity, asked: Option<&str>) -> Result<Chosen, ApiError> {
        let unknown = match self.model.named(asked) {
            Ok(name) => {
                identity.trail.goes_through(None);
                return Ok(Chosen { name, adapter: None });
            }
            Err(error) => error,
        };
        let asked = asked.unwrap_or_default();
        let bare = asked.strip_suffix(":latest").unwrap_or(asked);
        let registered =
            bare.rsplit_once(':').filter(|(base, _)| !base.is_empty() && self.model.named(Some(base)).is_ok());
        let registered = registered.and_then(|(_, name)| self.adapters.registered.get_key_value(name));
        let (logged, adapter) = match registered {
            Some((name, registered)) => (name.as_str(), Some(Arc::clone(&registered.adapter))),
            None if bare.starts_with("ft:") => (bare, self.learned(identity, bare).await?),
            None => (bare, None),
        };
        let Some(adapter) = adapter else { return Err(unknown) };
        identity.trail.goes_through(Some(logged));
        Ok(Chosen { name: asked.to_owned(), adapter: Some(adapter) })
    }

    /// The adapter that a job of this key has made, or a checkpoint of it.
    async fn learned(&self, identity: &Identity, name: &str) -> Result<Option<Arc<Adapter>>, ApiError> {
        let (model, step) = match name.split_once(CHECKPOINT) {
            None => (name, None),
            Some((model, step)) => match step.parse::<i64>().ok().filter(|number| number.to_string() == step) {
                None => return Ok(None),
                some => (model, some),
            },
        };
        let owner = &*identity.key_id;
        let Some(job) = self.keeping.store.job_of_model(owner, model).await.map_err(lost)? else { return Ok(None) };
        let mut uses = self.adapters.reading.lock().await;
        *uses += 1;
        if let Some((used, adapter)) = self.adapters.lock().get_mut(name) {
            *used = *uses;
            return Ok(Some(Arc::clone(adapter)));
        }
        let folder = adapter_folder(&self.adapters.jobs, &job.id, step);
        if !folder.is_dir() {
            return Ok(None);
        }
        let (turns, adapters) = (Arc::clone(&self.turns), Arc::clone(&self.adapters));
        let attached = tokio::task::spawn_blocking(move || adapters.attach(turns.engine(), &folder)).await;
        match attached.map_err(|_| ApiError::Internal)? {
            Ok(adapter) => {
                self.adapters.keep(name, *uses, Arc::clone(&adapter));
                Ok(Some(adapter))
            }
            Err(AttachError::NoRoom(_)) => Err(ApiError::NoAdapterRoom),
            Err(AttachError::Refused(error)) => {
                tracing::error!(error, job = job.id, "an adapter cannot be used");
                Err(ApiError::Internal)
            }
        }
    }
}
