//! From a request to a stream of events: renders, compiles the rules, submits, and reads what comes.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use futures_core::Stream;
use ossia_engine::{Engine, Event, Finish, Refused, Request, Ticket};
use ossia_text::constrain::{ConstrainError, Constrainer, Place};
use ossia_text::{Harmony, RenderOptions, TextError};
use tokio::sync::mpsc;

use super::grammar::{Grammar, MaskThreads};
use super::ledger::{Entry, Ledger};
use super::raw::{RawRequest, RawStream};
use super::reader::Reader;
use super::{FinishReason, TurnEvent, TurnRequest};
use crate::auth::Identity;
use crate::error::ApiError;

/// Everything that turns need: the engine and the model's text. Shared by all handlers.
pub struct Turns {
    engine: Engine,
    harmony: Harmony,
    constrainer: Constrainer,
    mask_threads: MaskThreads,
    forbidden: Arc<[u32]>,
    stops: Arc<[u32]>,
    ledger: Arc<dyn Ledger>,
    /// The ears of everything that was submitted, gone ones among them.
    ears: Mutex<Vec<mpsc::WeakUnboundedSender<Event>>>,
}

/// The events of one turn. Dropping it cancels the generation within a step.
pub struct TurnStream {
    events: mpsc::UnboundedReceiver<Event>,
    ticket: Option<Ticket>,
    reader: Reader,
    prompt_tokens: usize,
    entry: Entry,
    ready: VecDeque<TurnEvent>,
    ended: bool,
}

impl Turns {
    /// Takes the engine over. Building the grammar's view of the vocabulary takes a moment.
    pub fn new(engine: Engine, harmony: Harmony, ledger: Arc<dyn Ledger>) -> Result<Self, TextError> {
        let constrainer = Constrainer::new(&harmony)?;
        let forbidden = harmony.tokenizer().unsampleable_ids(engine.limits().vocab).into();
        let stops = harmony.stop_ids().into();
        let mask_threads = MaskThreads::start();
        Ok(Self { engine, harmony, constrainer, mask_threads, forbidden, stops, ledger, ears: Mutex::default() })
    }

    /// The engine.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The model's text.
    pub fn harmony(&self) -> &Harmony {
        &self.harmony
    }

    /// Memory that kept grammars hold, in bytes, roughly.
    pub fn grammar_bytes(&self) -> usize {
        self.constrainer.cached_bytes()
    }

    /// Positions that prompt and answer share.
    pub fn context(&self) -> usize {
        self.engine.limits().context
    }

    /// An error where too much waits for a request of this client to begin soon.
    pub fn expects(&self, identity: &Identity) -> Result<(), ApiError> {
        self.engine.expects(identity.client).map_err(refused)
    }

    /// Begins a turn. Rendering and compiling may take some ten milliseconds: [`Turns::start`] does it elsewhere.
    pub fn begin(&self, request: TurnRequest) -> Result<TurnStream, ApiError> {
        let TurnRequest { conversation, rules, params, limit, stop, adapter, identity } = request;
        let prompt = self.harmony.render_for_completion(&conversation, &RenderOptions::default());
        let prompt = prompt.map_err(unrenderable)?;
        let matcher = self.constrainer.compile(&rules).map_err(wrong_rules)?;
        let recipients = rules.tools.iter().map(|tool| tool.recipient()).collect();
        let reader = Reader::new(&self.harmony, recipients, stop);
        let limit = self.room("messages", prompt.len(), limit)?;
        let entry = Entry::open(&self.ledger, identity.clone(), prompt.len())?;
        let request = Request {
            limit,
            prompt,
            params,
            forbidden: Arc::clone(&self.forbidden),
            stops: Arc::clone(&self.stops),
            constraint: Some(Box::new(Grammar::new(matcher, &self.mask_threads))),
            client: identity.client,
            salt: identity.salt,
            adapter,
            prompt_logprobs: None,
        };
        let (events, ticket) = self.submit(request)?;
        let prompt_tokens = entry.usage.prompt_tokens;
        Ok(TurnStream {
            events,
            ticket: Some(ticket),
            reader,
            prompt_tokens,
            entry,
            ready: VecDeque::new(),
            ended: false,
        })
    }

    /// [`Turns::begin`] on a thread that may take its time.
    pub async fn start(self: &Arc<Self>, request: TurnRequest) -> Result<TurnStream, ApiError> {
        let turns = Arc::clone(self);
        let begun = tokio::task::spawn_blocking(move || turns.begin(request)).await;
        begun.map_err(|_| ApiError::Internal)?
    }

    /// Begins a completion of plain tokens.
    pub fn begin_raw(&self, request: RawRequest) -> Result<RawStream, ApiError> {
        let RawRequest { prompt, params, limit, stop, prompt_logprobs, adapter, identity } = request;
        let limit = self.room("prompt", prompt.len(), Some(limit))?;
        let prompt_tokens = prompt.len();
        let entry = Entry::open(&self.ledger, identity.clone(), prompt.len())?;
        let request = Request {
            limit,
            prompt,
            params,
            forbidden: Arc::clone(&self.forbidden),
            stops: Arc::clone(&self.stops),
            constraint: None,
            client: identity.client,
            salt: identity.salt,
            adapter,
            prompt_logprobs,
        };
        let (events, ticket) = self.submit(request)?;
        Ok(RawStream::new(&self.harmony, events, ticket, entry, prompt_tokens, stop))
    }

