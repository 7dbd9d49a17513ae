//! `/v1/fine_tuning/jobs`: models that learn from a client's own files. The routes keep the table of jobs; `training` does
//! what stands there.

mod graders;
mod permissions;
mod request;

use axum::extract::State;
use axum::routing::{get, post};
use axum::{Extension, Json};
use serde_json::{Value, json};

pub use request::{CreateJob, KEPT_CHECKPOINTS, VALIDATION_FILE};

use super::lists::{ListQuery, known, list};
use super::responses::{check_metadata, kept_json, lost};
use crate::app::{Access, Route, Shared};
use crate::auth::{Identity, Scope};
use crate::clock;
use crate::error::ApiError;
use crate::ids;
use crate::store::{JobEntry, JobList, StoredFile, StoredJob};
use crate::types::body::JsonBody;
use crate::types::params::{Path, Query};

/// Jobs of a key that are not at their end.
const MOST_OPEN: i64 = 64;
/// Lines of the training file that are looked at to know how long one is.
const LOOKED_AT: usize = 64;
/// Bytes of each of them.
const LOOKED_AT_BYTES: usize = 16 << 10;

/// This API's part of the table.
pub fn routes() -> Vec<Route> {
    let access = Access::Key(Scope::Train);
    let jobs = vec![
        Route::new("POST", "/v1/fine_tuning/jobs", access, post(create)).takes::<CreateJob>(),
        Route::new("GET", "/v1/fine_tuning/jobs", access, get(list_jobs)),
        Route::new("GET", "/v1/fine_tuning/jobs/{id}", access, get(retrieve)),
        Route::new("POST", "/v1/fine_tuning/jobs/{id}/cancel", access, post(cancel)),
        Route::new("POST", "/v1/fine_tuning/jobs/{id}/pause", access, post(pause)),
        Route::new("POST", "/v1/fine_tuning/jobs/{id}/resume", access, post(resume)),
        Route::new("GET", "/v1/fine_tuning/jobs/{id}/events", access, get(events)),
        Route::new("GET", "/v1/fine_tuning/jobs/{id}/checkpoints", access, get(checkpoints)),
    ];
    [jobs, graders::routes(), permissions::routes()].into_iter().flatten().collect()
}

/// Something that happened with a job; `data` are numbers.
pub fn event(level: &str, message: &str, data: Option<Value>) -> Result<JobEntry, ApiError> {
    let id = ids::new("ftevent")?.replacen('_', "-", 1);
    let kind = if data.is_some() { "metrics" } else { "message" };
    let body = json!({
        "object": "fine_tuning.job.event", "id": id, "created_at": clock::now_s(), "level": level, "message": message,
        "type": kind, "data": data.unwrap_or_else(|| json!({})),
    });
    Ok(JobEntry { id, body: body.to_string() })
}

