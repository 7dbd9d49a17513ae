//! What decides a fine-tuning run: the tables under `[finetune]` of one TOML file, all with good defaults.
//!
//! Unknown keys and impossible values are refused by name. What a person does not say (the learning rate, the length of
//! documents) follows from the method and the model, so that an empty file is a run.

use std::io::Read;
use std::path::{Path, PathBuf};

use ossia_model::gpt_oss::adapter::{AdapterConfig, ExpertSharing, Targets};
use ossia_model::gpt_oss::config::Config as ModelConfig;
use serde::{Deserialize, Serialize};

use super::check;
use crate::error::{Error, Result};
use crate::recipe::{Optimizer, Shape, Training, Weights};

/// How the model learns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// An adapter, from conversations.
    Sft,
    /// Every weight, from conversations: for models that fit five times as floats.
    Full,
    /// An adapter, from pairs of a better and a worse answer.
    Dpo,
    /// An adapter, from answers of its own that graders judge.
    Grpo,
}

impl Method {
    /// The word in files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sft => "sft",
            Self::Full => "full",
            Self::Dpo => "dpo",
            Self::Grpo => "grpo",
        }
    }

    /// Learning rate for a model as wide as gpt-oss (2880); a narrower one takes more.
    fn lr(self) -> f32 {
        match self {
            Self::Sft => 4e-4,
            Self::Full => 2e-5,
            Self::Dpo => 4e-5,
            Self::Grpo => 1e-4,
        }
    }
}

/// What may be adapted, by the names that files use.
pub const TARGETS: [&str; 4] = ["attention", "experts", "router", "unembedding"];

/// The whole of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How the model learns.
    pub method: Method,
    /// Of the first adapter, of the order of the data, of what is drawn.
    pub seed: u64,
    /// How often all data are seen.
    pub epochs: f64,
    /// Updates, where they are to be so many whatever the epochs are.
    pub steps: Option<u64>,
    /// Highest learning rate; by default it follows from the method and the model's width.
    pub lr: Option<f32>,
    /// Times the learning rate that follows, for who does not know it.
    pub lr_multiplier: f32,
    /// What is adapted.
    pub adapter: Adapter,
    /// What is learned.
    pub data: Data,
    /// How updates are made.
    pub training: Updates,
    /// What is measured on the way.
    pub validation: Validation,
    /// What is kept on the way.
    pub checkpoints: Checkpoints,
    /// For `dpo`.
    pub dpo: Dpo,
    /// For `grpo`.
    pub grpo: Grpo,
    /// Where it was read; not a part of it.
    #[serde(skip)]
    pub file: PathBuf,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            method: Method::Sft,
            seed: 1,
            epochs: 3.0,
            steps: None,
            lr: None,
            lr_multiplier: 1.0,
            adapter: Adapter::default(),
            data: Data::default(),
            training: Updates::default(),
            validation: Validation::default(),
            checkpoints: Checkpoints::default(),
            dpo: Dpo::default(),
            grpo: Grpo::default(),
            file: PathBuf::from("the defaults"),
        }
    }
}

/// `[finetune.adapter]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Adapter {
    /// r: how many directions each matrix is moved in.
    pub rank: usize,
    /// The adapter's product counts alpha / rank; twice the rank by default.
    pub alpha: Option<f32>,
    /// Of [`TARGETS`].
    pub targets: Vec<String>,
    /// How the experts' adapters are laid out.
    pub experts: Experts,
}

impl Default for Adapter {
    fn default() -> Self {
        let targets = ["attention", "experts"].map(str::to_owned).to_vec();
        Self { rank: 16, alpha: None, targets, experts: Experts::SharedOuter }
    }
}

/// How experts' adapters are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Experts {
    /// Matrices of its own for each expert.
    Each,
    /// Those that touch the residual stream are shared by the experts of a layer.
    SharedOuter,
}

/// `[finetune.data]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Data {
    /// What the files hold: `auto`, `chat`, `preference`, `sharegpt`, `alpaca`, `items`.
    pub format: String,
    /// Whether a bad line ends the run (`fail`) or is counted and passed over (`skip`).
    pub on_bad: String,
    /// The longest document, tokens; by default 2048, or the model's context where that is shorter.
    pub max_len: Option<usize>,
    /// How long the model thinks in data that do not say: `low`, `medium`, `high`.
    pub reasoning: String,
    /// The date of the system message: `drawn` (another for each document), `none`, or one of its own.
    pub date: String,
    /// How much each class of tokens counts.
    pub weights: Weights,
}

impl Default for Data {
    fn default() -> Self {
        Self {
            format: "auto".into(),
            on_bad: "fail".into(),
            max_len: None,
            reasoning: "medium".into(),
            date: "drawn".into(),
            weights: Weights::default(),
        }
    }
}

