//! The tokens, their types and the merges of a tokenizer.json, as a GGUF file lists them (SPEC 2.3).
//!
//! A GGUF file has no pattern that cuts words, only the name of one: GPT-2's, or else o200k's. Whether another pattern is
//! o200k's is for whoever hands the text over to know.

use std::collections::HashMap;
use std::path::Path;

use serde::Deserialize;

use crate::checkpoint::{Error, Result};

/// `tokenizer.ggml.token_type` values.
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;

/// A vocabulary in lists.
#[derive(Debug)]
pub(super) struct Vocabulary {
    /// One for each row of the embedding; rows without a token have a name that is in no text.
    pub tokens: Vec<String>,
    pub types: Vec<i32>,
    /// "left right", the most urgent first.
    pub merges: Vec<String>,
    /// How words are cut: "gpt-2" or "gpt-4o".
    pub pre: &'static str,
    /// The token that starts a text, where there is one.
    pub bos: Option<u32>,
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    added_tokens: Vec<Added>,
    pre_tokenizer: Option<Step>,
    model: Model,
}

/// A step of cutting words, or several.
#[derive(Deserialize)]
struct Step {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    pretokenizers: Vec<Step>,
    use_regex: Option<bool>,
}

impl Step {
    /// Whether the step with its pattern, which is GPT-2's, stands alone.
    fn is_gpt2(&self) -> bool {
        match self.kind.as_str() {
            "Sequence" => self.pretokenizers.len() == 1 && self.pretokenizers.iter().all(Step::is_gpt2),
            kind => kind == "ByteLevel" && self.use_regex != Some(false),
        }
    }
}

#[derive(Deserialize)]
struct Added {
    id: u32,
    content: String,
    #[serde(default)]
    special: bool,
}

#[derive(Deserialize)]
struct Model {
    vocab: HashMap<String, u32>,
    #[serde(default)]
    merges: Vec<Merge>,
}

/// A merge in either of its two written forms.
#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Text(String),
    Pair(String, String),
}

impl Vocabulary {
    /// From the text of a tokenizer.json, for an embedding of `rows` rows. `source` is only for messages.
    pub fn read(json: &str, rows: usize, source: &Path) -> Result<Self> {
        let wrong = |found: String| Error::file(source, "a byte-level BPE tokenizer.json of ids below its rows", found);
        let file: File = serde_json::from_str(json).map_err(|e| wrong(e.to_string()))?;
        let mut tokens: Vec<Option<(String, i32)>> = vec![None; rows];
        let ordinary = file.model.vocab.into_iter().map(|(content, id)| (id, content, NORMAL));
        let added = file.added_tokens.into_iter().map(|token| {
            let looks_special = token.content.starts_with("<|") && token.content.ends_with("|>");
            let kind = if token.special || looks_special { CONTROL } else { USER_DEFINED };
            (token.id, token.content, kind)
        });
        // Added tokens come second: their type is the one that counts where they are in both lists.
        for (id, content, kind) in ordinary.chain(added) {
            match tokens.get_mut(id as usize) {
                Some(place) => *place = Some((content, kind)),
                None => return Err(wrong(format!("id {id} where the embedding has {rows} rows"))),
            }
        }
        let pre = if file.pre_tokenizer.is_some_and(|step| step.is_gpt2()) { "gpt-2" } else { "gpt-4o" };
        let bos = tokens.iter().position(|t| t.as_ref().is_some_and(|(content, _)| content == "<|startoftext|>"));
        let filled = tokens.into_iter().enumerate();
        let (tokens, types) = filled.map(|(id, token)| token.unwrap_or((format!("[PAD{id}]"), UNUSED))).unzip();
        let text = |merge| match merge {
            Merge::Text(text) => text,
            Merge::Pair(left, right) => format!("{left} {right}"),
        };
        let merges = file.model.merges.into_iter().map(text).collect();
        Ok(Self { tokens, types, merges, pre, bos: bos.and_then(|id| u32::try_from(id).ok()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_a_token_and_added_ones_their_type() {
        let json = r#"{"added_tokens": [{"id": 3, "content": "<|startoftext|>"}, {"id": 1, "content": "b", "special": false},
            {"id": 4, "content": "x", "special": true}],
            "model": {"vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b", ["b", "a"]]}}"#;
        let vocabulary = Vocabulary::read(json, 6, Path::new("t")).unwrap();
        assert_eq!(vocabulary.tokens, ["a", "b", "ab", "<|startoftext|>", "x", "[PAD5]"]);
        assert_eq!(vocabulary.types, [NORMAL, USER_DEFINED, NORMAL, CONTROL, CONTROL, UNUSED]);
        assert_eq!((vocabulary.merges, vocabulary.bos), (vec!["a b".to_owned(), "b a".to_owned()], Some(3)));
        let line = Vocabulary::read(json, 4, Path::new("t")).unwrap_err().to_string();
        assert!(line.contains("id 4 where the embedding has 4 rows"), "{line}");
        let gpt2 = json.replacen('{', r#"{"pre_tokenizer": {"type": "ByteLevel", "use_regex": true},"#, 1);
        assert_eq!((vocabulary.pre, Vocabulary::read(&gpt2, 6, Path::new("t")).unwrap().pre), ("gpt-4o", "gpt-2"));
        assert!(Vocabulary::read("{}", 4, Path::new("t")).is_err());
    }
}
