//! Constrained answers: which tokens may come next, so that a turn is well formed harmony, calls only declared tools
//! with valid arguments, and ends in a message of the wanted format.
//!
//! `rules` is what a caller asks, `Constrainer` compiles it, `Matcher` (`turn`) follows one generation. `header` knows
//! the headers that may come, `vocab` the tokens.
//! Rules come from users and are untrusted: they give a matcher or one clear error, within bounds of time and memory.

mod error;
mod header;
mod rules;
mod turn;
mod vocab;

use std::sync::Arc;

pub use error::{ConstrainError, Place};
pub use rules::{AnswerRules, Choice, Format, ToolInput, ToolRule};
pub use turn::Matcher;

use crate::{Harmony, TextError};
use header::{Headers, Kinds};
use turn::Plan;
use vocab::Vocab;

/// Compiles rules. Made once for a tokenizer; clones are cheap.
#[derive(Clone)]
pub struct Constrainer {
    vocab: Arc<Vocab>,
}

impl Constrainer {
    /// Builds the vocabulary's trie, which takes a moment. Fails for a vocabulary larger than any real one.
    pub fn new(harmony: &Harmony) -> Result<Self, TextError> {
        Ok(Self { vocab: Arc::new(Vocab::new(harmony)?) })
    }

    /// A matcher for one generation.
    pub fn compile(&self, rules: &AnswerRules) -> Result<Matcher, ConstrainError> {
        let kinds = Kinds::of(rules.choice, rules.tools.len(), rules.thinking);
        let tools = if rules.choice == Choice::None { &[][..] } else { &rules.tools };
        let headers = |kinds| Headers::new(self.vocab.marks, kinds, tools, &rules.format);
        let plan = Plan {
            vocab: self.vocab.clone(),
            open: headers(kinds),
            no_preamble: headers(Kinds { preamble: false, ..kinds }),
            last: headers(kinds.last()),
            parallel: rules.parallel,
        };
        Ok(Matcher::new(Arc::new(plan)))
    }
}
