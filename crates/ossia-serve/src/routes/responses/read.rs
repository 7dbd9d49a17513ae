//! Reading, following, cancelling and deleting responses.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderName, HeaderValue};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response as HttpResponse};
use axum::{Extension, Json};
use futures_util::{StreamExt, stream};
use serde::Deserialize;
use serde_json::{Value, json};

use super::prepare::{json as kept_json, lost};
use super::run::{Client, Line, Run};
use super::whole;
use crate::app::Shared;
use crate::auth::Identity;
use crate::error::ApiError;
use crate::routes::lists::{ListQuery, list, unknown};
use crate::store::StoredResponse;
use crate::types::params::{Includes, Path, Query, flag, integer};

/// After so long without an event a comment is sent, so that nobody on the way takes the connection for dead.
const KEEP_ALIVE: std::time::Duration = std::time::Duration::from_secs(15);

/// What `GET /v1/responses/{id}` takes.
#[derive(Debug, Deserialize)]
pub struct Retrieve {
    /// Events instead of the object.
    stream: Option<String>,
    /// Only events after the one with this number.
    starting_after: Option<String>,
}

/// GET /v1/responses/{id}
pub async fn retrieve(
    State(app): State<Shared>,
    Extension(identity): Extension<Identity>,
    Path(id): Path<String>,
    _: Includes,
    Query(query): Query<Retrieve>,
) -> Result<HttpResponse, ApiError> {
    let after: Option<u64> = integer(query.starting_after.as_deref(), "starting_after")?;
    let from = after.map_or(0, |number| number.saturating_add(1));
    let is_stream = flag(query.stream.as_deref(), "stream")?.unwrap_or(false);
    let run = app.keeping.runs.find(&identity.key_id, &id);
    let kept = kept(&app, &identity, &id).await?;
    match (run, is_stream) {
        (Some(run), false) => Ok(whole(&run.response())),
        (None, false) => Ok(whole(&kept.body)),
        (_, true) if kept.background == 0 => {
            let problem = "only responses made with background: true can be streamed again";
            Err(ApiError::invalid("stream", problem))
        }
        (Some(run), true) => Ok(stream(run, None, from)),
        (None, true) => again(&kept, from),
    }
}

async fn kept(app: &Shared, identity: &Identity, id: &str) -> Result<StoredResponse, ApiError> {
    let kept = app.keeping.store.response(&identity.key_id, id).await.map_err(lost)?;
    kept.ok_or_else(|| not_found(id))
}

fn not_found(id: &str) -> ApiError {
    ApiError::NotFound { what: "response", id: id.into() }
}

/// Follows a run from the event with number `from`; `client` goes when the connection does.
pub fn stream(run: Arc<Run>, client: Option<Client>, from: u64) -> HttpResponse {
    let lines = stream::unfold((run, client, from), async |(run, client, from)| {
        let lines = run.next(from).await?;
        let next = lines.last().map_or(from, |line| line.number + 1);
        Some((stream::iter(lines), (run, client, next)))
    });
    sse(lines.flatten())
}

fn sse(lines: impl futures_core::Stream<Item = Line> + Send + 'static) -> HttpResponse {
    let event = |line: Line| Ok::<_, std::convert::Infallible>(Event::default().event(line.name).data(&*line.json));
    let mut response = Sse::new(lines.map(event)).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response();
    response.headers_mut().insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

/// The events of a response that has ended. Of one that ended with its server only the failure is known; its number is the
/// one that the client waits for.
fn again(kept: &StoredResponse, from: u64) -> Result<HttpResponse, ApiError> {
    let mut lines = Vec::new();
    for text in kept.events.iter().flat_map(|events| events.lines()) {
        let number = kept_json(text)?["sequence_number"].as_u64().unwrap_or_default();
        if number >= from {
            lines.push(Line { name: name_of(text)?, json: text.into(), number });
        }
    }
    if kept.events.is_none() {
        let event = json!({ "type": "response.failed", "response": kept_json(&kept.body)?, "sequence_number": from });
        lines.push(Line { name: "response.failed", json: event.to_string().into(), number: from });
    }
    Ok(sse(stream::iter(lines)))
}

/// The name of an event that was written here, as a static text.
fn name_of(event: &str) -> Result<&'static str, ApiError> {
    let event = kept_json(event)?;
    let name = event["type"].as_str().unwrap_or_default();
    crate::types::responses::events::NAMES.into_iter().find(|known| *known == name).ok_or(ApiError::Internal)
}

/// DELETE /v1/responses/{id}
pub async fn remove(
    State(app): State<Shared>,
    Extension(identity): Extension<Identity>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    if let Some(run) = app.keeping.runs.find(&identity.key_id, &id) {
        run.cancel();
    }
    match app.keeping.store.delete_response(&identity.key_id, &id).await.map_err(lost)? {
        true => Ok(Json(json!({ "id": id, "object": "response", "deleted": true }))),
        false => Err(not_found(&id)),
    }
}

/// POST /v1/responses/{id}/cancel
pub async fn cancel(
    State(app): State<Shared>,
    Extension(identity): Extension<Identity>,
    Path(id): Path<String>,
) -> Result<HttpResponse, ApiError> {
    let run = app.keeping.runs.find(&identity.key_id, &id);
    let kept = kept(&app, &identity, &id).await?;
    if kept.background == 0 {
        return Err(ApiError::invalid("id", "only responses made with background: true can be cancelled"));
    }
    if let Some(run) = run {
        run.cancel();
        run.finished().await;
    }
    // What was quicker counts: a response that has ended stays as it is.
    let kept = self::kept(&app, &identity, &id).await?;
    Ok(whole(&kept.body))
}

/// GET /v1/responses/{id}/input_items
pub async fn input_items(
    State(app): State<Shared>,
    Extension(identity): Extension<Identity>,
    Path(id): Path<String>,
    _: Includes,
    Query(query): Query<ListQuery>,
) -> Result<Json<Value>, ApiError> {
    let page = query.page(100)?;
    let Value::Array(mut items) = kept_json(&kept(&app, &identity, &id).await?.input)? else {
        return Err(ApiError::Internal);
    };
    if !page.ascending {
        items.reverse();
    }
    if let Some(after) = &page.after {
        let at = items.iter().position(|item| item["id"] == after.as_str()).ok_or_else(|| unknown(after))?;
        items.drain(..=at);
    }
    Ok(Json(list(items, page.limit)))
}
