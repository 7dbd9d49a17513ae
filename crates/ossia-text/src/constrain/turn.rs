//! One generation: follows a turn token by token and says which tokens may come next.
//!
//! Special tokens, which no text contains, cut a turn into headers and contents. So each content has a small grammar of
//! its own that begins and ends at a special token, a header is a walk in a graph, and in free text, where most tokens
//! are made, the allowed ones are a mask that exists already.

use std::sync::Arc;

use super::body::{Grammar, Progress};
use super::error::ConstrainError;
use super::header::{FIRST, Headers, LATER, Target};
use super::numbers::Numbers;
use super::vocab::{Vocab, allow, is_allowed, keep};

/// Most messages before the one that ends a turn: a model that goes round in circles is led out.
const MAX_BEFORE_LAST: usize = 32;
/// Most preambles among them.
const MAX_PREAMBLES: usize = 4;

/// The rules of a request, compiled.
pub(super) struct Plan {
    pub vocab: Arc<Vocab>,
    /// Any message may come.
    pub open: Headers,
    /// No preamble may come.
    pub no_preamble: Headers,
    /// Only a message that ends the turn may come.
    pub last: Headers,
    /// What each tool is given, and the final message: None is any text.
    pub inputs: Vec<Option<Arc<Grammar>>>,
    pub answer: Option<Arc<Grammar>>,
    /// Another call may follow a call.
    pub parallel: bool,
}

impl Plan {
    fn grammar(&self, target: Target) -> Option<&Arc<Grammar>> {
        match target {
            Target::Thinking | Target::Preamble => None,
            Target::Call(tool) => self.inputs.get(tool)?.as_ref(),
            Target::Final => self.answer.as_ref(),
        }
    }
}

/// Follows one generation. Made by [`Constrainer::compile`](super::Constrainer::compile).
pub struct Matcher {
    plan: Arc<Plan>,
    state: State,
    num_before_last: usize,
    num_preambles: usize,
}

enum State {
    /// At a node of the graph of the headers that `Matcher::headers` gives.
    Header(u32),
    /// In a content of any text.
    Text(Target),
    /// In a content that has a grammar.
    Grammar(Target, Content),
    /// After a call; more calls may follow.
    Called,
    Ended,
}

/// A content that has a grammar, as far as it has come.
struct Content {
    progress: Progress,
    /// For JSON.
    numbers: Option<Numbers>,
}

impl std::fmt::Debug for Matcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (state, target) = match &self.state {
            State::Header(_) => ("header", None),
            State::Text(target) => ("text", Some(target)),
            State::Grammar(target, _) => ("grammar", Some(target)),
            State::Called => ("called", None),
            State::Ended => ("ended", None),
        };
        f.debug_struct("Matcher").field("state", &state).field("target", &target).finish_non_exhaustive()
    }
}

impl Matcher {
    pub(super) fn new(plan: Arc<Plan>) -> Self {
        Self { plan, state: State::Header(FIRST), num_before_last: 0, num_preambles: 0 }
    }

    /// Clears the bits of the tokens that may not come next, 32 ids a word, low bit first. The constraint allows at
    /// least one token, unless the turn has ended, which is an error.
    pub fn mask(&mut self, words: &mut [u32]) -> Result<(), ConstrainError> {
        let (plan, num_before_last, num_preambles) = (&self.plan, self.num_before_last, self.num_preambles);
        let vocab = &plan.vocab;
        match &mut self.state {
            State::Header(at) => keep(words, &headers(plan, num_before_last, num_preambles).allowed(vocab, *at)),
            State::Text(target) => keep_text(words, &vocab.text, end_of(vocab, *target)),
            State::Grammar(target, content) => keep(words, &content.allowed(vocab, end_of(vocab, *target))?),
            State::Called => keep_text(words, &[], vocab.marks.start),
            State::Ended => return Err(ConstrainError::Ended),
        }
        Ok(())
    }

