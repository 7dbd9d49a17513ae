//! The gpt-oss family: what is gpt-oss' own. `forward.rs` is the architecture.

pub mod adapter;
pub mod backward;
pub mod balance;
pub mod config;
pub mod export;
pub mod forward;
pub mod parameters;
pub mod scratch;
pub mod synth;
pub mod tensors;
pub mod traffic;
