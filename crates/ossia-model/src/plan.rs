//! What a model will take of the machine's memory, said before anything is read.

use ossia_kernels::cuda::Device;
use ossia_kernels::kv::KvType;
use ossia_kernels::{DType, Precision};

use crate::checkpoint::{Checkpoint, Layout, RawTensor};
use crate::gpt_oss::config::Config;
use crate::gpt_oss::scratch::{self, Largest};
use crate::gpt_oss::tensors::Dense;
use crate::kv_cache::PageCounts;
use crate::model::Options;

/// Bytes, by use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Weights used where the file holds them.
    pub mapped: u64,
    /// Of these the embedding table, of which only the rows of tokens that occur are ever read.
    pub table: u64,
    /// Weights in memory of their own: converted, transposed, or small.
    pub owned: u64,
    /// Keys and values at the asked context.
    pub kv: u64,
    /// Scratch of the largest step.
    pub scratch: u64,
    /// Adapters that are attached at once.
    pub adapters: u64,
    /// Positions of a sequence.
    pub context: usize,
    /// Sequences that `kv` is for.
    pub sequences: usize,
    /// Positions of all sequences together that `kv` is for.
    pub kv_tokens: usize,
}

/// The machine has too little memory.
#[derive(Debug, thiserror::Error)]
#[error("the model needs {} (weights {}, KV cache {} at {} tokens, scratch {}{}), the machine has {} free; {advice}",
    gib(plan.total()), gib(plan.weights()), gib(plan.kv), plan.kv_tokens, gib(plan.scratch), plan.of_adapters(),
    gib(*available))]
pub struct DoesNotFit {
    /// What was asked for.
    pub plan: Plan,
    /// Bytes that the machine has.
    pub available: u64,
    /// What would fit.
    pub advice: String,
}

impl Plan {
    /// The plan for `checkpoint` under `options`; reads no weights.
    pub fn new(checkpoint: &Checkpoint, config: &Config, options: &Options) -> Self {
        let (mut mapped, mut owned, mut table) = (0, 0, 0);
        for tensor in checkpoint.tensors() {
            let (m, o) = weight_bytes(tensor, checkpoint.layout(), options.dense(checkpoint));
            mapped += m;
            table += if is_table(&tensor.name) { m } else { 0 };
            owned += o;
        }
        let largest = Largest {
            tokens: options.batch_tokens(),
            logits_rows: options.logits_rows,
            threads: options.threads,
            isa: options.isa,
            precision: options.precision,
            adapter_rank: options.adapter_rank,
        };
        Self {
            mapped,
            table,
            owned,
            kv: options.pages(config).bytes(config, options.kv_type()) as u64,
            scratch: scratch::bytes(config, largest) as u64,
            adapters: options.adapter_bytes,
            context: options.context,
            sequences: options.sequences,
            kv_tokens: options.all_tokens(),
        }
    }

    /// All weights.
    pub fn weights(&self) -> u64 {
        self.mapped + self.owned
    }

    /// What a line about the plan says of adapters, where there are to be any.
    pub fn of_adapters(&self) -> String {
        if self.adapters == 0 { String::new() } else { format!(", adapters {}", gib(self.adapters)) }
    }

    /// Everything.
    pub fn total(&self) -> u64 {
        self.weights() + self.kv + self.scratch + self.adapters
    }

    /// An error that says what would fit, where `available` bytes are too few.
    pub fn check(
        &self,
        checkpoint: &Checkpoint,
        config: &Config,
        options: &Options,
        available: u64,
    ) -> Result<(), DoesNotFit> {
        if self.total() <= available {
            return Ok(());
        }
        let advice = advice(*self, checkpoint, config, options, available);
        Err(DoesNotFit { plan: *self, available, advice })
    }
}

fn advice(plan: Plan, checkpoint: &Checkpoint, config: &Config, options: &Options, available: u64) -> String {
    let fits = |options: &Options| Plan::new(checkpoint, config, options).total() <= available;
    let share = |context: usize| options.kv_tokens.map_or(String::new(), |_| format!(" --kv-tokens {context}"));
    if let Some(tokens) = options.kv_tokens.and_then(|asked| largest_share(options, asked, &fits)) {
        return format!("{tokens} tokens of all sequences together fit: --kv-tokens {tokens}");
    }
    if let Some(context) = largest_context(options, &fits) {
        return format!("a context of {context} tokens fits: --ctx {context}{}", share(context));
    }
    let q8 = Options { dense: Some(Dense::Q8), precision: Precision::Fast, ..options.clone() };
    if options.dense(checkpoint) == Dense::Kept
        && let Some(context) = largest_context(&q8, &fits)
    {
        return format!(
            "8-bit dense weights fit with a context of {context} tokens: --dense q8_0 --precision fast --ctx {context}{}",
            share(context)
        );
    }
    format!(
        "no context fits: the weights alone take {}; use a smaller model or a machine with more memory",
        gib(plan.weights())
    )
}

/// The largest power of two of positions, from 256 on, that fits.
fn largest_context(options: &Options, fits: &dyn Fn(&Options) -> bool) -> Option<usize> {
    let contexts = (8..=17).rev().map(|bits| 1 << bits).filter(|&c| c <= options.context);
    // A chunk is never longer than the context.
    let kv_tokens = |context| options.kv_tokens.map(|_| context);
    let within = |context: usize| Options {
        context,
        kv_tokens: kv_tokens(context),
        chunk: options.chunk.min(context),
        ..options.clone()
    };
    contexts.into_iter().find(|&context| fits(&within(context)))
}

