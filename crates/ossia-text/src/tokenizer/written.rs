//! A GGUF's vocabulary as a tokenizer.json (Hugging Face's format), so that a model's folder has one again.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::byte_level::{added_token, byte_level, tokenizer_json};
use super::split::Split;
use super::vocabulary::Vocabulary;
use super::{alphabet, json as json_file};
use crate::TextError;

/// The text of the file that encodes and decodes as `vocabulary` does, which was read from a GGUF file.
pub(super) fn write(vocabulary: &Vocabulary) -> Result<String, TextError> {
    let added = added(vocabulary);
    let mut written = BTreeMap::new();
    for (id, bytes) in (0u32..).zip(&vocabulary.ordinary) {
        if let Some(bytes) = bytes.as_deref().filter(|_| !added.contains_key(&id)) {
            written.insert(id, bytes.iter().map(|&byte| alphabet::byte_to_char(byte)).collect::<String>());
        }
    }
    let name = |id: u32| written.get(&id).map_or("", String::as_str);
    let merges = vocabulary.merges.iter().map(|&(left, right, _)| format!("{} {}", name(left), name(right)));
    let merges: Vec<String> = merges.collect();
    // Readers count added tokens on from the others, unless they stand among these too.
    let follow = written.keys().chain(added.keys()).copied().eq(0..(written.len() + added.len()) as u32);
    let mut vocab = Map::with_capacity(written.len());
    let both = added.iter().filter(|_| !follow).map(|(&id, (content, _))| (id, content.clone()));
    for (id, token) in written.into_iter().chain(both) {
        if vocab.insert(token, Value::from(id)).is_some() {
            return Err(
                vocabulary.error(format!("token {id} has the bytes of another: tokenizer.json cannot say that"))
            );
        }
    }
    let added = added.into_iter().map(|(id, (content, special))| added_token(id as usize, &content, special)).collect();
    let text = tokenizer_json(vocab, &merges, pre_tokenizer(&vocabulary.splits), added).to_string();
    // Whoever reads it next has the same bounds.
    json_file::read(&text).map(|_| text)
}

/// Added tokens by id, and whether each is special. Names that fill up the rows of the embedding are none.
fn added(vocabulary: &Vocabulary) -> BTreeMap<u32, (String, bool)> {
    let is_filler = |(id, name): &(&u32, &String)| **name == format!("[PAD{id}]");
    let special = vocabulary.special.iter().filter(|entry| !is_filler(entry));
    let special = special.map(|(&id, name)| (id, (name.clone(), true)));
    let found_in_text = vocabulary.added.iter().map(|(text, id)| (*id, (text.clone(), false)));
    special.chain(found_in_text).collect()
}

fn pre_tokenizer(splits: &[Split]) -> Value {
    let is_gpt2 = |split: &Split| Split::gpt2().is_ok_and(|gpt2| gpt2.pattern() == split.pattern());
    if let [split] = splits
        && is_gpt2(split)
    {
        let mut step = byte_level();
        step["use_regex"] = Value::Bool(true);
        return step;
    }
    let split = |split: &Split| json!({"type": "Split", "pattern": {"Regex": split.pattern()}, "behavior": "Isolated", "invert": false});
    let steps: Vec<Value> = splits.iter().map(split).chain([byte_level()]).collect();
    json!({"type": "Sequence", "pretokenizers": steps})
}
