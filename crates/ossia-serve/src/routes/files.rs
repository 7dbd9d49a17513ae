//! `/v1/files`: what clients upload, mostly lists of requests for batches. The content is written to the database as it
//! arrives and never held whole in memory; a file's name is only ever shown.

use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Extension, Json};
use futures_util::stream;
use serde_json::{Value, json};

use super::lists::{ListQuery, known, list};
use super::responses::lost;
use crate::app::{Access, Route, Shared};
use crate::auth::{Identity, Scope};
use crate::clock;
use crate::error::ApiError;
use crate::ids;
use crate::store::{CHUNK_BYTES, StoredFile};
use crate::types::form::{Form, MOST_FILE};
use crate::types::params::{Path, Query};

/// What multipart adds to it, at most.
const AROUND_BYTES: usize = 64 << 10;
/// All files of one key together.
const MOST_OF_KEY: i64 = 16 << 30;
/// The longest name that is kept.
const LONGEST_NAME: usize = 256;
/// What a file may be for.
const PURPOSES: [&str; 6] = ["assistants", "batch", "evals", "fine-tune", "user_data", "vision"];

/// This API's part of the table.
pub fn routes() -> Vec<Route> {
    let access = Access::Key(Scope::Files);
    let upload = post(upload).layer(DefaultBodyLimit::max(MOST_FILE + AROUND_BYTES));
    vec![
        Route::new("POST", "/v1/files", access, upload),
        Route::new("GET", "/v1/files", access, get(list_files)),
        Route::new("GET", "/v1/files/{id}", access, get(retrieve)),
        Route::new("DELETE", "/v1/files/{id}", access, delete(remove)),
        Route::new("GET", "/v1/files/{id}/content", access, get(content)),
    ]
}

/// A file as the API shows it.
pub fn shown(file: &StoredFile) -> Value {
    json!({
        "id": file.id, "object": "file", "bytes": file.num_bytes, "created_at": file.created_at,
        "expires_at": file.expires_at, "filename": file.filename, "purpose": file.purpose,
        "status": "processed", "status_details": null,
    })
}

/// A file that is being uploaded. Dropped before its end, because the client went away or sent something wrong, it is
/// deleted.
struct Upload {
    app: Shared,
    owner: String,
    file: StoredFile,
    buffer: Vec<u8>,
    num_chunks: i64,
    complete: bool,
}

impl Drop for Upload {
    fn drop(&mut self) {
        if !self.complete {
            let (app, owner, id) = (self.app.clone(), self.owner.clone(), self.file.id.clone());
            tokio::spawn(async move { app.keeping.store.delete_file(&owner, &id).await.map_err(lost) });
        }
    }
}

impl Upload {
    /// Begins to keep a file of `announced` bytes at most: all of them count from now on, so that many uploads at once take
    /// no more room than one after the other.
    async fn begin(app: Shared, identity: &Identity, announced: Option<u64>) -> Result<Self, ApiError> {
        let owner = identity.key_id.to_string();
        let most =
            announced.and_then(|bytes| usize::try_from(bytes).ok()).map_or(MOST_FILE, |bytes| bytes.min(MOST_FILE));
        let file = StoredFile {
            id: ids::new("file")?.replacen('_', "-", 1),
            created_at: i64::try_from(clock::now_s()).unwrap_or(i64::MAX),
            expires_at: None,
            filename: String::new(),
            purpose: String::new(),
            num_bytes: most as i64,
        };
        if !app.keeping.store.begin_file(&owner, &file, MOST_OF_KEY).await.map_err(lost)? {
            return Err(ApiError::invalid("file", "the files of this key take too much room: delete some"));
        }
        let file = StoredFile { num_bytes: 0, ..file };
        Ok(Self { app, owner, file, buffer: Vec::new(), num_chunks: 0, complete: false })
    }

    async fn take(&mut self, bytes: &Bytes) -> Result<(), ApiError> {
        self.file.num_bytes += bytes.len() as i64;
        if self.file.num_bytes > MOST_FILE as i64 {
            return Err(ApiError::TooLarge(MOST_FILE));
        }
        self.buffer.extend_from_slice(bytes);
        while self.buffer.len() >= CHUNK_BYTES {
            let rest = self.buffer.split_off(CHUNK_BYTES);
            self.flush(rest).await?;
        }
        Ok(())
    }

    async fn flush(&mut self, rest: Vec<u8>) -> Result<(), ApiError> {
        let chunk = std::mem::replace(&mut self.buffer, rest);
        self.app.keeping.store.add_chunk(&self.file.id, self.num_chunks, chunk).await.map_err(lost)?;
        self.num_chunks += 1;
        Ok(())
    }

