//! One request on its way: its tokens, its pages, how it chooses, and who is told.
//!
//! What a request brings along (constraint, sink) is not ours, and may panic: every call of it is caught here, and ends
//! this request only.

use std::any::Any;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ossia_kernels::kv::PAGE;
use ossia_kernels::ops::sample::{Sampled, Sampler};

use crate::adapter::Adapter;
use crate::pages::Tables;
use crate::request::{Constraint, Event, Finish, PromptLogprob, Request, Sink, TokenMask};
use crate::runner::Rows;
use crate::scheduler::Runnable;

/// A request that waits or runs.
pub struct Sequence {
    /// Its number; later requests have higher ones.
    pub id: u64,
    /// See [`Request::client`].
    pub client: u64,
    /// See [`Request::salt`].
    pub salt: u64,
    /// See [`Request::adapter`].
    pub adapter: Option<Arc<Adapter>>,
    /// The prompt and what was generated.
    pub tokens: Vec<u32>,
    /// Tokens of the prompt.
    pub prompt: usize,
    /// Positions whose keys and values are in its pages.
    pub len: usize,
    /// Its pages.
    pub tables: Tables,
    /// Positions that its client was charged for; what is computed again is not charged again.
    pub charged: usize,
    /// What its client was charged, and what it was taken for when it came.
    pub paid: u64,
    /// See [`crate::queue::weight`].
    pub weight: u64,
    /// So many of its tokens were known to the prefix cache when it began.
    pub fork: usize,
    /// The last point that it left in the prefix cache.
    pub last_point: usize,
    /// The step in which it last took part.
    pub last_step: u64,
    /// True once `Started` was told.
    pub started: bool,
    limit: usize,
    stops: Arc<[u32]>,
    sampler: Sampler,
    constraint: Option<Box<dyn Constraint>>,
    scores: Option<Scores>,
    sink: Option<Sink>,
    cancelled: Arc<AtomicBool>,
}

/// Log probabilities of the prompt, as far as they are known.
struct Scores {
    /// Best tokens of each.
    best: usize,
    /// One for each position up to the last that is known.
    known: Vec<PromptLogprob>,
    told: bool,
}

impl Sequence {
    /// A request that was checked. Nothing, and the sink was told, where it has no sampler all the same.
    pub fn new(id: u64, request: Request, vocab: usize, sink: Sink, cancelled: Arc<AtomicBool>) -> Option<Self> {
        let weight = crate::queue::weight(&request);
        let Request { prompt, params, forbidden, stops, limit, constraint, client, salt, adapter, prompt_logprobs } =
            request;
        let mut sampler = match Sampler::new(params, forbidden, vocab) {
            Ok(sampler) => sampler,
            Err(error) => {
                tell_end(sink, Finish::Failed(error.to_string()));
                return None;
            }
        };
        sampler.see_prompt(&prompt);
        let first = PromptLogprob { token: prompt[0], logprob: None, top: Vec::new() };
        let scores = prompt_logprobs.map(|best| Scores { best, known: vec![first], told: false });
        Some(Self {
            id,
            client,
            salt,
            adapter,
            prompt: prompt.len(),
            tokens: prompt,
            len: 0,
            tables: Tables::default(),
            charged: 0,
            paid: 0,
            weight,
            fork: 0,
            last_point: 0,
            last_step: 0,
            started: false,
            limit,
            stops,
            sampler,
            constraint,
            scores,
            sink: Some(sink),
            cancelled,
        })
    }

    /// True where its client went away.
    pub fn cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// Tokens that were generated.
    pub fn made(&self) -> usize {
        self.tokens.len() - self.prompt
    }

    /// Positions that a cached prefix may have at most: one token at least is computed, and logits of the prompt that
    /// were asked for are not in the cache.
    pub fn reusable(&self) -> usize {
        let most = self.tokens.len() - 1;
        self.scores.as_ref().filter(|s| !s.told).map_or(most, |s| most.min(s.known.len() - 1))
    }

    /// Where points are to be left in the prefix cache after a step of `tokens`: where the prompt parted from what was
    /// known, at its end, and in a long prompt at the last page border when `every` tokens have come since the last one.
    pub fn points_due(&self, tokens: usize, every: usize) -> impl Iterator<Item = usize> + use<> {
        let computed = self.len - tokens + 1..=self.len;
        let fork = (computed.contains(&self.fork) && self.fork < self.prompt).then_some(self.fork);
        let border = self.len / PAGE * PAGE;
        let border = (self.len < self.prompt && border >= self.last_point + every).then_some(border);
        fork.into_iter().chain(border).chain((self.len == self.prompt).then_some(self.len))
    }

