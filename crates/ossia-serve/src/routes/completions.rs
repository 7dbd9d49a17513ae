//! POST /v1/completions: plain text continued, without harmony.

mod parts;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::extract::State;
use axum::response::sse::Event;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Json};
use futures_core::Stream;
use futures_util::{StreamExt, future};
use ossia_engine::Adapter;

use self::parts::{Part, Voice};
use crate::adapters::Chosen;
use crate::app::{Access, Route, Shared};
use crate::auth::{Identity, Scope};
use crate::clock;
use crate::error::ApiError;
use crate::ids;
use crate::routes::chat::{failure, sse};
use crate::turn::{FinishReason, RawRequest, Usage};
use crate::types::body::JsonBody;
use crate::types::chat_answer::{UsageOut, finish_word};
use crate::types::completions::{Completion, CompletionChoice, CompletionRequest};
use crate::types::fields::Prompts;
use crate::types::sampling::{self, MOST_CHOICES};

/// The most prompts of a request, and completions of all of them together.
const MOST_PROMPTS: usize = 64;
const MOST_COMPLETIONS: usize = 64;

/// This file's part of the table.
pub fn routes() -> Vec<Route> {
    let route = Route::new("POST", "/v1/completions", Access::Key(Scope::Infer), post(create));
    vec![route.takes::<CompletionRequest>().gives::<Completion>().generates(ApiError::into_response)]
}

async fn create(
    State(app): State<Shared>,
    Extension(identity): Extension<Identity>,
    JsonBody(request): JsonBody<CompletionRequest>,
) -> Result<Response, ApiError> {
    let is_stream = request.stream.unwrap_or(false);
    if request.stream_options.is_some() && request.stream != Some(true) {
        return Err(ApiError::invalid("stream_options", "stream_options: only with stream: true"));
    }
    let wants_usage = request.stream_options.as_ref().and_then(|options| options.include_usage).unwrap_or(false);
    let Chosen { name: model, adapter } = app.chosen(&identity, request.model.as_deref()).await?;
    let head = Completion {
        id: ids::new("cmpl")?.replacen('_', "-", 1),
        object: "text_completion",
        created: clock::now_s(),
        model,
        system_fingerprint: app.fingerprint.clone(),
        choices: Vec::new(),
        usage: None,
    };
    let (voices, n) = begin(&app, &identity, adapter, request).await?;
    match is_stream {
        true => Ok(sse(Chunks::new(head, voices, n, wants_usage))),
        false => whole(head, voices, n).await,
    }
}

async fn begin(
    app: &Shared,
    identity: &Identity,
    adapter: Option<Arc<Adapter>>,
    request: CompletionRequest,
) -> Result<(Vec<Voice>, usize), ApiError> {
    let n = sampling::integer(request.n, "n", 1, MOST_CHOICES, 1)? as usize;
    if request.suffix.as_ref().is_some_and(|suffix| !suffix.is_empty()) {
        return Err(ApiError::unsupported("suffix", "suffix: gpt-oss was not taught to fill a gap"));
    }
    if request.best_of.is_some_and(|best_of| best_of != 1 && best_of != n as i64) {
        return Err(ApiError::unsupported("best_of", "best_of: not supported; ask for n answers and choose"));
    }
    let echo = request.echo.unwrap_or(false);
    let limit = sampling::integer(request.max_tokens, "max_tokens", i64::from(!echo), i64::MAX, 16)?;
    let params = request.controls().params(app.model.temperature, clock::fresh_seed())?;
    let (stop, top) = (sampling::stops(request.stop)?, params.top_logprobs);
    let prompts = tokens(app, request.prompt).await?;
    if prompts.len() > MOST_PROMPTS || prompts.len() * n > MOST_COMPLETIONS {
        let wanted = format!("wanted at most {MOST_PROMPTS} prompts and {MOST_COMPLETIONS} completions in all");
        return Err(ApiError::invalid("prompt", wanted));
    }
    let mut voices = Vec::new();
    for prompt in prompts {
        for number in 0..n as u64 {
            let mut params = params.clone();
            params.seed = params.seed.wrapping_add(number);
            let request = RawRequest {
                prompt: prompt.clone(),
                params,
                // One token is always made; where none was asked for it is not shown.
                limit: usize::try_from(limit.max(1)).unwrap_or(usize::MAX),
                stop: stop.clone(),
                prompt_logprobs: top.filter(|_| echo),
                adapter: adapter.clone(),
                identity: identity.clone(),
            };
            let stream = app.turns.begin_raw(request)?;
            let (shown, harmony) = (echo.then(|| prompt.clone()), app.turns.harmony().clone());
            voices.push(Voice::new(stream, harmony, shown, top.is_some(), limit == 0));
        }
    }
    Ok((voices, n))
}

