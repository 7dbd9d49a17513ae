//! A server from its parts to its end: opens what it keeps, listens, goes down when it is told to.

use std::io;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ossia_engine::Engine;
use ossia_model::gpt_oss::config::Config;
use ossia_text::{Harmony, TextError};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use crate::adapters::{AdapterError, Adapters};
use crate::app::{App, router};
use crate::audit::{Audit, AuditError, AuditOptions};
use crate::auth::{Auth, Scope};
use crate::grading::Grading;
use crate::guard::{Accounts, Doors};
use crate::keeping::{Keeping, KeepingError};
use crate::keys::{self, KeyError, SERVER_SECRET};
use crate::listener;
use crate::models::ServedModel;
use crate::reasoning::{MemoryLimits, ReasoningMemory};
use crate::routes::batches;
use crate::training::{self, TrainingOptions};
use crate::turn::Turns;

/// When it is told to go down, running requests may take so long.
const DRAIN: Duration = Duration::from_secs(25);
/// Those that are cancelled then may say so for so long.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// Whether they have finished is looked at so often.
const LOOK: Duration = Duration::from_millis(20);
/// What is too old is thrown away this often.
const SWEEP: Duration = Duration::from_secs(600);

/// What a server is made of.
pub struct ServerOptions {
    /// The folder of keys, secrets and the database.
    pub data: PathBuf,
    /// The database, where it is not a file in that folder.
    pub database: Option<String>,
    /// The model's names and numbers.
    pub model: ServedModel,
    /// Changes with the program and the model.
    pub fingerprint: String,
    /// Hosts and origins.
    pub doors: Doors,
    /// What may be done without a key; nothing, unless only this machine reaches the server.
    pub without_key: Vec<Scope>,
    /// TLS.
    pub tls: Option<TlsAcceptor>,
    /// What the audit log is to be; None: there is none.
    pub audit: Option<AuditOptions>,
    /// The model's shape, for adapters.
    pub config: Config,
    /// Adapters that everybody may use: their names and PEFT folders.
    pub adapters: Vec<(String, PathBuf)>,
    /// How fine-tuning jobs are done; None: there are none.
    pub training: Option<TrainingOptions>,
    /// Who knows graders; None: nobody.
    pub grading: Option<Arc<dyn Grading>>,
}

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Keys and secrets.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// The database.
    #[error(transparent)]
    Keeping(#[from] KeepingError),
    /// The audit log.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// A registered adapter.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// The model's vocabulary.
    #[error(transparent)]
    Text(#[from] TextError),
    /// The port, signals, threads.
    #[error("the system refuses: {0}")]
    System(#[from] io::Error),
}

/// Runs until the process is told to stop (SIGTERM, SIGINT), then lets running requests finish. A second signal ends it at
/// once. `ready` is called when requests are taken.
pub fn run(
    options: ServerOptions,
    engine: Engine,
    harmony: Harmony,
    listener: TcpListener,
    ready: impl FnOnce(),
) -> Result<(), ServerError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let ended = runtime.block_on(serve(options, engine, harmony, listener, ready));
    // Handlers that are still busy are not waited for.
    runtime.shutdown_background();
    ended
}

async fn serve(
    options: ServerOptions,
    engine: Engine,
    harmony: Harmony,
    listener: TcpListener,
    ready: impl FnOnce(),
) -> Result<(), ServerError> {
    let ServerOptions { data, database, model, fingerprint, doors, without_key, tls, audit, .. } = options;
    let ServerOptions { config, adapters: folders, training, grading, .. } = options;
    let jobs = training.as_ref().map_or_else(|| data.join("fine-tuning"), |training| training.folder.clone());
    let accounts = Arc::new(Accounts::default());
    let secret = keys::secret(&data, SERVER_SECRET)?;
    let audit = audit.map(|audit| Audit::open(&data, &secret, &model.id, &audit)).transpose()?;
    let mut adapters = Adapters::new(config, jobs);
    for (name, folder) in &folders {
        adapters.register(&engine, name, folder)?;
    }
    let app = Arc::new(App {
        turns: Arc::new(Turns::new(engine, harmony, Arc::clone(&accounts) as _)?),
        model,
        adapters: Arc::new(adapters),
        grading,
        fingerprint,
        memory: ReasoningMemory::new(MemoryLimits::default()),
        auth: Auth::open(&data, without_key)?,
        keeping: Keeping::open(&data, database.as_deref()).await?,
        audit,
        counters: Arc::clone(&accounts.counters),
        accounts,
        doors,
        draining: false.into(),
    });
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let mut signals = Signals::new()?;
    let (stop, stopping) = watch::channel(false);
    let serving = tokio::spawn(listener::serve(listener, router(Arc::clone(&app)), tls, stopping));
    let sweeping = tokio::spawn(sweep(Arc::clone(&app)));
    if let Err(error) = batches::resume(&app).await {
        tracing::error!(%error, "batches could not go on");
    }
    if let Some(options) = training {
        training::start(&app, options);
    }
    ready();
    signals.next().await;
    tracing::info!("going down: no new requests; a second signal ends at once");
    app.drain();
    tokio::select! {
        () = finished(&app, &stop, serving) => {}
        () = signals.next() => return Ok(()),
    }
    sweeping.abort();
    tokio::select! {
        closed = tokio::time::timeout(DRAIN, app.keeping.close()) => {
            if closed.is_err() {
                tracing::warn!("the database did not close in time");
            }
        }
        () = signals.next() => return Ok(()),
    }
    if let Some(audit) = &app.audit {
        audit.close().await;
    }
    Ok(())
}

/// Lets what runs finish while the port still answers that nothing new is taken, then closes the port. What takes too long is
/// told that it is cancelled, and cut off if it does not listen.
async fn finished(app: &App, stop: &watch::Sender<bool>, serving: JoinHandle<()>) {
    let is_idle = || {
        let stats = app.turns.engine().stats();
        stats.running + stats.waiting == 0
    };
    let end = Instant::now() + DRAIN;
    while !is_idle() && Instant::now() < end {
        tokio::time::sleep(LOOK).await;
    }
    if !is_idle() {
        tracing::warn!("some requests were still running and are cancelled");
        app.turns.cut();
    }
    // Nobody listens any more if serving has ended by itself.
    let _ = stop.send(true);
    if tokio::time::timeout_at(end.max(Instant::now() + LAST_WORDS), serving).await.is_err() {
        tracing::warn!("some connections were still open and are cut off");
    }
}

async fn sweep(app: Arc<App>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        app.memory.sweep();
        if let Err(error) = app.keeping.expire().await {
            tracing::error!(%error, "what is too old could not be deleted");
        }
    }
}

/// The signals that end a server.
struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        #[cfg(unix)]
        let terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        Ok(Self {
            #[cfg(unix)]
            terminate,
        })
    }

    async fn next(&mut self) {
        #[cfg(unix)]
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        #[cfg(not(unix))]
        let _ = tokio::signal::ctrl_c().await;
    }
}
