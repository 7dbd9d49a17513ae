//! The server's memory of what was written up to a call, by tool-call id. Separate for each key, bounded in bytes (for
//! each key and in all, so that no key can make another's be forgotten early), forgotten after a time.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Thought;
use super::dates::{Beginning, Dates};

/// What an entry takes besides its text and id.
const ENTRY_BYTES: usize = 160;

/// How much is kept, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct MemoryLimits {
    /// Bytes in all.
    pub total_bytes: usize,
    /// Bytes for each key.
    pub owner_bytes: usize,
    /// Older entries are forgotten.
    pub max_age: Duration,
    /// The same for calls whose thinking is not kept here.
    pub call_max_age: Duration,
}

/// What is kept of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// The call and what was said before it: its client may lose that.
    Thinking,
    /// Only how the call was written, for a shorter time: its client holds the thinking, and wants it held nowhere else.
    Call,
}

impl Default for MemoryLimits {
    fn default() -> Self {
        let hour = Duration::from_secs(3600);
        Self { total_bytes: 256 << 20, owner_bytes: 32 << 20, max_age: 24 * hour, call_max_age: hour }
    }
}

/// See the module. Shared by all handlers; every call is short.
pub struct ReasoningMemory {
    limits: MemoryLimits,
    inner: Mutex<Inner>,
    dates: Dates,
}

#[derive(Default)]
struct Inner {
    owners: HashMap<Arc<str>, Owner>,
    bytes: usize,
}

/// What is kept for one key: entries by call id, and the ids in order of age.
#[derive(Default)]
struct Owner {
    entries: HashMap<String, Entry>,
    order: VecDeque<(u64, String)>,
    bytes: usize,
    next: u64,
}

struct Entry {
    thought: Arc<Thought>,
    number: u64,
    /// When it is to be forgotten; None lies beyond the clock.
    until: Option<Instant>,
    bytes: usize,
}

impl Entry {
    fn is_over(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now >= until)
    }
}

impl ReasoningMemory {
    /// An empty memory.
    pub fn new(limits: MemoryLimits) -> Self {
        Self { limits, inner: Mutex::default(), dates: Dates::default() }
    }

    /// Keeps what was written up to the call `call_id` and of it, for the key `owner` alone.
    pub fn remember(&self, owner: &str, call_id: &str, thought: &Thought, keep: Keep) {
        self.remember_at(Instant::now(), owner, call_id, thought, keep);
    }

    /// What the same key was told before the call, if it is still known.
    pub fn recall(&self, owner: &str, call_id: &str) -> Option<Arc<Thought>> {
        self.recall_at(Instant::now(), owner, call_id)
    }

    /// The day on which a conversation of this key began that says it in no other way: `today`, if it is not known.
    pub fn date(&self, owner: &str, beginning: Beginning, today: &str) -> String {
        self.dates.of(Instant::now(), owner, beginning, today)
    }

    /// Forgets everything of a key.
    pub fn erase(&self, owner: &str) {
        self.dates.erase(owner);
        let mut inner = self.lock();
        if let Some(gone) = inner.owners.remove(owner) {
            inner.bytes -= gone.bytes;
        }
    }

    /// Forgets what is too old. Called from time to time, for keys that ask no more.
    pub fn sweep(&self) {
        let now = Instant::now();
        self.sweep_at(now);
        self.dates.sweep(now, self.limits.max_age);
    }

