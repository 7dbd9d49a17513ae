//! Adapters: small corrections s B A of a model's matrices, trained while the model itself stays as its file has it.
//!
//! An adapter is a run of numbers like a model's own ([`AdapterParameters`]), lent to the weights of a [`Transformer`]
//! under a slot; sequences say which slot they go through, so any number of adapters share one base and one step.
//! Letters as in `forward.rs`; r rank, s = alpha / r.

mod parameters;
pub mod peft;
#[cfg(test)]
mod tests;

pub use parameters::AdapterParameters;

use super::config::Config;
#[cfg(doc)]
use super::forward::Transformer;

/// The largest rank that makes sense: beyond it the factors are larger than what they adapt.
pub const MOST_RANK: usize = 1024;

/// What an adapter adapts, and how finely.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterConfig {
    /// r, 1 to [`MOST_RANK`].
    pub rank: usize,
    /// s r.
    pub alpha: f32,
    /// The matrices.
    pub targets: Targets,
}

/// The matrices that have an adapter, in every block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Targets {
    /// q, k, v and the output of the attention.
    pub attention: bool,
    /// The router.
    pub router: bool,
    /// The unembedding.
    pub unembedding: bool,
    /// Gate, up and down of the experts.
    pub experts: Option<ExpertSharing>,
}

/// Which factors all experts of a block have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpertSharing {
    /// None.
    Each,
    /// Those that touch the residual stream: A of gate and up, B of down.
    SharedOuter,
}

/// Why an adapter cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// Scratch was planned for less.
    #[error("an adapter of rank {rank} was attached where the memory plan has room for rank {foreseen}")]
    Rank {
        /// The adapter's.
        rank: usize,
        /// The plan's.
        foreseen: usize,
    },
    /// Memory was planned for less.
    #[error(
        "an adapter of {bytes} bytes was attached beside others of {held}, where the memory plan has room for {foreseen} in all"
    )]
    Room {
        /// The adapter's.
        bytes: u64,
        /// Those of the adapters that are attached.
        held: u64,
        /// The plan's.
        foreseen: u64,
    },
    /// Its sizes are not the model's.
    #[error("the adapter was made for a model of another shape")]
    OtherModel,
}

impl AdapterConfig {
    /// s.
    pub fn scale(&self) -> f32 {
        self.alpha / self.rank as f32
    }

    /// What is wrong with it, for a person who wrote it down.
    pub fn fault(&self) -> Option<String> {
        let none = self.targets == Targets::default();
        if self.rank == 0 || self.rank > MOST_RANK {
            Some(format!("rank is 1 to {MOST_RANK}, not {}", self.rank))
        } else if !self.alpha.is_finite() || self.alpha == 0.0 {
            Some(format!("alpha is a number other than 0, not {}", self.alpha))
        } else if none {
            Some("an adapter needs a target: attention, router, unembedding or experts".into())
        } else {
            None
        }
    }
}

/// A linear layer that may have an adapter: its name below the block, inputs and outputs.
struct Target {
    name: &'static str,
    inputs: usize,
    outputs: usize,
}

/// q, k, v and the output.
fn attention(config: &Config) -> [Target; 4] {
    let (d, q, kv) = (config.hidden_size, config.query_size(), config.kv_size());
    let target = |name, inputs, outputs| Target { name, inputs, outputs };
    [
        target("self_attn.q_proj", d, q),
        target("self_attn.k_proj", d, kv),
        target("self_attn.v_proj", d, kv),
        target("self_attn.o_proj", q, d),
    ]
}