async fn create(
    State(app): State<Shared>,
    Extension(identity): Extension<Identity>,
    JsonBody(request): JsonBody<CreateJob>,
) -> Result<Json<Value>, ApiError> {
    if !app.keeping.training.is_on() {
        return Err(ApiError::unsupported("model", "This server does not train."));
    }
    check_metadata(request.metadata.as_ref())?;
    if request.model.is_empty() || app.model.named(Some(&request.model)).is_err() {
        let problem = format!("model: wanted {:?}, which is served here, found {:?}", app.model.id, request.model);
        return Err(ApiError::invalid("model", problem));
    }
    let owner = &*identity.key_id;
    let training = file(&app, owner, "training_file", &request.training_file).await?;
    if let Some(id) = &request.validation_file {
        file(&app, owner, "validation_file", id).await?;
    }
    let seed = i64::try_from(clock::fresh_seed() % (1 << 31)).unwrap_or(1);
    let understood = request.understood(mean_tokens(&app, &training.id).await?, seed)?;
    if let Some(grader) = understood.method["reinforcement"].get("grader") {
        graders::check(&app, grader, "method.reinforcement.grader")?;
    }
    if app.keeping.store.num_open_jobs(owner).await.map_err(lost)? >= MOST_OPEN {
        let problem = format!("this key has {MOST_OPEN} jobs that are not at their end: wait, or cancel some");
        return Err(ApiError::Invalid { param: None, problem: problem.into() });
    }
    let created_at = i64::try_from(clock::now_s()).unwrap_or(i64::MAX);
    let id = ids::new("ftjob")?.replacen('_', "-", 1);
    let body = json!({
        "id": id, "object": "fine_tuning.job", "model": request.model, "created_at": created_at, "finished_at": null,
        "fine_tuned_model": null, "organization_id": "ossia", "result_files": [], "status": "queued",
        "training_file": request.training_file, "validation_file": request.validation_file,
        "hyperparameters": understood.hyperparameters, "trained_tokens": null, "error": null, "seed": understood.seed,
        "estimated_finish": null, "integrations": [], "metadata": request.metadata, "method": understood.method,
        "user_provided_suffix": request.suffix,
    });
    let job = StoredJob {
        id: id.clone(),
        owner: owner.to_owned(),
        status: "queued".to_owned(),
        finished_at: None,
        last_step: -1,
        settings: understood.settings,
        body: body.to_string(),
    };
    let first = event("info", &format!("Created fine-tuning job: {id}"), None)?;
    app.keeping.store.insert_job(&job, created_at, first).await.map_err(lost)?;
    app.keeping.training.wake();
    Ok(Json(body))
}

/// A file of this key that was uploaded for this.
async fn file(app: &Shared, owner: &str, field: &'static str, id: &str) -> Result<StoredFile, ApiError> {
    let file = app.keeping.store.file(owner, id).await.map_err(lost)?;
    let missing = || ApiError::invalid(field, format!("{field}: no file found with id {id:?}"));
    let file = file.ok_or_else(missing)?;
    match (file.purpose.as_str(), file.num_bytes) {
        ("fine-tune", 1..) => Ok(file),
        ("fine-tune", _) => Err(ApiError::invalid(field, format!("{field}: the file is empty"))),
        (other, _) => {
            let problem = format!("{field}: wanted a file with purpose \"fine-tune\", found purpose {other:?}");
            Err(ApiError::invalid(field, problem))
        }
    }
}

/// About how many tokens an example has, by the first lines of its file.
async fn mean_tokens(app: &Shared, file_id: &str) -> Result<usize, ApiError> {
    let Some(chunk) = app.keeping.store.file_chunk(file_id, 0).await.map_err(lost)? else { return Ok(1) };
    let turns = std::sync::Arc::clone(&app.turns);
    let count = move || {
        let text = String::from_utf8_lossy(&chunk);
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).take(LOOKED_AT).collect();
        let tokens = |line: &&str| {
            let part: String = line.chars().take(LOOKED_AT_BYTES).collect();
            // A text of one file that has no tokens here fails later, with its line.
            let tokens = turns.harmony().tokenizer().encode_text(&part).map_or(0, |tokens| tokens.len());
            tokens * line.len() / part.len().max(1)
        };
        lines.iter().map(tokens).sum::<usize>() / lines.len().max(1)
    };
    tokio::task::spawn_blocking(count).await.map_err(|_| ApiError::Internal)
}

/// A job as the API shows it: what clients move stands beside the rest.
fn shown(job: &StoredJob) -> Result<Value, ApiError> {
    let mut body = kept_json(&job.body)?;
    body["status"] = json!(job.status);
    body["finished_at"] = json!(job.finished_at);
    if !["validating_files", "running"].contains(&job.status.as_str()) {
        body["estimated_finish"] = Value::Null;
    }
    Ok(body)
}

async fn found(app: &Shared, owner: &str, id: &str) -> Result<StoredJob, ApiError> {
    let job = app.keeping.store.job(owner, id).await.map_err(lost)?;
    job.ok_or_else(|| ApiError::NotFound { what: "fine-tuning job", id: id.into() })
}