    /// Bytes kept now.
    pub fn num_bytes(&self) -> usize {
        self.lock().bytes
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic elsewhere cannot leave the maps in pieces: every change below is made of calls that do not panic.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember_at(&self, now: Instant, owner: &str, call_id: &str, thought: &Thought, keep: Keep) {
        let (thought, age) = match keep {
            Keep::Thinking => (thought.clone(), self.limits.max_age),
            Keep::Call => (thought.call_only(), self.limits.call_max_age),
        };
        let bytes = thought.num_bytes() + call_id.len() + ENTRY_BYTES;
        if bytes > self.limits.owner_bytes.min(self.limits.total_bytes) {
            return;
        }
        let mut inner = self.lock();
        let mine = inner.owners.entry(Arc::from(owner)).or_default();
        let before = mine.bytes;
        mine.insert(now.checked_add(age), call_id, thought, bytes);
        while mine.bytes > self.limits.owner_bytes && mine.pop_oldest() {}
        inner.bytes = inner.bytes - before + inner.owners.get(owner).map_or(0, |mine| mine.bytes);
        inner.shrink(self.limits.total_bytes);
    }

    fn recall_at(&self, now: Instant, owner: &str, call_id: &str) -> Option<Arc<Thought>> {
        let inner = self.lock();
        let entry = inner.owners.get(owner)?.entries.get(call_id)?;
        (!entry.is_over(now)).then(|| Arc::clone(&entry.thought))
    }

    fn sweep_at(&self, now: Instant) {
        let mut inner = self.lock();
        for owner in inner.owners.values_mut() {
            owner.forget(now);
        }
        inner.owners.retain(|_, owner| owner.bytes > 0);
        inner.bytes = inner.owners.values().map(|owner| owner.bytes).sum();
    }
}

impl Inner {
    /// Takes from whoever holds most until the whole fits.
    fn shrink(&mut self, limit: usize) {
        while self.bytes > limit {
            let Some(largest) = self.owners.values_mut().max_by_key(|owner| owner.bytes) else { return };
            let before = largest.bytes;
            if !largest.pop_oldest() {
                return;
            }
            self.bytes -= before - largest.bytes;
        }
    }
}

impl Owner {
    fn insert(&mut self, until: Option<Instant>, call_id: &str, thought: Thought, bytes: usize) {
        let number = self.next;
        self.next += 1;
        let entry = Entry { thought: Arc::new(thought), number, until, bytes };
        self.bytes += bytes;
        if let Some(old) = self.entries.insert(call_id.to_owned(), entry) {
            self.bytes -= old.bytes;
        }
        self.order.push_back((number, call_id.to_owned()));
        self.drop_replaced();
    }

    /// Takes ids off the front of the order whose entries have been replaced by newer ones.
    fn drop_replaced(&mut self) {
        while let Some((number, id)) = self.order.front() {
            if self.entries.get(id).is_some_and(|entry| entry.number == *number) {
                return;
            }
            self.order.pop_front();
        }
    }

    /// Forgets what is over. Entries live for different times, so all are looked at.
    fn forget(&mut self, now: Instant) {
        self.entries.retain(|_, entry| !entry.is_over(now));
        self.bytes = self.entries.values().map(|entry| entry.bytes).sum();
        let Self { entries, order, .. } = self;
        order.retain(|(number, id)| entries.get(id).is_some_and(|entry| entry.number == *number));
    }

