//! How good a model is: held-out tasks, or the examples of a user's own file, answered greedily by many sequences at once
//! and graded by exact match.
//!
//! `decode` makes the answers, `report` counts them. An answer depends on its item and the model alone: not on the
//! number of sequences that ran beside it, not on the order of the items. Nothing here prints or looks at a clock.

pub(crate) mod decode;
mod report;

#[cfg(test)]
mod tests;

use ossia_kernels::ops::sample::{BadParam, NoChoice};
use ossia_model::Model;
use ossia_text::harmony::{Effort, MessageKind};
use ossia_text::{Event, Harmony, ParsedMessage, RenderOptions, TextError};

use crate::finetune::data::Asked;
use crate::generate::{self, Beyond, Expected, Family, Sample, grade};
use decode::{Prompt, Rules};
pub use report::{Answer, Calls, Report, Tally};

/// Tokens of an answer at most; one that would be longer is graded as it stands there.
pub const MAX_TOKENS: usize = 256;
/// The same for sets beyond training: high effort on seven numbers takes more than 300.
pub const MAX_TOKENS_BEYOND: usize = 512;

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A conversation cannot be rendered.
    #[error(transparent)]
    Text(#[from] TextError),
    /// The model failed.
    #[error(transparent)]
    Model(#[from] ossia_model::Error),
    /// The vocabulary is none.
    #[error(transparent)]
    Parameter(#[from] BadParam),
    /// No token can be chosen.
    #[error(transparent)]
    NoChoice(#[from] NoChoice),
    /// An item has no room.
    #[error(
        "the longest item needs {needed} positions, its answer included, and the context ends at {context}: choose a \
         larger one (--ctx), or families with shorter prompts (--family)"
    )]
    Context {
        /// Positions of the longest item.
        needed: usize,
        /// Positions that a sequence may have.
        context: usize,
    },
}

/// Items of one kind, reported on a line of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Set {
    /// Held-out tasks of a family: what the macro average is over.
    Family(Family),
    /// Longer tasks than those of training, never part of an average.
    Beyond(Beyond),
    /// What a file of the user's own asks for, never part of an average.
    Own,
}

impl Set {
    /// Every set that is generated, families first.
    pub fn all() -> impl Iterator<Item = Self> {
        Family::ALL.into_iter().map(Self::Family).chain(Beyond::ALL.into_iter().map(Self::Beyond))
    }

    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Family(family) => family.name(),
            Self::Beyond(beyond) => beyond.name(),
            Self::Own => "data",
        }
    }

    /// The generated set of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Family::from_name(name).map(Self::Family).or_else(|| Beyond::from_name(name).map(Self::Beyond))
    }

    /// Whether it is one of the families.
    pub fn is_family(self) -> bool {
        matches!(self, Self::Family(_))
    }

    /// Tokens of an answer at most.
    pub fn max_tokens(self) -> usize {
        if self.is_family() { MAX_TOKENS } else { MAX_TOKENS_BEYOND }
    }

    fn samples(self, effort: Option<Effort>, seed: u64, count: usize) -> Vec<Sample> {
        match self {
            Self::Family(family) => generate::held_out(family, effort, seed, count),
            Self::Beyond(beyond) => beyond.samples(effort, seed, count),
            Self::Own => Vec::new(),
        }
    }
}

/// A task and its prompt as tokens.
#[derive(Debug, Clone)]
pub struct Item {
    set: Set,
    asked: Asked,
    max_tokens: usize,
}

impl Item {
    /// The sample's question as a prompt.
    pub fn new(harmony: &Harmony, set: Set, sample: Sample) -> Result<Self, Error> {
        let prompt = harmony.render_for_completion(&sample.question(), &RenderOptions::default())?;
        let asked = Asked { prompt, effort: sample.effort, expected: sample.expected };
        Ok(Self { set, asked, max_tokens: set.max_tokens() })
    }

    /// What a user's file asks for, to be answered by `max_tokens` tokens at most.
    pub fn own(asked: Asked, max_tokens: usize) -> Self {
        Self { set: Set::Own, asked, max_tokens }
    }

