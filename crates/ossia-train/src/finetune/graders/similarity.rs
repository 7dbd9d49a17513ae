//! How alike two texts are, from 0 to 1.

use std::collections::HashMap;

use super::description::Description;
use super::error::Result;

/// What is compared of a text at most: the time grows with the square.
const MOST_CHARS: usize = 8192;

/// The measures that OpenAI names, those that need no model and no list of words.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Metric {
    /// 2 M / (a + b) for two texts of a and b characters, of which M are common in this order.
    Fuzzy,
    /// The smaller of precision and recall over runs of one to four words.
    Gleu,
    /// The harmonic mean of precision and recall over runs of so many words.
    Rouge(usize),
    /// The same over the longest common series of words.
    RougeL,
}

impl Metric {
    pub fn read(fields: &Description) -> Result<Self> {
        match fields.text("evaluation_metric")? {
            "fuzzy_match" => Ok(Self::Fuzzy),
            "gleu" => Ok(Self::Gleu),
            "rouge_1" => Ok(Self::Rouge(1)),
            "rouge_2" => Ok(Self::Rouge(2)),
            "rouge_3" => Ok(Self::Rouge(3)),
            "rouge_4" => Ok(Self::Rouge(4)),
            "rouge_5" => Ok(Self::Rouge(5)),
            "rouge_l" => Ok(Self::RougeL),
            _ => fields
                .wrong("evaluation_metric", "\"fuzzy_match\", \"gleu\", \"rouge_1\" to \"rouge_5\" or \"rouge_l\""),
        }
    }

    /// Of the text that was found to the one that was wanted.
    pub fn of(self, found: &str, wanted: &str) -> f64 {
        let cut = |text: &str| -> String { text.chars().take(MOST_CHARS).collect() };
        let (found, wanted) = (cut(found), cut(wanted));
        match self {
            Self::Fuzzy => {
                let (a, b): (Vec<char>, Vec<char>) = (found.chars().collect(), wanted.chars().collect());
                mean(common(&a, &b), a.len(), b.len())
            }
            Self::RougeL => {
                let (a, b) = (words(&found), words(&wanted));
                mean(common(&a, &b), a.len(), b.len())
            }
            Self::Rouge(length) => {
                let (shared, a, b) = runs(&found, &wanted, length..=length);
                mean(shared, a, b)
            }
            Self::Gleu => {
                let (shared, a, b) = runs(&found, &wanted, 1..=4);
                if a.max(b) == 0 { 1.0 } else { shared as f64 / a.max(b) as f64 }
            }
        }
    }
}

/// The harmonic mean of precision and recall; two empty texts are the same.
fn mean(shared: usize, a: usize, b: usize) -> f64 {
    if a + b == 0 { 1.0 } else { 2.0 * shared as f64 / (a + b) as f64 }
}

/// Words without case and the marks around them.
fn words(text: &str) -> Vec<String> {
    let strip = |word: &str| word.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase();
    text.split_whitespace().map(strip).filter(|word| !word.is_empty()).collect()
}

/// How many runs of words both texts have, and how many either has.
fn runs(found: &str, wanted: &str, lengths: std::ops::RangeInclusive<usize>) -> (usize, usize, usize) {
    let (found, wanted) = (words(found), words(wanted));
    let (mut shared, mut a, mut b) = (0, 0, 0);
    for length in lengths {
        let mut left: HashMap<&[String], usize> = HashMap::new();
        wanted.windows(length).for_each(|run| *left.entry(run).or_default() += 1);
        for run in found.windows(length) {
            if let Some(count) = left.get_mut(run).filter(|count| **count > 0) {
                *count -= 1;
                shared += 1;
            }
        }
        a += (found.len() + 1).saturating_sub(length);
        b += (wanted.len() + 1).saturating_sub(length);
    }
    (shared, a, b)
}

/// The length of the longest common subsequence.
fn common<T: PartialEq>(a: &[T], b: &[T]) -> usize {
    let mut row = vec![0; b.len() + 1];
    for one in a {
        let mut diagonal = 0;
        for (place, other) in b.iter().enumerate() {
            let above = row[place + 1];
            row[place + 1] = if one == other { diagonal + 1 } else { above.max(row[place]) };
            diagonal = above;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures() {
        for (metric, found, wanted, score) in [
            (Metric::Fuzzy, "abc", "abc", 1.0),
            (Metric::Fuzzy, "", "", 1.0),
            (Metric::Fuzzy, "abc", "", 0.0),
            (Metric::Fuzzy, "this is a test", "this is a test!", 28.0 / 29.0),
            (Metric::Rouge(1), "The cat sat.", "the cat lay", 2.0 / 3.0),
            (Metric::Rouge(2), "the cat sat", "the cat lay", 0.5),
            (Metric::Rouge(5), "the cat", "the cat", 1.0),
            (Metric::RougeL, "a x b y c", "a b c", 0.75),
            (Metric::Gleu, "a b", "a b", 1.0),
            (Metric::Gleu, "a a a", "a", 1.0 / 6.0),
        ] {
            let value = metric.of(found, wanted);
            assert!((value - score).abs() < 1e-12, "{metric:?} {found:?} {wanted:?}: {value}");
        }
        let long = "wörd ".repeat(100_000);
        assert_eq!(Metric::Fuzzy.of(&long, &long), 1.0, "long texts are cut");
    }
}