    /// Forgets the oldest entry; false where there is none.
    fn pop_oldest(&mut self) -> bool {
        let Some((_, id)) = self.order.pop_front() else { return false };
        if let Some(gone) = self.entries.remove(&id) {
            self.bytes -= gone.bytes;
        }
        self.drop_replaced();
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{ENTRY_BYTES, Keep, MemoryLimits, ReasoningMemory};
    use crate::reasoning::{Called, Said, Thought};

    fn thought(text: &str) -> Thought {
        Thought { said: vec![Said::new(true, text)], ..Thought::default() }
    }

    fn memory(total_bytes: usize, owner_bytes: usize) -> ReasoningMemory {
        let (max_age, call_max_age) = (Duration::from_secs(60), Duration::from_secs(10));
        ReasoningMemory::new(MemoryLimits { total_bytes, owner_bytes, max_age, call_max_age })
    }

    impl ReasoningMemory {
        fn keep(&self, owner: &str, call_id: &str, thought: Thought) {
            self.remember(owner, call_id, &thought, Keep::Thinking);
        }
    }

    #[test]
    fn only_the_same_key_gets_it_back() {
        let memory = memory(1 << 20, 1 << 20);
        memory.keep("ada", "call_1", thought("secret"));
        assert_eq!(memory.recall("ada", "call_1").as_deref(), Some(&thought("secret")));
        assert_eq!(memory.recall("eve", "call_1"), None);
        memory.erase("ada");
        assert_eq!((memory.recall("ada", "call_1"), memory.num_bytes()), (None, 0));
    }

    /// Also of a call without a thought it is known how it was written.
    #[test]
    fn of_a_call_alone_only_the_call_is_kept_and_for_a_shorter_time() {
        let memory = memory(1 << 20, 1 << 20);
        let start = Instant::now();
        let called = Called { recipient: "functions.f".into(), input: "{}".into(), written: Some([1, 2].into()) };
        let whole = Thought { called: Some(called.clone()), date: Some("2026-11-28".into()), ..thought("secret") };
        memory.remember_at(start, "ada", "long", &whole, Keep::Thinking);
        memory.remember_at(start, "ada", "short", &whole, Keep::Call);
        assert_eq!(memory.recall("ada", "long"), Some(whole.clone().into()));
        assert_eq!(memory.recall("ada", "short"), Some(whole.call_only().into()));
        assert!(whole.call_only().said.is_empty() && whole.call_only().called == Some(called));
        let both = memory.num_bytes();
        let after = start + Duration::from_secs(10);
        assert!(memory.recall_at(after, "ada", "short").is_none() && memory.recall_at(after, "ada", "long").is_some());
        memory.sweep_at(after);
        assert_eq!(memory.lock().owners["ada"].order.len(), 1);
        assert!(memory.num_bytes() < both);
        memory.sweep_at(start + Duration::from_secs(60));
        assert_eq!(memory.num_bytes(), 0);
    }

    #[test]
    fn a_flood_makes_only_the_flooder_forget() {
        let entry = ENTRY_BYTES + 100 + 6;
        let memory = memory(20 * entry, 15 * entry);
        for number in 0..5 {
            memory.keep("ada", &format!("call{number:02}"), thought(&"a".repeat(100)));
        }
        for number in 0..10_000 {
            memory.keep("eve", &format!("call{:02}", number % 100), thought(&"e".repeat(100)));
        }
        assert!((0..5).all(|number| memory.recall("ada", &format!("call{number:02}")).is_some()));
        assert_eq!(memory.num_bytes(), 20 * entry);
        assert!(memory.recall("eve", "call99").is_some() && memory.recall("eve", "call00").is_none());
    }

    #[test]
    fn the_same_id_again_replaces_and_is_counted_once() {
        let memory = memory(1 << 20, 1 << 20);
        for text in ["first", "second", "third"] {
            memory.keep("ada", "call_1", thought(text));
        }
        assert_eq!(memory.recall("ada", "call_1").as_deref(), Some(&thought("third")));
        assert_eq!(memory.num_bytes(), ENTRY_BYTES + "third".len() + "call_1".len());
        assert_eq!(memory.lock().owners["ada"].order.len(), 1);
    }

    #[test]
    fn what_is_old_is_gone() {
        let memory = memory(1 << 20, 1 << 20);
        let start = Instant::now();
        memory.remember_at(start, "ada", "old", &thought("old"), Keep::Thinking);
        let later = start + Duration::from_secs(59);
        memory.remember_at(later, "ada", "new", &thought("new"), Keep::Thinking);
        assert!(memory.recall_at(later, "ada", "old").is_some());
        let after = start + Duration::from_secs(60);
        assert!(memory.recall_at(after, "ada", "old").is_none());
        memory.sweep_at(after);
        assert_eq!(memory.num_bytes(), ENTRY_BYTES + 6);
        memory.sweep_at(after + Duration::from_secs(60));
        assert_eq!(memory.num_bytes(), 0);
    }

    #[test]
    fn what_is_larger_than_the_bounds_is_not_kept() {
        let memory = memory(1000, 500);
        memory.keep("ada", "call_1", thought(&"x".repeat(600)));
        assert_eq!((memory.recall("ada", "call_1"), memory.num_bytes()), (None, 0));
    }
}
