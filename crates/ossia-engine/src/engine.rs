//! The engine's thread and the ways to it. One thread owns the model and everything that belongs to a step; what other
//! threads see is a list of arrivals and the last counts. With nothing to do the thread sleeps.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ossia_kernels::kv::PAGE;
use ossia_model::Model;

use crate::core::{Arrival, Core, EngineOptions};
use crate::request::{Finish, Refused, Request, Sink};
use crate::runner::Runner;
use crate::stats::Stats;

/// What a request can be at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Tokens of prompt and answer together.
    pub context: usize,
    /// Tokens of the vocabulary.
    pub vocab: usize,
    /// Sequences that run at once.
    pub sequences: usize,
}

/// Continuous batching over one model. Dropping it cancels what runs and waits until the thread has ended.
pub struct Engine {
    shared: Arc<Shared>,
    limits: Limits,
    options: EngineOptions,
    thread: Option<JoinHandle<()>>,
}

/// A request that was taken. Dropping it cancels the request, which means nothing once it has ended.
#[must_use = "dropping the ticket cancels the request"]
pub struct Ticket {
    cancelled: Arc<AtomicBool>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    inbox: Mutex<Inbox>,
    /// Something came, or somebody went away.
    wake: Condvar,
    /// The engine has become idle.
    idle: Condvar,
}

#[derive(Default)]
struct Inbox {
    arrivals: Vec<Arrival>,
    next_id: u64,
    /// Requests of each client that wait and never ran.
    queued: HashMap<u64, usize>,
    draining: bool,
    stopping: bool,
    woken: bool,
    busy: bool,
    refused: u64,
    stats: Stats,
}

impl Inbox {
    /// What other threads see of a step.
    fn publish<R: Runner>(&mut self, core: &Core<R>) {
        self.queued = core.queued();
        for arrival in &self.arrivals {
            *self.queued.entry(arrival.request.client).or_default() += 1;
        }
        self.stats = core.stats();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self, inbox: &mut Inbox) {
        inbox.woken = true;
        self.wake.notify_all();
    }
}

impl Engine {
    /// Starts the one thread that owns `model`.
    ///
    /// # Panics
    /// Where the system refuses a thread.
    pub fn start(model: Model, options: EngineOptions) -> Engine {
        Self::start_runner(model, options)
    }

    /// The same over anything that computes steps.
    pub fn start_runner(runner: impl Runner, options: EngineOptions) -> Engine {
        let shape = runner.shape();
        let context = shape.context.min(shape.pages.full * PAGE);
        let limits = Limits { context, vocab: shape.vocab, sequences: shape.sequences };
        let shared = Arc::new(Shared::default());
        let mut core = Core::new(runner, options);
        shared.lock().stats = core.stats();
        let theirs = shared.clone();
        let body = move || run(&mut core, &theirs);
        let thread = std::thread::Builder::new().name("ossia-engine".into()).spawn(body);
        let thread = thread.expect("the system refuses to start the engine's thread");
        Engine { shared, limits, options, thread: Some(thread) }
    }

    /// Takes a request, or says why not. Events follow on the engine's thread, the first one maybe before this returns.
    pub fn submit(&self, request: Request, sink: Sink) -> Result<Ticket, Refused> {
        request.check(self.limits.vocab, self.limits.context)?;
        let cancelled = Arc::new(AtomicBool::new(false));
        let mut inbox = self.shared.lock();
        if inbox.draining || inbox.stopping {
            return Err(Refused::Draining);
        }
        let waiting: usize = inbox.queued.values().sum();
        let own = inbox.queued.get(&request.client).copied().unwrap_or(0);
        if waiting >= self.options.queue || own >= self.options.queue_per_client {
            inbox.refused += 1;
            return Err(Refused::QueueFull { waiting, retry_after_s: retry_after_s(&inbox.stats, waiting) });
        }
        *inbox.queued.entry(request.client).or_default() += 1;
        let id = inbox.next_id;
        inbox.next_id += 1;
        inbox.busy = true;
        inbox.arrivals.push(Arrival { id, request, sink, cancelled: cancelled.clone() });
        self.shared.wake(&mut inbox);
        Ok(Ticket { cancelled, shared: self.shared.clone() })
    }

    /// What was counted, as of the last step.
    pub fn stats(&self) -> Stats {
        let inbox = self.shared.lock();
        Stats { waiting: inbox.stats.waiting + inbox.arrivals.len(), refused: inbox.refused, ..inbox.stats }
    }

    /// What a request can be at most.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Refuses new requests from now on; those that were taken are finished.
    pub fn drain(&self) {
        self.shared.lock().draining = true;
    }

    /// Waits until nothing waits or runs, at most `most`. True where that is so.
    pub fn wait_idle(&self, most: Duration) -> bool {
        let inbox = self.shared.lock();
        let waited = self.shared.idle.wait_timeout_while(inbox, most, |inbox| inbox.busy);
        !waited.unwrap_or_else(PoisonError::into_inner).0.busy
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let mut inbox = self.shared.lock();
        inbox.stopping = true;
        self.shared.wake(&mut inbox);
        drop(inbox);
        if let Some(thread) = self.thread.take().filter(|t| t.thread().id() != std::thread::current().id()) {
            // The thread catches what panics in it.
            let _ = thread.join();
        }
    }
}

impl Ticket {
    /// Ends the request within a step. Its sink is told.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
        self.shared.wake(&mut self.shared.lock());
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.cancel();
    }
}

/// Seconds until one of `waiting` requests is likely to have left the queue, by what requests took so far.
fn retry_after_s(stats: &Stats, waiting: usize) -> u64 {
    let ended = stats.answered + stats.cancelled + stats.failed;
    let each = if ended == 0 { 1.0 } else { stats.step_s / ended as f64 };
    // A tenth of the queue: enough that not everybody comes back for the same place.
    (each * (waiting as f64 / 10.0).max(1.0)).ceil().clamp(1.0, 600.0) as u64
}

/// The engine's thread.
fn run<R: Runner>(core: &mut Core<R>, shared: &Shared) {
    while let Some(arrivals) = next_arrivals(core, shared) {
        let begun = Instant::now();
        let step = AssertUnwindSafe(|| {
            arrivals.into_iter().for_each(|arrival| core.enqueue(arrival));
            core.begin_step();
            shared.lock().publish(core);
            core.end_step()
        });
        // What belongs to a request is caught where it is called; this is for faults of the engine's own.
        match catch_unwind(step) {
            Ok(0) => {}
            Ok(_) => core.took(begun.elapsed()),
            Err(_) => core.reset(),
        }
        shared.lock().publish(core);
    }
    core.end_all(&Finish::Cancelled);
    let mut inbox = shared.lock();
    inbox.publish(core);
    inbox.busy = false;
    shared.idle.notify_all();
}

/// What came since the last step; sleeps where nothing did and nothing is left to do. Nothing where the engine is to stop.
fn next_arrivals<R: Runner>(core: &mut Core<R>, shared: &Shared) -> Option<Vec<Arrival>> {
    let mut inbox = shared.lock();
    while core.is_idle() && inbox.arrivals.is_empty() && !inbox.stopping {
        inbox.busy = false;
        inbox.woken = false;
        shared.idle.notify_all();
        inbox = shared.wake.wait_while(inbox, |inbox| !inbox.woken).unwrap_or_else(PoisonError::into_inner);
    }
    let arrivals = std::mem::take(&mut inbox.arrivals);
    if inbox.stopping {
        drop(inbox);
        arrivals.into_iter().for_each(|arrival| core.enqueue(arrival));
        return None;
    }
    Some(arrivals)
}
