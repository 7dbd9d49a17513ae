//! Procedurally generated conversations with known answers, from which the nano model learns and by which it is
//! measured.
//!
//! A sample is a pure function of family, split, seed and index. Families make a [`task::Task`]: what is asked, the
//! working, the answer, and a key, the essential content without its wording. A stable hash of the key says whether the
//! task may be trained on, so what is held out differs from the training data in substance and by construction. `frame`
//! puts the task into a conversation: system message, effort, tools.
//!
//! How much is thought depends on the effort: `low` answers at once, `medium` shows a working in which every token
//! depends on few tokens nearby (`columns` does this for arithmetic), `high` adds a check.

mod arithmetic;
mod beyond;
mod columns;
mod context;
mod dialogue;
mod frame;
mod grade;
mod greeting;
mod measures;
mod order;
mod phrases;
mod recall;
mod rng;
mod schemas;
mod strings;
mod task;
mod tools;
mod words;

#[cfg(test)]
mod tests;

use std::collections::HashSet;

use ossia_text::Conversation;
use ossia_text::harmony::Effort;
use serde_json::Value;

pub use beyond::Beyond;
pub use grade::{Grade, grade};
use rng::{Rng, hash};
use task::Task;

/// One key in so many is held out.
const HELD_OUT_ONE_IN: u64 = 16;

/// A kind of task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// Sums of two numbers of up to four digits.
    Addition,
    /// Differences, negative ones too.
    Subtraction,
    /// Products of up to two digits by two, or three by one.
    Multiplication,
    /// The largest or smallest of two to five numbers.
    Comparison,
    /// Three to five numbers, up or down.
    Sorting,
    /// The call of a tool; or to say that none of them serves.
    ToolCall,
    /// The answer from what a tool gave back.
    ToolAnswer,
    /// A question that one sentence of a given text answers.
    Context1,
    /// A question that takes two sentences.
    Context2,
    /// A question that the text does not answer.
    Refusal,
    /// A quantity in a smaller unit, with the factor given.
    Units,
    /// Weekdays and dates some days later.
    Dates,
    /// Letters of a word.
    Strings,
    /// Greetings, who the model is, and what it cannot do.
    Greeting,
    /// A second turn that refers to the first.
    Dialogue,
    /// What was given, again, or in another order.
    Recall,
}

impl Family {
    /// Every family.
    pub const ALL: [Self; 16] = [
        Self::Addition,
        Self::Subtraction,
        Self::Multiplication,
        Self::Comparison,
        Self::Sorting,
        Self::ToolCall,
        Self::ToolAnswer,
        Self::Context1,
        Self::Context2,
        Self::Refusal,
        Self::Units,
        Self::Dates,
        Self::Strings,
        Self::Greeting,
        Self::Dialogue,
        Self::Recall,
    ];

    /// The name in reports and file names.
    pub fn name(self) -> &'static str {
        match self {
            Self::Addition => "addition",
            Self::Subtraction => "subtraction",
            Self::Multiplication => "multiplication",
            Self::Comparison => "comparison",
            Self::Sorting => "sorting",
            Self::ToolCall => "tool_call",
            Self::ToolAnswer => "tool_answer",
            Self::Context1 => "context_1",
            Self::Context2 => "context_2",
            Self::Refusal => "refusal",
            Self::Units => "units",
            Self::Dates => "dates",
            Self::Strings => "strings",
            Self::Greeting => "greeting",
            Self::Dialogue => "dialogue",
            Self::Recall => "recall",
        }
    }

    /// The family of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|family| family.name() == name)
    }

    /// So many in a hundred training samples are of this family.
    pub fn share(self) -> u32 {
        match self {
            Self::Addition => 9,
            Self::Subtraction => 7,
            Self::Multiplication => 8,
            Self::Comparison => 4,
            Self::Sorting => 5,
            Self::ToolCall => 8,
            Self::ToolAnswer => 4,
            Self::Context1 => 8,
            Self::Context2 => 7,
            Self::Refusal => 4,
            Self::Units => 5,
            Self::Dates => 5,
            Self::Strings => 5,
            Self::Greeting => 3,
            Self::Dialogue => 3,
            Self::Recall => 15,
        }
    }

    fn task(self, rng: &mut Rng) -> Task {
        match self {
            Self::Addition => arithmetic::addition(rng),
            Self::Subtraction => arithmetic::subtraction(rng),
            Self::Multiplication => arithmetic::multiplication(rng),
            Self::Comparison => order::comparison(rng),
            Self::Sorting => order::sorting(rng),
            Self::ToolCall => tools::call(rng),
            Self::ToolAnswer => tools::answer(rng),
            Self::Context1 => context::one_hop(rng),
            Self::Context2 => context::two_hops(rng),
            Self::Refusal => context::refusal(rng),
            Self::Units => measures::units(rng),
            Self::Dates => measures::dates(rng),
            Self::Strings => strings::letters(rng),
            Self::Greeting => greeting::talk(rng),
            Self::Dialogue => dialogue::second_turn(rng),
            Self::Recall => recall::recall(rng),
        }
    }
}

