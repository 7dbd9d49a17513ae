//! The Responses API: `/v1/responses`. A response is made by a task of its own (`run`), whether its client streams, waits
//! or comes back later; what it says is turned into events by `machine`.

mod compact;
mod conversation;
#[cfg(test)]
mod conversation_tests;
mod machine;
#[cfg(test)]
mod machine_tests;
mod prepare;
mod read;
mod run;
mod summary;
mod tools;

use axum::Extension;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response as HttpResponse};
use axum::routing::{delete, get, post};
use ossia_text::RenderOptions;
use serde_json::{Value, json};

pub use prepare::{check_metadata, json as kept_json, lost};
pub use run::{Client, Runs};

use crate::app::{Access, Route, Shared};
use crate::auth::{Identity, Scope};
use crate::clock;
use crate::error::ApiError;
use crate::ids;
use crate::reasoning::{Keep, Sealed, Thought, unusual};
use crate::store::{NewResponse, StoredItem};
use crate::types::body::JsonBody;
use crate::types::responses::{CreateResponse, Response};
use machine::{Keeper, Machine};
use prepare::Prepared;
use run::{Job, Kept, Place, Telling};

/// This API's part of the table.
pub fn routes() -> Vec<Route> {
    let access = Access::Key(Scope::Infer);
    vec![
        Route::new("POST", "/v1/responses", access, post(create)).generates(ApiError::into_response),
        Route::new("POST", "/v1/responses/compact", access, post(compact::create)).generates(ApiError::into_response),
        Route::new("POST", "/v1/responses/input_tokens", access, post(input_tokens)),
        Route::new("GET", "/v1/responses/{id}", access, get(read::retrieve)),
        Route::new("DELETE", "/v1/responses/{id}", access, delete(read::remove)),
        Route::new("POST", "/v1/responses/{id}/cancel", access, post(read::cancel)),
        Route::new("GET", "/v1/responses/{id}/input_items", access, get(read::input_items)),
    ]
}

async fn create(
    State(app): State<Shared>,
    Extension(identity): Extension<Identity>,
    JsonBody(request): JsonBody<CreateResponse>,
) -> Result<HttpResponse, ApiError> {
    let is_stream = request.stream.unwrap_or(false);
    let is_background = request.background.unwrap_or(false);
    let telling = match (is_background, is_stream) {
        (true, _) => Telling::Again,
        (false, true) => Telling::Once,
        (false, false) => Telling::None,
    };
    let run = begin(app, identity, request, telling).await?;
    let client = (!is_background).then(|| Client(run.clone()));
    match (is_stream, is_background) {
        (true, _) => Ok(read::stream(run, client, 0)),
        (false, true) => Ok(whole(&run.response())),
        (false, false) => {
            let response = run.finished().await;
            drop(client);
            Ok(whole(&response))
        }
    }
}

/// A response that is JSON already.
fn whole(json: &str) -> HttpResponse {
    ([(CONTENT_TYPE, "application/json")], json.to_owned()).into_response()
}

/// Begins a response: it is generated from now on, and kept if it is to be.
async fn begin(
    app: Shared,
    identity: Identity,
    request: CreateResponse,
    telling: Telling,
) -> Result<std::sync::Arc<run::Run>, ApiError> {
    let prepared = Prepared::read(&app, &identity, request).await?;
    let created_at = i64::try_from(clock::now_s()).unwrap_or(i64::MAX);
    let response = Response::begin(ids::new("resp")?, &prepared.request, created_at, app.model.temperature);
    let place = Runs::enter(&app, &identity, &response, telling)?;
    let turn = app.turns.start(prepared.turn(&app, &identity)?).await.map_err(in_our_words)?;
    let kept = if response.store { Some(keep(&place, &identity, &app, &prepared, &response).await?) } else { None };
    let seals = prepared.request.includes("reasoning.encrypted_content");
    let keep = if seals && kept.is_none() { Keep::Call } else { Keep::Thinking };
    let keeper = ForLater { app: app.clone(), identity: identity.clone(), date: prepared.date, seals, keep };
    let machine = Machine::new(response, prepared.declared.wire, Box::new(keeper));
    let run = place.run.clone();
    tokio::spawn(Job { app, identity, machine, turn, kept, place }.drive());
    Ok(run)
}

