//! Compiled grammars by their source, up to a number of bytes; the one unused for longest goes first.

use std::collections::HashMap;
use std::sync::Arc;

use super::body::{Grammar, Source};

/// The cache.
pub(super) struct Cache {
    entries: HashMap<Source, Entry>,
    max_bytes: usize,
    num_bytes: usize,
    clock: u64,
}

struct Entry {
    grammar: Arc<Grammar>,
    used: u64,
}

impl Cache {
    /// Keeps up to so many bytes.
    pub fn new(max_bytes: usize) -> Self {
        Self { entries: HashMap::new(), max_bytes, num_bytes: 0, clock: 0 }
    }

    /// A grammar that is here already.
    pub fn get(&mut self, source: &Source) -> Option<Arc<Grammar>> {
        self.clock += 1;
        let entry = self.entries.get_mut(source)?;
        entry.used = self.clock;
        Some(entry.grammar.clone())
    }

    /// Keeps a grammar, unless it is larger than the whole cache.
    pub fn insert(&mut self, source: Source, grammar: Arc<Grammar>) {
        let num_bytes = size(&source, &grammar);
        if num_bytes > self.max_bytes || self.entries.contains_key(&source) {
            return;
        }
        while self.num_bytes + num_bytes > self.max_bytes {
            self.remove_oldest();
        }
        self.clock += 1;
        self.num_bytes += num_bytes;
        self.entries.insert(source, Entry { grammar, used: self.clock });
    }

    /// Bytes held.
    pub fn num_bytes(&self) -> usize {
        self.num_bytes
    }

    fn remove_oldest(&mut self) {
        let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.used).map(|(source, _)| source.clone());
        let Some(source) = oldest else { return self.num_bytes = 0 };
        if let Some(entry) = self.entries.remove(&source) {
            self.num_bytes -= size(&source, &entry.grammar);
        }
    }
}

fn size(source: &Source, grammar: &Grammar) -> usize {
    source.len() + grammar.num_bytes
}
