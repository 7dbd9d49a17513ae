//! Constrained answers: which tokens may come next, so that a turn is well formed harmony, calls only declared tools
//! with valid arguments, and ends in a message of the wanted format.
//!
//! `rules` is what a caller asks, `Constrainer` compiles it, `Matcher` (`turn`) follows one generation. `header` knows
//! the headers that may come, `body` the grammars of contents, `schema` makes a user's JSON schema fit to compile,
//! `numbers` keeps numbers short, `cache` keeps grammars, `vocab` knows the tokens.
//! Rules come from users and are untrusted: they give a matcher or one clear error, within bounds of time and memory.

mod body;
mod cache;
mod error;
mod header;
mod numbers;
mod pattern;
mod rules;
mod schema;
mod turn;
mod vocab;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

pub use error::{ConstrainError, Place};
pub use rules::{AnswerRules, Choice, Format, ToolInput, ToolRule};
pub use turn::Matcher;

use crate::{Harmony, TextError};
use body::{Compiler, Grammar, Source};
use cache::Cache;
use header::{Headers, Kinds};
use turn::Plan;
use vocab::Vocab;

/// Most bytes that kept grammars hold, roughly: some 300 small ones. It is counted generously.
const CACHE_BYTES: usize = 64 << 20;
/// Most tools of a request, and the longest name of one in bytes.
const MAX_TOOLS: usize = 512;
const MAX_NAME: usize = 256;
/// The longest Lark grammar, in bytes.
const MAX_LARK: usize = 32 << 10;

/// Compiles rules. Made once for a tokenizer; clones are cheap and share one cache.
#[derive(Clone)]
pub struct Constrainer {
    shared: Arc<Shared>,
}

struct Shared {
    vocab: Arc<Vocab>,
    compiler: Compiler,
    cache: Mutex<Cache>,
}

impl std::fmt::Debug for Constrainer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Constrainer").field("cached_bytes", &self.cached_bytes()).finish_non_exhaustive()
    }
}

impl Constrainer {
    /// Builds the vocabulary's trie, which takes a moment. Fails for a vocabulary larger than any real one.
    pub fn new(harmony: &Harmony) -> Result<Self, TextError> {
        Self::with_cache_bytes(harmony, CACHE_BYTES)
    }

    /// As [`Constrainer::new`], with a cache of so many bytes instead of 64 MiB.
    pub fn with_cache_bytes(harmony: &Harmony, max_bytes: usize) -> Result<Self, TextError> {
        let vocab = Arc::new(Vocab::new(harmony)?);
        let unusable = |problem| TextError::Tokenizer { origin: "constrained answers".to_owned(), problem };
        let compiler = Compiler::new(&vocab).map_err(unusable)?;
        Ok(Self { shared: Arc::new(Shared { vocab, compiler, cache: Mutex::new(Cache::new(max_bytes)) }) })
    }

    /// A matcher for one generation. Every grammar of the rules is compiled here or known already, so that whatever is
    /// wrong with a request is said before it begins.
    pub fn compile(&self, rules: &AnswerRules) -> Result<Matcher, ConstrainError> {
        check_tools(rules)?;
        let tools = if rules.choice == Choice::None { &[][..] } else { &rules.tools };
        let mut contents = tools.iter().enumerate().map(input_source).collect::<Result<Vec<_>, _>>()?;
        contents.push(format_source(rules)?);
        let mut inputs = self.grammars(contents)?;
        let answer = inputs.pop().flatten();
        let marks = self.shared.vocab.marks;
        let kinds = Kinds::of(rules.choice, tools.len(), rules.thinking);
        let headers = |kinds| Headers::new(marks, kinds, tools, &rules.format);
        let plan = Plan {
            vocab: self.shared.vocab.clone(),
            open: headers(kinds),
            no_preamble: headers(Kinds { preamble: false, ..kinds }),
            last: headers(kinds.last()),
            inputs,
            answer,
            parallel: rules.parallel,
        };
        Ok(Matcher::new(Arc::new(plan)))
    }

    /// Memory that cached grammars hold, in bytes, roughly.
    pub fn cached_bytes(&self) -> usize {
        self.shared.cache.lock().unwrap_or_else(PoisonError::into_inner).num_bytes()
    }

