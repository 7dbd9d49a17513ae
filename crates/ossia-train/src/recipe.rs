//! A recipe: everything that decides a run, in one TOML file that a person can read.
//!
//! Unknown keys and impossible values are refused by name. The `[model]` table has the names of config.json, so a
//! published shape can be copied into it.

mod check;

use std::io::Read;
use std::path::{Path, PathBuf};

use ossia_model::gpt_oss::config::Config;
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
        assert_eq!(parse(include_str!("../recipes/gpu-report.toml")).unwrap().training.steps, 12);
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
