//! The engine's thread and the ways to it. One thread owns the model and everything that belongs to a step; what other
//! threads see is a list of arrivals and the last counts. With nothing to do the thread sleeps.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ossia_kernels::kv::PAGE;
use ossia_model::Model;

use crate::adapter::{Adapter, AttachError, Errand, NewAdapter};
use crate::core::{Arrival, Core, EngineOptions};
use crate::queue::{Pace, Queue, weight};
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
    errands: Vec<Errand>,
    next_id: u64,
    next_adapter: u64,
    /// Requests that wait and never ran, and how fast they begin.
    queued: Queue,
    pace: Pace,
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
        (self.queued, self.pace) = (core.queued(), core.pace());
        for arrival in &self.arrivals {
            self.queued.add(arrival.request.client, weight(&arrival.request));
        }
        self.stats = core.stats();
    }

    /// Whether one more request of `client` is taken, that weighs so much.
    fn admit(&mut self, options: &EngineOptions, client: u64, weight: u64) -> Result<(), Refused> {
        if self.draining || self.stopping {
            return Err(Refused::Draining);
        }
        let waiting = self.queued.requests();
        let full = waiting >= options.queue || self.queued.requests_of(client) >= options.queue_per_client;
        let wait = self.pace.wait(self.queued.ahead(client, weight)).unwrap_or_default();
        if !full && wait <= options.longest_wait {
            return Ok(());
        }
        self.refused += 1;
        // A tenth of the queue at least: enough that not everybody comes back for the same place.
        let tenth = self.pace.wait(self.queued.weight() / 10).unwrap_or_default();
        let room = wait.saturating_sub(options.longest_wait).max(tenth);
        Err(Refused::QueueFull { waiting, retry_after_s: room.as_secs_f64().ceil().clamp(1.0, 600.0) as u64 })
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn errand(&self, inbox: &mut Inbox, errand: Errand) {
        inbox.errands.push(errand);
        self.wake(inbox);
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
    pub fn submit(&self, mut request: Request, sink: Sink) -> Result<Ticket, Refused> {
        request.check(self.limits.vocab, self.limits.context)?;
        let weight = weight(&request);
        request.salt = request.adapter.as_ref().map_or(request.salt, |adapter| adapter.salted(request.salt));
        let cancelled = Arc::new(AtomicBool::new(false));
        let mut inbox = self.shared.lock();
        inbox.admit(&self.options, request.client, weight)?;
        inbox.queued.add(request.client, weight);
        let id = inbox.next_id;
        inbox.next_id += 1;
        inbox.busy = true;
        inbox.arrivals.push(Arrival { id, request, sink, cancelled: cancelled.clone() });
        self.shared.wake(&mut inbox);
        Ok(Ticket { cancelled, shared: self.shared.clone() })
    }

    /// Whether a request of `client` would be taken now, if it is like those that wait: for who wants to know before
    /// the request has been read. An error counts as a refused request.
    pub fn expects(&self, client: u64) -> Result<(), Refused> {
        let mut inbox = self.shared.lock();
        let typical = inbox.queued.typical();
        inbox.admit(&self.options, client, typical)
    }

    /// Brings an adapter to the model, for any number of requests; waits until the step that runs is over. An error, for a
    /// person, where it does not fit the model, or is larger than was planned for.
    pub fn attach(&self, new: NewAdapter) -> Result<Arc<Adapter>, AttachError> {
        let (told, heard) = mpsc::sync_channel(1);
        let mut inbox = self.shared.lock();
        if inbox.stopping {
            return Err(AttachError::Refused("the engine is stopping".to_owned()));
        }
        let number = inbox.next_adapter;
        inbox.next_adapter += 1;
        self.shared.errand(&mut inbox, Errand::Attach(Box::new(new), told));
        drop(inbox);
        let slot = heard.recv().map_err(|_| AttachError::Refused("the engine has stopped".to_owned()))??;
        let shared = Arc::downgrade(&self.shared);
        let gone = move |slot| {
            if let Some(shared) = shared.upgrade() {
                shared.errand(&mut shared.lock(), Errand::Detach(slot));
            }
        };
        Ok(Adapter::new(slot, number, Box::new(gone)))
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

/// The engine's thread.
fn run<R: Runner>(core: &mut Core<R>, shared: &Shared) {
    while let Some((errands, arrivals)) = next_arrivals(core, shared) {
        errands.into_iter().for_each(|errand| core.run_errand(errand));
        let begun = Instant::now();
        let step = AssertUnwindSafe(|| {
            arrivals.into_iter().for_each(|arrival| core.enqueue(arrival));
            core.begin_step();
            publish(core, shared);
            core.end_step()
        });
        // What belongs to a request is caught where it is called; this is for faults of the engine's own.
        match catch_unwind(step) {
            Ok(0) => {}
            Ok(_) => core.took(begun.elapsed()),
            Err(_) => core.reset(),
        }
        publish(core, shared);
    }
    core.end_all(&Finish::Cancelled);
    publish(core, shared);
    shared.lock().busy = false;
    shared.idle.notify_all();
}

/// Lets other threads see the step, then tells those who ended in it.
fn publish<R: Runner>(core: &mut Core<R>, shared: &Shared) {
    shared.lock().publish(core);
    core.tell_ended();
}

/// What came since the last step, what is to be done to the model first; sleeps where nothing did and nothing is left to
/// do. Nothing where the engine is to stop.
fn next_arrivals<R: Runner>(core: &mut Core<R>, shared: &Shared) -> Option<(Vec<Errand>, Vec<Arrival>)> {
    let mut inbox = shared.lock();
    while core.is_idle() && inbox.arrivals.is_empty() && inbox.errands.is_empty() && !inbox.stopping {
        inbox.busy = false;
        inbox.woken = false;
        shared.idle.notify_all();
        inbox = shared.wake.wait_while(inbox, |inbox| !inbox.woken).unwrap_or_else(PoisonError::into_inner);
        // Who comes at the same moment is in the same step.
        let wait = core.wait_for_others(inbox.arrivals.iter().map(|arrival| arrival.request.prompt.len()).sum());
        let waited = shared.wake.wait_timeout_while(inbox, wait, |inbox| !inbox.stopping);
        inbox = waited.unwrap_or_else(PoisonError::into_inner).0;
    }
    let arrivals = std::mem::take(&mut inbox.arrivals);
    let errands = std::mem::take(&mut inbox.errands);
    if inbox.stopping {
        drop(inbox);
        arrivals.into_iter().for_each(|arrival| core.enqueue(arrival));
        return None;
    }
    Some((errands, arrivals))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{EngineOptions, Inbox};
    use crate::request::Refused;

    fn inbox(waiting: u64) -> Inbox {
        let mut inbox = Inbox::default();
        (0..waiting).for_each(|_| inbox.queued.add(1, 500));
        inbox
    }

    #[test]
    fn a_queue_has_a_length() {
        let options = EngineOptions { queue: 8, queue_per_client: 6, ..EngineOptions::default() };
        assert_eq!(inbox(5).admit(&options, 1, 500), Ok(()));
        let mut full = inbox(6);
        assert_eq!(full.admit(&options, 1, 500), Err(Refused::QueueFull { waiting: 6, retry_after_s: 1 }));
        assert_eq!(full.admit(&options, 2, 500), Ok(()), "another client has its own places");
        (0..2).for_each(|_| full.queued.add(2, 500));
        assert!(full.admit(&options, 3, 500).is_err(), "but there are so many in all");
        assert_eq!(full.refused, 2);
    }

    #[test]
    fn who_would_wait_too_long_is_not_taken() {
        let options = EngineOptions { longest_wait: Duration::from_secs(10), ..EngineOptions::default() };
        let mut inbox = inbox(100);
        assert_eq!(inbox.admit(&options, 1, 500), Ok(()), "nobody knows yet how long it takes");
        // 1,000 tokens a second: two requests.
        inbox.pace.step(100, Duration::from_millis(100));
        assert_eq!(inbox.admit(&options, 1, 500), Err(Refused::QueueFull { waiting: 100, retry_after_s: 40 }));
        assert_eq!(inbox.admit(&options, 2, 500), Ok(()), "it is not behind them");
        (2..30).for_each(|client| inbox.queued.add(client, 500));
        assert_eq!(inbox.admit(&options, 30, 500), Err(Refused::QueueFull { waiting: 128, retry_after_s: 7 }));
        assert_eq!(inbox.admit(&options, 30, 10), Ok(()), "a short one is before them in fair service");
    }
}