/// The prompts as token ids; long texts take their time, on a thread that has it.
async fn tokens(app: &Shared, prompts: Prompts) -> Result<Vec<Vec<u32>>, ApiError> {
    let texts = match prompts {
        Prompts::Tokens(lists) => return Ok(lists),
        Prompts::Texts(texts) => texts,
    };
    let turns = Arc::clone(&app.turns);
    let encode = move || {
        let tokenizer = turns.harmony().tokenizer();
        let one = |text: &String| match text.is_empty() {
            // A text begins somewhere.
            true => Ok(tokenizer.specials().end_of_text.into_iter().collect()),
            false => tokenizer.encode_text(text).map_err(|error| ApiError::invalid("prompt", error.to_string())),
        };
        texts.iter().map(one).collect()
    };
    tokio::task::spawn_blocking(encode).await.map_err(|_| ApiError::Internal)?
}

async fn whole(mut head: Completion, voices: Vec<Voice>, n: usize) -> Result<Response, ApiError> {
    let mut usages = Vec::new();
    let collected = future::join_all(voices.into_iter().map(collect)).await;
    for (index, collected) in collected.into_iter().enumerate() {
        let (part, finish, usage) = collected?;
        let finish_reason = Some(finish_word(&finish).ok_or_else(|| failure(&finish))?);
        head.choices.push(CompletionChoice { index, text: part.text, logprobs: part.logprobs, finish_reason });
        usages.push(usage);
    }
    head.usage = Some(usage_of(&usages, n));
    Ok(Json(head).into_response())
}

async fn collect(mut voice: Voice) -> Result<(Part, FinishReason, Usage), ApiError> {
    let mut all = voice.first();
    while let Some(event) = voice.stream.next().await {
        let (part, end) = voice.hear(event);
        all.append(part);
        if let Some((finish, usage)) = end {
            return Ok((all, finish, usage));
        }
    }
    Err(ApiError::Internal)
}

/// The usage of `n` completions of each prompt: each prompt counts once.
fn usage_of(usages: &[Usage], n: usize) -> UsageOut {
    let mut sum = Usage::default();
    for (index, usage) in usages.iter().enumerate() {
        sum.completion_tokens += usage.completion_tokens;
        if index % n == 0 {
            sum.prompt_tokens += usage.prompt_tokens;
            sum.cached_tokens += usage.cached_tokens;
        }
    }
    UsageOut::of(&[sum])
}

/// The answer as server-sent events.
struct Chunks {
    head: Completion,
    /// One for each completion, until it has ended.
    voices: Vec<Option<Voice>>,
    /// By index.
    usages: Vec<Usage>,
    n: usize,
    wants_usage: bool,
    ready: VecDeque<Event>,
    ended: bool,
}

impl Chunks {
    fn new(head: Completion, mut voices: Vec<Voice>, n: usize, wants_usage: bool) -> Self {
        let firsts: Vec<Part> = voices.iter_mut().map(Voice::first).collect();
        let usages = vec![Usage::default(); voices.len()];
        let voices = voices.into_iter().map(Some).collect();
        let mut chunks = Self { head, voices, usages, n, wants_usage, ready: VecDeque::new(), ended: false };
        for (index, part) in firsts.into_iter().enumerate() {
            chunks.part(index, part, None);
        }
        chunks
    }

    fn part(&mut self, index: usize, part: Part, finish_reason: Option<&'static str>) {
        if part.is_empty() && finish_reason.is_none() {
            return;
        }
        let choice = CompletionChoice { index, text: part.text, logprobs: part.logprobs, finish_reason };
        self.data(&Completion { choices: vec![choice], ..self.head.clone() });
    }

    fn data(&mut self, data: &impl serde::Serialize) {
        // Our own types always become JSON.
        if let Ok(event) = Event::default().json_data(data) {
            self.ready.push_back(event);
        }
    }

    fn end(&mut self, index: usize, finish: &FinishReason, usage: Usage) {
        let Some(word) = finish_word(finish) else { return self.fail(&failure(finish)) };
        self.part(index, Part::default(), Some(word));
        if let (Some(voice), Some(place)) = (self.voices.get_mut(index), self.usages.get_mut(index)) {
            (*voice, *place) = (None, usage);
        }
        if self.voices.iter().all(Option::is_none) {
            if self.wants_usage {
                let usage = Some(usage_of(&self.usages, self.n));
                self.data(&Completion { usage, ..self.head.clone() });
            }
            self.ready.push_back(Event::default().data("[DONE]"));
            self.ended = true;
        }
    }

    fn fail(&mut self, error: &ApiError) {
        self.data(&error.body());
        self.voices.clear();
        self.ended = true;
    }
}

impl Stream for Chunks {
    type Item = Result<Event, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(event)));
            }
            if self.ended {
                return Poll::Ready(None);
            }
            let mut heard = Vec::new();
            for (index, voice) in self.voices.iter_mut().enumerate() {
                let Some(voice) = voice else { continue };
                if let Poll::Ready(event) = Pin::new(&mut voice.stream).poll_next(cx) {
                    heard.push((index, event.map(|event| voice.hear(event))));
                }
            }
            if heard.is_empty() {
                return Poll::Pending;
            }
            for (index, event) in heard {
                let Some((part, end)) = event else { return Poll::Ready(None) };
                self.part(index, part, None);
                if let Some((finish, usage)) = end {
                    self.end(index, &finish, usage);
                }
            }
        }
    }
}
