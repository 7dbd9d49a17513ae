//! Text to token ids and back, from one of three sources: o200k_harmony (built in), a checkpoint's tokenizer.json, or
//! the vocabulary in a GGUF's metadata.
//!
//! Special tokens are never produced from text: `<|end|>` typed by a user becomes ordinary tokens (SPEC 9.1). All three
//! sources are byte-level BPE, so that encoding and decoding lose nothing: every other kind of tokenizer is refused by
//! name. A source whose vocabulary is o200k's is replaced by the built-in one, which loads and runs faster.

mod alphabet;
mod bpe;
mod byte_level;
mod gguf;
mod json;
mod o200k;
mod split;
mod stream;
mod train;
mod vocabulary;
mod written;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

pub use byte_level::byte_level_tokenizer_json;
pub use gguf::GgufVocab;
pub use stream::Utf8Stream;
pub use train::{TRAINED_SIZES, train_bpe};

use crate::TextError;
use bpe::Bpe;
use vocabulary::Vocabulary;

/// No source may have more tokens or merges than this (gpt-oss: 201,088 and 446,189).
const MAX_TOKENS: usize = 1 << 20;

/// The ids of harmony's special tokens, where the vocabulary has them (SPEC 8).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Specials {
    /// `<|startoftext|>`
    pub start_of_text: Option<u32>,
    /// `<|endoftext|>`, also the padding token
    pub end_of_text: Option<u32>,
    /// `<|return|>`
    pub return_: Option<u32>,
    /// `<|constrain|>`
    pub constrain: Option<u32>,
    /// `<|channel|>`
    pub channel: Option<u32>,
    /// `<|start|>`
    pub start: Option<u32>,
    /// `<|end|>`
    pub end: Option<u32>,
    /// `<|message|>`
    pub message: Option<u32>,
    /// `<|call|>`
    pub call: Option<u32>,
}

/// A tokenizer: encodes text without special tokens, decodes ids to bytes, knows the special and reserved ids.
pub struct Tokenizer {
    core: Core,
    special: BTreeMap<u32, String>,
    reserved: BTreeSet<u32>,
    specials: Specials,
    vocab_size: usize,
}

enum Core {
    O200k(&'static bpe_openai::Tokenizer),
    Bpe(Box<Bpe>),
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("built_in", &self.is_o200k_harmony())
            .field("vocab_size", &self.vocab_size)
            .finish()
    }
}

impl Tokenizer {
    /// o200k_harmony, the tokenizer of gpt-oss: 201,088 ids, no file needed (SPEC 8).
    pub fn o200k_harmony() -> Self {
        let (special, reserved) = o200k::special_tokens();
        let specials = find_specials(&special);
        let core = Core::O200k(bpe_openai::o200k_base());
        Self { core, special, reserved, specials, vocab_size: o200k::VOCAB_SIZE }
    }

    /// Reads the text of a `tokenizer.json` (Hugging Face's format). At most 32 MiB; byte-level BPE only.
    pub fn from_json(text: &str) -> Result<Self, TextError> {
        json::read(text).and_then(Self::from_vocabulary)
    }

    /// Reads a `tokenizer.json` from disk, as [`Tokenizer::from_json`] does; errors name the file.
    pub fn from_json_file(path: &Path) -> Result<Self, TextError> {
        json::read_file(path).and_then(Self::from_vocabulary)
    }

    /// Builds the tokenizer described by a GGUF's metadata (SPEC 2.3): model "gpt2", pre "gpt-4o" or "gpt-2".
    pub fn from_gguf(vocab: GgufVocab) -> Result<Self, TextError> {
        gguf::read(vocab).and_then(Self::from_vocabulary)
    }

    /// The same vocabulary as the text of a `tokenizer.json`, which [`Tokenizer::from_json`] and other programs read.
    /// Rows without a token are left out.
    pub fn json_from_gguf(vocab: GgufVocab) -> Result<String, TextError> {
        gguf::read(vocab).and_then(|vocabulary| written::write(&vocabulary))
    }

