//! The parts of the `ossia` program, as a library, so that tests can reach them.
#![forbid(unsafe_code)]

pub mod carried;
pub mod commands;
pub mod error;
pub mod generation;
pub mod gpu;
pub mod hub;
pub mod machine;
pub mod output;
pub mod session;
pub mod source;
pub mod speculate;
pub mod terminal;
pub mod view;
