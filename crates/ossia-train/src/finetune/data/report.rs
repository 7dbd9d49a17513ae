//! What was read, kept and passed over: for the head of a run, and beside the data that were made.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Format;
use crate::dataset::{CLASS_NAMES, NUM_CLASSES};

/// Examples that are named one by one.
pub(super) const MOST_NAMED: usize = 20;

/// Counts over all files.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Report {
    /// The form of the first file.
    pub format: Format,
    /// Examples read.
    pub read: u64,
    /// Of these to be learned.
    pub kept: u64,
    /// Of these kept aside to measure by.
    pub validation: u64,
    /// Of these passed over.
    pub num_skipped: u64,
    /// Of those passed over because they are too long.
    pub too_long: u64,
    /// The first of those passed over.
    pub skipped: Vec<Skipped>,
    /// Documents to be learned: of a conversation one for each turn, of a pair two; or prompts.
    pub documents: u64,
    /// Their tokens.
    pub tokens: u64,
    /// Their tokens by class, as [`CLASS_NAMES`] names them.
    pub tokens_by_class: [u64; NUM_CLASSES],
    /// The tokens of the longest.
    pub longest: u64,
}

/// An example that was passed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// Its file.
    pub file: PathBuf,
    /// The line on which it begins, from 1.
    pub line: u64,
    /// What is wrong with it.
    pub why: String,
}

impl Report {
    /// Lines for people: what was read, what is learned, what was passed over and why.
    pub fn lines(&self) -> Vec<String> {
        let Self { read, kept, validation, documents, tokens, longest, .. } = self;
        let what = if self.format == Format::Items { "prompts" } else { "documents" };
        let format = self.format.name();
        let mut lines = vec![
            format!("{read} examples ({format}): {kept} to learn from, {validation} to measure by"),
            format!("{documents} {what}, {tokens} tokens, the longest {longest}"),
        ];
        let classes = CLASS_NAMES.iter().zip(self.tokens_by_class).filter(|(_, count)| *count > 0);
        let classes: Vec<String> = classes.map(|(name, count)| format!("{name} {count}")).collect();
        if self.format != Format::Items && !classes.is_empty() {
            lines.push(format!("tokens by class: {}", classes.join(", ")));
        }
        if self.num_skipped > 0 {
            lines.push(format!("{} passed over, {} of them too long:", self.num_skipped, self.too_long));
            let named = self.skipped.iter().map(|s| format!("  {}:{}: {}", s.file.display(), s.line, s.why));
            lines.extend(named);
            let more = self.num_skipped.saturating_sub(self.skipped.len() as u64);
            lines.extend((more > 0).then(|| format!("  and {more} more")));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_say_what_there_is() {
        let skipped = Skipped { file: "a.jsonl".into(), line: 7, why: "it is empty".into() };
        let report = Report {
            format: Format::Chat,
            read: 10,
            kept: 7,
            validation: 1,
            num_skipped: 2,
            skipped: vec![skipped],
            documents: 9,
            tokens: 900,
            tokens_by_class: [800, 0, 0, 100, 0],
            longest: 120,
            too_long: 1,
        };
        let lines = report.lines();
        assert_eq!(lines[0], "10 examples (chat): 7 to learn from, 1 to measure by");
        assert_eq!(lines[2], "tokens by class: context 800, final 100");
        assert_eq!(lines[4..], ["  a.jsonl:7: it is empty", "  and 1 more"]);
        assert_eq!(Report::default().lines().len(), 2);
    }
}