/// The largest number of positions of all sequences together, halved again and again but at least a context, that fits.
fn largest_share(options: &Options, asked: usize, fits: &dyn Fn(&Options) -> bool) -> Option<usize> {
    let halves = std::iter::successors(Some(asked / 2), |tokens| Some(tokens / 2));
    let mut shares = halves.take_while(|&tokens| tokens >= options.context);
    shares.find(|&tokens| fits(&Options { kv_tokens: Some(tokens), ..options.clone() }))
}

fn is_table(name: &str) -> bool {
    name.contains("embed_tokens") || name.contains("token_embd") || name == "embedding.weight"
}

/// Bytes of one tensor: (used in place, owned).
fn weight_bytes(tensor: &RawTensor, layout: Layout, dense: Dense) -> (u64, u64) {
    let elements: u64 = tensor.shape.iter().map(|&n| n as u64).product();
    let stored = tensor.bytes.len() as u64;
    let float = matches!(tensor.dtype, DType::F32 | DType::F16 | DType::BF16);
    let name = &tensor.name;
    let exact = is_table(name) || ["router", "gate_inp", "mlp.gate."].iter().any(|n| name.contains(n));
    if tensor.shape.len() == 1 || name.ends_with("bias") {
        (0, elements * 4)
    } else if !float || exact {
        (stored, 0)
    } else if dense == Dense::Q8 {
        (0, elements / 32 * 34)
    } else if tensor.shape.len() == 3 && layout != Layout::Gguf {
        (0, stored)
    } else {
        (stored, 0)
    }
}

/// Bytes for people.
pub(crate) fn gib(bytes: u64) -> String {
    match bytes {
        0..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
        _ => format!("{:.2} GiB", bytes as f64 / 1_073_741_824.0),
    }
}

impl Options {
    /// What dense float weights become.
    pub fn dense(&self, checkpoint: &Checkpoint) -> Dense {
        // A GPU's copies are made from what the file has.
        let fast = self.precision == Precision::Fast && matches!(self.device, Device::Cpu);
        self.dense.unwrap_or_else(|| if fast { Dense::for_fast(checkpoint) } else { Dense::Kept })
    }

    /// How keys and values are kept.
    pub fn kv_type(&self) -> KvType {
        if self.precision == Precision::Fast { KvType::F16 } else { KvType::F32 }
    }

    /// Tokens of the largest step.
    pub fn batch_tokens(&self) -> usize {
        self.chunk.max(self.sequences)
    }

    /// Pages of keys and values.
    pub fn pages(&self, config: &Config) -> PageCounts {
        match self.kv_tokens {
            Some(_) => PageCounts::shared(config, self.sequences, self.all_tokens(), self.batch_tokens()),
            None => PageCounts::new(config, self.sequences, self.context, self.chunk),
        }
    }

    /// Positions of all sequences together.
    pub fn all_tokens(&self) -> usize {
        self.kv_tokens.map_or(self.sequences * self.context, |tokens| tokens.max(self.context))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpt_oss::synth;

    /// Sixty-four sequences that share the positions of two contexts take the memory of these and of their windows.
    #[test]
    fn shared_positions_are_what_is_counted() {
        let config = Config::preset("mini", None).unwrap();
        let checkpoint = synth::checkpoint(&config, 0).unwrap();
        let own = Options { context: 4096, sequences: 64, logits_rows: 64, threads: 1, ..Options::default() };
        let shared = Options { kv_tokens: Some(8192), ..own.clone() };
        let plan = |options: &Options| Plan::new(&checkpoint, &config, options);
        assert_eq!((plan(&own).kv_tokens, plan(&shared).kv_tokens), (64 * 4096, 8192));
        let counts = shared.pages(&config);
        assert_eq!(counts.full, 8192 / 64);
        assert!(counts.sliding >= 64 * 4);
        assert_eq!(plan(&shared).kv, counts.bytes(&config, shared.kv_type()) as u64);
        // Less than a context is no use.
        let least = Options { kv_tokens: Some(1), ..own.clone() };
        assert_eq!((least.all_tokens(), least.pages(&config).full), (4096, 64));
    }

    #[test]
    fn the_embedding_table_is_counted_apart() {
        let config = Config::preset("mini", None).unwrap();
        let checkpoint = synth::checkpoint(&config, 0).unwrap();
        let plan = Plan::new(&checkpoint, &config, &Options::default());
        assert_eq!(plan.table, (config.vocab_size * config.hidden_size * 2) as u64);
        assert!(plan.table < plan.mapped);
    }

    /// What is advised fits, and is the most of its kind.
    #[test]
    fn the_advice_for_shared_positions_fits() {
        let config = Config::preset("mini", None).unwrap();
        let checkpoint = synth::checkpoint(&config, 0).unwrap();
        let with =
            |tokens| Options { context: 1024, sequences: 8, kv_tokens: Some(tokens), threads: 1, ..Options::default() };
        let plan = |tokens| Plan::new(&checkpoint, &config, &with(tokens));
        let available = plan(1 << 14).total();
        let refused = plan(1 << 18).check(&checkpoint, &config, &with(1 << 18), available).unwrap_err();
        let text = refused.to_string();
        assert!(text.contains("--kv-tokens 16384") && text.contains("at 262144 tokens"), "{text}");
        assert!(plan(1 << 14).check(&checkpoint, &config, &with(1 << 14), available).is_ok());
        // Not even one context fits: a smaller one is advised.
        let small = plan(1024).total() - 1;
        let text = plan(1 << 18).check(&checkpoint, &config, &with(1 << 18), small).unwrap_err().to_string();
        assert!(text.contains("--ctx 512 --kv-tokens 512"), "{text}");
    }
}
