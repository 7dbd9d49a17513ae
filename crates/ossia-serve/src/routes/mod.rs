//! The routes, one file per API. Each gives its part of the table in `app.rs`.

pub mod batches;
pub mod chat;
pub mod completions;
pub mod conversations;
pub mod files;
pub mod fine_tuning;
pub mod health;
pub mod lists;
pub mod metrics;
pub mod models;
pub mod ollama;
pub mod openapi;
pub mod responses;
