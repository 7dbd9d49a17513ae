//! Plain tokens continued, without harmony: completions. Text comes as the model writes it; stop tokens are left out,
//! other special tokens stand in it by name.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;
use ossia_engine::{Adapter, Event, PromptLogprob, Ticket};
use ossia_kernels::ops::sample::{Params, Sampled};
use ossia_text::{Harmony, Utf8Stream};
use tokio::sync::mpsc;

use super::gate::{Gate, Out, describe, described};
use super::ledger::Entry;
use super::stops::Stops;
use super::turns::reason;
use super::{FinishReason, TokenLogprob, Usage};
use crate::auth::Identity;

/// What is to be continued.
pub struct RawRequest {
    /// Token ids, at least one.
    pub prompt: Vec<u32>,
    /// How tokens are chosen.
    pub params: Params,
    /// New tokens at most.
    pub limit: usize,
    /// At most four texts at which it ends; they are not part of it.
    pub stop: Vec<String>,
    /// Log probabilities of the prompt's tokens, with so many of the best.
    pub prompt_logprobs: Option<usize>,
    /// What the model has learned besides.
    pub adapter: Option<Arc<Adapter>>,
    /// Who asks.
    pub identity: Identity,
}

/// What happens, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum RawEvent {
    /// One entry for each token of the prompt, None for the first; if asked for.
    Prompt(Vec<Option<TokenLogprob>>),
    /// More text.
    Text {
        /// Whole characters.
        text: String,
        /// Of the tokens that it completes, if asked for.
        logprobs: Vec<TokenLogprob>,
    },
    /// The end, exactly once.
    Done {
        /// Why.
        finish: FinishReason,
        /// What it took.
        usage: Usage,
    },
}

/// The events of one completion. Dropping it cancels the generation within a step.
pub struct RawStream {
    events: mpsc::UnboundedReceiver<Event>,
    ticket: Option<Ticket>,
    entry: Entry,
    harmony: Harmony,
    stop_ids: Vec<u32>,
    stops: Stops,
    decoder: Utf8Stream,
    gate: Gate,
    usage: Usage,
    ready: VecDeque<RawEvent>,
    ended: bool,
}

impl RawStream {
    pub(super) fn new(
        harmony: &Harmony,
        events: mpsc::UnboundedReceiver<Event>,
        ticket: Ticket,
        entry: Entry,
        prompt_tokens: usize,
        stop: Vec<String>,
    ) -> Self {
        Self {
            events,
            ticket: Some(ticket),
            entry,
            harmony: harmony.clone(),
            stop_ids: harmony.stop_ids(),
            stops: Stops::new(stop),
            decoder: Utf8Stream::new(),
            gate: Gate::default(),
            usage: Usage { prompt_tokens, ..Usage::default() },
            ready: VecDeque::new(),
            ended: false,
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Started { cached } => self.usage.cached_tokens = cached,
            Event::PromptLogprobs(list) => {
                let entries = list.iter().map(|entry| self.prompt_entry(entry)).collect();
                self.ready.push_back(RawEvent::Prompt(entries));
            }
            Event::Token(sampled) => self.token(&sampled),
            Event::Finished(finish) => self.finish(reason(finish)),
        }
    }

    fn prompt_entry(&self, entry: &PromptLogprob) -> Option<TokenLogprob> {
        Some(described(self.harmony.tokenizer(), entry.token, entry.logprob?, &entry.top))
    }

    fn token(&mut self, sampled: &Sampled) {
        self.usage.completion_tokens += 1;
        self.entry.usage = self.usage;
        if self.stop_ids.contains(&sampled.token) {
            return;
        }
        let bytes = self.harmony.tokenizer().token_bytes(sampled.token).unwrap_or("\u{fffd}".as_bytes());
        self.gate.push(&self.decoder.push(bytes));
        self.gate.push_logprob(describe(self.harmony.tokenizer(), sampled));
        let given = self.gate.give(&self.stops);
        let stopped = given.stopped;
        self.tell(given);
        if stopped {
            self.ticket = None;
            self.end(FinishReason::Stop);
        }
    }

    fn finish(&mut self, finish: FinishReason) {
        self.gate.push(&self.decoder.flush());
        let given = self.gate.give(&self.stops);
        let finish = if given.stopped { FinishReason::Stop } else { finish };
        let rest = if given.stopped { Out::default() } else { self.gate.finish() };
        self.tell(given);
        self.tell(rest);
        self.end(finish);
    }

    fn tell(&mut self, given: Out) {
        let Out { text, logprobs, .. } = given;
        if !text.is_empty() || !logprobs.is_empty() {
            self.ready.push_back(RawEvent::Text { text, logprobs });
        }
    }

    fn end(&mut self, finish: FinishReason) {
        self.ended = true;
        self.entry.usage = self.usage;
        self.entry.close(Some(&finish));
        self.ready.push_back(RawEvent::Done { finish, usage: self.usage });
    }
}

impl Stream for RawStream {
    type Item = RawEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<RawEvent>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Poll::Ready(Some(event));
            }
            if self.ended {
                return Poll::Ready(None);
            }
            match self.events.poll_recv(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(event)) => self.take(event),
                Poll::Ready(None) => self.finish(FinishReason::Failed("the engine is gone".to_owned())),
            }
        }
    }
}
