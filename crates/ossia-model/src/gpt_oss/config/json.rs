//! Reads config.json in its three dialects and writes the released one: SPEC 1.

use std::path::Path;

use serde_json::{Value, json};

use super::check::{Names, check};
use super::{Config, Dialect, LayerKind, RMS_NORM_EPS, Rope, SWIGLU_ALPHA, SWIGLU_LIMIT};
use crate::checkpoint::{Error, Result, is_flat};

impl Config {
    /// The config in a parsed config.json of any dialect; `file` is only for messages.
    pub fn from_json(value: &Value, file: &Path) -> Result<Self> {
        let top = Object { value, file, prefix: "" };
        let (config, key): (Config, fn(&'static str) -> &'static str) = match is_flat(value) {
            true => (original(&top)?, original_key),
            false => (hugging_face(&top)?, hf_key),
        };
        check(&config, &Names { file, key })?;
        Ok(config)
    }

    /// This config as a config.json in the released dialect (packed MXFP4 experts), keys sorted.
    pub fn to_hf_json(&self) -> Value {
        let mut value = json!({
            "architectures": ["GptOssForCausalLM"],
            "attention_bias": true,
            "attention_dropout": 0.0,
            "experts_per_token": self.experts_per_token,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "hidden_size": self.hidden_size,
            "initial_context_length": self.rope.original_context,
            "initializer_range": 0.02,
            "intermediate_size": self.intermediate_size,
            "layer_types": self.layer_types.iter().map(|&kind| kind_name(kind)).collect::<Vec<_>>(),
            "max_position_embeddings": self.max_context,
            "model_type": "gpt_oss",
            "num_attention_heads": self.num_heads,
            "num_experts_per_tok": self.experts_per_token,
            "num_hidden_layers": self.num_layers,
            "num_key_value_heads": self.num_kv_heads,
            "num_local_experts": self.num_experts,
            "output_router_logits": false,
            "pad_token_id": self.pad_id,
            "quantization_config": {
                "modules_to_not_convert": [
                    "model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head",
                ],
                "quant_method": "mxfp4",
            },
            "rms_norm_eps": shortest(self.rms_norm_eps),
            "rope_scaling": {
                "beta_fast": self.rope.beta_fast,
                "beta_slow": self.rope.beta_slow,
                "factor": self.rope.factor,
                "original_max_position_embeddings": self.rope.original_context,
                "rope_type": "yarn",
                "truncate": self.rope.truncate,
            },
            "rope_theta": self.rope.theta,
            "router_aux_loss_coef": 0.9,
            "sliding_window": self.sliding_window,
            "swiglu_limit": shortest(self.swiglu_limit),
            "tie_word_embeddings": false,
            "use_cache": true,
            "vocab_size": self.vocab_size,
        });
        value["eos_token_id"] = match self.eos_ids.as_slice() {
            [] => Value::Null,
            [one] => json!(one),
            several => json!(several),
        };
        if shortest(self.swiglu_alpha) != SWIGLU_ALPHA {
            value["swiglu_alpha"] = json!(shortest(self.swiglu_alpha));
        }
        value.sort_all_objects();
        value
    }
}

/// The number that is written with the fewest digits among those that are `x` as f32.
fn shortest(x: f32) -> f64 {
    x.to_string().parse().unwrap_or(f64::from(x))
}

fn hugging_face(top: &Object) -> Result<Config> {
    if let Some(kind) = top.value.get("model_type").filter(|&kind| kind != "gpt_oss") {
        return Err(top.wrong("model_type", "gpt_oss", kind));
    }
    let num_layers = top.count("num_hidden_layers")?;
    let (rope, dialect) = hf_rope(top)?;
    Ok(Config {
        vocab_size: top.count("vocab_size")?,
        hidden_size: top.count("hidden_size")?,
        intermediate_size: top.count("intermediate_size")?,
        num_layers,
        num_heads: top.count("num_attention_heads")?,
        num_kv_heads: top.count("num_key_value_heads")?,
        head_dim: top.count("head_dim")?,
        num_experts: top.count("num_local_experts")?,
        experts_per_token: experts_per_token(top)?,
        sliding_window: top.count("sliding_window")?,
        layer_types: layer_types(top, num_layers)?,
        rms_norm_eps: top.number("rms_norm_eps")?.unwrap_or(RMS_NORM_EPS) as f32,
        swiglu_limit: top.number("swiglu_limit")?.unwrap_or(SWIGLU_LIMIT) as f32,
        swiglu_alpha: top.number("swiglu_alpha")?.unwrap_or(SWIGLU_ALPHA) as f32,
        rope,
        max_context: top.count("max_position_embeddings")?,
        eos_ids: eos_ids(top)?,
        pad_id: top.optional("pad_token_id", "a token id", id)?,
        dialect,
    })
}

/// Both names are in the released files; a file may have either, but not two numbers.
fn experts_per_token(top: &Object) -> Result<usize> {
    let (new, old) = ("num_experts_per_tok", "experts_per_token");
    match (top.present(new), top.present(old)) {
        (None, Some(_)) => top.count(old),
        (Some(_), Some(other)) if top.count(new)? != top.count(old)? => {
            Err(top.wrong(old, &format!("the same number as {new}, {}", top.count(new)?), other))
        }
        _ => top.count(new),
    }
}

fn hf_rope(top: &Object) -> Result<(Rope, Dialect)> {
    let (name, dialect, prefix) = match top.present("rope_parameters") {
        Some(_) => ("rope_parameters", Dialect::RopeParameters, "rope_parameters."),
        None => ("rope_scaling", Dialect::RopeScaling, "rope_scaling."),
    };
    let Some(value) = top.present(name).filter(|v| v.is_object()) else {
        return Err(top.wrong(name, "an object with YaRN's constants", top.value.get(name).unwrap_or(&Value::Null)));
    };
    let inner = Object { value, file: top.file, prefix };
    let kind = inner.present("rope_type").or(inner.present("type")).unwrap_or(&Value::Null);
    if kind != "yarn" {
        return Err(inner.wrong("rope_type", "yarn", kind));
    }
    let theta =
        if dialect == Dialect::RopeParameters { inner.needed("rope_theta")? } else { top.needed("rope_theta")? };
    let original_context = match inner.present("original_max_position_embeddings") {
        None => top.count("initial_context_length")?,
        Some(_) => inner.count("original_max_position_embeddings")?,
    };
    let rope = Rope {
        theta,
        factor: inner.needed("factor")?,
        beta_fast: inner.number("beta_fast")?.unwrap_or(32.0),
        beta_slow: inner.number("beta_slow")?.unwrap_or(1.0),
        original_context,
        truncate: inner.optional("truncate", "true or false", Value::as_bool)?.unwrap_or(true),
    };
    let attention = inner.number("attention_factor")?.unwrap_or(rope.concentration());
    if (attention - rope.concentration()).abs() > 1e-6 {
        let wanted = format!("none, or 0.1 ln(factor) + 1 = {}", rope.concentration());
        return Err(inner.wrong("attention_factor", &wanted, &json!(attention)));
    }
    Ok((rope, dialect))
}

/// Every second layer slides, the first one does: what a file means that does not say.
pub(super) fn alternating(num_layers: usize) -> Vec<LayerKind> {
    let num_layers = num_layers.min(1024);
    (0..num_layers).map(|l| if l % 2 == 0 { LayerKind::Sliding } else { LayerKind::Full }).collect()
}

fn layer_types(top: &Object, num_layers: usize) -> Result<Vec<LayerKind>> {
    if num_layers > 1024 {
        return Err(top.wrong("num_hidden_layers", "1 to 1024", &json!(num_layers)));
    }
    let Some(value) = top.present("layer_types") else { return Ok(alternating(num_layers)) };
    let Some(list) = value.as_array() else { return Err(top.wrong("layer_types", "an array of strings", value)) };
    let kind = |value: &Value| match value.as_str() {
        Some("sliding_attention") => Ok(LayerKind::Sliding),
        Some("full_attention") => Ok(LayerKind::Full),
        _ => Err(top.wrong("layer_types", "sliding_attention or full_attention in every place", value)),
    };
    list.iter().map(kind).collect()
}

fn kind_name(kind: LayerKind) -> &'static str {
    match kind {
        LayerKind::Sliding => "sliding_attention",
        LayerKind::Full => "full_attention",
    }
}