    /// Ends everything that runs or waits as cancelled, for a server that can wait no longer.
    pub fn cut(&self) {
        let ears = self.ears.lock().unwrap_or_else(PoisonError::into_inner);
        for ear in ears.iter().filter_map(mpsc::WeakUnboundedSender::upgrade) {
            // Who does not listen any more has gone.
            let _ = ear.send(Event::Finished(Finish::Cancelled));
        }
    }

    /// How many tokens may be made after a prompt, which came in the field `param`: what was asked for, at most what the
    /// context holds.
    fn room(&self, param: &'static str, prompt: usize, limit: Option<usize>) -> Result<usize, ApiError> {
        let context = self.context();
        match context.saturating_sub(prompt) {
            0 => Err(ApiError::ContextLength { param, prompt, context }),
            room => Ok(limit.unwrap_or(room).clamp(1, room)),
        }
    }

    fn submit(&self, request: Request) -> Result<(mpsc::UnboundedReceiver<Event>, Ticket), ApiError> {
        // Unbounded, because the engine must not wait for a client; what can pile up is bounded by the limit of tokens.
        let (sender, events) = mpsc::unbounded_channel();
        let ear = sender.downgrade();
        let sink = move |event| match sender.send(event) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        };
        let ticket = self.engine.submit(request, Box::new(sink)).map_err(refused)?;
        let mut ears = self.ears.lock().unwrap_or_else(PoisonError::into_inner);
        if ears.len() == ears.capacity() {
            ears.retain(|ear| ear.strong_count() > 0);
        }
        ears.push(ear);
        Ok((events, ticket))
    }
}

impl TurnStream {
    /// Tokens of the prompt.
    pub fn prompt_tokens(&self) -> usize {
        self.prompt_tokens
    }

    fn take(&mut self, event: Event) {
        let mut out = Vec::new();
        match event {
            Event::Started { cached } => out.push(self.reader.started(self.prompt_tokens(), cached)),
            Event::PromptLogprobs(_) => {}
            Event::Token(sampled) => {
                self.reader.token(&sampled, &mut out);
                if self.reader.is_stopped() {
                    self.ticket = None;
                    self.finish(FinishReason::Stop, &mut out);
                }
            }
            Event::Finished(finish) => self.finish(reason(finish), &mut out),
        }
        self.entry.usage = self.reader.usage();
        self.entry.usage.prompt_tokens = self.prompt_tokens;
        if let Some(TurnEvent::Done { finish, .. }) = out.last() {
            self.entry.close(Some(finish));
        }
        self.ready.extend(out);
    }

    fn finish(&mut self, finish: FinishReason, out: &mut Vec<TurnEvent>) {
        self.ended = true;
        self.reader.finish(finish, out);
    }
}

impl Stream for TurnStream {
    type Item = TurnEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<TurnEvent>> {
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
                // The engine ended without a word, which it promises not to do.
                Poll::Ready(None) => self.take(Event::Finished(Finish::Failed("the engine is gone".to_owned()))),
            }
        }
    }
}

/// Why the engine stopped, in the words of turns.
pub(super) fn reason(finish: Finish) -> FinishReason {
    match finish {
        Finish::Stop => FinishReason::Stop,
        Finish::Length | Finish::ContextFull => FinishReason::Length,
        Finish::Cancelled => FinishReason::Cancelled,
        Finish::Failed(why) => FinishReason::Failed(why),
    }
}

fn unrenderable(error: TextError) -> ApiError {
    let param = match &error {
        TextError::NoTokenForByte { .. } | TextError::Message { .. } => "messages",
        _ => return ApiError::Internal,
    };
    ApiError::invalid(param, error.to_string())
}

fn wrong_rules(error: ConstrainError) -> ApiError {
    let place = match &error {
        ConstrainError::Schema { place, .. }
        | ConstrainError::Grammar { place, .. }
        | ConstrainError::Tools { place, .. }
        | ConstrainError::TooComplex { place, .. } => place.clone(),
        _ => return ApiError::Internal,
    };
    let param = match place {
        Place::Tool { index, .. } => format!("tools[{index}]"),
        Place::Format => "response_format".to_owned(),
        Place::Rules => "tools".to_owned(),
    };
    ApiError::invalid(param, error.to_string())
}

fn refused(refused: Refused) -> ApiError {
    match refused {
        Refused::TooLong { prompt, context, .. } => ApiError::ContextLength { param: "messages", prompt, context },
        Refused::QueueFull { waiting, retry_after_s } => ApiError::Busy { waiting, retry_after_s },
        Refused::Draining => ApiError::Draining,
        Refused::BadParam(bad) => ApiError::invalid(bad.parameter, bad.to_string()),
        Refused::BadToken { id, vocab } => {
            ApiError::invalid("prompt", format!("token {id} is not in the vocabulary: wanted ids below {vocab}"))
        }
        Refused::EmptyPrompt => ApiError::invalid("prompt", "the prompt is empty: wanted at least one token"),
        Refused::NoTokens => ApiError::invalid("max_tokens", "wanted at least one token"),
    }
}
