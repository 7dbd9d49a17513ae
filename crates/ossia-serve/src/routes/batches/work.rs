//! Doing batches. Each is a task; each line goes through the same handler as a request that came over the network, as the
//! batch's key. A line's result is written once, whole, before the next is asked for, so that a server that dies only does
//! again what it was just doing.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, header};
use axum::response::IntoResponse;
use futures_util::future::{Either, select};
use futures_util::{FutureExt, StreamExt, stream};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};
use tower_service::Service;

use super::super::responses::{kept_json, lost};
use super::spent::Spent;
use super::{lines, stored};
use crate::app::{Shared, table};
use crate::auth::Scope;
use crate::clock;
use crate::error::ApiError;
use crate::ids;
use crate::store::{BatchItem, StoredBatch, StoredFile};

/// Lines of one batch at once, and of all batches: the rest of the machine is for those who wait.
const LINES_OF_BATCH: usize = 8;
const LINES_OF_ALL: usize = 16;
/// Lines that are fetched from the database at once.
const FETCHED: i64 = 64;
/// The longest wait before a line is tried again, and the longest answer.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
const MOST_ANSWER: usize = 64 << 20;

/// The batches that are being done.
pub struct Jobs {
    running: Mutex<HashMap<String, watch::Sender<bool>>>,
    lines: Semaphore,
    /// An input file is held whole while it is read: one at a time.
    reading: Semaphore,
    num_running: watch::Sender<usize>,
}

impl Default for Jobs {
    fn default() -> Self {
        Self {
            running: Mutex::default(),
            lines: Semaphore::new(LINES_OF_ALL),
            reading: Semaphore::new(1),
            num_running: watch::Sender::new(0),
        }
    }
}

impl Jobs {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, watch::Sender<bool>>> {
        // Every change is one call.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends a batch at once.
    pub fn cancel(&self, id: &str) {
        if let Some(cancel) = self.lock().get(id) {
            cancel.send_replace(true);
        }
    }