fn eos_ids(top: &Object) -> Result<Vec<u32>> {
    let several = |value: &Value| match value.as_array() {
        Some(list) => list.iter().map(id).collect(),
        None => id(value).map(|id| vec![id]),
    };
    Ok(top.optional("eos_token_id", "a token id or an array of them", several)?.unwrap_or_default())
}

fn id(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|id| u32::try_from(id).ok())
}

/// The flat dialect says nothing about layers, epsilon, ids or the longest context (SPEC 1).
fn original(top: &Object) -> Result<Config> {
    let rope = Rope {
        theta: top.needed("rope_theta")?,
        factor: top.needed("rope_scaling_factor")?,
        beta_fast: top.needed("rope_ntk_beta")?,
        beta_slow: top.needed("rope_ntk_alpha")?,
        original_context: top.count("initial_context_length")?,
        truncate: false,
    };
    let num_layers = top.count("num_hidden_layers")?;
    let vocab_size = top.count("vocab_size")?;
    let released = vocab_size == 201_088;
    Ok(Config {
        vocab_size,
        hidden_size: top.count("hidden_size")?,
        intermediate_size: top.count("intermediate_size")?,
        num_layers,
        num_heads: top.count("num_attention_heads")?,
        num_kv_heads: top.count("num_key_value_heads")?,
        head_dim: top.count("head_dim")?,
        num_experts: top.count("num_experts")?,
        experts_per_token: top.count("experts_per_token")?,
        sliding_window: top.count("sliding_window")?,
        layer_types: alternating(num_layers),
        rms_norm_eps: RMS_NORM_EPS as f32,
        swiglu_limit: top.number("swiglu_limit")?.unwrap_or(SWIGLU_LIMIT) as f32,
        swiglu_alpha: SWIGLU_ALPHA as f32,
        rope,
        // Saturates to a huge number or 0, which the check refuses.
        max_context: (rope.original_context as f64 * rope.factor) as usize,
        eos_ids: if released { vec![200_002] } else { Vec::new() },
        pad_id: released.then_some(199_999),
        dialect: Dialect::Original,
    })
}

