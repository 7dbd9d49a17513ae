//! Checkpoints, configs and synthetic weights through the crate's public door: good files, bad files, random files.

mod bad_gguf;
mod bad_safetensors;
mod config;
mod fuzz;
mod layouts;
mod support;
mod synth;
