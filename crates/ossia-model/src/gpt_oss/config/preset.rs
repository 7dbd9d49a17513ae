//! Shapes by name: the two released models and smaller ones for tests and timing.

use std::path::Path;

use super::check::{Names, check};
use super::json::alternating;
use super::{Config, Dialect, RMS_NORM_EPS, Rope, SWIGLU_ALPHA, SWIGLU_LIMIT};
use crate::checkpoint::{Error, Result};

/// The names that [`Config::preset`] knows, smallest model first.
pub const PRESETS: [&str; 6] = ["nano", "tiny", "mini", "small", "20b", "120b"];

impl Config {
    /// The shape called `name`, with another number of layers where `layers` says so.
    ///
    /// nano and tiny have every ratio different; mini has the released models' heads, positions and routing at 2.1
    /// million parameters; small is worth timing at 438 million.
    pub fn preset(name: &str, layers: Option<usize>) -> Result<Self> {
        let mut config = match name {
            "nano" => Self {
                hidden_size: 32,
                intermediate_size: 64,
                num_layers: 2,
                num_heads: 4,
                num_experts: 4,
                sliding_window: 4,
                ..short(128)
            },
            "tiny" => Self {
                hidden_size: 64,
                intermediate_size: 96,
                num_layers: 4,
                num_heads: 8,
                num_experts: 8,
                sliding_window: 8,
                ..short(512)
            },
            "mini" => Self {
                hidden_size: 128,
                intermediate_size: 64,
                num_layers: 4,
                num_heads: 16,
                num_kv_heads: 2,
                num_experts: 8,
                ..vocabulary(512)
            },
            "small" => Self {
                hidden_size: 768,
                intermediate_size: 768,
                num_layers: 8,
                num_heads: 16,
                num_kv_heads: 4,
                num_experts: 8,
                ..released()
            },
            "20b" => released(),
            "120b" => Self { num_layers: 36, num_experts: 128, ..released() },
            _ => return Err(Error::key(Path::new("preset"), "name", PRESETS.join(", "), name)),
        };
        config.num_layers = layers.unwrap_or(config.num_layers);
        config.layer_types = alternating(config.num_layers);
        check(&config, &Names { file: Path::new(name), key: |field| field })?;
        Ok(config)
    }
}

/// gpt-oss-20b.
fn released() -> Config {
    let rope = Rope {
        theta: 150_000.0,
        factor: 32.0,
        beta_fast: 32.0,
        beta_slow: 1.0,
        original_context: 4096,
        truncate: false,
    };
    Config {
        vocab_size: 201_088,
        hidden_size: 2880,
        intermediate_size: 2880,
        num_layers: 24,
        num_heads: 64,
        num_kv_heads: 8,
        head_dim: 64,
        num_experts: 32,
        experts_per_token: 4,
        sliding_window: 128,
        layer_types: Vec::new(),
        rms_norm_eps: RMS_NORM_EPS as f32,
        swiglu_limit: SWIGLU_LIMIT as f32,
        swiglu_alpha: SWIGLU_ALPHA as f32,
        rope,
        max_context: 131_072,
        eos_ids: vec![200_002],
        pad_id: Some(199_999),
        dialect: Dialect::Preset,
    }
}

/// The released constants with a small vocabulary, whose last id ends an answer and whose last but one pads.
fn vocabulary(size: u32) -> Config {
    Config { vocab_size: size as usize, eos_ids: vec![size - 1], pad_id: Some(size - 2), ..released() }
}

/// Small heads and a short context. The ramp must lie strictly inside the 8 frequencies: these betas put two of them
/// on it and the rest on both plateaus.
fn short(size: u32) -> Config {
    let small = vocabulary(size);
    let rope = Rope { beta_fast: 4.0, beta_slow: 0.25, original_context: 64, ..small.rope };
    Config { num_kv_heads: 2, head_dim: 16, experts_per_token: 2, max_context: 2048, rope, ..small }
}
