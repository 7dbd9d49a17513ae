//! Reads a config from a GGUF file's metadata: SPEC 2.3.
//!
//! llama.cpp rounds YaRN's ramp, the reference does not; this follows the reference (SPEC 12, number 16).

use super::check::{Names, check};
use super::{Config, Dialect, LayerKind, RMS_NORM_EPS, Rope, SWIGLU_ALPHA, SWIGLU_LIMIT};
use crate::checkpoint::{Error, GgufMetadata, GgufValue, Result};

impl Config {
    /// The config in a GGUF file; `vocab_size` is the number of rows of `token_embd.weight`.
    pub fn from_gguf(metadata: &GgufMetadata, vocab_size: usize) -> Result<Self> {
        let reader = Reader { metadata };
        reader.expect("general.architecture", "gpt-oss")?;
        reader.expect("gpt-oss.rope.scaling.type", "yarn")?;
        let num_layers = reader.count("gpt-oss.block_count")?;
        let head_dim = reader.count("gpt-oss.attention.key_length")?;
        let value_dim = reader.optional_count("gpt-oss.attention.value_length")?.unwrap_or(head_dim);
        if value_dim != head_dim {
            return Err(reader.wrong(
                "gpt-oss.attention.value_length",
                &format!("the key length {head_dim}"),
                value_dim,
            ));
        }
        let config = Config {
            vocab_size,
            hidden_size: reader.count("gpt-oss.embedding_length")?,
            intermediate_size: reader.intermediate_size()?,
            num_layers,
            num_heads: reader.count("gpt-oss.attention.head_count")?,
            num_kv_heads: reader.count("gpt-oss.attention.head_count_kv")?,
            head_dim,
            num_experts: reader.count("gpt-oss.expert_count")?,
            experts_per_token: reader.count("gpt-oss.expert_used_count")?,
            sliding_window: reader.count("gpt-oss.attention.sliding_window")?,
            layer_types: reader.layer_types(num_layers)?,
            rms_norm_eps: reader.number("gpt-oss.attention.layer_norm_rms_epsilon", RMS_NORM_EPS)? as f32,
            swiglu_limit: SWIGLU_LIMIT as f32,
            swiglu_alpha: SWIGLU_ALPHA as f32,
            rope: reader.rope()?,
            max_context: reader.count("gpt-oss.context_length")?,
            eos_ids: reader.eos_ids()?,
            pad_id: reader.id("tokenizer.ggml.padding_token_id")?,
            dialect: Dialect::Gguf,
        };
        check(&config, &Names { file: metadata.file(), key })?;
        Ok(config)
    }
}

struct Reader<'a> {
    metadata: &'a GgufMetadata,
}

impl Reader<'_> {
    fn wrong(&self, key: &str, wanted: &str, found: impl std::fmt::Display) -> Error {
        Error::key(self.metadata.file(), key, wanted, found.to_string())
    }

    fn expect(&self, key: &str, wanted: &str) -> Result<()> {
        match self.metadata.str(key)? {
            Some(found) if found == wanted => Ok(()),
            found => Err(self.wrong(key, wanted, found.unwrap_or("nothing"))),
        }
    }

    fn optional_count(&self, key: &str) -> Result<Option<usize>> {
        // A number beyond usize is refused like every other one that is too large.
        Ok(self.metadata.u64(key)?.map(|n| usize::try_from(n).unwrap_or(usize::MAX)))
    }

    fn count(&self, key: &str) -> Result<usize> {
        self.optional_count(key)?.ok_or_else(|| self.wrong(key, "a number", "nothing"))
    }

    fn number(&self, key: &str, default: f64) -> Result<f64> {
        Ok(self.metadata.f64(key)?.unwrap_or(default))
    }

    fn id(&self, key: &str) -> Result<Option<u32>> {
        let convert = |id| u32::try_from(id).map_err(|_| self.wrong(key, "a token id", id));
        self.metadata.u64(key)?.map(convert).transpose()
    }

    fn intermediate_size(&self) -> Result<usize> {
        match self.optional_count("gpt-oss.expert_feed_forward_length")? {
            Some(size) => Ok(size),
            None => self.count("gpt-oss.feed_forward_length"),
        }
    }

    fn rope(&self) -> Result<Rope> {
        let needed = |key| self.metadata.f64(key)?.ok_or_else(|| self.wrong(key, "a number", "nothing"));
        Ok(Rope {
            theta: needed("gpt-oss.rope.freq_base")?,
            factor: needed("gpt-oss.rope.scaling.factor")?,
            beta_fast: self.number("gpt-oss.rope.scaling.yarn_beta_fast", 32.0)?,
            beta_slow: self.number("gpt-oss.rope.scaling.yarn_beta_slow", 1.0)?,
            original_context: self.count("gpt-oss.rope.scaling.original_context_length")?,
            truncate: false,
        })
    }

    /// A period p means that every p-th layer is full (0: none); an array says it layer by layer.
    fn layer_types(&self, num_layers: usize) -> Result<Vec<LayerKind>> {
        const KEY: &str = "gpt-oss.attention.sliding_window_pattern";
        let kind = |sliding| if sliding { LayerKind::Sliding } else { LayerKind::Full };
        if let Some(GgufValue::Array { .. }) = self.metadata.get(KEY) {
            return Ok(self.metadata.bools(KEY)?.unwrap_or_default().into_iter().map(kind).collect());
        }
        let period = self.metadata.u64(KEY)?.unwrap_or(2);
        let num_layers = num_layers.min(1025) as u64;
        Ok((0..num_layers).map(|l| kind(period == 0 || l % period < period - 1)).collect())
    }

    fn eos_ids(&self) -> Result<Vec<u32>> {
        const SEVERAL: &str = "tokenizer.ggml.eos_token_ids";
        let mut ids: Vec<u32> = self.id("tokenizer.ggml.eos_token_id")?.into_iter().collect();
        for id in self.metadata.integers(SEVERAL)?.unwrap_or_default().into_iter().take(64) {
            let id = u32::try_from(id).map_err(|_| self.wrong(SEVERAL, "token ids", id))?;
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        Ok(ids)
    }
}

fn key(field: &'static str) -> &'static str {
    match field {
        "vocab_size" => "token_embd.weight (its rows)",
        "hidden_size" => "gpt-oss.embedding_length",
        "intermediate_size" => "gpt-oss.expert_feed_forward_length",
        "num_layers" => "gpt-oss.block_count",
        "num_heads" => "gpt-oss.attention.head_count",
        "num_kv_heads" => "gpt-oss.attention.head_count_kv",
        "head_dim" => "gpt-oss.attention.key_length",
        "num_experts" => "gpt-oss.expert_count",
        "experts_per_token" => "gpt-oss.expert_used_count",
        "sliding_window" => "gpt-oss.attention.sliding_window",
        "layer_types" => "gpt-oss.attention.sliding_window_pattern",
        "rms_norm_eps" => "gpt-oss.attention.layer_norm_rms_epsilon",
        "max_context" => "gpt-oss.context_length",
        "original_context" => "gpt-oss.rope.scaling.original_context_length",
        "theta" => "gpt-oss.rope.freq_base",
        "factor" => "gpt-oss.rope.scaling.factor",
        "beta_fast" => "gpt-oss.rope.scaling.yarn_beta_fast",
        "beta_slow" => "gpt-oss.rope.scaling.yarn_beta_slow",
        "eos_ids" => "tokenizer.ggml.eos_token_id",
        "pad_id" => "tokenizer.ggml.padding_token_id",
        same => same,
    }
}
