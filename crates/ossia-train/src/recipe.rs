//! A recipe: everything that decides a run, in one TOML file that a person can read.
//!
//! Unknown keys and impossible values are refused by name. The `[model]` table has the names of config.json, so a
//! published shape can be copied into it.

use std::io::Read;
use std::path::{Path, PathBuf};

use ossia_model::gpt_oss::config::Config;
use ossia_text::TRAINED_SIZES;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::dataset::NUM_CLASSES;
use crate::error::{Error, Result};

/// The whole of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// What the run is called.
    pub name: String,
    /// Of the first weights, of the data and of its order.
    pub seed: u64,
    /// The model's shape, with the names of config.json.
    pub model: toml::Table,
    /// How weights begin.
    #[serde(default)]
    pub init: Init,
    /// What is learned.
    pub data: Data,
    /// How it is learned.
    pub training: Training,
    /// Learning to be stored in few bits.
    #[serde(default)]
    pub quantize: Quantize,
    /// What is kept on the way.
    #[serde(default)]
    pub checkpoints: Checkpoints,
    /// What is measured on the way.
    #[serde(default)]
    pub validation: Validation,
    /// Where it was read; not a part of it.
    #[serde(skip)]
    pub file: PathBuf,
}

/// Normal numbers for matrices, ones for norms, zeros for biases and sinks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Init {
    /// Standard deviation of matrices; those that write to the residual stream get it divided by sqrt(2 layers).
    pub std: f32,
    /// Of the embedding table.
    pub embedding_std: f32,
}

impl Default for Init {
    fn default() -> Self {
        Self { std: 0.02, embedding_std: 0.02 }
    }
}

/// Generated conversations, or files of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// `generated`, or folders of shards.
    pub source: Source,
    /// Conversations to generate.
    #[serde(default)]
    pub documents: u64,
    /// Tokens of the vocabulary that is trained on the first of them.
    #[serde(default)]
    pub vocabulary: usize,
    /// Documents are cut after so many tokens.
    pub max_len: usize,
    /// How much each class of tokens counts.
    #[serde(default)]
    pub weights: Weights,
}

/// Where documents come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// [`crate::generate`].
    Generated,
    /// Shard files that exist, with the folder of their tokenizer.json.
    Shards(PathBuf),
}

/// How much the loss of a token counts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Weights {
    /// Tokens that are given: prompts and tools' results.
    pub context: f32,
    /// Thinking.
    pub analysis: f32,
    /// Plans and preambles.
    pub commentary: f32,
    /// Answers.
    pub r#final: f32,
    /// Calls of tools.
    pub tool_call: f32,
}

impl Default for Weights {
    fn default() -> Self {
        Self { context: 0.0, analysis: 1.0, commentary: 1.0, r#final: 1.0, tool_call: 1.0 }
    }
}

impl Weights {
    /// In the order of [`crate::dataset::class`].
    pub fn classes(&self) -> [f32; NUM_CLASSES] {
        [self.context, self.analysis, self.commentary, self.r#final, self.tool_call]
    }
}

/// Which optimizer moves the matrices of attention and experts. Everything else is AdamW's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Optimizer {
    /// [`ossia_kernels::ops::adamw`].
    Adamw,
    /// [`ossia_kernels::ops::muon`].
    Muon,
}

/// How the learning rate goes after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// It stays, then falls on a line: warm-up, stable, decay.
    Wsd,
    /// It falls as a cosine from the end of the warm-up on.
    Cosine,
}

/// How it is learned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Training {
    /// Updates.
    pub steps: u64,
    /// Tokens of an update, at most.
    pub batch_tokens: usize,
    /// Tokens whose activations are held at once, at most: gradients of micro batches are added up.
    pub micro_tokens: usize,
    /// Whether blocks are computed twice rather than kept: a third of the memory, a fifth slower, the same bits.
    #[serde(default)]
    pub recompute: bool,
    /// For matrices.
    pub optimizer: Optimizer,
    /// Highest learning rate.
    pub lr: f32,
    /// How it goes.
    pub schedule: Shape,
    /// Share of the steps in which it rises from zero.
    pub warmup: f32,
    /// Share of the steps in which it falls, for `wsd`.
    #[serde(default = "decay")]
    pub decay: f32,
    /// Its end, as a share of the highest.
    #[serde(default)]
    pub min_lr: f32,
    /// Decoupled weight decay of matrices.
    #[serde(default)]
    pub weight_decay: f32,
    /// β1, β2.
    #[serde(default = "betas")]
    pub betas: (f32, f32),
    /// AdamW's eps.
    #[serde(default = "eps")]
    pub eps: f32,
    /// Muon's β.
    #[serde(default = "momentum")]
    pub momentum: f32,
    /// Longest gradient; a longer one is scaled down.
    #[serde(default = "clip")]
    pub clip: f32,
    /// Coefficient of the router's auxiliary loss, at the beginning and at the end.
    #[serde(default)]
    pub aux_loss: (f32, f32),
    /// Coefficient of the router's z-loss.
    #[serde(default)]
    pub router_z_loss: f32,
    /// Coefficient of the z-loss of the logits.
    #[serde(default)]
    pub z_loss: f32,
}

