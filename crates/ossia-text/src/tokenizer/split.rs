//! Cutting text into the pieces inside which BPE merges happen, by the regular expression that a tokenizer brings.
//!
//! Patterns run on `regex-automata`: linear time per match, a bounded size, no backtracking, so that a hostile file can
//! slow nothing down. It has no look-ahead; the one that tokenizers use, `\s+(?!\S)|\s+` at the end of the pattern, is
//! emulated: a run of white space before something else gives back its last character.

use std::sync::{Arc, LazyLock};

use regex_automata::Input;
use regex_automata::meta::{Config, Regex};

/// Longest pattern accepted (o200k's has 357 characters) and the largest automaton, in bytes.
const MAX_PATTERN: usize = 4096;
const MAX_AUTOMATON: usize = 4 << 20;

const LOOKAHEAD: &str = r"|\s+(?!\S)|\s+";
/// Which of a look-ahead split's three patterns ends in a character that is given back.
const GIVES_BACK: usize = 1;

const O200K: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);
/// For vocabularies trained here. Every digit is a piece of its own, so that no merge can join two and numbers align;
/// and nothing but a space joins a word: a name is then spelled alike in a sentence, in quotes and before `'s`, which a
/// small model must be able to copy.
pub(super) const SMALL: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)| ?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+|\s*[\r\n]+",
    r"|\s+(?!\S)|\s+",
);
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

static O200K_SPLIT: LazyLock<Result<Split, String>> = LazyLock::new(|| Split::compile(O200K));
static GPT2_SPLIT: LazyLock<Result<Split, String>> = LazyLock::new(|| Split::compile(GPT2));

/// One compiled pattern. Cheap to clone.
#[derive(Clone)]
pub(super) struct Split {
    regex: Regex,
    gives_back: bool,
    pattern: Arc<str>,
}

impl Split {
    /// The split of o200k, GGUF's "gpt-4o" (SPEC 8).
    pub fn o200k() -> Result<Self, String> {
        O200K_SPLIT.clone()
    }

    /// The split of GPT-2, which the ByteLevel pre-tokenizer uses by default.
    pub fn gpt2() -> Result<Self, String> {
        GPT2_SPLIT.clone()
    }

    /// Compiles a pattern from a file; the error says why it cannot be used.
    pub fn from_pattern(pattern: &str) -> Result<Self, String> {
        match pattern {
            O200K => Self::o200k(),
            GPT2 => Self::gpt2(),
            _ if pattern.len() > MAX_PATTERN => {
                Err(format!("the split pattern has {} bytes, more than {MAX_PATTERN}", pattern.len()))
            }
            _ => Self::compile(pattern),
        }
    }

    /// The pattern as it was written.
    pub fn pattern(&self) -> &str {
        &self.pattern
    }

    /// True for the o200k pattern, byte for byte.
    pub fn is_o200k(&self) -> bool {
        &*self.pattern == O200K
    }

    fn compile(pattern: &str) -> Result<Self, String> {
        let head = pattern.strip_suffix(LOOKAHEAD).filter(|head| !ends_in_escape(head));
        let patterns = match head {
            Some(head) => vec![format!(r"{head}|\s+\z"), r"\s+\s".to_owned(), r"\s+".to_owned()],
            None => vec![pattern.to_owned()],
        };
        let config = Config::new().nfa_size_limit(Some(MAX_AUTOMATON)).onepass_size_limit(Some(1 << 20));
        let regex = Regex::builder()
            .configure(config)
            .build_many(&patterns)
            .map_err(|error| format!("the split pattern cannot be used: {}", one_line(&error)))?;
        Ok(Self { regex, gives_back: head.is_some(), pattern: pattern.into() })
    }

    /// Calls `each` with every piece of `text` in order; together they are the text. What no match covers is a piece.
    pub fn pieces<'t>(&self, text: &'t str, mut each: impl FnMut(&'t str)) {
        let (mut done, mut from) = (0, 0);
        while let Some((start, end)) = self.find(text, from) {
            if end == start {
                from = next_char(text, start);
                continue;
            }
            [text.get(done..start), text.get(start..end)]
                .into_iter()
                .flatten()
                .filter(|p| !p.is_empty())
                .for_each(&mut each);
            (done, from) = (end, end);
        }
        text.get(done..).into_iter().filter(|p| !p.is_empty()).for_each(each);
    }

    /// The next match at or after byte `from`, without the character that stood in for a look-ahead.
    fn find(&self, text: &str, from: usize) -> Option<(usize, usize)> {
        if from >= text.len() {
            return None;
        }
        let found = self.regex.find(Input::new(text).range(from..))?;
        let mut end = found.end();
        if self.gives_back && found.pattern().as_usize() == GIVES_BACK {
            end -= text.get(..end)?.chars().next_back().map_or(0, char::len_utf8);
        }
        Some((found.start(), end))
    }
}

fn next_char(text: &str, at: usize) -> usize {
    at + text.get(at..).and_then(|rest| rest.chars().next()).map_or(1, char::len_utf8)
}

fn ends_in_escape(pattern: &str) -> bool {
    pattern.bytes().rev().take_while(|&b| b == b'\\').count() % 2 == 1
}

/// The innermost cause of a regex error, on one line.
fn one_line(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    let shown = cause.to_string();
    shown.lines().last().unwrap_or_default().chars().take(200).collect()
}
