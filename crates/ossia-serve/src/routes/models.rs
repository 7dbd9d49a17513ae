//! GET /v1/models and /v1/models/{id}: the model that is served, under each of its names.

use axum::Json;
use axum::extract::State;
use axum::routing::get;
use schemars::JsonSchema;
use serde::Serialize;

use crate::app::{Access, Route, Shared};
use crate::auth::Scope;
use crate::error::ApiError;
use crate::models::ServedModel;
use crate::types::params::Path;

/// This file's part of the table. Ids have slashes in them.
pub fn routes() -> Vec<Route> {
    vec![
        Route::new("GET", "/v1/models", Access::Key(Scope::Infer), get(list)).gives::<ModelList>(),
        Route::new("GET", "/v1/models/{*id}", Access::Key(Scope::Infer), get(one)).gives::<ModelOut>(),
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
    /// The id first, then the aliases.
    pub data: Vec<ModelOut>,
}

fn shown(model: &ServedModel, id: &str) -> ModelOut {
    let (created, context_length) = (model.created, model.context);
    ModelOut { id: id.to_owned(), object: "model", created, owned_by: "ossia", context_length }
}

async fn list(State(app): State<Shared>) -> Json<ModelList> {
    let data = app.model.names().map(|name| shown(&app.model, name)).collect();
    Json(ModelList { object: "list", data })
}

async fn one(State(app): State<Shared>, Path(id): Path<String>) -> Result<Json<ModelOut>, ApiError> {
    app.model.named(Some(&id)).map(|name| Json(shown(&app.model, &name)))
}