    /// As the plan of a step sees it.
    pub fn runnable(&self, served: u64) -> Runnable {
        let pending = self.tokens.len() - self.len;
        let all_logits = self.scores.as_ref().is_some_and(|s| !s.told);
        let decodes = pending == 1 && self.made() > 0;
        let Self { id, client, last_step, .. } = *self;
        Runnable { id, client, served, made: self.made(), pending, decodes, all_logits, last_step }
    }

    /// Tells the sink. An error where the request must end.
    pub fn tell(&mut self, event: Event) -> Result<(), Finish> {
        let Some(sink) = &mut self.sink else { return Err(Finish::Cancelled) };
        match catch_unwind(AssertUnwindSafe(|| sink(event))) {
            Ok(ControlFlow::Continue(())) => Ok(()),
            Ok(ControlFlow::Break(())) => Err(Finish::Cancelled),
            Err(panic) => {
                discard(self.sink.take());
                Err(Finish::Failed(format!("the request's sink panicked: {}", panic_message(&*panic))))
            }
        }
    }

    /// Takes the logits of the position before `at`: the prompt's token there gets its log probability.
    pub fn score(&mut self, at: usize, logits: &[f32]) -> Result<(), Finish> {
        let Self { scores: Some(scores), sampler, tokens, prompt, .. } = self else { return Ok(()) };
        if at >= *prompt || at != scores.known.len() {
            return Ok(());
        }
        let Sampled { token, logprob, top } =
            sampler.score(logits, tokens[at], scores.best).map_err(|error| Finish::Failed(error.to_string()))?;
        scores.known.push(PromptLogprob { token, logprob, top });
        Ok(())
    }

    /// Chooses the next token from the last position's logits, `row` of the step's, and tells it. An error where the request
    /// ends.
    pub fn next_token(
        &mut self,
        logits: &impl Rows,
        row: usize,
        mask: &mut TokenMask,
        context: usize,
    ) -> Result<(), Finish> {
        if let Some(scores) = self.scores.as_mut().filter(|scores| !scores.told) {
            scores.told = true;
            let known = std::mem::take(&mut scores.known);
            self.tell(Event::PromptLogprobs(known))?;
        }
        let best = logits.best(row).filter(|_| self.constraint.is_none());
        let sampled = match best.and_then(|best| self.sampler.take_best(best)) {
            Some(sampled) => sampled,
            None => self.choose(logits.row(row).map_err(Finish::Failed)?, mask)?,
        };
        let token = sampled.token;
        self.tokens.push(token);
        self.tell(Event::Token(sampled))?;
        if self.stops.contains(&token) {
            return Err(Finish::Stop);
        }
        if self.made() >= self.limit {
            return Err(Finish::Length);
        }
        if self.len >= context {
            return Err(Finish::ContextFull);
        }
        Ok(())
    }

    fn choose(&mut self, logits: &[f32], mask: &mut TokenMask) -> Result<Sampled, Finish> {
        let Self { sampler, constraint, .. } = self;
        let chosen = catch_unwind(AssertUnwindSafe(|| {
            let Some(constraint) = constraint else {
                return sampler.sample(logits).map_err(|error| error.to_string());
            };
            mask.fill();
            constraint.mask(mask)?;
            let sampled = sampler.sample_allowed(logits, Some(mask.words())).map_err(|error| error.to_string())?;
            constraint.accept(sampled.token)?;
            Ok(sampled)
        }));
        match chosen {
            Ok(Ok(sampled)) => Ok(sampled),
            Ok(Err(message)) => Err(Finish::Failed(message)),
            Err(panic) => Err(Finish::Failed(format!("choosing a token panicked: {}", panic_message(&*panic)))),
        }
    }

    /// Tells the end. The sequence's pages must be back.
    pub fn finish(mut self, finish: Finish) {
        if let Some(sink) = self.sink.take() {
            tell_end(sink, finish);
        }
        discard(self.constraint.take());
    }
}

/// Tells a request that never ran, or runs no longer, how it ended.
pub fn tell_end(mut sink: Sink, finish: Finish) {
    // The request is over: its sink's wish or panic changes nothing.
    let _ = catch_unwind(AssertUnwindSafe(|| sink(Event::Finished(finish))));
    discard(sink);
}

/// Drops what is not ours; a panic in its destructor is its own.
fn discard<T>(thing: T) {
    let _ = catch_unwind(AssertUnwindSafe(|| drop(thing)));
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