fn decay() -> f32 {
    0.3
}
fn betas() -> (f32, f32) {
    (0.9, 0.95)
}
fn eps() -> f32 {
    1e-8
}
fn momentum() -> f32 {
    0.95
}
fn clip() -> f32 {
    1.0
}

/// Quantisation-aware training: the forward pass sees the weights as they will be stored, the update moves the full ones.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Quantize {
    /// From this share of the steps on; 1 is never.
    pub from: f32,
}

impl Default for Quantize {
    fn default() -> Self {
        Self { from: 1.0 }
    }
}

/// What is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Checkpoints {
    /// Steps from one to the next.
    pub every: u64,
    /// The newest that stay, besides the best.
    pub keep: usize,
}

impl Default for Checkpoints {
    fn default() -> Self {
        Self { every: 200, keep: 2 }
    }
}

/// What is measured on held-out conversations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Validation {
    /// Steps from one to the next.
    pub every: u64,
    /// Conversations.
    pub documents: u64,
}

impl Default for Validation {
    fn default() -> Self {
        Self { every: 200, documents: 600 }
    }
}

/// Bytes of the largest recipe that is read.
const MOST_BYTES: u64 = 1 << 20;
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
    /// Reads and checks a recipe.
    pub fn read(file: &Path) -> Result<Self> {
        let io = |source| Error::Io { path: file.into(), action: "read the recipe", source };
        let mut bytes = Vec::new();
        let opened = std::fs::File::open(file).map_err(io)?;
        opened.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(io)?;
        let wrong = |message: String| Error::RecipeSyntax { file: file.into(), message };
        if bytes.len() as u64 > MOST_BYTES {
            return Err(wrong(format!("wanted a recipe of at most {MOST_BYTES} bytes, found more")));
        }
        let text = String::from_utf8(bytes).map_err(|error| {
            wrong(format!("wanted UTF-8, found other bytes after {}", error.utf8_error().valid_up_to()))
        })?;
        Self::parse(&text, file)
    }

    /// The same from its text; `file` is for messages.
    pub fn parse(text: &str, file: &Path) -> Result<Self> {
        let mut recipe: Self = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            let said = error.message().replace(char::is_control, " ");
            let message = format!("line {line}: {said}");
            Error::RecipeSyntax { file: file.into(), message }
        })?;
        recipe.file = file.into();
        recipe.check()?;
        Ok(recipe)
    }

    /// An error that names `key`.
    pub(crate) fn wrong(&self, key: &str, wanted: &str, found: impl std::fmt::Display) -> Error {
        Error::Recipe { file: self.file.clone(), key: key.into(), wanted: wanted.into(), found: found.to_string() }
    }

    fn check(&self) -> Result<()> {
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

    /// The model's config before there are data, for a plan.
    pub fn planned_config(&self) -> Result<Config> {
        if self.data.source != Source::Generated && !self.model.contains_key("vocab_size") {
            let wanted = "the size of the shards' vocabulary: a plan reads no data";
            return Err(self.wrong("model.vocab_size", wanted, "none"));
        }
        self.config(self.data.vocabulary)
    }

    /// The model's config, for a vocabulary of this size where `[model]` names none.
    pub fn config(&self, vocabulary: usize) -> Result<Config> {
        let mut value = serde_json::to_value(&self.model)
            .map_err(|e| Error::RecipeSyntax { file: self.file.clone(), message: format!("model: {e}") })?;
        if let Value::Object(map) = &mut value {
            map.insert("model_type".into(), json!("gpt_oss"));
            map.entry("vocab_size").or_insert(json!(vocabulary));
        }
        Ok(Config::from_json(&value, &self.file)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NANO: &str = include_str!("../recipes/nano.toml");

    fn parse(text: &str) -> Result<Recipe> {
        Recipe::parse(text, Path::new("r.toml"))
    }

    #[test]
    fn the_recipes_that_come_with_the_program_are_valid() {
        assert_eq!(parse(NANO).unwrap().name, "nano");
        let big = parse(include_str!("../recipes/gpt-oss-20b.toml")).unwrap();
        assert_eq!(big.config(0).unwrap().param_counts().total, 20_914_757_184);
    }

    #[test]
    fn mistakes_are_named() {
        let cases = [
            ("lr = ", "lrr = ", "unknown field `lrr`"),
            ("hidden_size = 128", "hidden_size = 100", "hidden_size: wanted"),
            ("hidden_size = 128", "hiden_size = 128", "model.hiden_size: wanted one of"),
            ("num_experts_per_tok = 2", "num_experts_per_tok = 9", "wanted"),
            ("warmup = 0.03", "warmup = 1.5", "training.warmup: wanted a share from 0 to 1, found 1.5"),
            ("micro_tokens = ", "micro_tokens = 1 #", "training.micro_tokens: wanted at least data.max_len"),
            (
                "vocabulary = ",
                "vocabulary = 3 #",
                "data.vocabulary: wanted 265 (bytes and special tokens) to 1048576, found 3",
            ),
            ("schedule = \"wsd\"", "schedule = \"wds\"", "line"),
        ];
        for (from, to, message) in cases {
            assert!(NANO.contains(from), "{from}");
            let error = parse(&NANO.replace(from, to)).unwrap_err().to_string();
            assert!(error.contains(message) && error.contains("r.toml") && !error.contains('\n'), "{to}: {error}");
        }
    }
}
