//! `/v1/fine_tuning/checkpoints/{id}/permissions`: at OpenAI, who else may use a checkpoint. Here there is nobody else: a
//! model belongs to the key that has made it, keys stand in no projects, and what everybody may use is registered by
//! whoever starts the server. So these routes say that, and what to do.

use axum::Json;
use axum::routing::{delete, get, post};
use serde_json::Value;

use crate::app::{Access, Route};
use crate::auth::Scope;
use crate::error::ApiError;

/// This file's part of the table.
pub fn routes() -> Vec<Route> {
    let access = Access::Key(Scope::Train);
    let path = "/v1/fine_tuning/checkpoints/{id}/permissions";
    vec![
        Route::new("POST", path, access, post(none)),
        Route::new("GET", path, access, get(none)),
        Route::new("DELETE", "/v1/fine_tuning/checkpoints/{id}/permissions/{permission_id}", access, delete(none)),
    ]
}

async fn none() -> Result<Json<Value>, ApiError> {
    let problem = "Checkpoints cannot be shared: a model is its key's alone, and keys have no projects. Whoever starts the \
        server can register an adapter for everybody: --adapter NAME=FOLDER.";
    Err(ApiError::unsupported("permissions", problem))
}