    fn from_vocabulary(vocabulary: Vocabulary) -> Result<Self, TextError> {
        if o200k::is_same(&vocabulary) {
            return Ok(Self::o200k_harmony());
        }
        let vocab_size = vocabulary.size();
        let specials = find_specials(&vocabulary.special);
        let Vocabulary { special, reserved, .. } = &vocabulary;
        let (special, reserved) = (special.clone(), reserved.clone());
        let core = Core::Bpe(Box::new(Bpe::new(vocabulary)?));
        Ok(Self { core, special, reserved, specials, vocab_size })
    }

    /// Token ids of `text`. Special tokens are not recognised: the text `<|end|>` gives ordinary tokens.
    ///
    /// Fails only where a small vocabulary has no token for a byte of the text.
    pub fn encode_text(&self, text: &str) -> Result<Vec<u32>, TextError> {
        match &self.core {
            Core::O200k(inner) => Ok(inner.encode(text)),
            Core::Bpe(inner) => inner.encode(text),
        }
    }

    /// The bytes of a token: of an ordinary one its text (perhaps not whole characters), of a special one its name.
    /// None for an id that the vocabulary does not have.
    pub fn token_bytes(&self, id: u32) -> Option<&[u8]> {
        if let Some(name) = self.special.get(&id) {
            return Some(name.as_bytes());
        }
        match &self.core {
            Core::O200k(inner) => (id < o200k::NUM_ORDINARY).then(|| inner.bpe.token_bytes(id)),
            Core::Bpe(inner) => inner.token_bytes(id),
        }
    }

    /// The bytes of many tokens, end to end; an id that the vocabulary does not have gives U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> Vec<u8> {
        ids.iter().flat_map(|&id| self.token_bytes(id).unwrap_or("\u{fffd}".as_bytes())).copied().collect()
    }

    /// True for special and reserved tokens, which text never encodes to.
    pub fn is_special(&self, id: u32) -> bool {
        self.special.contains_key(&id)
    }

    /// The id of the special token with this exact name, such as `<|channel|>`.
    pub fn special_id(&self, name: &str) -> Option<u32> {
        self.special.iter().find(|(_, n)| *n == name).map(|(&id, _)| id)
    }

    /// The ids of harmony's special tokens.
    pub fn specials(&self) -> &Specials {
        &self.specials
    }

    /// The number of ids: the largest id of the vocabulary plus one. A model's logits may be wider.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// True where this is the built-in o200k_harmony, asked for or recognised in a file.
    pub fn is_o200k_harmony(&self) -> bool {
        matches!(self.core, Core::O200k(_))
    }

    /// The ids among a model's `num_logits` logits that must not be sampled: reserved tokens, holes in the vocabulary,
    /// and ids past its end.
    pub fn unsampleable_ids(&self, num_logits: usize) -> Vec<u32> {
        let end = u32::try_from(num_logits).unwrap_or(u32::MAX);
        (0..end).filter(|id| self.reserved.contains(id) || self.token_bytes(*id).is_none()).collect()
    }

    /// The ids that end a turn: `<|return|>`, `<|call|>` and, for safety, `<|endoftext|>`; those that exist.
    /// `<|end|>` ends a message and is not among them (SPEC 9.1).
    pub fn stop_ids(&self) -> Vec<u32> {
        let s = &self.specials;
        [s.return_, s.call, s.end_of_text].into_iter().flatten().collect()
    }
}

/// Looks harmony's names up in a table of special tokens.
fn find_specials(table: &BTreeMap<u32, String>) -> Specials {
    let mut s = Specials::default();
    for (&id, name) in table {
        let slot = match name.as_str() {
            "<|startoftext|>" => &mut s.start_of_text,
            "<|endoftext|>" => &mut s.end_of_text,
            "<|return|>" => &mut s.return_,
            "<|constrain|>" => &mut s.constrain,
            "<|channel|>" => &mut s.channel,
            "<|start|>" => &mut s.start,
            "<|end|>" => &mut s.end,
            "<|message|>" => &mut s.message,
            "<|call|>" => &mut s.call,
            _ => continue,
        };
        *slot = Some(id);
    }
    s
}