    /// Grammars from the cache, or compiled and cached.
    fn grammars(&self, wanted: Vec<Content>) -> Result<Vec<Option<Arc<Grammar>>>, ConstrainError> {
        let cache = || self.shared.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let mut missing: Vec<(Place, Source)> = Vec::new();
        let mut found = Vec::with_capacity(wanted.len());
        for content in wanted {
            let known = content.as_ref().and_then(|(_, source)| cache().get(source));
            let same = |source: &Source| missing.iter().position(|(_, other)| other == source);
            found.push(match (content, known) {
                (None, _) => Found::Text,
                (_, Some(grammar)) => Found::Known(grammar),
                (Some((place, source)), None) => Found::Missing(same(&source).unwrap_or_else(|| {
                    missing.push((place, source));
                    missing.len() - 1
                })),
            });
        }
        let compiled = if missing.is_empty() { Vec::new() } else { self.shared.compiler.compile(&missing)? };
        let compiled: Vec<Arc<Grammar>> = compiled.into_iter().map(Arc::new).collect();
        for ((_, source), grammar) in missing.into_iter().zip(&compiled) {
            cache().insert(source, grammar.clone());
        }
        let grammar = |found| match found {
            Found::Text => None,
            Found::Known(grammar) => Some(grammar),
            Found::Missing(index) => compiled.get(index).cloned(),
        };
        Ok(found.into_iter().map(grammar).collect())
    }
}

/// A content's grammar and whose it is; None is any text.
type Content = Option<(Place, Source)>;

enum Found {
    Text,
    Known(Arc<Grammar>),
    /// Its index among those to compile.
    Missing(usize),
}

fn check_tools(rules: &AnswerRules) -> Result<(), ConstrainError> {
    let fail = |place, problem: String| Err(ConstrainError::Tools { place, problem });
    if rules.choice == Choice::Required && rules.tools.is_empty() {
        return fail(Place::Rules, "a call is required, and there is no tool to call".to_owned());
    }
    if rules.tools.len() > MAX_TOOLS {
        return fail(Place::Rules, format!("{} tools, at most {MAX_TOOLS}", rules.tools.len()));
    }
    let mut names = BTreeSet::new();
    for (index, tool) in rules.tools.iter().enumerate() {
        let place = Place::Tool { index, name: tool.name.chars().take(64).collect() };
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./:".contains(c);
        if tool.name.is_empty() || tool.name.len() > MAX_NAME || !tool.name.chars().all(is_plain) {
            return fail(place, format!("a name is 1 to {MAX_NAME} of a-z, A-Z, 0-9, _ and -"));
        }
        if !names.insert(tool.recipient()) {
            return fail(place, "the name is given to two tools".to_owned());
        }
    }
    Ok(())
}

fn input_source((index, tool): (usize, &ToolRule)) -> Result<Content, ConstrainError> {
    let place = Place::Tool { index, name: tool.name.clone() };
    let source = match &tool.input {
        ToolInput::Free => return Ok(None),
        ToolInput::JsonObject => Source::Schema(schema::any_object().to_string()),
        ToolInput::Schema(value) => Source::Schema(schema::lower(&place, value, true)?.to_string()),
        ToolInput::Lark(text) => Source::Lark(check_lark(&place, text)?),
        ToolInput::Regex(text) => match pattern::check(text) {
            Ok(()) => Source::Regex(text.clone()),
            Err(problem) => return Err(ConstrainError::Grammar { place, problem }),
        },
    };
    Ok(Some((place, source)))
}

fn format_source(rules: &AnswerRules) -> Result<Content, ConstrainError> {
    let schema = match &rules.format {
        Format::Text => return Ok(None),
        _ if rules.choice == Choice::Required => return Ok(None),
        Format::JsonObject => schema::any_object(),
        Format::JsonSchema(value) => schema::lower(&Place::Format, value, false)?,
    };
    Ok(Some((Place::Format, Source::Schema(schema.to_string()))))
}

/// Lets through what describes text by itself.
fn check_lark(place: &Place, text: &str) -> Result<String, ConstrainError> {
    let refuse = |problem: String| Err(ConstrainError::Grammar { place: place.clone(), problem });
    if text.len() > MAX_LARK {
        return refuse(format!("a grammar of {} bytes, at most {MAX_LARK}", text.len()));
    }
    for word in ["%llguidance", "%json", "%regex", "%lark", "<[", "<|"] {
        if text.contains(word) {
            return refuse(format!("{word:?} is not supported in a grammar"));
        }
    }
    Ok(text.to_owned())
}