/// `[finetune.training]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Updates {
    /// Tokens of an update, at most: so many micro batches as fit. By default a fiftieth of the data, at most 8192.
    pub batch_tokens: Option<usize>,
    /// Tokens whose activations are held at once, at most; by default the longest document (pair, for `dpo`).
    pub micro_tokens: Option<usize>,
    /// Whether blocks are computed twice rather than kept: less memory, slower, the same bits.
    pub recompute: bool,
    /// How the learning rate goes.
    pub schedule: Shape,
    /// Share of the steps in which it rises from zero.
    pub warmup: f32,
    /// Share of the steps in which it falls, for `wsd`.
    pub decay: f32,
    /// Its end, as a share of the highest.
    pub min_lr: f32,
    /// Decoupled weight decay of matrices.
    pub weight_decay: f32,
    /// β1, β2.
    pub betas: (f32, f32),
    /// AdamW's eps.
    pub eps: f32,
    /// Longest gradient; a longer one is scaled down.
    pub clip: f32,
    /// Coefficient of the router's auxiliary loss. Off: with it, fine-tuning pulls at the router for its own sake.
    pub aux_loss: f32,
}

impl Default for Updates {
    fn default() -> Self {
        Self {
            batch_tokens: None,
            micro_tokens: None,
            recompute: true,
            schedule: Shape::Cosine,
            warmup: 0.05,
            decay: 0.3,
            min_lr: 0.1,
            weight_decay: 0.0,
            betas: (0.9, 0.95),
            eps: 1e-8,
            clip: 1.0,
            aux_loss: 0.0,
        }
    }
}

/// `[finetune.validation]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Validation {
    /// Share of the data that is held out and measured, where no file is given.
    pub share: f64,
    /// Held-out data of their own.
    pub file: Option<PathBuf>,
    /// The most examples that are held out: measuring them takes time.
    pub most: usize,
    /// Steps from one measurement to the next; by default ten in a run.
    pub every: Option<u64>,
    /// Measurements without a new best after which the run ends; 0 is never. The adapter is then the best one.
    pub patience: u64,
}

impl Default for Validation {
    fn default() -> Self {
        Self { share: 0.05, file: None, most: 500, every: None, patience: 0 }
    }
}

/// `[finetune.checkpoints]`.
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
        Self { every: 50, keep: 2 }
    }
}

/// `[finetune.dpo]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Dpo {
    /// How closely the model is held to what it was: smaller lets it go further.
    pub beta: f32,
}

impl Default for Dpo {
    fn default() -> Self {
        Self { beta: 0.1 }
    }
}

/// `[finetune.grpo]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Grpo {
    /// What judges an answer, in the shape of OpenAI's graders.
    pub grader: toml::Table,
    /// Questions of an update.
    pub prompts: usize,
    /// Answers to each question.
    pub group: usize,
    /// Tokens of an answer, at most.
    pub max_tokens: usize,
    /// Of the draws. The model that is trained is the one at 1.
    pub temperature: f32,
    /// Updates on the same answers.
    pub updates: usize,
    /// How far from 1 a ratio of probabilities still moves something.
    pub clip: f32,
    /// Coefficient of the distance to the base; 0 spares its forward pass.
    pub kl: f32,
}

impl Default for Grpo {
    fn default() -> Self {
        Self {
            grader: toml::Table::new(),
            prompts: 8,
            group: 8,
            max_tokens: 256,
            temperature: 1.0,
            updates: 1,
            clip: 0.2,
            kl: 0.0,
        }
    }
}

/// Bytes of the largest file that is read.
const MOST_BYTES: u64 = 1 << 20;
/// The width that [`Method::lr`] is for.
const WIDTH: f32 = 2880.0;
/// Tokens of a document, where nobody says.
const MAX_LEN: usize = 2048;
/// Of a micro batch: smaller ones cost more than they save.
const LEAST_MICRO: usize = 1024;
/// Of an update, where nobody says.
const MOST_USUAL: usize = 8192;
/// Updates of an epoch, where nobody says and the data are few.
const UPDATES_OF_AN_EPOCH: u64 = 50;
/// How full micro batches are.
const USUALLY_FULL: f64 = 0.99;

/// The file: other tables than this one are mistakes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    finetune: Config,
}

