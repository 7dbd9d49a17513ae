//! /v1/models and /v1/models/{id}: the model that is served, under each of its names, and what it has learned.

use axum::extract::State;
use axum::routing::{delete, get};
use axum::{Extension, Json};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

use super::responses::lost;
use crate::app::{Access, Route, Shared};
use crate::auth::{Identity, Scope};
use crate::error::ApiError;
use crate::models::ServedModel;
use crate::training::delete_folder;
use crate::types::params::Path;

/// This file's part of the table. Ids have slashes in them.
pub fn routes() -> Vec<Route> {
    vec![
        Route::new("GET", "/v1/models", Access::Key(Scope::Infer), get(list)).gives::<ModelList>(),
        Route::new("GET", "/v1/models/{*id}", Access::Key(Scope::Infer), get(one)).gives::<ModelOut>(),
        Route::new("DELETE", "/v1/models/{*id}", Access::Key(Scope::Train), delete(remove)),
    ]
}

/// A model.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ModelOut {
    /// What requests call it.
    pub id: String,
    /// `model`
    pub object: &'static str,
    /// Seconds since 1970.
    pub created: u64,
    /// `ossia`
    pub owned_by: &'static str,
    /// Tokens that prompt and answer share.
    pub context_length: usize,
}

/// All models.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ModelList {
    /// `list`
    pub object: &'static str,
    /// The id first, then the aliases, then adapters.
    pub data: Vec<ModelOut>,
}

fn shown(model: &ServedModel, id: &str, created: u64) -> ModelOut {
    ModelOut { id: id.to_owned(), object: "model", created, owned_by: "ossia", context_length: model.context }
}

async fn list(
    State(app): State<Shared>,
    Extension(identity): Extension<Identity>,
) -> Result<Json<ModelList>, ApiError> {
    let mut data: Vec<_> = app.model.names().map(|name| shown(&app.model, name, app.model.created)).collect();
    for (name, created) in app.adapters.registered() {
        data.push(shown(&app.model, &format!("{}:{name}", app.model.id), created));
    }
    for (name, made_at) in app.keeping.store.models_of_jobs(&identity.key_id).await.map_err(lost)? {
        data.push(shown(&app.model, &name, u64::try_from(made_at).unwrap_or(0)));
    }
    Ok(Json(ModelList { object: "list", data }))
}

async fn one(
    State(app): State<Shared>,
    Extension(identity): Extension<Identity>,
    Path(id): Path<String>,
) -> Result<Json<ModelOut>, ApiError> {
    let name = app.chosen(&identity, Some(&id)).await?.name;
    Ok(Json(shown(&app.model, &name, app.model.created)))
}

/// Deletes a model that a job of this key has made; requests that use it come to their end.
async fn remove(
    State(app): State<Shared>,
    Extension(identity): Extension<Identity>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let store = &app.keeping.store;
    let Some(job) = store.job_of_model(&identity.key_id, &id).await.map_err(lost)? else {
        app.chosen(&identity, Some(&id)).await?;
        return Err(ApiError::invalid("model", "model: only models that fine-tuning has made can be deleted"));
    };
    store.forget_model(&identity.key_id, &id).await.map_err(lost)?;
    app.adapters.forget(&id);
    if let Err(error) = delete_folder(app.adapters.jobs(), &job.id) {
        tracing::error!(%error, job = job.id, "the folder of a job could not be deleted");
    }
    Ok(Json(json!({ "id": id, "object": "model", "deleted": true })))
}
