//! Reads Hugging Face's tokenizer.json, byte-level BPE only, without trusting it: at most 32 MiB, JSON nesting at most
//! 128 deep (serde_json's limit), bounded counts, everything that would change the meaning of text is either honoured
//! or refused by name. Post-processors are ignored: harmony places the special tokens itself.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io::Read;
use std::path::Path;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::MAX_TOKENS;
use super::split::Split;
use super::vocabulary::Vocabulary;
use crate::TextError;

const ORIGIN: &str = "tokenizer.json";
const MAX_BYTES: usize = 32 << 20;
/// Most steps of a pre-tokenizer (published ones have two or three).
const MAX_STEPS: usize = 4;

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    added_tokens: Bounded<AddedToken, MAX_TOKENS>,
    #[serde(default)]
    normalizer: Option<Named>,
    #[serde(default)]
    pre_tokenizer: Option<PreTokenizer>,
    #[serde(default)]
    decoder: Option<Named>,
    model: Model,
}

/// A component of which only the kind matters.
#[derive(Deserialize)]
struct Named {
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct AddedToken {
    id: u32,
    content: String,
    #[serde(default)]
    special: bool,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
}

#[derive(Deserialize)]
struct PreTokenizer {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    pretokenizers: Bounded<PreTokenizer, MAX_STEPS>,
    pattern: Option<Pattern>,
    behavior: Option<String>,
    #[serde(default)]
    invert: bool,
    #[serde(default)]
    add_prefix_space: bool,
    #[serde(default = "yes")]
    use_regex: bool,
}

fn yes() -> bool {
    true
}

#[derive(Deserialize)]
enum Pattern {
    Regex(String),
    String(String),
}

#[derive(Deserialize)]
struct Model {
    #[serde(rename = "type", default)]
    kind: Option<String>,
    vocab: Vocab,
    merges: Bounded<Merge, MAX_TOKENS>,
    #[serde(default)]
    dropout: Option<f64>,
    #[serde(default)]
    continuing_subword_prefix: Option<String>,
    #[serde(default)]
    end_of_word_suffix: Option<String>,
    #[serde(default)]
    byte_fallback: bool,
    #[serde(default)]
    ignore_merges: bool,
}

/// A list of at most `MAX` entries: the rest of a longer one is never kept in memory.
struct Bounded<T, const MAX: usize>(Vec<T>);

impl<T, const MAX: usize> Default for Bounded<T, MAX> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

/// Tokens by their written form; the same bound.
struct Vocab(Vec<(String, u32)>);

/// Two tokens, written `"a b"` or `["a", "b"]`.
struct Merge(String, String);

struct BoundedVisitor<T, const MAX: usize>(std::marker::PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for BoundedVisitor<T, MAX> {
    type Value = Bounded<T, MAX>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "a list of at most {MAX} entries")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = seq.next_element()? {
            if list.len() == MAX {
                return Err(A::Error::invalid_length(list.len() + 1, &self));
            }
            list.push(item);
        }
        Ok(Bounded(list))
    }
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for Bounded<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_seq(BoundedVisitor(std::marker::PhantomData))
    }
}

struct VocabVisitor;

impl<'de> Visitor<'de> for VocabVisitor {
    type Value = Vocab;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "a map of at most {MAX_TOKENS} tokens to ids")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        while let Some(entry) = map.next_entry()? {
            if list.len() == MAX_TOKENS {
                return Err(A::Error::invalid_length(list.len() + 1, &self));
            }
            list.push(entry);
        }
        Ok(Vocab(list))
    }
}

impl<'de> Deserialize<'de> for Vocab {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_map(VocabVisitor)
    }
}

struct MergeVisitor;

