//! What a GGUF file says about a gpt-oss model: llama.cpp's keys (SPEC 2.3).

use std::path::Path;

use super::vocabulary::Vocabulary;
use crate::checkpoint::write_gguf::{bools, integers, text, texts};
use crate::checkpoint::{Checkpoint, Error, GgufValue, Metadata, Result};
use crate::gpt_oss::config::{Config, LayerKind};

/// llama.cpp's number for "mostly MXFP4 experts".
const FILE_TYPE: u64 = 38;

/// All keys and values. The tokenizer comes from `tokenizer_json`, else from the source where that is a GGUF file;
/// `chat_template` is Jinja text.
pub(super) fn metadata(
    checkpoint: &Checkpoint,
    config: &Config,
    out: &Path,
    tokenizer_json: Option<&str>,
    chat_template: Option<&str>,
) -> Result<Vec<(String, GgufValue)>> {
    check(config, out)?;
    let mut keys = model(config);
    match (tokenizer_json, checkpoint.metadata()) {
        (Some(json), _) => {
            keys.extend(tokens(&Vocabulary::read(json, config.vocab_size, Path::new(checkpoint.source()))?));
            keys.extend(ids(config));
            keys.extend(chat_template.map(|t| named("tokenizer.chat_template", text(t))));
        }
        (None, Metadata::Gguf(source)) => {
            let tokenizer = source.iter().filter(|(key, _)| key.starts_with("tokenizer."));
            keys.extend(tokenizer.map(|(key, value)| named(key, value.clone())));
        }
        (None, Metadata::Json { .. }) => keys.extend(ids(config)),
    }
    Ok(keys)
}

/// What llama.cpp takes for constants cannot be another number.
fn check(config: &Config, out: &Path) -> Result<()> {
    let wrong = |key, wanted: &str, found: String| {
        Err(Error::key(out, key, format!("{wanted}: a GGUF file cannot say otherwise"), found))
    };
    if config.swiglu_limit != 7.0 {
        return wrong("swiglu_limit", "7", config.swiglu_limit.to_string());
    }
    if config.swiglu_alpha != 1.702 {
        return wrong("swiglu_alpha", "1.702", config.swiglu_alpha.to_string());
    }
    if config.rope.truncate {
        return wrong("rope_scaling.truncate", "false", "true".into());
    }
    Ok(())
}

fn named(key: &str, value: GgufValue) -> (String, GgufValue) {
    (key.to_owned(), value)
}

fn model(config: &Config) -> Vec<(String, GgufValue)> {
    let count = |key: &str, n: usize| (format!("gpt-oss.{key}"), GgufValue::Unsigned(n as u64));
    let number = |key: &str, x: f64| (format!("gpt-oss.{key}"), GgufValue::Float(x));
    let rope = &config.rope;
    let mut keys = vec![
        named("general.architecture", text("gpt-oss")),
        named("general.file_type", GgufValue::Unsigned(FILE_TYPE)),
        named("general.quantization_version", GgufValue::Unsigned(2)),
        count("block_count", config.num_layers),
        count("context_length", config.max_context),
        count("embedding_length", config.hidden_size),
        count("feed_forward_length", config.intermediate_size),
        count("attention.head_count", config.num_heads),
        count("attention.head_count_kv", config.num_kv_heads),
        count("attention.key_length", config.head_dim),
        count("attention.value_length", config.head_dim),
        number("attention.layer_norm_rms_epsilon", config.rms_norm_eps.into()),
        count("attention.sliding_window", config.sliding_window),
        count("expert_count", config.num_experts),
        count("expert_used_count", config.experts_per_token),
        count("expert_feed_forward_length", config.intermediate_size),
        number("rope.freq_base", rope.theta),
        named("gpt-oss.rope.scaling.type", text("yarn")),
        number("rope.scaling.factor", rope.factor),
        count("rope.scaling.original_context_length", rope.original_context),
    ];
    if (rope.beta_fast, rope.beta_slow) != (32.0, 1.0) {
        keys.push(number("rope.scaling.yarn_beta_fast", rope.beta_fast));
        keys.push(number("rope.scaling.yarn_beta_slow", rope.beta_slow));
    }
    let sliding: Vec<bool> = config.layer_types.iter().map(|&kind| kind == LayerKind::Sliding).collect();
    if sliding.iter().enumerate().any(|(layer, &slides)| slides != (layer % 2 == 0)) {
        keys.push(named("gpt-oss.attention.sliding_window_pattern", bools(&sliding)));
    }
    keys
}

fn tokens(vocabulary: &Vocabulary) -> Vec<(String, GgufValue)> {
    let mut keys = vec![
        named("tokenizer.ggml.model", text("gpt2")),
        named("tokenizer.ggml.pre", text(vocabulary.pre)),
        named("tokenizer.ggml.tokens", texts(&vocabulary.tokens)),
        named("tokenizer.ggml.token_type", integers(&vocabulary.types)),
        named("tokenizer.ggml.merges", texts(&vocabulary.merges)),
    ];
    keys.extend(vocabulary.bos.map(|id| named("tokenizer.ggml.bos_token_id", GgufValue::Unsigned(id.into()))));
    keys
}

fn ids(config: &Config) -> Vec<(String, GgufValue)> {
    let one = |key: &str, id: u32| named(key, GgufValue::Unsigned(id.into()));
    let mut keys = Vec::new();
    keys.extend(config.eos_ids.first().map(|&id| one("tokenizer.ggml.eos_token_id", id)));
    if config.eos_ids.len() > 1 {
        let several: Vec<i32> = config.eos_ids.iter().filter_map(|&id| i32::try_from(id).ok()).collect();
        keys.push(named("tokenizer.ggml.eos_token_ids", integers(&several)));
    }
    keys.extend(config.pad_id.map(|id| one("tokenizer.ggml.padding_token_id", id)));
    keys
}
