//! Threads that wait for work and share it by task number.
//!
//! A task writes outputs that belong to it alone, in an order that the shape fixes, so it does not matter to a single
//! bit which thread takes it. Each thread has a run of adjacent tasks, so that what one task's end asks for ahead is the
//! next one's beginning; who has done its own takes from the others, so that a disturbed core does not hold up the rest.
//! Waiting threads spin for some microseconds (ops follow each other closely), then sleep.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Rounds of spinning before a waiting thread sleeps; about 50 microseconds.
const SPINS: u32 = 4_000;

/// What a task is told: its number, and the number of the thread that runs it (0 is the caller).
type Task<'a> = &'a (dyn Fn(usize, usize) + Sync);

/// A fixed set of threads. Dropping it ends them.
pub struct Pool {
    shared: Arc<Shared>,
    handles: Vec<JoinHandle<()>>,
    /// One run at a time.
    running: Mutex<()>,
}

struct Shared {
    /// Raised by one for each run; its change is the signal to start.
    epoch: AtomicU64,
    job: Mutex<Option<Job>>,
    wake: Condvar,
    sleepers: AtomicUsize,
    /// Each thread's next task of its own.
    next: Vec<Counter>,
    busy: AtomicUsize,
    panicked: AtomicBool,
    stop: AtomicBool,
}

/// On a cache line of its own: others would have to wait for each of its changes.
#[repr(align(64))]
#[derive(Default)]
struct Counter(AtomicUsize);

#[derive(Clone, Copy)]
struct Job {
    task: Task<'static>,
    tasks: usize,
}