impl<'de> Visitor<'de> for MergeVisitor {
    type Value = Merge;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "a merge: \"left right\" or [\"left\", \"right\"]")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Merge, E> {
        let parts = text.split_once(' ').ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))?;
        Ok(Merge(parts.0.to_owned(), parts.1.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Merge, A::Error> {
        let (left, right) = (seq.next_element()?, seq.next_element()?);
        let more: Option<IgnoredAny> = seq.next_element()?;
        match (left, right, more) {
            (Some(left), Some(right), None) => Ok(Merge(left, right)),
            _ => Err(A::Error::custom("a merge must have two parts")),
        }
    }
}

impl<'de> Deserialize<'de> for Merge {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(MergeVisitor)
    }
}

/// Reads a file as [`read`] does; errors name it.
pub(super) fn read_file(path: &Path) -> Result<Vocabulary, TextError> {
    let unreadable = |source| TextError::Read { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    check_size(bytes.len()).and_then(|()| read_bytes(&bytes)).map_err(|error| error.in_file(path))
}

fn read_bytes(bytes: &[u8]) -> Result<Vocabulary, TextError> {
    let not_text = |error| TextError::Tokenizer { origin: ORIGIN.to_owned(), problem: format!("not text: {error}") };
    std::str::from_utf8(bytes).map_err(not_text).and_then(read)
}

fn check_size(found: usize) -> Result<(), TextError> {
    let (origin, what) = (ORIGIN.to_owned(), "its size in bytes");
    if found > MAX_BYTES { Err(TextError::TooLarge { origin, what, found, limit: MAX_BYTES }) } else { Ok(()) }
}

/// Checks the text of a file and turns it into a vocabulary.
pub(super) fn read(text: &str) -> Result<Vocabulary, TextError> {
    check_size(text.len())?;
    let mut out = Vocabulary::new(ORIGIN);
    let file: File = serde_json::from_str(text).map_err(|error| out.error(format!("not a tokenizer: {error}")))?;
    check_model(&file).map_err(|problem| out.error(problem))?;
    let Some(pre_tokenizer) = &file.pre_tokenizer else {
        return Err(out.error("pre_tokenizer is missing, wanted ByteLevel (byte-level BPE)".to_owned()));
    };
    out.splits = splits(pre_tokenizer).map_err(|problem| out.error(problem))?;
    out.whole_pieces_first = file.model.ignore_merges;
    add_tokens(&mut out, &file)?;
    out.merges = merges(&file).map_err(|problem| out.error(problem))?;
    Ok(out)
}

/// Refuses whatever is not byte-level BPE.
fn check_model(file: &File) -> Result<(), String> {
    let Model { kind, dropout, continuing_subword_prefix, end_of_word_suffix, byte_fallback, .. } = &file.model;
    let is_empty = |text: &Option<String>| text.as_ref().is_none_or(String::is_empty);
    match () {
        _ if kind.as_ref().is_some_and(|kind| kind != "BPE") => Err(format!("model.type is {kind:?}, wanted \"BPE\"")),
        _ if file.normalizer.is_some() => Err(format!("normalizer {:?} is not supported", name(&file.normalizer))),
        _ if file.decoder.as_ref().is_some_and(|decoder| decoder.kind != "ByteLevel") => {
            Err(format!("decoder {:?} is not supported, wanted \"ByteLevel\"", name(&file.decoder)))
        }
        _ if dropout.is_some_and(|share| share != 0.0) => Err("model.dropout is set, wanted none".to_owned()),
        _ if !is_empty(continuing_subword_prefix) => Err("model.continuing_subword_prefix is not supported".to_owned()),
        _ if !is_empty(end_of_word_suffix) => Err("model.end_of_word_suffix is not supported".to_owned()),
        _ if *byte_fallback => Err("model.byte_fallback is not supported".to_owned()),
        _ => Ok(()),
    }
}

fn name(component: &Option<Named>) -> &str {
    component.as_ref().map_or("", |c| c.kind.as_str())
}

/// How text is cut: Split patterns, then ByteLevel as the last step (with GPT-2's pattern unless it says no).
fn splits(pre_tokenizer: &PreTokenizer) -> Result<Vec<Split>, String> {
    let steps = match pre_tokenizer.kind.as_str() {
        "Sequence" => pre_tokenizer.pretokenizers.0.as_slice(),
        _ => std::slice::from_ref(pre_tokenizer),
    };
    let Some((last, before)) = steps.split_last().filter(|(last, _)| last.kind == "ByteLevel") else {
        return Err(format!("pre_tokenizer {:?} does not end in ByteLevel (byte-level BPE)", pre_tokenizer.kind));
    };
    if last.add_prefix_space {
        return Err("pre_tokenizer's add_prefix_space is not supported".to_owned());
    }
    let mut splits: Vec<Split> = before.iter().map(split).collect::<Result<_, _>>()?;
    if last.use_regex {
        splits.push(Split::gpt2()?);
    }
    Ok(splits)
}

fn split(step: &PreTokenizer) -> Result<Split, String> {
    if step.kind != "Split" {
        return Err(format!("pre_tokenizer step {:?} is not supported, wanted Split", step.kind));
    }
    if step.behavior.as_deref() != Some("Isolated") || step.invert {
        return Err("a Split's behavior must be Isolated and not inverted".to_owned());
    }
    match &step.pattern {
        Some(Pattern::Regex(pattern)) => Split::from_pattern(pattern),
        Some(Pattern::String(text)) => Err(format!("a Split at the string {text:?} is not supported, wanted Regex")),
        None => Err("a Split has no pattern".to_owned()),
    }
}

fn add_tokens(out: &mut Vocabulary, file: &File) -> Result<(), TextError> {
    let added: HashMap<&str, u32> = file.added_tokens.0.iter().map(|t| (t.content.as_str(), t.id)).collect();
    for (written, id) in &file.model.vocab.0 {
        match added.get(written.as_str()) {
            Some(other) if other == id => {}
            Some(other) => return Err(out.error(format!("token {written:?} has ids {id} and {other}"))),
            None => out.add_ordinary(*id, written)?,
        }
    }
    for token in &file.added_tokens.0 {
        if out.ordinary.get(token.id as usize).is_some_and(Option::is_some) {
            return Err(out.error(format!("added token {:?} takes the id {} of another", token.content, token.id)));
        }
        add_added_token(out, token)?;
    }
    Ok(())
}

/// Special tokens, and all of the form `<|name|>`, are never found in text; other added tokens are.
fn add_added_token(out: &mut Vocabulary, token: &AddedToken) -> Result<(), TextError> {
    let AddedToken { id, content, .. } = token;
    let is_special = token.special || content.starts_with("<|") && content.ends_with("|>");
    if !is_special && (token.single_word || token.lstrip || token.rstrip) {
        return Err(out.error(format!("added token {content:?}: single_word, lstrip, rstrip are not supported")));
    }
    match is_special {
        true => out.add_special(*id, content, false),
        false => out.add_added(*id, content),
    }
}

/// The merges by ids. Those that name an added token are left out: text must never become a special token, not even
/// where a vocabulary was trained on text that spells one.
fn merges(file: &File) -> Result<Vec<(u32, u32, u32)>, String> {
    let added: HashSet<u32> = file.added_tokens.0.iter().map(|token| token.id).collect();
    let ids: HashMap<&str, u32> = file.model.vocab.0.iter().map(|(written, id)| (written.as_str(), *id)).collect();
    let find =
        |token: &str| ids.get(token).copied().ok_or_else(|| format!("a merge names {token:?}, which is no token"));
    let mut seen = HashSet::new();
    let mut merges = Vec::with_capacity(file.model.merges.0.len());
    for Merge(left, right) in &file.model.merges.0 {
        let merge = (find(left)?, find(right)?, find(&format!("{left}{right}"))?);
        if !seen.insert((merge.0, merge.1)) {
            return Err(format!("the merge of {left:?} and {right:?} is listed twice"));
        }
        if [merge.0, merge.1, merge.2].iter().all(|id| !added.contains(id)) {
            merges.push(merge);
        }
    }
    Ok(merges)
}
