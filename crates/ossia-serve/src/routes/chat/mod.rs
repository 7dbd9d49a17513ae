//! POST /v1/chat/completions.

mod chunks;
mod conversation;
mod speaker;
mod tools;
mod whole;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Json};

pub use chunks::sse;
pub use conversation::{Lookup, Told, told};
pub use speaker::{Piece, Speaker};
pub use tools::{Declared, declared};
pub use whole::failure;

use crate::adapters::Chosen;
use crate::app::{Access, Route, Shared};
use crate::auth::{Identity, Scope};
use crate::clock;
use crate::error::ApiError;
use crate::ids;
use crate::reasoning::Keep;
use crate::turn::{TurnRequest, TurnStream};
use crate::types::body::JsonBody;
use crate::types::chat::ChatRequest;
use crate::types::chat_answer::ChatCompletion;
use crate::types::sampling::{self, MOST_CHOICES};

/// This file's part of the table.
pub fn routes() -> Vec<Route> {
    let route = Route::new("POST", "/v1/chat/completions", Access::Key(Scope::Infer), post(create));
    vec![route.takes::<ChatRequest>().gives::<ChatCompletion>().generates(ApiError::into_response)]
}

/// What both kinds of answer begin with.
pub struct Begun {
    pub(crate) id: String,
    pub(crate) created: u64,
    pub(crate) model: String,
    pub(crate) fingerprint: String,
    /// One for each choice.
    pub(crate) streams: Vec<TurnStream>,
    pub(crate) speakers: Vec<Speaker>,
    pub(crate) wants_logprobs: bool,
    pub(crate) date: String,
    pub(crate) identity: Identity,
    pub(crate) app: Shared,
}

async fn create(
    State(app): State<Shared>,
    Extension(identity): Extension<Identity>,
    JsonBody(request): JsonBody<ChatRequest>,
) -> Result<Response, ApiError> {
    let is_stream = request.stream.unwrap_or(false);
    let wants_usage = request.stream_options.as_ref().and_then(|options| options.include_usage).unwrap_or(false);
    if request.stream_options.is_some() && !is_stream {
        return Err(ApiError::invalid("stream_options", "stream_options: only with stream: true"));
    }
    let begun = begin(app, identity, request).await?;
    match is_stream {
        true => Ok(chunks::response(begun, wants_usage)),
        false => Ok(Json(whole::answer(begun).await?).into_response()),
    }
}

/// Checks a request, and begins as many turns as it asks for.
pub async fn begin(app: Shared, identity: Identity, request: ChatRequest) -> Result<Begun, ApiError> {
    let Chosen { name: model, adapter } = app.chosen(&identity, request.model.as_deref()).await?;
    if request.modalities.as_ref().is_some_and(|modalities| modalities.iter().any(|modality| modality != "text")) {
        return Err(ApiError::unsupported("modalities", "modalities: this model writes text only"));
    }
    if request.top_logprobs.is_some_and(|n| n > 0) && request.logprobs != Some(true) {
        return Err(ApiError::invalid("top_logprobs", "top_logprobs: only with logprobs: true"));
    }
    let effort = request.reasoning.as_ref().and_then(|reasoning| reasoning.effort.as_deref());
    let thinking = match request.reasoning_effort.as_deref() {
        None => sampling::thinking(effort, "reasoning.effort")?,
        some => sampling::thinking(some, "reasoning_effort")?,
    };
    let declared = declared(&request, thinking.allowed)?;
    let lookup = Lookup { memory: &app.memory, owner: &identity.key_id };
    let Told { conversation, date } = told(&request.messages, &declared, thinking, &lookup, &clock::today())?;
    let params = request.controls().params(app.model.temperature, clock::fresh_seed())?;
    let n = sampling::integer(request.n, "n", 1, MOST_CHOICES, 1)?;
    let limit = limit(&request)?;
    let stop = sampling::stops(request.stop)?;
    let mut streams = Vec::new();
    for number in 0..n.unsigned_abs() {
        let mut params = params.clone();
        params.seed = params.seed.wrapping_add(number);
        let (conversation, rules, stop) = (conversation.clone(), declared.rules.clone(), stop.clone());
        let (adapter, identity) = (adapter.clone(), identity.clone());
        let turn = TurnRequest { conversation, rules, params, limit, stop, adapter, identity };
        streams.push(app.turns.start(turn).await?);
    }
    Ok(Begun {
        id: ids::new("chatcmpl")?.replacen('_', "-", 1),
        created: clock::now_s(),
        model,
        fingerprint: app.fingerprint.clone(),
        speakers: streams.iter().map(|_| Speaker::new(declared.custom.clone())).collect(),
        streams,
        wants_logprobs: request.logprobs == Some(true),
        date,
        identity,
        app,
    })
}

/// New tokens at most; both names are accepted, the newer one counts.
fn limit(request: &ChatRequest) -> Result<Option<usize>, ApiError> {
    let (asked, name) = match (request.max_completion_tokens, request.max_tokens) {
        (None, older) => (older, "max_tokens"),
        (newer, _) => (newer, "max_completion_tokens"),
    };
    match asked {
        None => Ok(None),
        Some(limit) if limit >= 1 => Ok(Some(usize::try_from(limit).unwrap_or(usize::MAX))),
        Some(limit) => Err(ApiError::invalid(name, format!("{name}: wanted at least 1, found {limit}"))),
    }
}

/// Keeps what must stand up to a speaker's call.
pub fn remember(app: &Shared, identity: &Identity, speaker: Speaker, date: &str) {
    if let Some((id, thought)) = speaker.to_remember(date) {
        app.memory.remember(&identity.key_id, &id, &thought, Keep::Thinking);
    }
}
