//! The special tokens of o200k_harmony (SPEC 8), and the proof that another source's vocabulary is the same.

use std::collections::{BTreeMap, BTreeSet};

use super::vocabulary::Vocabulary;

/// Ids 0 to 199,997 are o200k_base's byte tokens.
pub(super) const NUM_ORDINARY: u32 = 199_998;
/// Rows of gpt-oss' embedding. harmony's `<|reserved_201088|>` is one past them and is not a token here.
pub(super) const VOCAB_SIZE: usize = 201_088;
/// Every pair of tokens whose bytes together are a token: what a complete list of o200k's merges holds.
const NUM_MERGES: usize = 446_189;

const NAMED: [(u32, &str); 9] = [
    (199_998, "<|startoftext|>"),
    (199_999, "<|endoftext|>"),
    (200_002, "<|return|>"),
    (200_003, "<|constrain|>"),
    (200_005, "<|channel|>"),
    (200_006, "<|start|>"),
    (200_007, "<|end|>"),
    (200_008, "<|message|>"),
    (200_012, "<|call|>"),
];

/// The names of all special ids, and the reserved ones among them.
pub(super) fn special_tokens() -> (BTreeMap<u32, String>, BTreeSet<u32>) {
    let named = BTreeMap::from(NAMED);
    let mut special = BTreeMap::new();
    let mut reserved = BTreeSet::new();
    for id in NUM_ORDINARY..VOCAB_SIZE as u32 {
        let name = named.get(&id).map(|name| (*name).to_owned());
        if name.is_none() {
            reserved.insert(id);
        }
        special.insert(id, name.unwrap_or_else(|| format!("<|reserved_{id}|>")));
    }
    (special, reserved)
}

/// True where a vocabulary read from a file encodes and decodes exactly as o200k_harmony does: the same 199,998 byte
/// tokens, the same split, all merges in the order of the token they make, and no special token of another name.
pub(super) fn is_same(vocabulary: &Vocabulary) -> bool {
    same_tokens(vocabulary) && same_special(vocabulary) && same_splits(vocabulary) && same_merges(vocabulary)
}

fn same_tokens(vocabulary: &Vocabulary) -> bool {
    let wanted = NUM_ORDINARY as usize;
    let num_found = vocabulary.ordinary.iter().flatten().count();
    let inner = &bpe_openai::o200k_base().bpe;
    num_found == wanted
        && (0..NUM_ORDINARY)
            .zip(&vocabulary.ordinary)
            .all(|(id, found)| found.as_deref() == Some(inner.token_bytes(id)))
}

fn same_special(vocabulary: &Vocabulary) -> bool {
    let (wanted, reserved) = special_tokens();
    let has_names = NAMED.iter().all(|(id, _)| vocabulary.special.contains_key(id));
    let same_name = |(id, name): (&u32, &String)| {
        wanted.get(id) == Some(name)
            || reserved.contains(id) && (vocabulary.reserved.contains(id) || name == "<|endofprompt|>")
    };
    has_names && vocabulary.added.is_empty() && vocabulary.special.iter().all(same_name)
}

fn same_splits(vocabulary: &Vocabulary) -> bool {
    matches!(vocabulary.splits.as_slice(), [split] if split.is_o200k())
}

/// Merges are distinct and valid by construction, so that their number says that none is missing.
fn same_merges(vocabulary: &Vocabulary) -> bool {
    vocabulary.merges.len() == NUM_MERGES && vocabulary.merges.is_sorted_by_key(|&(_, _, result)| result)
}
