//! The grammar of one content: JSON of a schema, text of a Lark grammar or of an expression, compiled by llguidance
//! within bounds, and what is kept of it.
//!
//! A grammar is compiled on a thread of its own, whose stack is known, and a panic there is an error here. What a
//! generation derives from it is its own copy, so that nobody's generation can use up another's bounds.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use llguidance::api::{ParserLimits, TopLevelGrammar};
use llguidance::earley::SlicedBiasComputer;
use llguidance::toktrie::{InferenceCapabilities, SimpleVob};
use llguidance::{Matcher, ParserFactory};
use serde_json::Value;

use super::error::{ConstrainError, Place};
use super::vocab::{Vocab, is_allowed};

/// The stack of the compiling thread. The deepest schemas and grammars that are let through need a small part of it.
const STACK: usize = 8 << 20;
/// What one request may spend on compiling before it is refused.
const BUDGET: Duration = Duration::from_millis(500);

/// What a content's grammar is made from. The key of the cache.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Source {
    /// A lowered schema, as JSON text.
    Schema(String),
    /// A Lark grammar.
    Lark(String),
    /// An expression that the whole text matches.
    Regex(String),
}

impl Source {
    /// Its length in bytes.
    pub fn len(&self) -> usize {
        match self {
            Source::Schema(text) | Source::Lark(text) | Source::Regex(text) => text.len(),
        }
    }

    fn grammar(&self) -> Result<TopLevelGrammar, String> {
        match self {
            Source::Schema(text) => {
                let schema: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
                Ok(TopLevelGrammar::from_json_schema(schema))
            }
            Source::Lark(text) => Ok(TopLevelGrammar::from_lark(text.clone())),
            Source::Regex(text) => Ok(TopLevelGrammar::from_regex(text)),
        }
    }
}

/// A compiled grammar at its beginning.
pub(super) struct Grammar {
    fresh: Mutex<Matcher>,
    /// True where contents are JSON.
    pub is_json: bool,
    /// Memory held, in bytes, roughly.
    pub num_bytes: usize,
}

impl Grammar {
    /// A copy for one generation.
    pub fn matcher(&self) -> Matcher {
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner).deep_clone()
    }
}

/// Compiles grammars for one vocabulary.
pub(super) struct Compiler {
    factory: ParserFactory,
}

impl Compiler {
    pub fn new(vocab: &Vocab) -> Result<Self, String> {
        let slices = SlicedBiasComputer::json_slices();
        let capabilities = InferenceCapabilities::default();
        let mut factory = ParserFactory::new(&vocab.env, capabilities, &slices).map_err(|error| plain(&error))?;
        factory.quiet();
        *factory.limits_mut() = limits();
        Ok(Self { factory })
    }

    /// Compiles all on one thread; fails at the first that cannot be, by its place.
    pub fn compile(&self, wanted: &[(Place, Source)]) -> Result<Vec<Grammar>, ConstrainError> {
        let work = || {
            let start = Instant::now();
            let compile = |(place, source): &(Place, Source)| {
                if start.elapsed() > BUDGET {
                    let problem = format!("the grammars of this request take longer than {} ms", BUDGET.as_millis());
                    return Err(ConstrainError::TooComplex { place: place.clone(), problem });
                }
                self.compile_one(source).map_err(|problem| ConstrainError::Grammar { place: place.clone(), problem })
            };
            wanted.iter().map(compile).collect()
        };
        let failed = |problem: &str| ConstrainError::Grammar { place: Place::Rules, problem: problem.to_owned() };
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("grammar".to_owned()).stack_size(STACK);
            let thread = thread.spawn_scoped(scope, work).map_err(|_| failed("no thread to compile on: try again"))?;
            thread.join().unwrap_or_else(|_| Err(failed("the grammar's compiler failed")))
        })
    }

    fn compile_one(&self, source: &Source) -> Result<Grammar, String> {
        let parser = self.factory.create_parser(source.grammar()?).map_err(|error| plain(&error))?;
        let mut matcher = Matcher::new(Ok(parser.clone()));
        let mask = matcher.compute_mask().map_err(|error| plain(&error))?;
        if mask.is_zero() {
            return Err("no text satisfies it".to_owned());
        }
        let num_bytes = parser.parser.lexer_stats().num_bytes + PER_SOURCE_BYTE * source.len() + FIXED_BYTES;
        Ok(Grammar { fresh: Mutex::new(matcher), is_json: matches!(source, Source::Schema(_)), num_bytes })
    }
}

