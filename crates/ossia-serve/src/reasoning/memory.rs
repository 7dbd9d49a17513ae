//! The server's memory of chain of thought, by tool-call id. Separate for each key, bounded in bytes (for each key and
//! in all, so that no key can make another's be forgotten early), forgotten after a time.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Thought;

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
}

impl Default for MemoryLimits {
    fn default() -> Self {
        Self { total_bytes: 256 << 20, owner_bytes: 32 << 20, max_age: Duration::from_secs(24 * 3600) }
    }
}

/// See the module. Shared by all handlers; every call is short.
pub struct ReasoningMemory {
    limits: MemoryLimits,
    inner: Mutex<Inner>,
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
    at: Instant,
    bytes: usize,
}

impl ReasoningMemory {
    /// An empty memory.
    pub fn new(limits: MemoryLimits) -> Self {
        Self { limits, inner: Mutex::default() }
    }

    /// Keeps what was said before the call `call_id`, for the key `owner` alone. What has no thinking is not kept.
    pub fn remember(&self, owner: &str, call_id: &str, thought: Thought) {
        self.remember_at(Instant::now(), owner, call_id, thought);
    }

    /// What the same key was told before the call, if it is still known.
    pub fn recall(&self, owner: &str, call_id: &str) -> Option<Arc<Thought>> {
        self.recall_at(Instant::now(), owner, call_id)
    }

    /// Forgets everything of a key.
    pub fn erase(&self, owner: &str) {
        let mut inner = self.lock();
        if let Some(gone) = inner.owners.remove(owner) {
            inner.bytes -= gone.bytes;
        }
    }

    /// Forgets what is too old. Called from time to time, for keys that ask no more.
    pub fn sweep(&self) {
        self.sweep_at(Instant::now());
    }

    /// Bytes kept now.
    pub fn num_bytes(&self) -> usize {
        self.lock().bytes
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic elsewhere cannot leave the maps in pieces: every change below is made of calls that do not panic.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember_at(&self, now: Instant, owner: &str, call_id: &str, thought: Thought) {
        let bytes = thought.num_bytes() + call_id.len() + ENTRY_BYTES;
        if !thought.has_thinking() || bytes > self.limits.owner_bytes.min(self.limits.total_bytes) {
            return;
        }
        let mut inner = self.lock();
        let mine = inner.owners.entry(Arc::from(owner)).or_default();
        let before = mine.bytes;
        mine.insert(now, call_id, thought, bytes);
        while mine.bytes > self.limits.owner_bytes && mine.pop_oldest() {}
        inner.bytes = inner.bytes - before + inner.owners.get(owner).map_or(0, |mine| mine.bytes);
        inner.shrink(self.limits.total_bytes);
    }

    fn recall_at(&self, now: Instant, owner: &str, call_id: &str) -> Option<Arc<Thought>> {
        let inner = self.lock();
        let entry = inner.owners.get(owner)?.entries.get(call_id)?;
        (now.saturating_duration_since(entry.at) < self.limits.max_age).then(|| Arc::clone(&entry.thought))
    }

    fn sweep_at(&self, now: Instant) {
        let mut inner = self.lock();
        for owner in inner.owners.values_mut() {
            while owner.oldest().is_some_and(|at| now.saturating_duration_since(at) >= self.limits.max_age) {
                owner.pop_oldest();
            }
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
    fn insert(&mut self, now: Instant, call_id: &str, thought: Thought, bytes: usize) {
        let number = self.next;
        self.next += 1;
        let entry = Entry { thought: Arc::new(thought), number, at: now, bytes };
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

    fn oldest(&self) -> Option<Instant> {
        let (_, id) = self.order.front()?;
        Some(self.entries.get(id)?.at)
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

    use super::{ENTRY_BYTES, MemoryLimits, ReasoningMemory};
    use crate::reasoning::{Said, Thought};

    fn thought(text: &str) -> Thought {
        Thought { said: vec![Said { thinking: true, text: text.to_owned() }], ..Thought::default() }
    }

    fn memory(total_bytes: usize, owner_bytes: usize) -> ReasoningMemory {
        ReasoningMemory::new(MemoryLimits { total_bytes, owner_bytes, max_age: Duration::from_secs(60) })
    }

    #[test]
    fn only_the_same_key_gets_it_back() {
        let memory = memory(1 << 20, 1 << 20);
        memory.remember("ada", "call_1", thought("secret"));
        assert_eq!(memory.recall("ada", "call_1").as_deref(), Some(&thought("secret")));
        assert_eq!(memory.recall("eve", "call_1"), None);
        memory.erase("ada");
        assert_eq!((memory.recall("ada", "call_1"), memory.num_bytes()), (None, 0));
    }

    #[test]
    fn what_has_no_thinking_is_not_kept() {
        let memory = memory(1 << 20, 1 << 20);
        let said = vec![Said { thinking: false, text: "Let me look.".to_owned() }];
        memory.remember("ada", "call_1", Thought { said, ..Thought::default() });
        assert_eq!((memory.recall("ada", "call_1"), memory.num_bytes()), (None, 0));
    }

    #[test]
    fn a_flood_makes_only_the_flooder_forget() {
        let entry = ENTRY_BYTES + 100 + 6;
        let memory = memory(20 * entry, 15 * entry);
        for number in 0..5 {
            memory.remember("ada", &format!("call{number:02}"), thought(&"a".repeat(100)));
        }
        for number in 0..10_000 {
            memory.remember("eve", &format!("call{:02}", number % 100), thought(&"e".repeat(100)));
        }
        assert!((0..5).all(|number| memory.recall("ada", &format!("call{number:02}")).is_some()));
        assert_eq!(memory.num_bytes(), 20 * entry);
        assert!(memory.recall("eve", "call99").is_some() && memory.recall("eve", "call00").is_none());
    }

    #[test]
    fn the_same_id_again_replaces_and_is_counted_once() {
        let memory = memory(1 << 20, 1 << 20);
        for text in ["first", "second", "third"] {
            memory.remember("ada", "call_1", thought(text));
        }
        assert_eq!(memory.recall("ada", "call_1").as_deref(), Some(&thought("third")));
        assert_eq!(memory.num_bytes(), ENTRY_BYTES + "third".len() + "call_1".len());
        assert_eq!(memory.lock().owners["ada"].order.len(), 1);
    }

    #[test]
    fn what_is_old_is_gone() {
        let memory = memory(1 << 20, 1 << 20);
        let start = Instant::now();
        memory.remember_at(start, "ada", "old", thought("old"));
        let later = start + Duration::from_secs(59);
        memory.remember_at(later, "ada", "new", thought("new"));
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
        memory.remember("ada", "call_1", thought(&"x".repeat(600)));
        assert_eq!((memory.recall("ada", "call_1"), memory.num_bytes()), (None, 0));
    }
}