impl Pool {
    /// A pool that works with `threads` threads in all, the caller's own among them.
    pub fn new(threads: usize) -> Self {
        let shared = Arc::new(Shared {
            epoch: AtomicU64::new(0),
            job: Mutex::new(None),
            wake: Condvar::new(),
            sleepers: AtomicUsize::new(0),
            next: (0..threads.max(1)).map(|_| Counter::default()).collect(),
            busy: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        let handles = (1..threads.max(1)).map(|thread| spawn(shared.clone(), thread)).collect();
        Self { shared, handles, running: Mutex::new(()) }
    }

    /// Threads, the caller's among them.
    pub fn threads(&self) -> usize {
        self.handles.len() + 1
    }

    /// Runs `task(number, thread)` for every number below `tasks` and returns when all are done.
    /// A task's panic is raised again here once the others have ended.
    pub fn run(&self, tasks: usize, task: Task<'_>) {
        if tasks <= 1 || self.handles.is_empty() {
            return (0..tasks).for_each(|number| task(number, 0));
        }
        let _one_run = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = &*self.shared;
        // SAFETY: only the lifetime changes. The workers use the reference between here and the wait below, and this
        // function does not return or unwind before every one of them has reported that it is done.
        let task = unsafe { std::mem::transmute::<Task<'_>, Task<'static>>(task) };
        let job = Job { task, tasks };
        for (thread, next) in shared.next.iter().enumerate() {
            next.0.store(shared.own(tasks, thread).start, Ordering::Relaxed);
        }
        shared.busy.store(self.handles.len(), Ordering::Relaxed);
        *shared.job.lock().unwrap_or_else(PoisonError::into_inner) = Some(job);
        shared.epoch.fetch_add(1, Ordering::SeqCst);
        if shared.sleepers.load(Ordering::SeqCst) > 0 {
            let _job = shared.job.lock().unwrap_or_else(PoisonError::into_inner);
            shared.wake.notify_all();
        }
        let own = catch_unwind(AssertUnwindSafe(|| shared.work(job, 0)));
        let mut spins = 0;
        while shared.busy.load(Ordering::Acquire) > 0 {
            pause(&mut spins);
        }
        let panicked = shared.panicked.swap(false, Ordering::Relaxed);
        if let Err(panic) = own {
            resume_unwind(panic);
        }
        assert!(!panicked, "a worker thread panicked; its message was printed above");
    }

    /// Runs `work(range, thread)` over `0..items`, cut into runs of at most `grain` items.
    pub fn run_ranges(&self, items: usize, grain: usize, work: impl Fn(std::ops::Range<usize>, usize) + Sync) {
        let grain = grain.max(1);
        self.run(items.div_ceil(grain), &|task, thread| {
            work(task * grain..((task + 1) * grain).min(items), thread);
        });
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.epoch.fetch_add(1, Ordering::SeqCst);
        drop(self.shared.job.lock().unwrap_or_else(PoisonError::into_inner));
        self.shared.wake.notify_all();
        for handle in self.handles.drain(..) {
            // A worker never unwinds out of its loop: panics of tasks are caught there.
            let _ = handle.join();
        }
    }
}

impl Shared {
    /// The tasks that `thread` begins with.
    fn own(&self, tasks: usize, thread: usize) -> std::ops::Range<usize> {
        let threads = self.next.len();
        thread * tasks / threads..(thread + 1) * tasks / threads
    }

    /// Its own tasks first, then what others have left.
    fn work(&self, job: Job, thread: usize) {
        for owner in (0..self.next.len()).map(|i| (thread + i) % self.next.len()) {
            let end = self.own(job.tasks, owner).end;
            loop {
                let number = self.next[owner].0.fetch_add(1, Ordering::Relaxed);
                if number >= end {
                    break;
                }
                (job.task)(number, thread);
            }
        }
    }

    /// Waits until the epoch is no longer `seen`.
    fn wait(&self, seen: u64) -> u64 {
        for _ in 0..SPINS {
            let epoch = self.epoch.load(Ordering::Acquire);
            if epoch != seen {
                return epoch;
            }
            std::hint::spin_loop();
        }
        let mut job = self.job.lock().unwrap_or_else(PoisonError::into_inner);
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        while self.epoch.load(Ordering::SeqCst) == seen {
            job = self.wake.wait(job).unwrap_or_else(PoisonError::into_inner);
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
        drop(job);
        self.epoch.load(Ordering::SeqCst)
    }
}

fn spawn(shared: Arc<Shared>, thread: usize) -> JoinHandle<()> {
    let body = move || {
        let mut seen = 0;
        loop {
            seen = shared.wait(seen);
            if shared.stop.load(Ordering::SeqCst) {
                return;
            }
            let job = *shared.job.lock().unwrap_or_else(PoisonError::into_inner);
            let done = job.is_none_or(|job| catch_unwind(AssertUnwindSafe(|| shared.work(job, thread))).is_ok());
            if !done {
                shared.panicked.store(true, Ordering::Relaxed);
            }
            shared.busy.fetch_sub(1, Ordering::Release);
        }
    };
    std::thread::Builder::new()
        .name(format!("ossia-{thread}"))
        .spawn(body)
        .expect("the system refuses to start a worker thread")
}

fn pause(spins: &mut u32) {
    *spins += 1;
    if *spins < SPINS { std::hint::spin_loop() } else { std::thread::yield_now() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once() {
        for threads in [1, 2, 3] {
            let pool = Pool::new(threads);
            for tasks in [0, 1, 2, 7, 1000] {
                let counts: Vec<_> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                pool.run(tasks, &|number, thread| {
                    assert!(thread < threads);
                    counts[number].fetch_add(1, Ordering::Relaxed);
                });
                assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 1), "{threads} threads, {tasks} tasks");
            }
        }
    }

    #[test]
    fn sleeping_workers_wake() {
        let pool = Pool::new(2);
        for _ in 0..3 {
            std::thread::sleep(std::time::Duration::from_millis(5));
            let sum = AtomicUsize::new(0);
            pool.run_ranges(100, 7, |range, _| {
                sum.fetch_add(range.sum::<usize>(), Ordering::Relaxed);
            });
            assert_eq!(sum.into_inner(), 4950);
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        let pool = Pool::new(2);
        for bad in 0..8 {
            let result = catch_unwind(AssertUnwindSafe(|| pool.run(8, &|number, _| assert_ne!(number, bad))));
            assert!(result.is_err());
        }
        let sum = AtomicUsize::new(0);
        pool.run_ranges(8, 1, |range, _| {
            sum.fetch_add(range.start, Ordering::Relaxed);
        });
        assert_eq!(sum.into_inner(), 28);
    }
}
