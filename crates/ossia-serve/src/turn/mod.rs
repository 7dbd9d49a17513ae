//! One generation in our own words: what chat, responses and Ollama's routes all become.
//!
//! [`Turns::begin`] renders a conversation, hands the tokens to the engine and gives a [`TurnStream`] of messages as the
//! model says them. A malformed generation is never an error and never loses text; dropping the stream cancels it.

mod gate;
mod grammar;
mod ledger;
mod opening;
mod raw;
mod reader;
mod stops;
#[cfg(test)]
mod tests;
mod turns;

pub use ledger::{Ledger, NoLedger};
pub use opening::{Opening, ShownFormat, later_instructions};
pub use raw::{RawEvent, RawRequest, RawStream};
pub use turns::{TurnStream, Turns};

use std::sync::Arc;

use ossia_engine::Adapter;
use ossia_kernels::ops::sample::Params;
use ossia_text::constrain::AnswerRules;
use ossia_text::harmony::Header;
use ossia_text::{Conversation, ParsedMessage};

use crate::auth::Identity;

/// What is to be generated.
pub struct TurnRequest {
    /// Harmony messages, system and developer included. Earlier analysis is dropped by the documented rule.
    pub conversation: Conversation,
    /// Tools, their choice, the final message's format.
    pub rules: AnswerRules,
    /// How tokens are chosen.
    pub params: Params,
    /// New tokens at most; None: as many as the context holds.
    pub limit: Option<usize>,
    /// At most four texts at which the answer ends; they are looked for in final text only and are not part of it.
    pub stop: Vec<String>,
    /// What the model has learned besides.
    pub adapter: Option<Arc<Adapter>>,
    /// Who asks.
    pub identity: Identity,
}

/// What happens in a turn, in order. Every message gives one `Start`, any number of `Delta`, one `End`.
#[derive(Debug, Clone, PartialEq)]
pub enum TurnEvent {
    /// The engine has taken the request up.
    Started {
        /// Tokens of the prompt.
        prompt_tokens: usize,
        /// So many of them came from the prefix cache.
        cached_tokens: usize,
    },
    /// A message begins. `header.kind()` says what it is; calls have a declared tool's full name as recipient, whatever
    /// names no declared tool or speaks for somebody else is an answer.
    Start(Header),
    /// More of its text.
    Delta {
        /// Whole characters.
        text: String,
        /// Of the tokens that this text completes, if asked for.
        logprobs: Vec<TokenLogprob>,
    },
    /// It is complete, with all of its text.
    End(ParsedMessage),
    /// The end, exactly once.
    Done {
        /// Why.
        finish: FinishReason,
        /// What it took.
        usage: Usage,
    },
}

/// Why a turn ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FinishReason {
    /// The model, or a stop text, ended it.
    Stop,
    /// The limit was reached, or the context is full.
    Length,
    /// The model waits for a tool's result.
    ToolCalls,
    /// The turn was cancelled.
    Cancelled,
    /// The engine could not go on; the text is for the log and names no file.
    Failed(String),
}

impl FinishReason {
    /// True where the turn came to an end of its own or to its limit.
    pub fn is_end(&self) -> bool {
        matches!(self, Self::Stop | Self::Length | Self::ToolCalls)
    }
}

/// Tokens, counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Of the prompt.
    pub prompt_tokens: usize,
    /// Of the prompt, from the prefix cache.
    pub cached_tokens: usize,
    /// Generated, special tokens too.
    pub completion_tokens: usize,
    /// Generated as chain of thought.
    pub reasoning_tokens: usize,
}

/// A token and how likely it was.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprob {
    /// Its id.
    pub token: u32,
    /// Its bytes, perhaps not whole characters.
    pub bytes: Vec<u8>,
    /// ln of its probability.
    pub logprob: f32,
    /// The likeliest tokens in its place, best first.
    pub top: Vec<TopLogprob>,
}

/// One of the likeliest tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct TopLogprob {
    /// Its id.
    pub token: u32,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// ln of its probability.
    pub logprob: f32,
}
