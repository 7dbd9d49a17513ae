//! What happens in a run, step by step: one `Record` a step, kept in `metrics.jsonl`, which is the truth that pictures
//! (`plot`) and TensorBoard's files (`events`) are made from.

pub mod events;
mod log;
mod number;
#[cfg(test)]
mod tests;

pub use log::{Log, read};

use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

use crate::dataset::{NUM_CLASSES, class};

/// One optimizer step. Losses are in nats a token and may be not finite: a run that diverges is logged as it is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Number of steps done, this one included: the first is 1.
    pub step: u64,
    /// Tokens read since the run began.
    pub tokens: u64,
    /// Documents read since the run began.
    pub documents: u64,
    /// Mean cross entropy over the learned tokens of this step, nats a token.
    #[serde(with = "number")]
    pub loss: f64,
    /// The same mean over each class of learned tokens.
    #[serde(default)]
    pub loss_per_class: ClassLosses,
    /// Mean cross entropy over the validation set, nats a token, at the steps that measure it.
    #[serde(default, with = "number::option", skip_serializing_if = "Option::is_none")]
    pub valid_loss: Option<f64>,
    /// Load balancing loss as it is added to `loss`, its weight included.
    #[serde(with = "number")]
    pub aux_loss: f64,
    /// Penalty on large logits as it is added to `loss`, its weight included.
    #[serde(with = "number")]
    pub z_loss: f64,
    /// Euclidean length of the gradient before clipping.
    #[serde(with = "number")]
    pub grad_norm: f64,
    /// Learning rate of this step.
    #[serde(with = "number")]
    pub lr: f64,
    /// Speed, tokens a second.
    #[serde(with = "number")]
    pub tok_s: f64,
    /// Useful arithmetic as a share of the machine's measured peak, 0 to 1.
    #[serde(with = "number")]
    pub flops_share: f64,
    /// Time since the run began, seconds, time before a resume included.
    #[serde(with = "number")]
    pub elapsed_s: f64,
    /// The most memory that the process has held, bytes.
    pub peak_rss_bytes: u64,
    /// What pairs of answers say, in fine-tuning on preferences.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preference: Option<Preference>,
    /// The same over held-out pairs, at the steps that measure it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_preference: Option<Preference>,
    /// What the model's own answers say, in fine-tuning on rewards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Policy>,
    /// Mean reward of answers to held-out questions, at the steps that measure it.
    #[serde(default, with = "number::option", skip_serializing_if = "Option::is_none")]
    pub valid_reward: Option<f64>,
    /// Share of the step's routes that each expert got, `[layer][expert]`; a layer's shares sum to 1.
    #[serde(default)]
    pub expert_load: Vec<Vec<f32>>,
}

impl Record {
    /// How uneven each layer's routing is: largest share over the mean share, 1 when even. `[layer]`.
    pub fn max_over_mean(&self) -> Vec<f64> {
        self.expert_load.iter().map(|shares| max_over_mean(shares)).collect()
    }
}

/// How much better a model likes the better answer of a pair.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Preference {
    /// Mean of β times how much more the better answer has gained over the reference, nats.
    #[serde(with = "number")]
    pub margin: f64,
    /// Share of pairs whose better answer has gained more.
    #[serde(with = "number")]
    pub accuracy: f64,
}

/// Answers that a model has made itself, and what was learned of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    /// Mean reward.
    #[serde(with = "number")]
    pub reward: f64,
    /// Mean over the questions of the standard deviation of their answers' rewards; 0 teaches nothing.
    #[serde(with = "number")]
    pub spread: f64,
    /// Mean length of an answer, tokens.
    #[serde(with = "number")]
    pub length: f64,
    /// Share of answers that ended by themselves.
    #[serde(with = "number")]
    pub stopped: f64,
    /// Mean distance to the base, nats a token; not measured where its coefficient is 0.
    #[serde(default, with = "number::option", skip_serializing_if = "Option::is_none")]
    pub kl: Option<f64>,
    /// Share of tokens whose ratio was out of bounds.
    #[serde(with = "number")]
    pub clipped: f64,
    /// Largest difference from 1 of a ratio on the first update after the answers were made: exactly 0.
    #[serde(with = "number")]
    pub off_policy: f64,
    /// Largest difference of a token's log probability where it was drawn and where it is trained, nats.
    #[serde(with = "number")]
    pub rollout_difference: f64,
}

/// Mean loss over the tokens of each harmony channel, nats a token; none where the step had no such token.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct ClassLosses {
    /// Thinking.
    #[serde(default, with = "number::option", skip_serializing_if = "Option::is_none")]
    pub analysis: Option<f64>,
    /// What is said around tool calls.
    #[serde(default, with = "number::option", skip_serializing_if = "Option::is_none")]
    pub commentary: Option<f64>,
    /// Answers.
    #[serde(default, with = "number::option", skip_serializing_if = "Option::is_none")]
    pub r#final: Option<f64>,
    /// Arguments of tool calls.
    #[serde(default, with = "number::option", skip_serializing_if = "Option::is_none")]
    pub call: Option<f64>,
}

impl ClassLosses {
    /// From the losses of [`class`], in its order.
    pub fn of(per_class: &[Option<f64>; NUM_CLASSES]) -> Self {
        let of = |class: u8| per_class[usize::from(class)];
        Self {
            analysis: of(class::ANALYSIS),
            commentary: of(class::COMMENTARY),
            r#final: of(class::FINAL),
            call: of(class::TOOL_CALL),
        }
    }
}

impl ClassLosses {
    /// Each class' name with its loss, always in this order.
    pub fn named(&self) -> [(&'static str, Option<f64>); 4] {
        [("analysis", self.analysis), ("commentary", self.commentary), ("final", self.r#final), ("call", self.call)]
    }
}

/// What can be wrong with a log.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be opened, read or written.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A line before the last is not a record.
    #[error(
        "{}:{line}: wanted one record as a JSON object, found {what}; restore the file, or remove the line",
        path.display()
    )]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        what: String,
    },
    /// A new run would write into a file that holds another run.
    #[error(
        "{} already holds {num_records} records: resume that run, or choose another folder for the new one",
        path.display()
    )]
    Occupied {
        /// The file.
        path: PathBuf,
        /// How many records it holds.
        num_records: usize,
    },
}

impl Error {
    fn io(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
        move |source| Error::Io { doing, path: path.to_owned(), source }
    }
}

/// Largest share over the mean share; 0 for no experts, and not a number if a share is not one.
fn max_over_mean(shares: &[f32]) -> f64 {
    let sum: f64 = shares.iter().map(|&share| f64::from(share)).sum();
    let max = shares.iter().fold(0.0, |max: f64, &share| max.max(f64::from(share)));
    if shares.is_empty() { 0.0 } else { max * shares.len() as f64 / sum }
}
