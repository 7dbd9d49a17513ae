//! Which vocabulary token ids belong to: shards of one vocabulary are noise to a model of another.

use std::fmt;

use ossia_text::Tokenizer;
use sha2::{Digest, Sha256};

/// A vocabulary's fingerprint and size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VocabularyId {
    /// SHA-256 over what each id stands for: its kind (0 none, 1 text, 2 special), the number of its bytes as u64, its
    /// bytes.
    pub hash: [u8; 32],
    /// Ids are below it.
    pub num_ids: u32,
}

impl VocabularyId {
    /// Fingerprints a tokenizer. How it cuts text plays no part: shards hold ids, and these mean the same.
    pub fn of(tokenizer: &Tokenizer) -> Self {
        let num_ids = u32::try_from(tokenizer.vocab_size()).unwrap_or(u32::MAX);
        let mut hash = Sha256::new();
        for id in 0..num_ids {
            let bytes = tokenizer.token_bytes(id);
            let kind = match bytes {
                None => 0u8,
                Some(_) if tokenizer.is_special(id) => 2,
                Some(_) => 1,
            };
            let bytes = bytes.unwrap_or_default();
            hash.update([kind]);
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        }
        Self { hash: hash.finalize().into(), num_ids }
    }
}

impl fmt::Display for VocabularyId {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "the vocabulary {} of {} tokens", hex(&self.hash), self.num_ids)
    }
}

/// The first bytes of a hash, enough to tell two apart.
pub(super) fn hex(hash: &[u8; 32]) -> String {
    hash.iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use ossia_text::byte_level_tokenizer_json;

    use super::*;

    #[test]
    fn equal_vocabularies_have_equal_ids_and_others_do_not() {
        let id = |json: &str| VocabularyId::of(&Tokenizer::from_json(json).unwrap());
        let json = byte_level_tokenizer_json(300).unwrap();
        assert_eq!(id(&json), id(&json));
        assert_eq!(id(&json).num_ids, 300);
        let swapped = json.replace("<|end|>", "<|dne|>");
        for other in [id(&byte_level_tokenizer_json(301).unwrap()), id(&swapped)] {
            assert_ne!(id(&json).hash, other.hash);
        }
    }
}
