//! What clients send and get, as types: our own, so that each field says what it accepts. Unknown fields are passed
//! over, wrong types are refused by name.

pub mod body;
pub mod chat;
pub mod chat_answer;
pub mod completions;
pub mod fields;
pub mod form;
pub mod ollama;
pub mod params;
pub mod responses;
pub mod sampling;
mod strict;
