//! `/health`: the process answers. `/ready`: it takes new work. Neither says anything else, so neither needs a key: what
//! watches over services asks them, and keeps no secrets.

use axum::Json;
use axum::extract::State;
use axum::routing::get;
use serde_json::{Value, json};

use crate::app::{Access, Route, Shared};
use crate::error::ApiError;

/// This file's part of the table.
pub fn routes() -> Vec<Route> {
    vec![Route::new("GET", "/health", Access::Open, get(health)), Route::new("GET", "/ready", Access::Open, get(ready))]
}

async fn health() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

async fn ready(State(app): State<Shared>) -> Result<Json<Value>, ApiError> {
    if app.is_ready() { Ok(Json(json!({ "status": "ready" }))) } else { Err(ApiError::Draining) }
}
