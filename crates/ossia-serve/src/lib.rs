//! Ossia's server: OpenAI's API over one model, for many users at once.
//!
//! A request becomes a [`turn::TurnRequest`] (a conversation, rules for the answer, sampling parameters), a turn becomes
//! a stream of [`turn::TurnEvent`]s, and every API (chat, completions, responses, Ollama's) only translates at both ends.
//! What a client sends is untrusted: it gives an answer or one [`error::ApiError`], never a panic, and no error tells
//! anything about the machine.
#![forbid(unsafe_code)]

pub mod adapters;
pub mod app;
pub mod audit;
pub mod auth;
pub mod clock;
pub mod counters;
pub mod error;
pub mod grading;
pub mod guard;
pub mod ids;
pub mod keeping;
pub mod keys;
pub mod listener;
pub mod models;
pub mod quota;
pub mod reasoning;
pub mod routes;
pub mod server;
pub mod store;
pub mod tls;
pub mod training;
pub mod turn;
pub mod types;
pub mod ui;
