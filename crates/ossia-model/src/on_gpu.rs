//! What a model takes of a GPU's memory, counted and set aside before the first step.

use ossia_kernels::arena::Arena;
use ossia_kernels::cuda::Gpu;
use ossia_kernels::kv::{KvLayer, KvType};
use ossia_kernels::ops::{attention, experts, sample};

use crate::gpt_oss::config::{Config, LayerKind};
use crate::gpt_oss::tensors::heads;
use crate::kv_cache::KvCache;
use crate::model::Options;

/// The GPU has too little memory.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "the model needs {:.1} GiB of the GPU's memory (weights {:.1}, KV cache {:.1}, scratch {:.1}), of which {:.1} are free; use a shorter context (--ctx), fewer sequences, or --device cpu",
    gib(self.weights + self.kv + self.scratch), gib(self.weights), gib(self.kv), gib(self.scratch), gib(self.free)
)]
pub struct GpuTooSmall {
    /// Bytes of weights, and of adapters.
    pub weights: usize,
    /// Bytes of keys and values.
    pub kv: usize,
    /// Bytes of the largest step, and of what weights come through.
    pub scratch: usize,
    /// Bytes that are free.
    pub free: usize,
}

fn gib(bytes: usize) -> f64 {
    bytes as f64 / (1u64 << 30) as f64
}

/// What the host needs for itself: logits, two steps' at most.
pub fn host_scratch(gpu: &Gpu, config: &Config, options: &Options) -> Arena {
    let arena = Arena::new(2 * Arena::size_of::<f32>(options.logits_rows * config.vocab_size) + (64 << 10));
    gpu.pin(&arena);
    arena
}

/// Sets aside scratch, and room for keys and values.
pub fn prepare(gpu: &Gpu, config: &Config, options: &Options) -> Result<KvCache, crate::Error> {
    let pages = options.pages(config);
    let weights = weight_bytes(config) + usize::try_from(options.adapter_bytes).unwrap_or(usize::MAX / 4);
    let scratch = scratch_bytes(config, options, gpu.about().processors);
    let kv = pages.bytes(config, KvType::F16);
    let (free, _) = gpu.memory()?;
    let most = scratch + Gpu::LOADING;
    if weights + kv + most > free {
        return Err(Box::new(GpuTooSmall { weights, kv, scratch: most, free }).into());
    }
    gpu.reserve_scratch(scratch)?;
    let layer = |kind: &LayerKind| {
        let pages = if *kind == LayerKind::Sliding { pages.sliding } else { pages.full };
        KvLayer::on_gpu(gpu, pages, config.num_kv_heads, config.head_dim)
    };
    let layers = config.layer_types.iter().map(layer).collect::<Result<Vec<_>, _>>()?;
    Ok(KvCache::over(layers, config, pages))
}

/// Bytes of all weights on the device: bf16, but routers and vectors f32 and experts MXFP4, each filled up to whole tiles.
fn weight_bytes(config: &Config) -> usize {
    let (d, i, e) = (config.hidden_size, config.intermediate_size, config.num_experts);
    let (q, row) = (config.query_size(), heads(config).row());
    let tiles = |rows: usize, cols: usize| rows.next_multiple_of(16) * cols.next_multiple_of(16) * 2;
    let mxfp4 = |rows: usize, cols: usize| rows.next_multiple_of(16) * cols.next_multiple_of(64) / 32 * 17;
    let attention = tiles(row, d) + tiles(d, q) + 4 * (row + d + config.num_heads);
    let experts = mxfp4(2 * i.next_multiple_of(8), d) + mxfp4(d, i) + 4 * (2 * i + d);
    let layer = attention + e * experts + 4 * (e * (d + 1) + 2 * d);
    config.vocab_size * d * 2 + tiles(config.vocab_size, d) + 4 * d + config.num_layers * layer
}

/// Bytes of scratch of the largest step. Mirrors `forward.rs`, op by op.
fn scratch_bytes(config: &Config, options: &Options, processors: usize) -> usize {
    let (t, r) = (options.batch_tokens(), options.logits_rows);
    let (d, q, row, k) = (config.hidden_size, config.query_size(), heads(config).row(), config.experts_per_token);
    let tables = Gpu::tables_len(t, r, options.sequences, options.context) + t * config.head_dim;
    let packed = |tokens: usize, cols: usize| tokens.next_multiple_of(64) * cols / 2;
    let spans = attention::gpu_scratch_len(t, heads(config), options.context, processors);
    let attention = t * (d + row + q) + spans.max(packed(t, d)).max(packed(t, q));
    let experts = experts::gpu_scratch_len(t, (config.num_experts, k), d, config.intermediate_size);
    let mlp = t * (d + config.num_experts + 2 * k) + experts;
    let last = r * (d + config.vocab_size) + packed(r, d) + sample::gpu_scratch_len(r);
    // What adapters make of a row: of q, k and v three times the rank, of experts once for each pair, twice over.
    let adapters = t.max(r) * (2 * k).max(3) * options.adapter_rank;
    let peak = 4 * (tables + t * d + adapters + attention.max(mlp).max(last));
    // First-fit leaves gaps between ranges of different sizes.
    peak + peak / 8 + (1 << 20)
}
