//! What a recipe must fulfil before anything is made.

use ossia_model::gpt_oss::config::Config;
use ossia_text::TRAINED_SIZES;

use super::{Recipe, Source};
use crate::error::Result;

/// Updates, at most: names of checkpoints have eight digits.
const MOST_STEPS: u64 = 99_999_999;
/// Tokens of a batch, at most, and of a micro batch: sizes of memory are computed from them.
const MOST_TOKENS: [u64; 2] = [1 << 32, 1 << 24];
/// Bytes of a micro batch, at most: far beyond any machine, and sizes that are computed from them stay numbers.
const MOST_KEPT_BYTES: u128 = 1 << 56;
/// Conversations that are generated, at most: indices and positions stay far from their ends.
const MOST_DOCUMENTS: u64 = 1_000_000_000;
/// Keys of `[model.rope_scaling]`.
const ROPE_KEYS: [&str; 8] = [
    "rope_type",
    "type",
    "factor",
    "beta_fast",
    "beta_slow",
    "truncate",
    "original_max_position_embeddings",
    "attention_factor",
];
/// Keys of `[model]`.
const MODEL_KEYS: [&str; 15] = [
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "num_local_experts",
    "num_experts_per_tok",
    "sliding_window",
    "max_position_embeddings",
    "rope_theta",
    "rope_scaling",
    "rms_norm_eps",
    "swiglu_limit",
    "vocab_size",
];

/// What a token leaves for the way back, roughly.
fn kept_bytes_of_token(config: &Config) -> u128 {
    let numbers = |of: [usize; 4]| of.into_iter().map(|n| n as u128).sum::<u128>();
    let block = numbers([config.hidden_size, config.query_size(), config.kv_size(), config.num_experts]);
    let expert = numbers([config.hidden_size, 2 * config.intermediate_size, 0, 0]);
    4 * config.num_layers as u128 * (4 * block + config.experts_per_token as u128 * expert)
}

impl Recipe {
    pub(super) fn check(&self) -> Result<()> {
        self.check_names()?;
        let t = &self.training;
        let shares = [
            ("training.warmup", t.warmup),
            ("training.decay", t.decay),
            ("training.min_lr", t.min_lr),
            ("quantize.from", self.quantize.from),
        ];
        for (key, share) in shares {
            if !(0.0..=1.0).contains(&share) {
                return Err(self.wrong(key, "a share from 0 to 1", share));
            }
        }
        let positive =
            [("training.lr", t.lr), ("training.clip", t.clip), ("training.eps", t.eps), ("init.std", self.init.std)];
        for (key, value) in positive {
            if !(value.is_finite() && value > 0.0) {
                return Err(self.wrong(key, "a number above 0", value));
            }
        }
        let not_negative = [
            ("init.embedding_std", self.init.embedding_std),
            ("training.weight_decay", t.weight_decay),
            ("training.aux_loss", t.aux_loss.0.min(t.aux_loss.1)),
            ("training.aux_loss", t.aux_loss.0.max(t.aux_loss.1)),
            ("training.router_z_loss", t.router_z_loss),
            ("training.z_loss", t.z_loss),
        ];
        for (key, value) in not_negative {
            if !(value.is_finite() && value >= 0.0) {
                return Err(self.wrong(key, "a number that is not negative", value));
            }
        }
        self.check_counts()?;
        self.check_relations()
    }

    /// The run's name, and the keys that the parser leaves to us.
    fn check_names(&self) -> Result<()> {
        let name = &self.name;
        if name.is_empty() || name.starts_with('.') || name.contains(|c: char| c == '/' || c == '\\' || c.is_control())
        {
            let found = name.replace(char::is_control, " ");
            return Err(self.wrong("name", "a name that a folder can have, with no dot in front", found));
        }
        let rope = self.model.get("rope_scaling").and_then(toml::Value::as_table);
        let tables = [("model", Some(&self.model), &MODEL_KEYS[..]), ("model.rope_scaling", rope, &ROPE_KEYS)];
        for (table, keys, known) in tables {
            if let Some(key) = keys.into_iter().flat_map(toml::Table::keys).find(|key| !known.contains(&key.as_str())) {
                let key = key.replace(char::is_control, " ");
                return Err(self.wrong(&format!("{table}.{key}"), &format!("one of {}", known.join(", ")), "this key"));
            }
        }
        Ok(())
    }