    /// Waits until no batch is being done: a server that is going down begins no more lines.
    pub async fn wait_idle(&self) {
        // The sender lives as long as this does.
        let _ = self.num_running.subscribe().wait_for(|running| *running == 0).await;
    }
}

/// How the doing of lines ended.
enum Ending {
    Completed,
    Cancelled,
    Expired,
    /// The server is going down: the batch goes on after the next start.
    Interrupted,
}

/// Goes on with every batch that a server before this one did not finish.
pub async fn resume(app: &Shared) -> Result<(), ApiError> {
    for batch in app.keeping.store.open_batches().await.map_err(lost)? {
        start(app, batch);
    }
    Ok(())
}

/// Begins to do a batch.
pub fn start(app: &Shared, batch: StoredBatch) {
    let (sender, cancelled) = watch::channel(batch.status == "cancelling");
    app.keeping.jobs.lock().insert(batch.id.clone(), sender);
    app.keeping.jobs.num_running.send_modify(|running| *running += 1);
    let app = app.clone();
    tokio::spawn(async move {
        let id = batch.id.clone();
        if let Err(error) = run(&app, batch, cancelled).await {
            tracing::error!(%error, batch = id, "a batch stopped");
        }
        app.keeping.jobs.lock().remove(&id);
        app.keeping.jobs.num_running.send_modify(|running| *running = running.saturating_sub(1));
    });
}

async fn run(app: &Shared, mut batch: StoredBatch, cancelled: watch::Receiver<bool>) -> Result<(), ApiError> {
    let mut body = kept_json(&batch.body)?;
    if batch.status == "validating" {
        let Some(started) = validate(app, &batch, &mut body).await? else { return Ok(()) };
        batch = started;
    }
    let mut ending = until_cancelled(app, &batch, &body, cancelled).await?;
    // A cancel that came in between changed the status: then nothing is written, and the second try says so.
    for _ in 0..2 {
        if matches!(ending, Ending::Interrupted) || finalize(app, &batch, &ending).await? {
            return Ok(());
        }
        let Some(now) = app.keeping.store.batch(&batch.owner, &batch.id).await.map_err(lost)? else { return Ok(()) };
        (batch, ending) = (now, Ending::Cancelled);
    }
    Ok(())
}

async fn until_cancelled(
    app: &Shared,
    batch: &StoredBatch,
    body: &Value,
    cancelled: watch::Receiver<bool>,
) -> Result<Ending, ApiError> {
    let (cancel, lines) = (pin!(cancel_of(cancelled)), pin!(do_lines(app, batch, body)));
    match select(cancel, lines).await {
        Either::Left(_) => Ok(Ending::Cancelled),
        Either::Right((ending, _)) => ending,
    }
}

async fn cancel_of(mut cancelled: watch::Receiver<bool>) {
    if cancelled.wait_for(|cancelled| *cancelled).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Reads the input file and writes its lines down; None where it is wrong, which ends the batch, or was cancelled.
async fn validate(app: &Shared, batch: &StoredBatch, body: &mut Value) -> Result<Option<StoredBatch>, ApiError> {
    let store = &app.keeping.store;
    let _turn = app.keeping.jobs.reading.acquire().await.map_err(|_| ApiError::Internal)?;
    let mut content = Vec::new();
    let file_id = body["input_file_id"].as_str().unwrap_or_default().to_owned();
    for position in 0.. {
        let Some(chunk) = store.file_chunk(&file_id, position).await.map_err(lost)? else { break };
        content.extend(chunk);
    }
    let endpoint = body["endpoint"].as_str().unwrap_or_default().to_owned();
    let read = tokio::task::spawn_blocking(move || lines::read(&content, &endpoint)).await;
    match read.map_err(|_| ApiError::Internal)? {
        Ok(items) => {
            body["status"] = json!("in_progress");
            body["in_progress_at"] = json!(clock::now_s());
            let started = stored(&batch.owner, body);
            if store.start_batch(&started, "validating", items).await.map_err(lost)? {
                return Ok(Some(started));
            }
            // Cancelled before it began: there are no lines to do.
            store.batch(&batch.owner, &batch.id).await.map_err(lost)
        }
        Err(errors) => {
            body["status"] = json!("failed");
            body["failed_at"] = json!(clock::now_s());
            body["errors"] = json!({ "object": "list", "data": errors });
            store.change_batch(&stored(&batch.owner, body), "validating").await.map_err(lost)?;
            Ok(None)
        }
    }
}

async fn do_lines(app: &Shared, batch: &StoredBatch, body: &Value) -> Result<Ending, ApiError> {
    let endpoint = body["endpoint"].as_str().unwrap_or_default();
    let expires_at = body["expires_at"].as_u64().unwrap_or(u64::MAX);
    let mut after = -1;
    if batch.status != "in_progress" {
        return Ok(Ending::Cancelled);
    }
    loop {
        let items = app.keeping.store.open_items(&batch.id, after, FETCHED).await.map_err(lost)?;
        let Some(last) = items.last() else { return Ok(Ending::Completed) };
        after = last.line;
        let done = stream::iter(items).map(|item| do_line(app, batch, endpoint, item, expires_at));
        let done: Vec<Result<Option<Ending>, ApiError>> = done.buffer_unordered(LINES_OF_BATCH).collect().await;
        for ending in done {
            if let Some(ending) = ending? {
                return Ok(ending);
            }
        }
    }
}

/// Does a line and writes its result; tells where the whole batch is at its end.
async fn do_line(
    app: &Shared,
    batch: &StoredBatch,
    endpoint: &str,
    item: BatchItem,
    expires_at: u64,
) -> Result<Option<Ending>, ApiError> {
    let request_id = ids::new("req")?;
    let _place = app.keeping.jobs.lines.acquire().await.map_err(|_| ApiError::Internal)?;
    loop {
        if clock::now_s() >= expires_at {
            return Ok(Some(Ending::Expired));
        }
        if !app.is_ready() {
            return Ok(Some(Ending::Interrupted));
        }
        let (status, answer) = match app.auth.by_id(&batch.owner, Scope::Batch) {
            Some(identity) => match app.followed(identity, &request_id, &format!("batch {endpoint}")) {
                Ok(identity) => send(app, identity, endpoint, &item.text).await?,
                Err(error) => (error.status().as_u16(), error.body()),
            },
            None => (401, ApiError::WrongKey.body()),
        };
        match status {
            // Too much at once, which is nobody's fault: later. A server that goes down ends the batch's work above.
            429 | 503 => tokio::time::sleep(wait_of(&answer)).await,
            _ => {
                let result = json!({
                    "id": ids::new("batch_req")?, "custom_id": item.custom_id, "error": null,
                    "response": { "status_code": status, "request_id": request_id, "body": answer },
                });
                let failed = status >= 400;
                let store = &app.keeping.store;
                store.finish_item(&batch.id, item.line, failed, result.to_string()).await.map_err(lost)?;
                return Ok(None);
            }
        }
    }
}

/// A second, or what the error's text says as a number of seconds.
fn wait_of(answer: &Value) -> Duration {
    let message = answer["error"]["message"].as_str().unwrap_or_default();
    let seconds = message.rsplit("again in ").next().and_then(|rest| rest.split(' ').next()?.parse().ok());
    Duration::from_secs(seconds.unwrap_or(1).max(1)).min(LONGEST_WAIT)
}

/// Sends a request to the route's own handler: the key was looked at already.
async fn send(
    app: &Shared,
    identity: crate::auth::Identity,
    endpoint: &str,
    body: &str,
) -> Result<(u16, Value), ApiError> {
    let request =
        Request::builder().method(Method::POST).uri(endpoint).header(header::CONTENT_TYPE, "application/json");
    let request = request.body(Body::from(body.to_owned())).map_err(|_| ApiError::Internal)?;
    let trail = identity.trail.clone();
    let mut request = request.map(|body| trail.hear_request(body));
    request.extensions_mut().insert(identity);
    let route = table().into_iter().find(|route| route.method == "POST" && route.path == endpoint);
    let mut handler = route.ok_or(ApiError::Internal)?.into_handler().with_state(app.clone());
    // The handler's own errors are answers, and a panic in it is that line's alone.
    let answer = match AssertUnwindSafe(Service::call(&mut handler, request)).catch_unwind().await {
        Ok(answer) => answer.map_err(|error| match error {})?,
        Err(_) => ApiError::Internal.into_response(),
    };
    let status = answer.status().as_u16();
    trail.answered(status);
    let body = to_bytes(trail.hear_answer(answer.into_body()), MOST_ANSWER).await.map_err(|_| ApiError::Internal)?;
    Ok((status, serde_json::from_slice(&body).map_err(|_| ApiError::Internal)?))
}

/// Writes the files and the end; false where the batch's status has changed meanwhile.
async fn finalize(app: &Shared, batch: &StoredBatch, ending: &Ending) -> Result<bool, ApiError> {
    let store = &app.keeping.store;
    let counts = store.batch_counts(&batch.id).await.map_err(lost)?;
    let mut body = kept_json(&batch.body)?;
    let now = clock::now_s();
    let (status, time) = match ending {
        Ending::Completed => ("completed", "completed_at"),
        Ending::Expired => ("expired", "expired_at"),
        Ending::Cancelled | Ending::Interrupted => ("cancelled", "cancelled_at"),
    };
    body["status"] = json!(status);
    body["finalizing_at"] = json!(now);
    body[time] = json!(now);
    body["request_counts"] = json!({ "total": counts.total, "completed": counts.completed, "failed": counts.failed });
    body["usage"] = spent(app, &batch.id).await?.shown();
    let mut files = Vec::new();
    for (failed, count, field, word) in
        [(false, counts.completed, "output_file_id", "output"), (true, counts.failed, "error_file_id", "error")]
    {
        if count > 0 {
            let file = StoredFile {
                id: ids::new("file")?.replacen('_', "-", 1),
                created_at: i64::try_from(now).unwrap_or(i64::MAX),
                expires_at: None,
                filename: format!("{}_{word}.jsonl", batch.id),
                purpose: "batch_output".to_owned(),
                num_bytes: 0,
            };
            body[field] = json!(file.id);
            files.push((failed, file));
        }
    }
    store.finalize_batch(&stored(&batch.owner, &body), &batch.status, files).await.map_err(lost)
}

/// The tokens of all lines that have an answer.
async fn spent(app: &Shared, batch_id: &str) -> Result<Spent, ApiError> {
    let (mut spent, mut after) = (Spent::default(), -1);
    loop {
        let answers = app.keeping.store.batch_answers(batch_id, after, FETCHED).await.map_err(lost)?;
        let Some(last) = answers.last() else { return Ok(spent) };
        after = last.line;
        for answer in &answers {
            spent.add(&kept_json(&answer.text)?["response"]["body"]["usage"]);
        }
    }
}
