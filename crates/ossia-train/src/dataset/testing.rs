//! What several tests of this folder need: seeded random numbers, a small tokenizer, documents.

use std::sync::{Arc, OnceLock};

use ossia_text::{Harmony, Tokenizer, byte_level_tokenizer_json};

use super::{Document, NUM_CLASSES, Shard, VocabularyId};

/// A small seeded generator (splitmix64).
pub(super) struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `n`, which is not 0.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

/// 300 ids, one for each byte.
pub(super) fn harmony() -> &'static Harmony {
    static HARMONY: OnceLock<Harmony> = OnceLock::new();
    HARMONY.get_or_init(|| {
        let tokenizer = Tokenizer::from_json(&byte_level_tokenizer_json(300).unwrap()).unwrap();
        Harmony::new(Arc::new(tokenizer)).unwrap()
    })
}

pub(super) fn vocabulary() -> VocabularyId {
    VocabularyId::of(harmony().tokenizer())
}

/// A document of `num_tokens` random tokens and classes.
pub(super) fn document(rng: &mut Rng, num_tokens: usize) -> Document {
    let tokens = (0..num_tokens).map(|_| rng.below(300) as u32).collect();
    let classes = (0..num_tokens).map(|_| rng.below(NUM_CLASSES) as u8).collect();
    Document { tokens, classes }
}

/// A shard of `num_documents` random documents of 2 to `most` tokens.
pub(super) fn shard(rng: &mut Rng, num_documents: usize, most: usize) -> Shard {
    let mut shard = Shard::new(vocabulary());
    for _ in 0..num_documents {
        let num_tokens = 2 + rng.below(most - 1);
        shard.push(&document(rng, num_tokens)).unwrap();
    }
    shard
}
