//! `/v1/batches`: many requests in a file, done one after the other beside everything else. `batches/work` does them.

mod lines;
mod spent;
mod work;

use axum::extract::State;
use axum::routing::{get, post};
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Map, Value, json};

pub use work::{Jobs, resume};

use super::files;
use super::lists::{ListQuery, known, list};
use super::responses::{check_metadata, kept_json, lost};
use crate::app::{Access, Route, Shared};
use crate::auth::{Identity, Scope};
use crate::clock;
use crate::error::ApiError;
use crate::ids;
use crate::store::StoredBatch;
use crate::types::body::JsonBody;
use crate::types::params::{Path, Query};

/// What a batch may ask for.
const ENDPOINTS: [&str; 3] = ["/v1/responses", "/v1/chat/completions", "/v1/completions"];
/// The longest input file, as at OpenAI: it is read whole.
const MOST_INPUT_BYTES: i64 = 200 << 20;
/// A batch ends after this, done or not.
const WINDOW_S: i64 = 24 * 3600;

/// This API's part of the table.
pub fn routes() -> Vec<Route> {
    let access = Access::Key(Scope::Batch);
    vec![
        Route::new("POST", "/v1/batches", access, post(create)),
        Route::new("GET", "/v1/batches", access, get(list_batches)),
        Route::new("GET", "/v1/batches/{id}", access, get(retrieve)),
        Route::new("POST", "/v1/batches/{id}/cancel", access, post(cancel)),
    ]
}

/// What `POST /v1/batches` takes.
#[derive(Debug, Deserialize)]
#[serde(expecting = "an object")]
struct Create {
    input_file_id: String,
    endpoint: String,
    completion_window: String,
    metadata: Option<Map<String, Value>>,
}

async fn create(
    State(app): State<Shared>,
    Extension(identity): Extension<Identity>,
    JsonBody(request): JsonBody<Create>,
) -> Result<Json<Value>, ApiError> {
    check_metadata(request.metadata.as_ref())?;
    if !ENDPOINTS.contains(&request.endpoint.as_str()) {
        let wanted = format!("endpoint: wanted one of {}, found {:?}", ENDPOINTS.join(", "), request.endpoint);
        return Err(ApiError::invalid("endpoint", wanted));
    }
    if request.completion_window != "24h" {
        return Err(ApiError::invalid("completion_window", "completion_window: wanted \"24h\""));
    }
    let file = files::found(&app, &identity.key_id, &request.input_file_id).await?;
    if file.num_bytes > MOST_INPUT_BYTES {
        let wanted =
            format!("input_file_id: wanted a file of at most {MOST_INPUT_BYTES} bytes, found {}", file.num_bytes);
        return Err(ApiError::invalid("input_file_id", wanted));
    }
    let created_at = i64::try_from(clock::now_s()).unwrap_or(i64::MAX);
    let body = json!({
        "id": ids::new("batch")?, "object": "batch", "endpoint": request.endpoint, "errors": null,
        "input_file_id": file.id, "completion_window": "24h", "status": "validating", "output_file_id": null,
        "error_file_id": null, "created_at": created_at, "in_progress_at": null, "expires_at": created_at + WINDOW_S,
        "finalizing_at": null, "completed_at": null, "failed_at": null, "expired_at": null, "cancelling_at": null,
        "cancelled_at": null, "request_counts": { "total": 0, "completed": 0, "failed": 0 },
        "metadata": request.metadata, "model": app.model.id, "usage": spent::Spent::default().shown(),
    });
    let batch = stored(&identity.key_id, &body);
    app.keeping.store.insert_batch(&batch, created_at).await.map_err(lost)?;
    work::start(&app, batch);
    Ok(Json(body))
}

/// A batch as it is kept.
fn stored(owner: &str, body: &Value) -> StoredBatch {
    let text = |field: &str| body[field].as_str().unwrap_or_default().to_owned();
    StoredBatch { id: text("id"), owner: owner.to_owned(), status: text("status"), body: body.to_string() }
}

async fn found(app: &Shared, owner: &str, id: &str) -> Result<StoredBatch, ApiError> {
    let batch = app.keeping.store.batch(owner, id).await.map_err(lost)?;
    batch.ok_or_else(|| ApiError::NotFound { what: "batch", id: id.into() })
}

/// A batch as the API shows it, with counts that are true now.
async fn shown(app: &Shared, batch: &StoredBatch) -> Result<Value, ApiError> {
    let mut body = kept_json(&batch.body)?;
    if ["in_progress", "cancelling"].contains(&batch.status.as_str()) {
        let counts = app.keeping.store.batch_counts(&batch.id).await.map_err(lost)?;
        body["request_counts"] =
            json!({ "total": counts.total, "completed": counts.completed, "failed": counts.failed });
    }
    Ok(body)
}

async fn retrieve(
    State(app): State<Shared>,
    Extension(identity): Extension<Identity>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let batch = found(&app, &identity.key_id, &id).await?;
    Ok(Json(shown(&app, &batch).await?))
}

async fn list_batches(
    State(app): State<Shared>,
    Extension(identity): Extension<Identity>,
    Query(query): Query<ListQuery>,
) -> Result<Json<Value>, ApiError> {
    let page = query.page(100)?;
    let (store, owner, after) = (&app.keeping.store, &*identity.key_id, page.after.as_deref().unwrap_or_default());
    let found = store.list_batches(owner, &page).await.map_err(lost)?;
    let found = known(found, &page, async { Ok(store.batch(owner, after).await?.is_some()) }).await?;
    let mut batches = Vec::with_capacity(found.len());
    for batch in found {
        batches.push(shown(&app, &batch).await?);
    }
    Ok(Json(list(batches, page.limit)))
}

async fn cancel(
    State(app): State<Shared>,
    Extension(identity): Extension<Identity>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let batch = found(&app, &identity.key_id, &id).await?;
    if ["validating", "in_progress"].contains(&batch.status.as_str()) {
        let mut body = kept_json(&batch.body)?;
        body["status"] = json!("cancelling");
        body["cancelling_at"] = json!(clock::now_s());
        app.keeping.store.change_batch(&stored(&identity.key_id, &body), &batch.status).await.map_err(lost)?;
        app.keeping.jobs.cancel(&id);
    }
    let batch = found(&app, &identity.key_id, &id).await?;
    Ok(Json(shown(&app, &batch).await?))
}
