//! The tokenizer in a GGUF's metadata (SPEC 2.3): `tokenizer.ggml.model` "gpt2", `.pre`, `.tokens`, `.token_type`,
//! `.merges`. The metadata is untrusted; merges of tokens that do not exist are left out, as llama.cpp does.

use std::collections::{HashMap, HashSet};

use super::MAX_TOKENS;
use super::split::Split;
use super::vocabulary::Vocabulary;
use crate::TextError;

const ORIGIN: &str = "GGUF tokenizer";

/// `tokenizer.ggml.token_type` values.
const NORMAL: i32 = 1;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;

/// The tokenizer part of a GGUF's metadata, as the file has it.
#[derive(Debug, Clone, Default)]
pub struct GgufVocab {
    /// `tokenizer.ggml.model`: only "gpt2" (byte-level BPE) is known.
    pub model: String,
    /// `tokenizer.ggml.pre`: "gpt-4o" (o200k) or "gpt-2".
    pub pre: String,
    /// `tokenizer.ggml.tokens`, in the byte alphabet.
    pub tokens: Vec<String>,
    /// `tokenizer.ggml.token_type`; empty where the file has none (all normal).
    pub types: Vec<i32>,
    /// `tokenizer.ggml.merges`: "left right", the most urgent first.
    pub merges: Vec<String>,
}

/// Checks the metadata and turns it into a vocabulary.
pub(super) fn read(vocab: GgufVocab) -> Result<Vocabulary, TextError> {
    let mut out = Vocabulary::new(ORIGIN);
    check_sizes(&vocab, &out)?;
    if vocab.model != "gpt2" {
        return Err(out.error(format!("tokenizer.ggml.model is {:?}, wanted \"gpt2\" (byte-level BPE)", vocab.model)));
    }
    out.splits = vec![split(&vocab.pre).map_err(|problem| out.error(problem))?];
    for (i, token) in vocab.tokens.iter().enumerate() {
        let kind = vocab.types.get(i).copied().unwrap_or(NORMAL);
        add_token(&mut out, i as u32, token, kind)?;
    }
    out.merges = merges(&vocab, &out);
    Ok(out)
}

fn check_sizes(vocab: &GgufVocab, out: &Vocabulary) -> Result<(), TextError> {
    for (what, found) in [("the number of tokens", vocab.tokens.len()), ("the number of merges", vocab.merges.len())] {
        if found > MAX_TOKENS {
            return Err(TextError::TooLarge { origin: ORIGIN.to_owned(), what, found, limit: MAX_TOKENS });
        }
    }
    let (num_tokens, num_types) = (vocab.tokens.len(), vocab.types.len());
    match num_types {
        0 => Ok(()),
        n if n == num_tokens => Ok(()),
        _ => Err(out.error(format!("tokenizer.ggml.token_type has {num_types} entries for {num_tokens} tokens"))),
    }
}

fn split(pre: &str) -> Result<Split, String> {
    match pre {
        "gpt-4o" => Split::o200k(),
        "gpt-2" => Split::gpt2(),
        other => Err(format!("tokenizer.ggml.pre is {other:?}, wanted \"gpt-4o\" or \"gpt-2\"")),
    }
}

fn add_token(out: &mut Vocabulary, id: u32, token: &str, kind: i32) -> Result<(), TextError> {
    let looks_special = token.starts_with("<|") && token.ends_with("|>");
    match kind {
        NORMAL if !looks_special => out.add_ordinary(id, token),
        USER_DEFINED if !looks_special => out.add_added(id, token),
        kind => out.add_special(id, token, kind == UNUSED),
    }
}

/// The merges whose two parts and result are ordinary tokens, each pair once.
fn merges(vocab: &GgufVocab, out: &Vocabulary) -> Vec<(u32, u32, u32)> {
    let mut ids: HashMap<&str, u32> = HashMap::with_capacity(vocab.tokens.len());
    let added: HashSet<u32> = out.added.iter().map(|&(_, id)| id).collect();
    for (id, (token, bytes)) in (0u32..).zip(vocab.tokens.iter().zip(&out.ordinary)) {
        if bytes.is_some() && !added.contains(&id) {
            ids.entry(token).or_insert(id);
        }
    }
    let mut seen = HashSet::with_capacity(vocab.merges.len());
    let mut joined = String::new();
    let resolve = |merge: &String| {
        let (left, right) = merge.split_once(' ')?;
        joined.clear();
        joined.extend([left, right]);
        let merge = (*ids.get(left)?, *ids.get(right)?, *ids.get(joined.as_str())?);
        seen.insert((merge.0, merge.1)).then_some(merge)
    };
    vocab.merges.iter().filter_map(resolve).collect()
}