/// How often a generation may begin anew in a grammar that has outgrown its bounds.
const MAX_REBUILDS: usize = 64;

/// What a grammar takes besides its lexer, for each byte of its source and in any case.
const PER_SOURCE_BYTE: usize = 112;
const FIXED_BYTES: usize = 64 << 10;

/// What a grammar may take at compiling and in one generation.
fn limits() -> ParserLimits {
    ParserLimits {
        max_items_in_row: 2_000,
        initial_lexer_fuel: 1_000_000,
        step_lexer_fuel: 200_000,
        step_max_items: 50_000,
        max_lexer_states: 16_000,
        max_grammar_size: 200_000,
        precompute_large_lexemes: true,
        verbose_errors: false,
    }
}

/// The first line of an error, without what the library says of its own state.
pub(super) fn plain(error: &impl std::fmt::Display) -> String {
    let text = error.to_string();
    let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or("cannot be compiled");
    if line.starts_with("panic") {
        return "the grammar's compiler failed on it".to_owned();
    }
    match line.trim() {
        "NoExtensionBias" | "NoExtension" => "no text satisfies it".to_owned(),
        line => line.chars().take(300).collect(),
    }
}

/// Where a generation stands in a grammar.
pub(super) struct Progress {
    grammar: Arc<Grammar>,
    matcher: Box<Matcher>,
    tokens: Vec<u32>,
    num_rebuilt: usize,
}

impl Progress {
    pub fn new(grammar: Arc<Grammar>) -> Self {
        let matcher = Box::new(grammar.matcher());
        Self { grammar, matcher, tokens: Vec::new(), num_rebuilt: 0 }
    }

    /// The tokens that may come next, and whether the content may end.
    pub fn mask(&mut self, vocab: &Vocab) -> Result<(SimpleVob, bool), ConstrainError> {
        if self.has_stopped() {
            return Ok((SimpleVob::new(), true));
        }
        let mut found = self.matcher.compute_mask();
        while found.is_err() && self.num_rebuilt < MAX_REBUILDS {
            self.rebuild()?;
            found = self.matcher.compute_mask();
        }
        let mut mask = found.map_err(exhausted)?;
        let may_end = is_allowed(mask.as_slice(), vocab.grammar_end());
        mask.disallow_token(vocab.grammar_end());
        Ok((mask, may_end))
    }

    /// True where the content may end.
    pub fn may_end(&mut self) -> Result<bool, ConstrainError> {
        Ok(self.has_stopped() || self.matcher.is_accepting().map_err(exhausted)?)
    }

    /// Goes on by a token of text. A token that does not fit is tried again from a new beginning: a grammar that has
    /// just outgrown its bounds says the same of every token.
    pub fn accept(&mut self, token: u32) -> Result<(), ConstrainError> {
        let mut found = self.matcher.try_consume_tokens(&[token]);
        if !matches!(found, Ok(1)) && self.num_rebuilt < MAX_REBUILDS {
            self.rebuild()?;
            found = self.matcher.try_consume_tokens(&[token]);
        }
        if found.map_err(exhausted)? == 0 {
            return Err(ConstrainError::Token(token));
        }
        self.tokens.push(token);
        Ok(())
    }

    fn has_stopped(&self) -> bool {
        self.matcher.is_stopped() && !self.matcher.is_error()
    }

    /// Begins anew and comes back to the same place: states that were only looked at are forgotten.
    fn rebuild(&mut self) -> Result<(), ConstrainError> {
        self.num_rebuilt += 1;
        *self.matcher = self.grammar.matcher();
        self.matcher.consume_tokens(&self.tokens).map_err(exhausted)
    }
}

fn exhausted(error: impl std::fmt::Display) -> ConstrainError {
    ConstrainError::Exhausted(plain(&error))
}
