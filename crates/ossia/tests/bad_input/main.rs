//! Damaged checkpoints, tokenizers and arguments through the real program: each ends in one line that says what and
//! where, in little memory. The checks of single readers are in the crates that own them; here are the seams.

mod arguments;
mod config_files;
mod gguf;
mod gguf_models;
mod memory;
mod numbers;
mod outputs;
mod program;
mod safetensors;
mod tensors;
mod tokenizers;
mod truncated;
