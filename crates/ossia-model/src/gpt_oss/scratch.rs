//! The most scratch that a forward pass takes, counted before the first token.
//!
//! Mirrors `forward.rs` op by op; a test holds the two together.

use ossia_kernels::Precision;
use ossia_kernels::arena::Arena;
use ossia_kernels::ops::{attention, experts, linear, router};

use super::config::Config;
use super::tensors::heads;

/// The largest step that is to be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Largest {
    /// T, new tokens of all sequences.
    pub tokens: usize,
    /// R, rows that want logits.
    pub logits_rows: usize,
    /// Threads.
    pub threads: usize,
    /// Arithmetic.
    pub precision: Precision,
}

/// Bytes of scratch for steps up to `largest`.
pub fn bytes(config: &Config, largest: Largest) -> usize {
    let Largest { tokens, logits_rows, threads, precision } = largest;
    let floats = |rows: usize, cols: usize| Arena::size_of::<f32>(rows * cols);
    let (d, q) = (config.hidden_size, config.query_size());
    let linear = |tokens, cols| linear::scratch_bytes(precision, threads, tokens, cols);
    let experts =
        experts::scratch_bytes(precision, threads, tokens, config.experts_per_token, d, config.intermediate_size);

    let attention = floats(tokens, d)
        + floats(tokens, heads(config).row())
        + floats(tokens, q)
        + linear(tokens, d).max(attention::scratch_bytes(threads, heads(config))).max(linear(tokens, q));
    let mlp = floats(tokens, d)
        + router::scratch_bytes(tokens, config.num_experts, config.experts_per_token)
        + linear(tokens, d).max(experts);
    let last = 2 * floats(logits_rows, d) + floats(logits_rows, config.vocab_size) + linear(logits_rows, d);
    let peak = floats(tokens, d) + attention.max(mlp).max(last);
    // First-fit leaves gaps between ranges of different sizes.
    peak + peak / 8 + (64 << 10)
}
