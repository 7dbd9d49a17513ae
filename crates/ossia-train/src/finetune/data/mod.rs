//! From a user's files to what a fine-tuning run learns from: shards of documents, pairs of answers, items to be graded.
//!
//! `records` cuts a file into examples, `chat`, `foreign` and `preference` read their forms into a `talk`, which becomes
//! the harmony conversation that the server would make of it; `turns` makes tokens of it, `items` keeps prompts, and
//! `reading` runs all of it over all files and writes what comes as it comes, so that files of any size take the same
//! memory; `prepare` does this once for a folder. `asked` reads the same files as an examination. Everything that is read here is untrusted: an example that is wrong is one error with file and line, or is
//! passed over and counted, as the settings say.

mod asked;
mod chat;
mod error;
mod fields;
mod foreign;
mod items;
mod preference;
mod prepare;
mod reading;
mod records;
mod report;
mod talk;
#[cfg(test)]
mod tests;
mod tools;
mod turns;
mod writer;

use std::path::PathBuf;

use ossia_text::harmony::Effort;
use serde::{Deserialize, Serialize};

use crate::dataset::{Document, ShardFile};

pub use asked::{Asked, asked};
pub use error::{Error, Result};
pub use items::{Item, Items};
pub use prepare::{Progress, prepare};
pub use report::{Report, Skipped};

/// What the examples look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Found out by the keys of each file's first example.
    #[default]
    Auto,
    /// `messages`, as OpenAI's files have them.
    Chat,
    /// Two answers to a prompt.
    Preference,
    /// `conversations` of `from` and `value`.
    ShareGpt,
    /// `instruction`, `input`, `output`.
    Alpaca,
    /// `messages` that end with the user's, and whatever a grader needs.
    Items,
}

impl Format {
    /// The name in settings and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Chat => "chat",
            Self::Preference => "preference",
            Self::ShareGpt => "sharegpt",
            Self::Alpaca => "alpaca",
            Self::Items => "items",
        }
    }
}

/// What is done about an example that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnBad {
    /// The run does not begin.
    #[default]
    Fail,
    /// It is passed over and counted.
    Skip,
}

/// The day in the system message of an example that names none.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dates {
    /// Some day, another for each example: served prompts carry the day on which they are asked.
    #[default]
    Drawn,
    /// None is shown.
    None,
    /// This one, as YYYY-MM-DD.
    Fixed(String),
}

/// What the system message says where an example does not.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Manner {
    /// How much is thought.
    pub effort: Effort,
    /// The day.
    pub dates: Dates,
}

/// What is kept aside to measure by.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Validation {
    /// Nothing.
    None,
    /// This share of the examples, from 0 to 0.5, drawn by their content, so that the same example twice is on one side.
    Share(f64),
    /// The examples of other files.
    Files(Vec<PathBuf>),
}

/// How files become data.
#[derive(Debug, Clone, PartialEq)]
pub struct DataSettings {
    /// What the examples look like.
    pub format: Format,
    /// What is done about bad ones.
    pub on_bad: OnBad,
    /// The most rows of a document: tokens less one.
    pub max_len: usize,
    /// What is kept aside.
    pub validation: Validation,
    /// The most examples that are kept aside; more of a file's are passed over, more of a share are learned.
    pub validation_most: usize,
    /// Of what is drawn.
    pub seed: u64,
    /// What the system message says.
    pub manner: Manner,
}

/// What a run learns from and is measured by.
#[derive(Debug)]
pub struct Prepared {
    /// Documents; of pairs the better answer first, then the worse one, and so on.
    pub train: Vec<ShardFile>,
    /// Documents to measure by, in the same order.
    pub validation: Vec<Document>,
    /// Items to learn from, where the format is of items.
    pub train_items: Items,
    /// Items to measure by.
    pub validation_items: Items,
    /// What was read.
    pub report: Report,
}