    /// What is put to the model.
    pub fn prompt(&self) -> &[u32] {
        &self.asked.prompt
    }

    /// What is to come of it.
    pub fn expected(&self) -> &Expected {
        &self.asked.expected
    }
}

/// The first `count` items of every set; without `effort` each has its own, as in training.
pub fn items(
    harmony: &Harmony,
    sets: &[Set],
    effort: Option<Effort>,
    seed: u64,
    count: usize,
) -> Result<Vec<Item>, Error> {
    let samples = sets.iter().flat_map(|&set| set.samples(effort, seed, count).into_iter().map(move |s| (set, s)));
    samples.map(|(set, sample)| Item::new(harmony, set, sample)).collect()
}

/// Positions that the longest item needs.
pub fn context(items: &[Item]) -> usize {
    items.iter().map(|item| item.prompt().len() + item.max_tokens).max().unwrap_or(0)
}

/// Fails where the longest item needs more than `context` positions.
pub fn check_context(items: &[Item], context: usize) -> Result<(), Error> {
    let needed = self::context(items);
    if needed > context { Err(Error::Context { needed, context }) } else { Ok(()) }
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Items answered.
    pub done: usize,
    /// Of so many.
    pub all: usize,
    /// Tokens made.
    pub tokens: usize,
}

/// Lets the model, with the adapter of a slot where one is named, answer every item and grades it, `batch` of them at a
/// time, or as many as the model was loaded for where that is fewer. `progress` is told after every step.
pub fn evaluate(
    model: &mut Model,
    harmony: &Harmony,
    items: &[Item],
    batch: usize,
    adapter: Option<usize>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Report, Error> {
    check_context(items, model.options().context)?;
    let forbidden = harmony.tokenizer().unsampleable_ids(model.config().vocab_size);
    let rules = Rules { batch, stops: harmony.stop_ids(), forbidden, draws: None, adapter };
    evaluate_by(&rules, model, harmony, items, progress)
}

fn evaluate_by(
    rules: &Rules,
    model: &mut Model,
    harmony: &Harmony,
    items: &[Item],
    progress: &mut dyn FnMut(Progress),
) -> Result<Report, Error> {
    let prompts: Vec<Prompt> =
        items.iter().map(|item| Prompt { tokens: item.prompt(), max_tokens: item.max_tokens }).collect();
    let made = decode::answers(rules, model, &prompts, progress)?;
    let prompt_tokens = prompts.iter().map(|prompt| prompt.tokens.len()).sum();
    let answers = items.iter().zip(made).map(|(item, made)| answer(rules, harmony, item, made.tokens));
    Ok(Report { answers: answers.collect(), prompt_tokens })
}

fn answer(rules: &Rules, harmony: &Harmony, item: &Item, tokens: Vec<u32>) -> Answer {
    let (messages, thinking_tokens) = read(harmony, &tokens);
    Answer {
        set: item.set,
        effort: item.asked.effort,
        grade: grade(item.expected(), &messages),
        asked_for_call: matches!(item.expected(), Expected::Call { .. }),
        called: messages.last().is_some_and(|message| message.tool_call().is_some()),
        stopped: tokens.last().is_some_and(|last| rules.stops.contains(last)),
        thinking_tokens,
        tokens,
    }
}

/// The messages of an answer, and how many of its tokens are the text of a thought.
pub(crate) fn read(harmony: &Harmony, tokens: &[u32]) -> (Vec<ParsedMessage>, usize) {
    let mut parser = harmony.completion_parser();
    let (mut events, mut thinking_tokens, mut thought) = (Vec::new(), 0, false);
    for &token in tokens {
        events.extend(parser.push(token));
        let thinks = parser.header().is_some_and(|header| header.kind() == MessageKind::Thinking);
        // Neither the mark that opens the text nor the one that closes it.
        thinking_tokens += usize::from(thought && thinks);
        thought = thinks;
    }
    events.extend(parser.finish());
    let message = |event| if let Event::End(message) = event { Some(message) } else { None };
    (events.into_iter().filter_map(message).collect(), thinking_tokens)
}