async fn retrieve(
    State(app): State<Shared>,
    Extension(identity): Extension<Identity>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    shown(&found(&app, &identity.key_id, &id).await?).map(Json)
}

async fn list_jobs(
    State(app): State<Shared>,
    Extension(identity): Extension<Identity>,
    Query(query): Query<ListQuery>,
) -> Result<Json<Value>, ApiError> {
    let page = query.page(100)?;
    let (store, owner, after) = (&app.keeping.store, &*identity.key_id, page.after.as_deref().unwrap_or_default());
    let jobs = store.list_jobs(owner, &page).await.map_err(lost)?;
    let jobs = known(jobs, &page, async { Ok(store.job(owner, after).await?.is_some()) }).await?;
    let jobs = jobs.iter().map(shown).collect::<Result<_, _>>()?;
    Ok(Json(list(jobs, page.limit)))
}

async fn cancel(
    state: State<Shared>,
    identity: Extension<Identity>,
    id: Path<String>,
) -> Result<Json<Value>, ApiError> {
    let from = ["queued", "validating_files", "running", "paused"];
    change(state, identity, id, &from, "cancelled", "Fine-tuning job was cancelled").await
}

async fn pause(state: State<Shared>, identity: Extension<Identity>, id: Path<String>) -> Result<Json<Value>, ApiError> {
    let from = ["queued", "validating_files", "running"];
    change(state, identity, id, &from, "paused", "Fine-tuning job was paused").await
}

async fn resume(
    state: State<Shared>,
    identity: Extension<Identity>,
    id: Path<String>,
) -> Result<Json<Value>, ApiError> {
    change(state, identity, id, &["paused"], "queued", "Fine-tuning job was resumed").await
}

/// Moves a job's status; one that has another is told so.
async fn change(
    State(app): State<Shared>,
    Extension(identity): Extension<Identity>,
    Path(id): Path<String>,
    from: &[&str],
    to: &str,
    message: &str,
) -> Result<Json<Value>, ApiError> {
    let job = found(&app, &identity.key_id, &id).await?;
    let ended_at = (to == "cancelled").then(|| i64::try_from(clock::now_s()).unwrap_or(i64::MAX));
    let event = event("info", message, None)?;
    let moved = app.keeping.store.move_job((&identity.key_id, &id), from, to, ended_at, event).await.map_err(lost)?;
    app.keeping.training.wake();
    let now = found(&app, &identity.key_id, &id).await?;
    // Asking twice for the same is no error.
    if !moved && now.status != to {
        let problem = format!("The job {} is {}: it cannot become {to}.", job.id, now.status);
        return Err(ApiError::Invalid { param: None, problem: problem.into() });
    }
    shown(&now).map(Json)
}

async fn events(
    state: State<Shared>,
    identity: Extension<Identity>,
    id: Path<String>,
    query: Query<ListQuery>,
) -> Result<Json<Value>, ApiError> {
    list_of(state, identity, id, query, JobList::Events).await
}

async fn checkpoints(
    state: State<Shared>,
    identity: Extension<Identity>,
    id: Path<String>,
    query: Query<ListQuery>,
) -> Result<Json<Value>, ApiError> {
    list_of(state, identity, id, query, JobList::Checkpoints).await
}

async fn list_of(
    State(app): State<Shared>,
    Extension(identity): Extension<Identity>,
    Path(id): Path<String>,
    Query(query): Query<ListQuery>,
    which: JobList,
) -> Result<Json<Value>, ApiError> {
    let job = found(&app, &identity.key_id, &id).await?;
    let page = query.page(1000)?;
    let (store, after) = (&app.keeping.store, page.after.as_deref().unwrap_or_default());
    let entries = store.list_of_job(&job.id, which, &page).await.map_err(lost)?;
    let entries = known(entries, &page, store.is_of_job(&job.id, which, after)).await?;
    let entries = entries.iter().map(|entry| kept_json(&entry.body)).collect::<Result<_, _>>()?;
    Ok(Json(list(entries, page.limit)))
}