    /// Goes on by a token that was sampled. After an error the turn stands where it stood.
    pub fn accept(&mut self, token: u32) -> Result<(), ConstrainError> {
        let plan = self.plan.clone();
        let next = match &mut self.state {
            State::Header(at) => {
                let at = *at;
                self.after_header(at, token)?
            }
            State::Text(target) if token == end_of(&plan.vocab, *target) => {
                let ended = *target;
                self.after(ended)
            }
            State::Text(_) if is_allowed(&plan.vocab.text, token) => return Ok(()),
            State::Text(_) => return Err(ConstrainError::Token(token)),
            State::Grammar(target, content) if token == end_of(&plan.vocab, *target) => {
                let ended = *target;
                if !content.progress.may_end()? {
                    return Err(ConstrainError::Token(token));
                }
                self.after(ended)
            }
            State::Grammar(_, content) => return content.accept(&plan.vocab, token),
            State::Called => self.after_header(LATER, token)?,
            State::Ended => return Err(ConstrainError::Ended),
        };
        self.state = next;
        Ok(())
    }

    /// True where the turn may end: after a final message or a call.
    pub fn is_finished(&self) -> bool {
        matches!(self.state, State::Called | State::Ended)
    }

    fn after_header(&self, at: u32, token: u32) -> Result<State, ConstrainError> {
        let headers = headers(&self.plan, self.num_before_last, self.num_preambles);
        let next = headers.accept(&self.plan.vocab, at, token).ok_or(ConstrainError::Token(token))?;
        let Some(target) = headers.target(next) else { return Ok(State::Header(next)) };
        let Some(grammar) = self.plan.grammar(target) else { return Ok(State::Text(target)) };
        let numbers = grammar.is_json.then(Numbers::default);
        Ok(State::Grammar(target, Content { progress: Progress::new(grammar.clone()), numbers }))
    }

    /// After the end of a message.
    fn after(&mut self, ended: Target) -> State {
        match ended {
            Target::Final => return State::Ended,
            Target::Call(_) if !self.plan.parallel => return State::Ended,
            Target::Call(_) => return State::Called,
            Target::Preamble => self.num_preambles += 1,
            Target::Thinking => {}
        }
        self.num_before_last += 1;
        State::Header(LATER)
    }
}

impl Content {
    fn allowed(&mut self, vocab: &Vocab, end: u32) -> Result<Vec<u32>, ConstrainError> {
        let (mask, may_end) = self.progress.mask(vocab)?;
        let mut allowed = vocab.text.clone();
        keep(&mut allowed, mask.as_slice());
        if let Some(numbers) = &self.numbers {
            numbers.limit(vocab, &mut allowed, may_end);
        }
        if may_end {
            allow(&mut allowed, end);
        }
        if allowed.iter().all(|word| *word == 0) {
            return Err(ConstrainError::Exhausted("no token of text may come next".to_owned()));
        }
        Ok(allowed)
    }

    fn accept(&mut self, vocab: &Vocab, token: u32) -> Result<(), ConstrainError> {
        let text = vocab.text_of(token).filter(|text| !text.is_empty()).ok_or(ConstrainError::Token(token))?;
        self.progress.accept(token)?;
        if let Some(numbers) = &mut self.numbers {
            numbers.push(text);
        }
        Ok(())
    }
}

fn headers(plan: &Plan, num_before_last: usize, num_preambles: usize) -> &Headers {
    if num_before_last >= MAX_BEFORE_LAST {
        &plan.last
    } else if num_preambles >= MAX_PREAMBLES {
        &plan.no_preamble
    } else {
        &plan.open
    }
}

/// The token that ends a message.
fn end_of(vocab: &Vocab, target: Target) -> u32 {
    match target {
        Target::Thinking | Target::Preamble => vocab.marks.end,
        Target::Call(_) => vocab.marks.call,
        Target::Final => vocab.marks.return_,
    }
}

/// Clears all but the tokens of `text` and one more.
fn keep_text(words: &mut [u32], text: &[u32], other: u32) {
    let has_other = is_allowed(words, other);
    keep(words, text);
    if has_other {
        allow(words, other);
    }
}
