//! What a config must fulfil before anything is allocated or multiplied by it.

use std::path::Path;

use super::Config;
use crate::checkpoint::{Error, Result};

/// The file and the names it uses, for messages.
pub(super) struct Names<'a> {
    pub file: &'a Path,
    /// This file's key for the field of [`Config`] with this name.
    pub key: fn(&'static str) -> &'static str,
}

impl Names<'_> {
    /// Fails with this key unless `good`.
    fn ensure(&self, good: bool, field: &'static str, wanted: &str, found: impl std::fmt::Display) -> Result<()> {
        if good { Ok(()) } else { Err(Error::key(self.file, (self.key)(field), wanted, found.to_string())) }
    }

    fn count(&self, field: &'static str, found: usize, most: usize) -> Result<()> {
        self.ensure((1..=most).contains(&found), field, &format!("1 to {most}"), found)
    }
}

/// Fails with the first thing that is wrong with `config`.
pub(super) fn check(config: &Config, names: &Names) -> Result<()> {
    counts(config, names)?;
    shapes(config, names)?;
    constants(config, names)?;
    ids(config, names)
}

fn counts(c: &Config, names: &Names) -> Result<()> {
    names.count("vocab_size", c.vocab_size, 1 << 24)?;
    names.count("hidden_size", c.hidden_size, 1 << 17)?;
    names.count("intermediate_size", c.intermediate_size, 1 << 20)?;
    names.count("num_layers", c.num_layers, 1024)?;
    names.count("num_heads", c.num_heads, 1 << 14)?;
    names.count("num_kv_heads", c.num_kv_heads, 1 << 14)?;
    names.count("head_dim", c.head_dim, 256)?;
    names.count("num_experts", c.num_experts, 1 << 14)?;
    names.count("experts_per_token", c.experts_per_token, 1 << 14)?;
    names.count("sliding_window", c.sliding_window, 1 << 30)?;
    names.count("max_context", c.max_context, 1 << 30)?;
    names.count("original_context", c.rope.original_context, 1 << 30)
}

fn shapes(c: &Config, names: &Names) -> Result<()> {
    let (heads, kv) = (c.num_heads, c.num_kv_heads);
    let (k, e) = (c.experts_per_token, c.num_experts);
    names.ensure(k <= e, "experts_per_token", &format!("at most the number of experts, {e}"), k)?;
    names.ensure(c.hidden_size.is_multiple_of(32), "hidden_size", "a multiple of 32", c.hidden_size)?;
    names.ensure(
        c.intermediate_size.is_multiple_of(32),
        "intermediate_size",
        "a multiple of 32",
        c.intermediate_size,
    )?;
    names.ensure(c.head_dim.is_multiple_of(8), "head_dim", "a multiple of 8", c.head_dim)?;
    let wanted = format!("a multiple of the {kv} key-value heads");
    names.ensure(heads.is_multiple_of(kv), "num_heads", &wanted, heads)?;
    let wanted = format!("a number whose product with the head dimension {} is a multiple of 32", c.head_dim);
    names.ensure(c.query_size().is_multiple_of(32), "num_heads", &wanted, heads)?;
    let wanted = format!("one entry per layer, {}", c.num_layers);
    names.ensure(c.layer_types.len() == c.num_layers, "layer_types", &wanted, c.layer_types.len())?;
    let total = c.param_counts().total;
    names.ensure(
        total < 1 << 45,
        "num_layers",
        "a model of less than 35 trillion parameters",
        format!("{total} in all"),
    )
}

fn constants(c: &Config, names: &Names) -> Result<()> {
    let (eps, limit, alpha) = (c.rms_norm_eps, c.swiglu_limit, c.swiglu_alpha);
    names.ensure(eps > 0.0 && eps < 1.0, "rms_norm_eps", "more than 0 and less than 1", eps)?;
    names.ensure(limit > 0.0 && limit.is_finite(), "swiglu_limit", "a positive number", limit)?;
    names.ensure(alpha > 0.0 && alpha.is_finite(), "swiglu_alpha", "a positive number", alpha)?;
    let rope = &c.rope;
    names.ensure(rope.theta > 1.0 && rope.theta <= 1e12, "theta", "more than 1, at most 1e12", rope.theta)?;
    names.ensure(rope.factor >= 1.0 && rope.factor <= 1e6, "factor", "1 to 1000000", rope.factor)?;
    for (field, beta) in [("beta_fast", rope.beta_fast), ("beta_slow", rope.beta_slow)] {
        names.ensure(beta > 0.0 && beta <= 1e6, field, "more than 0, at most 1000000", beta)?;
    }
    let (low, high) = rope.ramp(c.head_dim);
    let wanted = "a ramp of frequencies that starts before it ends";
    names.ensure(low < high, "beta_fast", wanted, format!("one from {low} to {high}, beta_fast {}", rope.beta_fast))
}

fn ids(c: &Config, names: &Names) -> Result<()> {
    let wanted = format!("ids below the vocabulary size {}", c.vocab_size);
    let inside = |id: u32| (id as usize) < c.vocab_size;
    for &id in &c.eos_ids {
        names.ensure(inside(id), "eos_ids", &wanted, id)?;
    }
    c.pad_id.map_or(Ok(()), |id| names.ensure(inside(id), "pad_id", &wanted, id))
}
