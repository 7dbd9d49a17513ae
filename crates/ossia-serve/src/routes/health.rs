//! `/health`: the process answers. It says nothing else, so it needs no key.

use axum::Json;
use axum::routing::get;
use serde_json::{Value, json};

use crate::app::{Access, Route};

/// This file's part of the table.
pub fn routes() -> Vec<Route> {
    vec![Route::new("GET", "/health", Access::Open, get(health))]
}

async fn health() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}
