//! What a tokenizer.json and a GGUF have in common once read and checked: tokens by id, merges by rank, splits.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::split::Split;
use super::{MAX_TOKENS, alphabet};
use crate::TextError;

/// Most added tokens that are found in text, and the most bytes of one: they are few and short in real files.
const MAX_ADDED: usize = 4096;
const MAX_ADDED_BYTES: usize = 256;

/// A checked vocabulary. Ids are below `MAX_TOKENS`, each id has one meaning, merges refer to ordinary tokens.
pub(super) struct Vocabulary {
    /// The bytes of ordinary tokens, by id; None for special tokens and holes.
    pub ordinary: Vec<Option<Box<[u8]>>>,
    /// Names of special and reserved tokens, by id.
    pub special: BTreeMap<u32, String>,
    /// Ids that must not be sampled.
    pub reserved: BTreeSet<u32>,
    /// Tokens that are found in text before splitting (added tokens that are not special). Their bytes are in
    /// `ordinary` too.
    pub added: Vec<(String, u32)>,
    /// (left, right, result), the most urgent first.
    pub merges: Vec<(u32, u32, u32)>,
    /// A piece that is a token as a whole is that token, whatever the merges say.
    pub whole_pieces_first: bool,
    /// How text is cut into pieces, applied one after the other.
    pub splits: Vec<Split>,
    /// Where it was read from, for errors: "tokenizer.json" or "GGUF tokenizer".
    pub origin: &'static str,
}

impl Vocabulary {
    pub fn new(origin: &'static str) -> Self {
        Self {
            ordinary: Vec::new(),
            special: BTreeMap::new(),
            reserved: BTreeSet::new(),
            added: Vec::new(),
            merges: Vec::new(),
            whole_pieces_first: false,
            splits: Vec::new(),
            origin,
        }
    }

    /// The largest id plus one.
    pub fn size(&self) -> usize {
        let past_special = self.special.last_key_value().map_or(0, |(&id, _)| id as usize + 1);
        let past_ordinary = self.ordinary.iter().rposition(Option::is_some).map_or(0, |i| i + 1);
        past_special.max(past_ordinary)
    }

    pub fn error(&self, problem: String) -> TextError {
        TextError::Tokenizer { origin: self.origin.to_owned(), problem }
    }

    fn slot(&mut self, id: u32) -> Result<&mut Option<Box<[u8]>>, TextError> {
        let (index, origin) = (id as usize, self.origin.to_owned());
        if self.ordinary.len() <= index && index < MAX_TOKENS {
            self.ordinary.resize(index + 1, None);
        }
        let too_large = TextError::TooLarge { origin, what: "a token's id", found: index, limit: MAX_TOKENS - 1 };
        self.ordinary.get_mut(index).ok_or(too_large)
    }

    /// Adds an ordinary token from its written form in the byte alphabet.
    pub fn add_ordinary(&mut self, id: u32, written: &str) -> Result<(), TextError> {
        let Some(bytes) = alphabet::to_bytes(written).filter(|bytes| !bytes.is_empty()) else {
            let shown: String = written.chars().take(40).collect();
            return Err(self.error(format!("token {id} {shown:?} is not written in the byte-level alphabet")));
        };
        let slot = self.slot(id)?;
        if slot.is_some() {
            return Err(self.error(format!("id {id} is given to two tokens")));
        }
        *slot = Some(bytes);
        Ok(())
    }

    /// Adds a special token; one without a name is reserved.
    pub fn add_special(&mut self, id: u32, name: &str, reserved: bool) -> Result<(), TextError> {
        *self.slot(id)? = None;
        let name = if name.is_empty() { format!("<|reserved_{id}|>") } else { name.to_owned() };
        if reserved || name.starts_with("<|reserved_") || name.starts_with("[PAD") {
            self.reserved.insert(id);
        }
        if self.special.insert(id, name).is_some() {
            return Err(self.error(format!("id {id} is given to two special tokens")));
        }
        Ok(())
    }

    /// Adds a token that is found in text before splitting.
    pub fn add_added(&mut self, id: u32, text: &str) -> Result<(), TextError> {
        if text.is_empty() || text.len() > MAX_ADDED_BYTES {
            let wanted = format!("wanted 1 to {MAX_ADDED_BYTES}");
            return Err(self.error(format!("added token {id} has {} bytes, {wanted}", text.len())));
        }
        if self.added.len() == MAX_ADDED {
            return Err(self.error(format!("more than {MAX_ADDED} added tokens that are not special")));
        }
        *self.slot(id)? = Some(text.as_bytes().into());
        self.added.push((text.to_owned(), id));
        Ok(())
    }

    /// Ordinary tokens by their bytes, added ones left out. Of two tokens with the same bytes the first keeps them.
    pub fn by_bytes(&self) -> HashMap<&[u8], u32> {
        let added: BTreeSet<u32> = self.added.iter().map(|&(_, id)| id).collect();
        let mut map = HashMap::with_capacity(self.ordinary.len());
        for (id, bytes) in (0u32..).zip(&self.ordinary) {
            if let Some(bytes) = bytes.as_deref().filter(|_| !added.contains(&id)) {
                map.entry(bytes).or_insert(id);
            }
        }
        map
    }
}
