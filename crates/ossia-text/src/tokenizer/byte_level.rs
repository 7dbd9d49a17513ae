//! A tokenizer.json for small vocabularies, such as random test models have: one token per byte, no merges, harmony's
//! special tokens at the end. `train` writes its files with the same parts.

use serde_json::{Map, Value, json};

use super::{MAX_TOKENS, alphabet};
use crate::TextError;

/// The special tokens, in the order of their ids in o200k_harmony; the last one takes the vocabulary's last id.
pub(super) const SPECIAL: [&str; 9] = [
    "<|startoftext|>",
    "<|endoftext|>",
    "<|return|>",
    "<|constrain|>",
    "<|channel|>",
    "<|start|>",
    "<|end|>",
    "<|message|>",
    "<|call|>",
];

/// Printable ASCII and the newline: what the smallest vocabularies hold.
fn ascii_text() -> Vec<u8> {
    std::iter::once(b'\n').chain(b' '..=b'~').collect()
}

/// The smallest vocabulary: `ascii_text` and the special tokens.
const LEAST: usize = 96 + SPECIAL.len();
/// The smallest vocabulary with all bytes.
pub(super) const ALL_BYTES: usize = 256 + SPECIAL.len();

/// Writes a tokenizer.json (Hugging Face's format) for a vocabulary of `vocab_size` tokens.
///
/// From 265 tokens on, ids 0 to 255 are the 256 bytes. Smaller ones hold the newline (id 0) and printable ASCII (ids 1
/// to 95) only, so that other bytes cannot be encoded; 105 is the least. The last nine ids are harmony's special
/// tokens, and ids in between are reserved.
pub fn byte_level_tokenizer_json(vocab_size: usize) -> Result<String, TextError> {
    if !(LEAST..=MAX_TOKENS).contains(&vocab_size) {
        return Err(TextError::VocabSize { found: vocab_size, least: LEAST, most: MAX_TOKENS });
    }
    let bytes: Vec<u8> = if vocab_size >= ALL_BYTES { (0..=255).collect() } else { ascii_text() };
    let vocab: Map<String, Value> =
        bytes.iter().enumerate().map(|(id, &byte)| (alphabet::byte_to_char(byte).to_string(), id.into())).collect();
    let first_special = vocab_size - SPECIAL.len();
    let reserved = (bytes.len()..first_special).map(|id| added_token(id, &format!("<|reserved_{id}|>"), true));
    let added: Vec<Value> = reserved.chain(special_tokens(first_special)).collect();
    Ok(tokenizer_json(vocab, &[], byte_level(), added).to_string())
}

/// harmony's special tokens as entries of `added_tokens`, with ids from `first` on.
pub(super) fn special_tokens(first: usize) -> impl Iterator<Item = Value> {
    (first..).zip(SPECIAL).map(|(id, name)| added_token(id, name, true))
}

/// An entry of `added_tokens`.
pub(super) fn added_token(id: usize, content: &str, special: bool) -> Value {
    json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
           "special": special})
}

/// The step that turns bytes into the byte alphabet; it cuts nothing.
pub(super) fn byte_level() -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false})
}

/// The whole file. Merges are written `"left right"`, which every version of Hugging Face's library reads.
pub(super) fn tokenizer_json(
    vocab: Map<String, Value>,
    merges: &[String],
    pre_tokenizer: Value,
    added_tokens: Vec<Value>,
) -> Value {
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added_tokens, "normalizer": null,
        "pre_tokenizer": pre_tokenizer, "post_processor": null, "decoder": byte_level(),
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocab, "merges": merges,
        },
    })
}
