//! What a client asks for and what comes back: token ids in, token ids out. No text, no network.

use std::ops::ControlFlow;
use std::sync::Arc;

use ossia_kernels::ops::sample::{BadParam, Params, Sampled};

use crate::adapter::Adapter;

/// What one client asks for.
pub struct Request {
    /// Token ids, at least one.
    pub prompt: Vec<u32>,
    /// How tokens are chosen.
    pub params: Params,
    /// Ids that are never chosen.
    pub forbidden: Arc<[u32]>,
    /// Generation ends after one of these, which is reported as a token too.
    pub stops: Arc<[u32]>,
    /// New tokens at most, at least one.
    pub limit: usize,
    /// What may come next, where not everything may.
    pub constraint: Option<Box<dyn Constraint>>,
    /// Service is shared fairly between clients.
    pub client: u64,
    /// Only requests with the same salt share cached prefixes.
    pub salt: u64,
    /// What the model has learned besides; none is the model as it is.
    pub adapter: Option<Arc<Adapter>>,
    /// Report log probabilities of the prompt's tokens, with so many of the best.
    pub prompt_logprobs: Option<usize>,
}

/// Which tokens may come next. Called on the engine's thread, so it must be quick. It may fail and it may panic: only its
/// own request fails then.
pub trait Constraint: Send {
    /// Clears in `allowed` every token that may not come next. All are set before the call.
    fn mask(&mut self, allowed: &mut TokenMask) -> Result<(), String>;

    /// The token that was chosen.
    fn accept(&mut self, token: u32) -> Result<(), String>;
}

/// One bit for each token of the vocabulary.
pub struct TokenMask {
    words: Vec<u32>,
    len: usize,
}

impl TokenMask {
    /// For `vocab` tokens, all of them allowed.
    pub fn new(vocab: usize) -> Self {
        Self { words: vec![u32::MAX; vocab.div_ceil(32)], len: vocab }
    }

    /// 32 ids a word, the lowest id in the lowest bit. Bits past the vocabulary mean nothing.
    pub fn words(&mut self) -> &mut [u32] {
        &mut self.words
    }

    /// The vocabulary.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True for a vocabulary of none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Allows everything.
    pub fn fill(&mut self) {
        self.words.fill(u32::MAX);
    }
}

/// How likely the model found a token of the prompt, without penalties, bias, mask and temperature.
#[derive(Clone, Debug, PartialEq)]
pub struct PromptLogprob {
    /// The prompt's token.
    pub token: u32,
    /// ln of its probability; nothing for the first token, which nothing comes before.
    pub logprob: Option<f32>,
    /// The best ids and their logprobs, best first.
    pub top: Vec<(u32, f32)>,
}

/// What a request's sink is told, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Prefill begins.
    Started {
        /// So many of the prompt's tokens came from the prefix cache.
        cached: usize,
    },
    /// One entry for each token of the prompt, where they were asked for; once, before the first token.
    PromptLogprobs(Vec<PromptLogprob>),
    /// A token was made.
    Token(Sampled),
    /// The end, exactly once and last.
    Finished(Finish),
}

/// Why a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finish {
    /// A stop token came.
    Stop,
    /// The limit was reached.
    Length,
    /// The context is full.
    ContextFull,
    /// The client went away, or the engine was dropped.
    Cancelled,
    /// Something broke; the others are not touched.
    Failed(String),
}

/// Who is told. Called on the engine's thread and must not block. `Break` cancels the request; the end is still told.
/// A sink that panics is not called again.
pub type Sink = Box<dyn FnMut(Event) -> ControlFlow<()> + Send>;

/// A request that was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The prompt leaves no room in the context.
    #[error(
        "the prompt has {prompt} tokens, the context {context}: send a shorter one or start with a larger context (--ctx)"
    )]
    TooLong {
        /// Tokens of the prompt.
        prompt: usize,
        /// New tokens that were asked for.
        limit: usize,
        /// Tokens of prompt and answer together at most.
        context: usize,
    },
    /// The prompt is empty.
    #[error("the prompt has no token: send at least one")]
    EmptyPrompt,
    /// No new token was asked for.
    #[error("the limit of new tokens is 0: ask for at least one")]
    NoTokens,
    /// A token of the prompt is not in the vocabulary.
    #[error("the prompt has token id {id}: wanted ids below {vocab}")]
    BadToken {
        /// The token.
        id: u32,
        /// The vocabulary.
        vocab: usize,
    },
    /// A sampling parameter is out of its range.
    #[error(transparent)]
    BadParam(#[from] BadParam),
    /// Too many requests wait.
    #[error("{waiting} requests wait already: try again in {retry_after_s} seconds")]
    QueueFull {
        /// Requests that wait.
        waiting: usize,
        /// Seconds after which there is likely to be room.
        retry_after_s: u64,
    },
    /// The engine takes no new requests.
    #[error("the server is shutting down: try another, or again later")]
    Draining,
}

impl Request {
    /// Checks everything that can be known before it runs.
    pub(crate) fn check(&self, vocab: usize, context: usize) -> Result<(), Refused> {
        if self.prompt.is_empty() {
            return Err(Refused::EmptyPrompt);
        }
        if self.limit == 0 {
            return Err(Refused::NoTokens);
        }
        if self.prompt.len() > context {
            return Err(Refused::TooLong { prompt: self.prompt.len(), limit: self.limit, context });
        }
        if let Some(&id) = self.prompt.iter().find(|&&id| id as usize >= vocab) {
            return Err(Refused::BadToken { id, vocab });
        }
        Ok(self.params.check(vocab)?)
    }
}