    async fn complete(&mut self) -> Result<(), ApiError> {
        if !self.buffer.is_empty() {
            self.flush(Vec::new()).await?;
        }
        self.app.keeping.store.complete_file(&self.owner, &self.file).await.map_err(lost)?;
        self.complete = true;
        Ok(())
    }
}

async fn upload(
    State(app): State<Shared>,
    Extension(identity): Extension<Identity>,
    mut form: Form,
) -> Result<Json<Value>, ApiError> {
    let mut upload = Upload::begin(app, &identity, form.announced()).await?;
    let (mut has_file, mut expires_after) = (false, None);
    while let Some(mut part) = form.next().await? {
        match part.name() {
            "file" if has_file => return Err(ApiError::invalid("file", "wanted one file, found more")),
            "file" => {
                has_file = true;
                upload.file.filename = name_of(part.file_name());
                while let Some(bytes) = part.chunk().await? {
                    upload.take(&bytes).await?;
                }
            }
            "purpose" => upload.file.purpose = part.short().await?,
            "expires_after[seconds]" => expires_after = Some(part.short().await?),
            _ => drop(part.short().await?),
        }
    }
    if !has_file {
        return Err(ApiError::invalid("file", "file: wanted a file as multipart/form-data"));
    }
    if !PURPOSES.contains(&upload.file.purpose.as_str()) {
        let wanted = format!("purpose: wanted one of {}, found {:?}", PURPOSES.join(", "), upload.file.purpose);
        return Err(ApiError::invalid("purpose", wanted));
    }
    if let Some(text) = expires_after {
        let seconds = text.parse::<i64>().ok().filter(|seconds| (3600..=2_592_000).contains(seconds));
        let wanted = || ApiError::invalid("expires_after", "expires_after.seconds: wanted 3600 to 2592000");
        upload.file.expires_at = Some(upload.file.created_at + seconds.ok_or_else(wanted)?);
    }
    upload.complete().await?;
    Ok(Json(shown(&upload.file)))
}

/// A file's name as it is shown: no control characters, and not too long.
fn name_of(given: Option<&str>) -> String {
    given.unwrap_or("file").chars().filter(|c| !c.is_control()).take(LONGEST_NAME).collect()
}

/// A file of this key.
pub async fn found(app: &Shared, owner: &str, id: &str) -> Result<StoredFile, ApiError> {
    let file = app.keeping.store.file(owner, id).await.map_err(lost)?;
    file.ok_or_else(|| ApiError::NotFound { what: "file", id: id.into() })
}

async fn list_files(
    State(app): State<Shared>,
    Extension(identity): Extension<Identity>,
    Query(query): Query<ListQuery>,
) -> Result<Json<Value>, ApiError> {
    // As at OpenAI: clients delete all files while they list them.
    let page = query.page_or(10_000, 10_000)?;
    let purpose = query.purpose.as_deref();
    let (store, owner, after) = (&app.keeping.store, &*identity.key_id, page.after.as_deref().unwrap_or_default());
    let files = store.list_files(owner, purpose, &page).await.map_err(lost)?;
    let files = known(files, &page, async { Ok(store.file(owner, after).await?.is_some()) }).await?;
    Ok(Json(list(files.iter().map(shown).collect(), page.limit)))
}

async fn retrieve(
    State(app): State<Shared>,
    Extension(identity): Extension<Identity>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    Ok(Json(shown(&found(&app, &identity.key_id, &id).await?)))
}

async fn remove(
    State(app): State<Shared>,
    Extension(identity): Extension<Identity>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    found(&app, &identity.key_id, &id).await?;
    app.keeping.store.delete_file(&identity.key_id, &id).await.map_err(lost)?;
    Ok(Json(json!({ "id": id, "object": "file", "deleted": true })))
}

async fn content(
    State(app): State<Shared>,
    Extension(identity): Extension<Identity>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let file = found(&app, &identity.key_id, &id).await?;
    let headers = [(CONTENT_TYPE, "application/octet-stream".to_owned()), (CONTENT_LENGTH, file.num_bytes.to_string())];
    let chunks = stream::unfold((app, file.id, 0), async |(app, id, position)| {
        // A file that is deleted meanwhile ends too early, which the client sees by its length.
        let chunk = app.keeping.store.file_chunk(&id, position).await.map_err(lost).transpose()?;
        Some((chunk, (app, id, position + 1)))
    });
    Ok((headers, Body::from_stream(chunks)).into_response())
}
