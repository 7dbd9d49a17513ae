//! The server over real connections: one program, since each would link the whole of it again.

mod common;

mod adapters;
mod audit;
mod batches;
mod chat;
mod completions;
mod crowded;
mod deploy;
mod doors;
mod ending;
#[cfg(unix)]
mod fine_tuning;
mod graders;
mod history;
mod hostile;
mod many;
mod no_client;
mod ollama;
mod responses;
mod responses_conversations;
mod schemas;
mod tls;
mod trace;