/// What a sample may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Split {
    /// To learn from.
    Train,
    /// To measure by.
    HeldOut,
}

/// A conversation with a known end.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The kind of task.
    pub family: Family,
    /// How much is thought; the system message says so.
    pub effort: Effort,
    /// All of it, to the assistant's last message.
    pub conversation: Conversation,
    /// So many messages come before the assistant's turn that is learned or asked for.
    pub prompt: usize,
    /// What the turn must come to.
    pub expected: Expected,
    /// The essential content, without its wording: no key is in both splits.
    pub key: String,
}

impl Sample {
    /// The conversation up to the turn that is asked for.
    pub fn question(&self) -> Conversation {
        Conversation::from(self.conversation.messages[..self.prompt].to_vec())
    }
}

/// What a turn must come to.
#[derive(Debug, Clone, PartialEq)]
pub enum Expected {
    /// The text of the final message.
    Final(String),
    /// A call of a function.
    Call {
        /// Its name, without `functions.`.
        name: String,
        /// Its arguments, an object.
        arguments: Value,
    },
}

/// The sample at a place. The effort is drawn: one in seven low, four medium, two high.
pub fn sample(family: Family, split: Split, seed: u64, index: u64) -> Sample {
    build(family, split, None, &[seed, index])
}

/// The sample at a place with a given effort; the task is that of [`sample`].
pub fn sample_with_effort(family: Family, split: Split, effort: Effort, seed: u64, index: u64) -> Sample {
    build(family, split, Some(effort), &[seed, index])
}

/// The training sample at a place, the family drawn by [`Family::share`].
pub fn training_sample(seed: u64, index: u64) -> Sample {
    let shares = Family::ALL.map(Family::share);
    let family = Family::ALL[Rng::new(&[seed, index]).weighted(&shares)];
    sample(family, Split::Train, seed, index)
}

/// The first `count` held-out samples whose keys all differ, or as many as twenty draws for each of them give.
pub fn held_out(family: Family, effort: Option<Effort>, seed: u64, count: usize) -> Vec<Sample> {
    let mut seen = HashSet::new();
    let draws = (0..20 * count as u64).map(|index| build(family, Split::HeldOut, effort, &[seed, index]));
    draws.filter(|sample| seen.insert(sample.key.clone())).take(count).collect()
}

/// Which split a key belongs to.
pub fn split_of(key: &str) -> Split {
    if hash(key).is_multiple_of(HELD_OUT_ONE_IN) { Split::HeldOut } else { Split::Train }
}

/// Draws tasks until one belongs to the split. For training nothing inside the task may be held out either: a product
/// shows sums, which are tasks of their own.
fn build(family: Family, split: Split, effort: Option<Effort>, place: &[u64]) -> Sample {
    let mut rng = Rng::new(&[place, &[family as u64, split as u64]].concat());
    let drawn = draw_effort(&mut rng);
    let task = loop {
        let task = family.task(&mut rng);
        let fits = match split {
            Split::Train => task.keys().all(|key| split_of(key) == Split::Train),
            Split::HeldOut => split_of(&task.key) == Split::HeldOut,
        };
        if fits {
            break task;
        }
    };
    frame::frame(family, task, effort.unwrap_or(drawn), &mut rng)
}

/// Medium is what a model is asked for where nothing is said; low, which shows no working, teaches least.
fn draw_effort(rng: &mut Rng) -> Effort {
    [Effort::Low, Effort::Medium, Effort::High][rng.weighted(&[1, 4, 2])]
}