    fn check_counts(&self) -> Result<()> {
        let t = &self.training;
        let counts = [
            ("training.steps", t.steps),
            ("training.batch_tokens", t.batch_tokens as u64),
            ("training.micro_tokens", t.micro_tokens as u64),
            ("data.max_len", self.data.max_len as u64),
            ("checkpoints.every", self.checkpoints.every),
            ("validation.every", self.validation.every),
        ];
        for (key, value) in counts {
            if value == 0 {
                return Err(self.wrong(key, "a count above 0", value));
            }
        }
        let bounded = [
            ("training.steps", t.steps, MOST_STEPS),
            ("training.batch_tokens", t.batch_tokens as u64, MOST_TOKENS[0]),
            ("training.micro_tokens", t.micro_tokens as u64, MOST_TOKENS[1]),
            ("data.documents", self.data.documents, MOST_DOCUMENTS),
            ("validation.documents", self.validation.documents, MOST_DOCUMENTS),
        ];
        for (key, value, most) in bounded {
            if value > most {
                return Err(self.wrong(key, &format!("at most {most}"), value));
            }
        }
        Ok(())
    }

    fn check_relations(&self) -> Result<()> {
        let (t, max_len) = (&self.training, self.data.max_len);
        for (key, beta) in
            [("training.betas", t.betas.0), ("training.betas", t.betas.1), ("training.momentum", t.momentum)]
        {
            if !(0.0..1.0).contains(&beta) {
                return Err(self.wrong(key, "numbers from 0 to below 1", beta));
            }
        }
        if t.micro_tokens < max_len {
            let wanted = format!("at least data.max_len, {max_len}: a document is never split over micro batches");
            return Err(self.wrong("training.micro_tokens", &wanted, t.micro_tokens));
        }
        if t.batch_tokens < t.micro_tokens {
            let wanted = format!("at least training.micro_tokens, {}", t.micro_tokens);
            return Err(self.wrong("training.batch_tokens", &wanted, t.batch_tokens));
        }
        if t.warmup + t.decay > 1.0 {
            return Err(self.wrong("training.decay", "a share that leaves room for the warm-up", t.decay));
        }
        if self.data.weights.classes().iter().any(|w| !(w.is_finite() && *w >= 0.0)) {
            return Err(self.wrong("data.weights", "numbers that are not negative", "one that is"));
        }
        if self.data.weights.classes().iter().all(|w| *w == 0.0) {
            return Err(self.wrong("data.weights", "a class of tokens that counts", "none"));
        }
        if self.data.source == Source::Generated {
            self.check_generated()?;
        }
        let config = self.config(512)?;
        let context = config.max_context;
        if max_len > context {
            let wanted = format!("at most model.max_position_embeddings, {context}");
            return Err(self.wrong("data.max_len", &wanted, max_len));
        }
        let most = MOST_KEPT_BYTES / kept_bytes_of_token(&config);
        if t.micro_tokens as u128 > most {
            let wanted = format!("at most {most}, by what this shape keeps of a token");
            return Err(self.wrong("training.micro_tokens", &wanted, t.micro_tokens));
        }
        Ok(())
    }

    fn check_generated(&self) -> Result<()> {
        let (sizes, size) = (TRAINED_SIZES, self.data.vocabulary);
        if self.data.documents == 0 {
            return Err(self.wrong("data.documents", "how many conversations to generate", 0));
        }
        if !sizes.contains(&size) {
            let wanted = format!("{} (bytes and special tokens) to {}", sizes.start(), sizes.end());
            return Err(self.wrong("data.vocabulary", &wanted, size));
        }
        // What is no number is refused with the shape.
        match self.model.get("vocab_size").and_then(toml::Value::as_integer) {
            Some(rows) if usize::try_from(rows).is_ok_and(|rows| rows < size) => {
                Err(self.wrong("model.vocab_size", &format!("none, or at least data.vocabulary, {size}"), rows))
            }
            _ => Ok(()),
        }
    }
}