impl Config {
    /// Reads and checks a file.
    pub fn read(file: &Path) -> Result<Self> {
        let io = |source| Error::Io { path: file.into(), action: "read the configuration", source };
        let mut bytes = Vec::new();
        let opened = std::fs::File::open(file).map_err(io)?;
        opened.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(io)?;
        let wrong = |message: String| Error::RecipeSyntax { file: file.into(), message };
        if bytes.len() as u64 > MOST_BYTES {
            return Err(wrong(format!("wanted a file of at most {MOST_BYTES} bytes, found more")));
        }
        let text = String::from_utf8(bytes).map_err(|error| {
            wrong(format!("wanted UTF-8, found other bytes after {}", error.utf8_error().valid_up_to()))
        })?;
        Self::parse(&text, file)
    }

    /// The same from its text; `file` is for messages.
    pub fn parse(text: &str, file: &Path) -> Result<Self> {
        let File { finetune: mut config } = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            let message = format!("line {line}: {}", error.message().replace(char::is_control, " "));
            Error::RecipeSyntax { file: file.into(), message }
        })?;
        config.file = file.into();
        config.check()?;
        Ok(config)
    }

    /// Refuses what cannot be, by name. Who changes a configuration calls it again.
    pub fn check(&self) -> Result<()> {
        check::config(self)
    }

    /// An error that names `key`.
    pub(crate) fn wrong(&self, key: &str, wanted: &str, found: impl std::fmt::Display) -> Error {
        let found = found.to_string().replace(char::is_control, " ");
        Error::Recipe { file: self.file.clone(), key: format!("finetune.{key}"), wanted: wanted.into(), found }
    }

    /// What the model is given besides its weights.
    pub fn adapter_config(&self) -> AdapterConfig {
        let has = |name: &str| self.adapter.targets.iter().any(|target| target == name);
        let sharing = match self.adapter.experts {
            Experts::Each => ExpertSharing::Each,
            Experts::SharedOuter => ExpertSharing::SharedOuter,
        };
        let rank = self.adapter.rank;
        AdapterConfig {
            rank,
            alpha: self.adapter.alpha.unwrap_or(2.0 * rank as f32),
            targets: Targets {
                attention: has("attention"),
                router: has("router"),
                unembedding: has("unembedding"),
                experts: has("experts").then_some(sharing),
            },
        }
    }

    /// The longest document, tokens, for a model of this shape.
    pub fn max_len(&self, model: &ModelConfig) -> usize {
        self.data.max_len.unwrap_or(MAX_LEN.min(model.max_context))
    }

    /// Tokens of the largest micro batch on a model of this shape.
    pub fn micro_tokens(&self, model: &ModelConfig) -> usize {
        let longest = self.max_len(model);
        match self.method {
            // A pair stays together, however long it is.
            Method::Dpo => self.training.micro_tokens.unwrap_or(0).max(2 * longest),
            _ => self.training.micro_tokens.unwrap_or(longest.max(LEAST_MICRO)).max(longest),
        }
    }

    /// How updates are made on a model of this shape, where an epoch has `rows` rows.
    pub fn training(&self, model: &ModelConfig, rows: u64) -> Training {
        let u = &self.training;
        let micro_tokens = self.micro_tokens(model);
        let usual = usize::try_from(rows / UPDATES_OF_AN_EPOCH).unwrap_or(usize::MAX).min(MOST_USUAL);
        let accumulated = (u.batch_tokens.unwrap_or(usual) / micro_tokens).max(1);
        let micro_of_an_epoch = (rows as f64 / micro_tokens as f64 / USUALLY_FULL).ceil();
        let steps = (self.epochs * micro_of_an_epoch / accumulated as f64).ceil().max(1.0) as u64;
        Training {
            steps: self.steps.unwrap_or(steps),
            batch_tokens: micro_tokens * accumulated,
            micro_tokens,
            recompute: u.recompute,
            optimizer: Optimizer::Adamw,
            lr: self.lr(model),
            schedule: u.schedule,
            warmup: u.warmup,
            decay: u.decay,
            min_lr: u.min_lr,
            weight_decay: u.weight_decay,
            betas: u.betas,
            eps: u.eps,
            momentum: 0.0,
            clip: u.clip,
            aux_loss: (u.aux_loss, u.aux_loss),
            router_z_loss: 0.0,
            z_loss: 0.0,
        }
    }

    /// The highest learning rate: what was said, or what suits the method and the model's width.
    pub fn lr(&self, model: &ModelConfig) -> f32 {
        let narrower = WIDTH / model.hidden_size as f32;
        let usual = match self.method {
            // Of all weights an update moves each output by as many numbers as the model is wide.
            Method::Full => self.method.lr() * narrower,
            _ => self.method.lr() * narrower.sqrt(),
        };
        self.lr.unwrap_or(usual) * self.lr_multiplier
    }

    /// Steps from one measurement to the next.
    pub fn validate_every(&self, steps: u64) -> u64 {
        self.validation.every.unwrap_or(steps.div_ceil(10)).max(1)
    }
}
