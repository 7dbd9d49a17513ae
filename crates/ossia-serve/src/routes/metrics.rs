//! `/metrics`: counters for Prometheus. They show how much a server is used, so they need a key with the scope metrics.

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::app::{Access, Route, Shared};
use crate::auth::Scope;

/// This file's part of the table.
pub fn routes() -> Vec<Route> {
    vec![Route::new("GET", "/metrics", Access::Key(Scope::Metrics), get(metrics))]
}

async fn metrics(State(app): State<Shared>) -> Response {
    let mut text = app.counters.text(&app.turns.engine().stats(), app.turns.grammar_bytes());
    if let Some(audit) = &app.audit {
        audit.write_metrics(&mut text);
    }
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}
