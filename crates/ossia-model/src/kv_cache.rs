//! Who owns which pages: keys and values of all sequences, in two sets of pages.
//!
//! Layers that see everything keep a page for every 64 positions. Layers with a window keep only pages that some
//! position to come can still see; the others go back when a step ends.

use ossia_kernels::kv::{KvLayer, KvType, PAGE, PageTable};

use crate::gpt_oss::config::{Config, LayerKind};

/// Keys and values of all sequences.
pub struct KvCache {
    layers: Vec<KvLayer>,
    window: usize,
    full: Vec<u32>,
    sliding: Vec<u32>,
}

/// How many pages of each kind there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageCounts {
    /// For layers that see everything.
    pub full: usize,
    /// For layers with a window.
    pub sliding: usize,
}

impl PageCounts {
    /// Enough for `sequences` of `context` positions each, with at most `chunk` new tokens of a sequence in a step.
    pub fn new(config: &Config, sequences: usize, context: usize, chunk: usize) -> Self {
        // The window before the chunk and the chunk itself, wherever they lie against the page borders.
        let seen = (config.sliding_window - 1 + chunk).div_ceil(PAGE) + 1;
        let full = context.div_ceil(PAGE);
        Self { full: sequences * full, sliding: sequences * seen.min(full) }
    }

    /// Enough for `sequences` that together hold `tokens` positions, with at most `chunk` new tokens of all of them in a
    /// step. Layers with a window get three pages more for every 512 positions, which a prefix cache can keep.
    pub fn shared(config: &Config, sequences: usize, tokens: usize, chunk: usize) -> Self {
        let full = tokens.div_ceil(PAGE);
        // The window, one position before it and one after, wherever they lie against the page borders.
        let seen = config.sliding_window.div_ceil(PAGE) + 2;
        Self { full, sliding: sequences * seen + chunk.div_ceil(PAGE) + (3 * tokens).div_ceil(512) }
    }

    /// Bytes of keys and values.
    pub fn bytes(&self, config: &Config, kind: KvType) -> usize {
        let page = 2 * PAGE * config.kv_size() * kind.bytes();
        let sliding = config.layer_types.iter().filter(|&&l| l == LayerKind::Sliding).count();
        page * (self.sliding * sliding + self.full * (config.num_layers - sliding))
    }
}

/// What one sequence holds.
#[derive(Debug, Default)]
pub struct Held {
    /// Pages of layers that see everything.
    pub full: PageTable,
    /// Pages of layers with a window.
    pub sliding: PageTable,
    /// The adapter's slot that its keys and values were made with; none is the base model.
    pub adapter: Option<usize>,
    /// Positions written.
    pub len: usize,
}

/// The cache has no page left.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "the context is full: {len} positions are taken and {wanted} more were asked for; start with a larger context (--ctx) or a shorter text"
)]
pub struct Full {
    /// Positions that the sequence holds.
    pub len: usize,
    /// New positions.
    pub wanted: usize,
}

impl KvCache {
    /// Room for `counts` pages.
    pub fn new(config: &Config, kind: KvType, counts: PageCounts) -> Self {
        let layer = |which: &LayerKind| {
            let pages = if *which == LayerKind::Sliding { counts.sliding } else { counts.full };
            KvLayer::new(kind, pages, config.num_kv_heads, config.head_dim)
        };
        Self::over(config.layer_types.iter().map(layer).collect(), config, counts)
    }

    /// The same over stores that are there already, one for each layer.
    pub fn over(layers: Vec<KvLayer>, config: &Config, counts: PageCounts) -> Self {
        let pages = |n: usize| (0..n as u32).rev().collect();
        Self { layers, window: config.sliding_window, full: pages(counts.full), sliding: pages(counts.sliding) }
    }

    /// The layers' stores, for a step.
    pub fn layers(&mut self) -> &mut [KvLayer] {
        &mut self.layers
    }

    /// Pages for `tokens` more positions of `held`; all of them or none.
    pub fn reserve(&mut self, held: &mut Held, tokens: usize) -> Result<(), Full> {
        let pages = (held.len + tokens).div_ceil(PAGE);
        let missing = |table: &PageTable| pages.saturating_sub(table.first + table.pages.len());
        let (full, sliding) = (missing(&held.full), missing(&held.sliding));
        if full > self.full.len() || sliding > self.sliding.len() {
            return Err(Full { len: held.len, wanted: tokens });
        }
        held.full.pages.extend(self.full.drain(self.full.len() - full..).rev());
        held.sliding.pages.extend(self.sliding.drain(self.sliding.len() - sliding..).rev());
        Ok(())
    }

    /// Counts `tokens` as written and takes back pages that no window reaches any more.
    pub fn advance(&mut self, held: &mut Held, tokens: usize) {
        held.len += tokens;
        let first_seen = (held.len + 1).saturating_sub(self.window);
        let gone = (first_seen / PAGE).saturating_sub(held.sliding.first).min(held.sliding.pages.len());
        self.sliding.extend(held.sliding.pages.drain(..gone));
        held.sliding.first += gone;
    }

    /// Takes back everything that `held` has.
    pub fn release(&mut self, held: &mut Held) {
        self.full.append(&mut held.full.pages);
        self.sliding.append(&mut held.sliding.pages);
        *held = Held::default();
    }

    /// Pages that nobody holds.
    pub fn free(&self) -> PageCounts {
        PageCounts { full: self.full.len(), sliding: self.sliding.len() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(counts: PageCounts) -> KvCache {
        KvCache::new(&Config::preset("mini", None).unwrap(), KvType::F16, counts)
    }

    /// A window of 128 with steps of one: never more than three pages, and enough for a whole context.
    #[test]
    fn windows_keep_what_they_can_still_see() {
        let config = Config::preset("mini", None).unwrap();
        for chunk in [1, 7, 64, 500] {
            let counts = PageCounts::new(&config, 1, 4000, chunk);
            let (mut cache, mut held) = (cache(counts), Held::default());
            for start in (0..4000).step_by(chunk) {
                let tokens = chunk.min(4000 - start);
                cache.reserve(&mut held, tokens).unwrap();
                let seen = (start + 1).saturating_sub(config.sliding_window);
                assert!(held.sliding.first <= seen / PAGE, "position {seen} is still seen");
                assert!(held.sliding.first + held.sliding.pages.len() >= (start + tokens).div_ceil(PAGE));
                cache.advance(&mut held, tokens);
            }
            assert_eq!(held.full.pages.len(), 63);
            cache.release(&mut held);
            assert_eq!(cache.free(), counts);
        }
    }

    #[test]
    fn a_full_cache_says_so_and_stays_whole() {
        let mut cache = cache(PageCounts { full: 2, sliding: 4 });
        let mut held = Held::default();
        cache.reserve(&mut held, 100).unwrap();
        cache.advance(&mut held, 100);
        assert_eq!(cache.reserve(&mut held, 29), Err(Full { len: 100, wanted: 29 }));
        cache.reserve(&mut held, 28).unwrap();
        let mut pages = held.full.pages.clone();
        pages.dedup();
        assert_eq!(pages.len(), 2);
    }
}