/// Writes down a response that begins. From here on, a server that dies leaves a row that says so.
async fn keep(
    place: &Place,
    identity: &Identity,
    app: &Shared,
    prepared: &Prepared,
    response: &Response,
) -> Result<Kept, ApiError> {
    let input: Vec<&Value> = prepared.input.iter().map(|item| &item.json).collect();
    let new = NewResponse {
        id: response.id.clone(),
        created_at: response.created_at,
        status: response.status.as_str(),
        previous_id: response.previous_response_id.clone(),
        conversation_id: prepared.request.conversation_id().map(str::to_owned),
        background: response.background,
        date: prepared.date.clone(),
        input: json!(input).to_string(),
        body: place.run.response().to_string(),
    };
    app.keeping.store.insert_response(&identity.key_id, &new).await.map_err(lost)?;
    let item =
        |item: &crate::types::responses::InputItem| StoredItem { id: item.id.clone(), body: item.json.to_string() };
    Ok(Kept { input: prepared.input.iter().map(item).collect() })
}

/// Keeps chain of thought for the next request: encrypted, in the client's hands, if it asked for that; else in memory. A
/// client that asked for it and lets nothing be kept has its thinking nowhere but in its own hands.
struct ForLater {
    app: Shared,
    identity: Identity,
    date: String,
    seals: bool,
    keep: Keep,
}

impl Keeper for ForLater {
    fn seal(&self, text: &str, ids: &[u32]) -> Option<String> {
        if !self.seals {
            return None;
        }
        let ids = unusual(self.app.turns.harmony(), text, ids);
        let content = Sealed { text: text.to_owned(), date: Some(self.date.clone()), ids };
        let sealed = self.app.keeping.sealer.seal(&self.identity.key_id, &content);
        sealed.inspect_err(|error| tracing::error!(%error, "reasoning")).ok()
    }

    fn remember(&self, call_id: &str, thought: &Thought) {
        let thought = Thought { date: Some(self.date.clone()), ..thought.clone() };
        self.app.memory.remember(&self.identity.key_id, call_id, &thought, self.keep);
    }
}

/// Errors of a turn name chat's fields.
fn in_our_words(error: ApiError) -> ApiError {
    let rename = |param: &str| match param {
        "messages" | "prompt" => "input".to_owned(),
        "response_format" => "text.format".to_owned(),
        "max_tokens" => "max_output_tokens".to_owned(),
        other => other.to_owned(),
    };
    match error {
        ApiError::Invalid { param: Some(param), problem } => ApiError::Invalid { param: Some(rename(&param)), problem },
        ApiError::ContextLength { prompt, context, .. } => ApiError::ContextLength { param: "input", prompt, context },
        other => other,
    }
}

async fn input_tokens(
    State(app): State<Shared>,
    Extension(identity): Extension<Identity>,
    JsonBody(mut request): JsonBody<Value>,
) -> Result<axum::Json<Value>, ApiError> {
    // Here the model may be left out.
    if let Some(fields) = request.as_object_mut() {
        fields.entry("model").or_insert_with(|| json!(app.model.id));
    }
    let request: CreateResponse = crate::types::body::read_json(request.to_string().as_bytes())?;
    let prepared = Prepared::read(&app, &identity, request).await?;
    let harmony = app.turns.harmony().clone();
    let render = move || harmony.render_for_completion(&prepared.conversation, &RenderOptions::default());
    let rendered = tokio::task::spawn_blocking(render).await.map_err(|_| ApiError::Internal)?;
    let tokens = rendered.map_err(|error| ApiError::invalid("input", error.to_string()))?;
    Ok(axum::Json(json!({ "object": "response.input_tokens", "input_tokens": tokens.len() })))
}
