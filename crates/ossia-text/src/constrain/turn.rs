//! One generation: follows a turn token by token and says which tokens may come next.
//!
//! Special tokens, which no text contains, cut a turn into headers and contents. So each content has a small grammar of
//! its own that begins and ends at a special token, a header is a walk in a graph, and in free text, where most tokens
//! are made, the allowed ones are a mask that exists already.

use std::sync::Arc;

use super::error::ConstrainError;
use super::header::{FIRST, Headers, LATER, Target};
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
    /// Another call may follow a call.
    pub parallel: bool,
}

/// Follows one generation. Made by [`Constrainer::compile`](super::Constrainer::compile).
pub struct Matcher {
    plan: Arc<Plan>,
    state: State,
    num_before_last: usize,
    num_preambles: usize,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// At a node of the graph of the headers that `Matcher::headers` gives.
    Header(u32),
    /// In a content of any text, which this token ends.
    Text(Target),
    /// After the token that ends a turn; more calls may follow.
    Called,
    Ended,
}

impl std::fmt::Debug for Matcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Matcher").field("state", &self.state).finish_non_exhaustive()
    }
}

impl Matcher {
    pub(super) fn new(plan: Arc<Plan>) -> Self {
        Self { plan, state: State::Header(FIRST), num_before_last: 0, num_preambles: 0 }
    }

    /// Clears the bits of the tokens that may not come next, 32 ids a word, low bit first. At least one stays, unless
    /// the turn has ended, which is an error.
    pub fn mask(&mut self, words: &mut [u32]) -> Result<(), ConstrainError> {
        let vocab = &self.plan.vocab;
        match self.state {
            State::Header(at) => {
                let mut allowed = vec![0; vocab.text.len()];
                self.headers().allow(vocab, at, &mut allowed);
                keep(words, &allowed);
            }
            State::Text(target) => {
                let end = self.end_of(target);
                let may_end = is_allowed(words, end);
                keep(words, &vocab.text);
                if may_end {
                    allow(words, end);
                }
            }
            State::Called => {
                let may_start = is_allowed(words, vocab.marks.start);
                words.fill(0);
                if may_start {
                    allow(words, vocab.marks.start);
                }
            }
            State::Ended => return Err(ConstrainError::Ended),
        }
        Ok(())
    }

    /// Goes on by a token that was sampled.
    pub fn accept(&mut self, token: u32) -> Result<(), ConstrainError> {
        self.state = match self.state {
            State::Header(at) => self.after_header(at, token)?,
            State::Text(target) if token == self.end_of(target) => self.after(target),
            State::Text(target) if is_allowed(&self.plan.vocab.text, token) => State::Text(target),
            State::Called => self.after_header(LATER, token)?,
            State::Text(_) => return Err(ConstrainError::Token(token)),
            State::Ended => return Err(ConstrainError::Ended),
        };
        Ok(())
    }

    /// True where the turn may end: after a final message or a call.
    pub fn is_finished(&self) -> bool {
        matches!(self.state, State::Called | State::Ended)
    }

    fn headers(&self) -> &Headers {
        if self.num_before_last >= MAX_BEFORE_LAST {
            &self.plan.last
        } else if self.num_preambles >= MAX_PREAMBLES {
            &self.plan.no_preamble
        } else {
            &self.plan.open
        }
    }

    fn after_header(&self, at: u32, token: u32) -> Result<State, ConstrainError> {
        let headers = self.headers();
        let next = headers.accept(&self.plan.vocab, at, token).ok_or(ConstrainError::Token(token))?;
        Ok(headers.target(next).map_or(State::Header(next), State::Text))
    }

    /// The token that ends a message.
    fn end_of(&self, target: Target) -> u32 {
        let marks = &self.plan.vocab.marks;
        match target {
            Target::Thinking | Target::Preamble => marks.end,
            Target::Call(_) => marks.call,
            Target::Final => marks.return_,
        }
    }

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