/// One level of a config file.
struct Object<'a> {
    value: &'a Value,
    file: &'a Path,
    /// What stands before a key in messages.
    prefix: &'static str,
}

impl<'a> Object<'a> {
    /// The value of `key`, where it is there and not null.
    fn present(&self, key: &str) -> Option<&'a Value> {
        self.value.get(key).filter(|v| !v.is_null())
    }

    fn wrong(&self, key: &str, wanted: &str, found: &Value) -> Error {
        let found = match found {
            Value::Null => "nothing".into(),
            Value::Array(list) => format!("an array of {}", list.len()),
            Value::Object(_) => "an object".into(),
            scalar => scalar.to_string(),
        };
        Error::key(self.file, &format!("{}{key}", self.prefix), wanted, found)
    }

    fn optional<T>(&self, key: &str, wanted: &str, read: impl Fn(&Value) -> Option<T>) -> Result<Option<T>> {
        let Some(value) = self.present(key) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| self.wrong(key, wanted, value))
    }

    fn count(&self, key: &str) -> Result<usize> {
        let wanted = "a whole number that is not negative";
        let read = |value: &Value| value.as_u64().and_then(|n| usize::try_from(n).ok());
        self.optional(key, wanted, read)?.ok_or_else(|| self.wrong(key, wanted, &Value::Null))
    }

    fn number(&self, key: &str) -> Result<Option<f64>> {
        self.optional(key, "a finite number", |value| value.as_f64().filter(|x| x.is_finite()))
    }

    fn needed(&self, key: &str) -> Result<f64> {
        self.number(key)?.ok_or_else(|| self.wrong(key, "a finite number", &Value::Null))
    }
}

fn hf_key(field: &'static str) -> &'static str {
    match field {
        "num_layers" => "num_hidden_layers",
        "num_heads" => "num_attention_heads",
        "num_kv_heads" => "num_key_value_heads",
        "num_experts" => "num_local_experts",
        "experts_per_token" => "num_experts_per_tok",
        "max_context" => "max_position_embeddings",
        "original_context" => "original_max_position_embeddings",
        "theta" => "rope_theta",
        "eos_ids" => "eos_token_id",
        "pad_id" => "pad_token_id",
        same => same,
    }
}

fn original_key(field: &'static str) -> &'static str {
    match field {
        "num_layers" => "num_hidden_layers",
        "num_heads" => "num_attention_heads",
        "num_kv_heads" => "num_key_value_heads",
        "max_context" | "factor" => "rope_scaling_factor",
        "original_context" => "initial_context_length",
        "theta" => "rope_theta",
        "beta_fast" => "rope_ntk_beta",
        "beta_slow" => "rope_ntk_alpha",
        same => same,
    }
}
