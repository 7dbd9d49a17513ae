//! The most scratch that a forward pass takes, counted before the first token.
//!
//! Mirrors `forward.rs` op by op; a test holds the two together.

use ossia_kernels::Precision;
use ossia_kernels::arena::Arena;
use ossia_kernels::cpu::gemm;
use ossia_kernels::cpu::isa::Isa;
use ossia_kernels::cuda::Gpu;
use ossia_kernels::ops::experts::{self, Hidden};
use ossia_kernels::ops::{attention, cross_entropy, linear, low_rank, router};

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
    /// The kernels' version.
    pub isa: Isa,
    /// Arithmetic.
    pub precision: Precision,
    /// The largest rank of the adapters that may be attached; 0 for none.
    pub adapter_rank: usize,
}

/// Bytes of scratch for steps up to `largest`.
pub fn bytes(config: &Config, largest: Largest) -> usize {
    let Largest { tokens, logits_rows, threads, isa, precision, adapter_rank } = largest;
    let floats = |rows: usize, cols: usize| Arena::size_of::<f32>(rows * cols);
    let (d, q) = (config.hidden_size, config.query_size());
    let linear = |tokens, cols| linear::scratch_bytes(isa, precision, threads, tokens, cols);
    let of_experts = (config.num_experts, config.experts_per_token);
    let experts = experts::scratch_bytes(isa, precision, threads, tokens, of_experts, d, config.intermediate_size);

    let attention = floats(tokens, d)
        + floats(tokens, heads(config).row())
        + floats(tokens, q)
        + linear(tokens, d).max(attention::scratch_bytes(threads, heads(config))).max(linear(tokens, q));
    let mlp = floats(tokens, d)
        + router::scratch_bytes(tokens, config.num_experts, config.experts_per_token)
        + linear(tokens, d).max(experts);
    // Where not all rows want logits, attention's projections have made room for those that do.
    let last = 2 * floats(logits_rows, d) + floats(logits_rows, config.vocab_size) + linear(logits_rows, d);
    let adapters = adapter_bytes(config, tokens.max(logits_rows), adapter_rank);
    let peak = floats(tokens, d) + attention.max(mlp).max(last) + adapters;
    // First-fit leaves gaps between ranges of different sizes.
    peak + peak / 8 + (64 << 10)
}

/// Bytes of scratch that adapters of at most `rank` take besides, in either phase.
pub fn adapter_bytes(config: &Config, tokens: usize, rank: usize) -> usize {
    let experts = experts::adapter_scratch_bytes(tokens, config.experts_per_token, rank);
    if rank == 0 { 0 } else { low_rank::scratch_bytes(tokens, 3, rank).max(experts) }
}

/// The largest batch that gradients are to be computed of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LargestBatch {
    /// T, tokens of all documents.
    pub tokens: usize,
    /// Threads.
    pub threads: usize,
    /// See [`super::backward::Batch::recompute`].
    pub recompute: bool,
    /// The rank of the adapter that is trained or gone through; 0 for none.
    pub adapter_rank: usize,
}

/// Bytes of scratch for `backward.rs` with batches up to `largest`, all of whose rows may predict.
pub fn training_bytes(config: &Config, largest: LargestBatch) -> usize {
    let LargestBatch { tokens, threads, recompute, adapter_rank } = largest;
    let floats = |cols: usize| Arena::size_of::<f32>(tokens * cols);
    let (d, q, heads) = (config.hidden_size, config.query_size(), heads(config));
    let (k, i) = (config.experts_per_token, config.intermediate_size);
    // The inputs of all blocks, x and its gradient.
    let stream = (config.num_layers + 2) * floats(d);
    let last = 3 * floats(d) + cross_entropy::scratch_bytes(config.vocab_size) + gemm::scratch_bytes(threads);
    // y, t, qkv, o and lse stay while the experts go backwards, and with them t, the routes and the logits of these.
    let routes = router::scratch_bytes(tokens, config.num_experts, k);
    let saved = 3 * floats(d) + floats(heads.row()) + floats(q) + floats(heads.query) + routes;
    let kept = if recompute { 0 } else { config.num_layers * (saved + Hidden::bytes(tokens, k, i)) };
    let saved = if recompute { saved } else { 0 };
    let mlp =
        2 * floats(d) + floats(config.num_experts) + floats(k) + experts::train_scratch_bytes(threads, tokens, k, d, i);
    let attention = 2 * floats(d)
        + floats(q)
        + floats(heads.row())
        + attention::train_scratch_bytes(threads, heads)
        + gemm::scratch_bytes(threads);
    let adapters = adapter_bytes(config, tokens, adapter_rank);
    let peak = stream + kept + last.max(saved + mlp.max(attention)) + adapters;
    // First-fit leaves gaps between ranges of different sizes.
    peak + peak / 4 + (64 << 10)
}

/// The same of a GPU, whose products take no panels and whose largest gradients are those of the experts.
pub fn gpu_training_bytes(config: &Config, tokens: usize, recompute: bool) -> usize {
    let (t, d, q, row) = (tokens, config.hidden_size, config.query_size(), heads(config).row());
    let (e, k, i, layers) = (config.num_experts, config.experts_per_token, config.intermediate_size, config.num_layers);
    let tables = Gpu::training_tables_len(t) + t * config.head_dim;
    let stream = (layers + 2) * t * d;
    let last = t * (3 * d + 1) + cross_entropy::gpu_scratch_len(t, config.vocab_size);
    let saved = t * (3 * d + row + q + config.num_heads + e + 2 * k);
    let hidden = experts::gpu_hidden_len(t, k, i);
    let kept = if recompute { saved } else { layers * (saved + hidden) };
    // The experts' scratch has room for their hidden units, which are there already where they are kept.
    let mlp = t * (2 * d + k + e) + experts::gpu_train_scratch_len(t, (e, k), d, i);
    let attention = t * (2 * d + q + row + config.num_heads);
    let peak = 4 * (tables + stream + kept + last.max(mlp).max(attention));
    // First-fit leaves gaps between ranges of different sizes, each of which begins at a multiple of 256 bytes.
    peak + peak / 8 + (1 << 20)
}
