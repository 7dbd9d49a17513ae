//! The vocabulary as constraints see it: the trie of all tokens that text is made of, their mask, and the special
//! tokens that give a turn its form.
//!
//! The trie holds no special token: no grammar can name one, whoever wrote it.

use std::sync::Arc;

use llguidance::toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};

use crate::harmony::Marks;
use crate::{Harmony, TextError};

/// The longest token that the trie holds, in bytes; longer ones never come up where there is a grammar.
const MAX_TOKEN: usize = 512;
/// Most bytes of all tokens: the trie counts its nodes in 22 bits.
const MAX_BYTES: usize = 4_000_000;
/// The trie keeps this byte for itself. It is no part of UTF-8.
const TRIE_MARKER: u8 = 0xff;

/// What is made once for a tokenizer.
pub(super) struct Vocab {
    /// The tokenizer as llguidance wants it. It is never asked to encode.
    pub env: TokEnv,
    /// Ids of ordinary tokens that may be sampled, 32 a word, low bit first.
    pub text: Vec<u32>,
    /// Harmony's special tokens.
    pub marks: Marks,
}

impl Vocab {
    pub fn new(harmony: &Harmony) -> Result<Self, TextError> {
        let tokenizer = harmony.tokenizer();
        let size = tokenizer.vocab_size();
        let (marks, mut text) = (harmony.marks, vec![0; size.div_ceil(32)]);
        let forbidden = tokenizer.unsampleable_ids(size);
        let mut num_bytes = 0;
        let mut words = vec![Vec::new(); size];
        for id in 0..size as u32 {
            let Some(bytes) = tokenizer.token_bytes(id).filter(|bytes| !bytes.is_empty()) else { continue };
            if tokenizer.is_special(id) || forbidden.binary_search(&id).is_ok() {
                continue;
            }
            allow(&mut text, id);
            if bytes.len() <= MAX_TOKEN && !bytes.contains(&TRIE_MARKER) {
                num_bytes += bytes.len();
                words[id as usize] = bytes.to_vec();
            }
        }
        if num_bytes > MAX_BYTES {
            let (origin, what) = ("tokenizer".to_owned(), "the length of all tokens in bytes");
            return Err(TextError::TooLarge { origin, what, found: num_bytes, limit: MAX_BYTES });
        }
        let trie = TokTrie::from(&TokRxInfo::new(size as u32, marks.return_), &words);
        Ok(Self { env: Arc::new(ApproximateTokEnv::new(trie)), text, marks })
    }

    pub fn trie(&self) -> &TokTrie {
        self.env.tok_trie()
    }

    /// The id that stands for the end of a grammar's text in llguidance's masks.
    pub fn grammar_end(&self) -> u32 {
        self.marks.return_
    }

    /// The bytes of an ordinary token; None for any other id.
    pub fn text_of(&self, id: u32) -> Option<&[u8]> {
        is_allowed(&self.text, id).then(|| self.trie().token(id))
    }
}

/// Sets an id's bit; nothing if the mask has none for it.
pub(super) fn allow(words: &mut [u32], id: u32) {
    if let Some(word) = words.get_mut(id as usize / 32) {
        *word |= 1 << (id % 32);
    }
}

/// True where an id's bit is set.
pub(super) fn is_allowed(words: &[u32], id: u32) -> bool {
    words.get(id as usize / 32).is_some_and(|word| word >> (id % 32) & 1 == 1)
}

/// Clears what `allowed` has not; all ids past its end.
pub(super) fn keep(words: &mut [u32], allowed: &[u32]) {
    let shared = words.len().min(allowed.len());
    words.iter_mut().zip(allowed).for_each(|(word, allowed)| *word &= allowed);
    words[shared..].fill(0);
}
