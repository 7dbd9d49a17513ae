//! Draws turns from a matcher's masks, as a model that knows nothing would, but with a will to come to an end.

use ossia_text::constrain::{ConstrainError, Matcher};
use ossia_text::{Harmony, Tokenizer};

use super::Rng;

/// After so many tokens the sampler takes whatever comes nearest to the end.
const PATIENCE: usize = 300;
/// A turn that is longer than this never ends.
const MAX_TOKENS: usize = 20_000;

/// Draws tokens for one tokenizer.
pub struct Sampler {
    vocab_size: usize,
    /// How near a token brings the end, by id.
    ranks: Vec<u8>,
    stops: Vec<u32>,
}

impl Sampler {
    pub fn new(harmony: &Harmony) -> Self {
        let tokenizer = harmony.tokenizer();
        let vocab_size = tokenizer.vocab_size();
        let ranks = (0..vocab_size as u32).map(|id| rank(tokenizer, id)).collect();
        Self { vocab_size, ranks, stops: harmony.stop_ids() }
    }

    /// The ids that may come next; at least one.
    pub fn allowed(&self, matcher: &mut Matcher) -> Vec<u32> {
        self.try_allowed(matcher).unwrap()
    }

    fn try_allowed(&self, matcher: &mut Matcher) -> Result<Vec<u32>, ConstrainError> {
        let mut words = vec![u32::MAX; self.vocab_size.div_ceil(32)];
        matcher.mask(&mut words)?;
        let ids: Vec<u32> =
            (0..32 * words.len() as u32).filter(|id| words[*id as usize / 32] >> (id % 32) & 1 == 1).collect();
        assert!(!ids.is_empty(), "a dead end");
        assert!(ids.iter().all(|id| (*id as usize) < self.vocab_size));
        Ok(ids)
    }

    /// Draws one token, of those near the end where `impatient`; fails where the mask does.
    pub fn try_pick(&self, matcher: &mut Matcher, rng: &mut Rng, impatient: bool) -> Result<u32, ConstrainError> {
        Ok(self.pick(&self.try_allowed(matcher)?, rng, impatient))
    }

    /// Draws a whole turn; its last token is one that ends it.
    pub fn turn(&self, matcher: &mut Matcher, rng: &mut Rng) -> Vec<u32> {
        let mut out = Vec::new();
        while !matcher.is_finished() {
            assert!(out.len() < MAX_TOKENS, "no end");
            let token = self.pick(&self.allowed(matcher), rng, out.len() > PATIENCE);
            matcher.accept(token).unwrap();
            out.push(token);
        }
        assert!(self.stops.contains(out.last().unwrap()));
        out
    }

    fn pick(&self, allowed: &[u32], rng: &mut Rng, impatient: bool) -> u32 {
        let best = allowed.iter().map(|id| self.ranks[*id as usize]).min().unwrap();
        if (if impatient { rng.below(8) > 0 } else { rng.below(3) == 0 }) && best < OTHER {
            let near: Vec<u32> = allowed.iter().copied().filter(|id| self.ranks[*id as usize] == best).collect();
            return rng.pick(&near);
        }
        rng.pick(allowed)
    }
}

/// Ends a string, an object or a list: which of them, is left to chance.
const CLOSES: u8 = 2;
const OTHER: u8 = 6;

fn rank(tokenizer: &Tokenizer, id: u32) -> u8 {
    match tokenizer.token_bytes(id).unwrap_or_default() {
        b"<|return|>" | b"<|call|>" => 0,
        b"<|end|>" | b"<|start|>" | b"<|message|>" => 1,
        b"}" | b"]" | b"\"" => CLOSES,
        b"," | b":" | [b'0'..=b'9'] => 3,
        bytes if bytes.iter().all(|byte| b"{}[]\",:".contains(byte)) => 4,
        bytes if bytes.len() == 1 && bytes[0].is_ascii_alphanumeric() => 5,
        _ => OTHER,
    }
}
