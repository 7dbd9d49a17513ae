//! Answers, counted.

use ossia_text::harmony::Effort;

use super::Set;
use crate::generate::Grade;

/// The quantile of the normal distribution that 95 % intervals reach to.
const Z: f64 = 1.959_963_984_540_054;

/// What a model made of an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Where the item is from.
    pub set: Set,
    /// How much it is to be thought about.
    pub effort: Effort,
    /// All tokens made, the stop token too.
    pub tokens: Vec<u32>,
    /// What it is worth.
    pub grade: Grade,
    /// Whether the right answer is a call.
    pub asked_for_call: bool,
    /// Whether it ends in a call.
    pub called: bool,
    /// Whether it ended by itself, not at the limit.
    pub stopped: bool,
    /// Tokens of thoughts.
    pub thinking_tokens: usize,
}

/// Answers of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// All.
    pub num: usize,
    /// Right.
    pub correct: usize,
    /// Of harmony's form, right or wrong.
    pub valid: usize,
    /// Ended by themselves.
    pub stopped: usize,
}

impl Tally {
    fn of<'a>(answers: impl Iterator<Item = &'a Answer>) -> Self {
        answers.fold(Self::default(), |tally, answer| Self {
            num: tally.num + 1,
            correct: tally.correct + usize::from(answer.grade.correct),
            valid: tally.valid + usize::from(answer.grade.valid),
            stopped: tally.stopped + usize::from(answer.stopped),
        })
    }

    /// The share of right answers, where there are any answers.
    pub fn share(&self) -> Option<f64> {
        share(self.correct, self.num)
    }

    /// The share of answers that have harmony's form.
    pub fn valid_share(&self) -> Option<f64> {
        share(self.valid, self.num)
    }

    /// Wilson's interval, which holds the true share of right answers 95 times in a hundred.
    pub fn interval(&self) -> Option<(f64, f64)> {
        let (p, n) = (self.share()?, self.num as f64);
        let center = p + Z * Z / (2.0 * n);
        let half = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
        let scale = 1.0 + Z * Z / n;
        // The ends are exact at 0 and 1, but not in floating point.
        Some((((center - half) / scale).max(0.0), ((center + half) / scale).min(1.0)))
    }
}

/// Calls of tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Calls {
    /// Items whose right answer is a call.
    pub asked: usize,
    /// So many of them were answered rightly.
    pub correct: usize,
    /// Answers that end in a call, whether or not it was asked for.
    pub made: usize,
    /// So many of them have harmony's form, with a JSON object as arguments.
    pub valid: usize,
}

impl Calls {
    /// The share of calls asked for that were made rightly.
    pub fn correct_share(&self) -> Option<f64> {
        share(self.correct, self.asked)
    }

    /// The share of calls made that are well-formed.
    pub fn valid_share(&self) -> Option<f64> {
        share(self.valid, self.made)
    }
}

/// What came of an evaluation. Everything but [`Report::tally`] is over the families alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// An answer for each item, in their order.
    pub answers: Vec<Answer>,
    /// Tokens of all prompts.
    pub prompt_tokens: usize,
}

impl Report {
    /// The sets that were answered, each once, in their order.
    pub fn sets(&self) -> Vec<Set> {
        let mut sets: Vec<Set> = Vec::new();
        for answer in &self.answers {
            if !sets.contains(&answer.set) {
                sets.push(answer.set);
            }
        }
        sets
    }

    /// The answers of one set, at one effort or all.
    pub fn tally(&self, set: Set, effort: Option<Effort>) -> Tally {
        Tally::of(self.answers.iter().filter(|a| a.set == set && effort.is_none_or(|effort| a.effort == effort)))
    }

    /// The mean of the families' shares, at one effort or all; nothing where no family has an answer.
    pub fn macro_average(&self, effort: Option<Effort>) -> Option<f64> {
        let families = self.sets().into_iter().filter(|set| set.is_family());
        let shares: Vec<f64> = families.filter_map(|set| self.tally(set, effort).share()).collect();
        (!shares.is_empty()).then(|| shares.iter().sum::<f64>() / shares.len() as f64)
    }

    /// Calls of tools.
    pub fn calls(&self) -> Calls {
        let mut calls = Calls::default();
        for answer in self.family_answers() {
            calls.asked += usize::from(answer.asked_for_call);
            calls.correct += usize::from(answer.asked_for_call && answer.grade.correct);
            calls.made += usize::from(answer.called);
            calls.valid += usize::from(answer.called && answer.grade.valid);
        }
        calls
    }

    /// The share of answers that ended by themselves.
    pub fn stopped_share(&self) -> Option<f64> {
        let tally = Tally::of(self.family_answers());
        share(tally.stopped, tally.num)
    }

    /// The mean number of tokens thought at an effort.
    pub fn mean_thinking_tokens(&self, effort: Effort) -> Option<f64> {
        let counts: Vec<usize> =
            self.family_answers().filter(|a| a.effort == effort).map(|a| a.thinking_tokens).collect();
        share(counts.iter().sum(), counts.len())
    }

    /// Tokens of all answers, those beyond the families too.
    pub fn num_tokens(&self) -> usize {
        self.answers.iter().map(|answer| answer.tokens.len()).sum()
    }

    fn family_answers(&self) -> impl Iterator<Item = &Answer> {
        self.answers.iter().filter(|answer| answer.set.is_family())
    }
}

/// `part` of `all`, where there is something.
fn share(part: usize, all: usize) -> Option<f64> {
    (all > 0).then(|| part as f64 / all as f64)
}
