//! The largest, the smallest, and sorting. Numbers are padded to one width and compared digit by digit; sorting takes
//! the smallest (or largest) of what is left again and again.

use super::columns::{compare_digits, padded, width};
use super::phrases::{ask, listed};
use super::rng::Rng;
use super::task::{Task, Thought};

const LARGER: &[&str] = &[
    "Which is larger, {a} or {b}?",
    "Which number is bigger: {a} or {b}?",
    "What is the larger of {a} and {b}?",
    "Compare {a} and {b}. Which is greater?",
    "Is {a} or {b} more?",
    "Larger: {a} or {b}?",
    "{a} or {b}, which is greater?",
    "Tell me the greater number, {a} or {b}.",
];

const SMALLER: &[&str] = &[
    "Which is smaller, {a} or {b}?",
    "Which number is less: {a} or {b}?",
    "What is the smaller of {a} and {b}?",
    "Compare {a} and {b}. Which is smaller?",
    "Is {a} or {b} less?",
    "Smaller: {a} or {b}?",
    "{a} or {b}, which is smaller?",
    "Tell me the lesser number, {a} or {b}.",
];

const LARGEST: &[&str] = &[
    "What is the largest of {l}?",
    "Which is the largest number: {c}?",
    "Find the maximum of {l}.",
    "max({c})",
    "Give me the biggest of these: {c}.",
    "Which of {l} is the greatest?",
    "Largest of {c}?",
    "What is the maximum of {c}?",
];

const SMALLEST: &[&str] = &[
    "What is the smallest of {l}?",
    "Which is the smallest number: {c}?",
    "Find the minimum of {l}.",
    "min({c})",
    "Give me the lowest of these: {c}.",
    "Which of {l} is the least?",
    "Smallest of {c}?",
    "What is the minimum of {c}?",
];

const SORT_UP: &[&str] = &[
    "Sort {c}.",
    "Sort {l} from smallest to largest.",
    "Put these numbers in order: {c}.",
    "Sort in ascending order: {c}.",
    "sort({c})",
    "Order {l} from low to high.",
    "Arrange {c} from small to large.",
    "Please sort these: {c}.",
];

const SORT_DOWN: &[&str] = &[
    "Sort {c} in descending order.",
    "Sort {l} from largest to smallest.",
    "Put these numbers in falling order: {c}.",
    "Sort descending: {c}.",
    "Order {l} from high to low.",
    "Arrange {c} from large to small.",
    "Sort {c}, largest first.",
    "Please sort these downwards: {c}.",
];

/// Which end of the order is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The largest first.
    High,
    /// The smallest first.
    Low,
}

impl End {
    pub fn draw(rng: &mut Rng) -> Self {
        if rng.chance(50) { Self::High } else { Self::Low }
    }

    fn of(self, numbers: &[u64]) -> u64 {
        let found = match self {
            Self::High => numbers.iter().max(),
            Self::Low => numbers.iter().min(),
        };
        found.copied().unwrap_or_default()
    }

    fn word(self) -> &'static str {
        match self {
            Self::High => "max",
            Self::Low => "min",
        }
    }
}

/// `count` different numbers; half of the time all of one length, since those are the hard ones.
pub(super) fn numbers(rng: &mut Rng, count: usize, most_digits: u32) -> Vec<u64> {
    let shared = rng.between(if count > 2 { 2 } else { 1 }, u64::from(most_digits)) as u32;
    let mixed = rng.chance(50);
    let mut list = Vec::new();
    while list.len() < count {
        let digits = if mixed { rng.between(1, u64::from(most_digits)) as u32 } else { shared };
        let number = rng.with_digits(digits);
        if !list.contains(&number) {
            list.push(number);
        }
    }
    list
}

/// The key of a set of numbers, whatever is asked about it.
pub(super) fn set_key(numbers: &[u64]) -> String {
    let mut sorted = numbers.to_vec();
    sorted.sort_unstable();
    format!("order {}", spaced(&sorted, 1))
}

/// The largest or smallest of two to five numbers.
pub(super) fn comparison(rng: &mut Rng) -> Task {
    let count = 2 + rng.weighted(&[35, 30, 20, 15]);
    let numbers = numbers(rng, count, if count > 3 { 3 } else { 4 });
    let end = End::draw(rng);
    let question = end_question(rng, &numbers, end);
    find_end(&numbers, end, question)
}

fn end_question(rng: &mut Rng, numbers: &[u64], end: End) -> String {
    match (numbers, end) {
        ([a, b], End::High) => ask(rng, LARGER, &[("a", &a.to_string()), ("b", &b.to_string())]),
        ([a, b], End::Low) => ask(rng, SMALLER, &[("a", &a.to_string()), ("b", &b.to_string())]),
        (_, End::High) => ask_list(rng, LARGEST, numbers),
        (_, End::Low) => ask_list(rng, SMALLEST, numbers),
    }
}

fn ask_list(rng: &mut Rng, templates: &[&str], numbers: &[u64]) -> String {
    let texts: Vec<String> = numbers.iter().map(u64::to_string).collect();
    ask(rng, templates, &[("l", &listed(&texts)), ("c", &texts.join(", "))])
}

/// The largest or smallest as a task, however it is asked for; its check holds the winner against all others.
pub(super) fn find_end(numbers: &[u64], end: End, question: String) -> Task {
    let w = numbers.iter().map(|n| width(*n)).max().unwrap_or(1);
    let mut lines = vec![spaced(numbers, w)];
    let mut best = numbers[0];
    for &next in &numbers[1..] {
        let winner = end.of(&[best, next]);
        lines.push(format!("{} {} {}", end.word(), versus(best, next, w), padded(winner, w)));
        best = winner;
    }
    let others = numbers.iter().filter(|n| **n != best);
    let check: Vec<String> = others.map(|&other| versus(best, other, w)).collect();
    let thought = Thought::new(lines.join("\n"), format!("check {}", check.join("\n")));
    Task::new(set_key(numbers), question, thought, best.to_string())
}

/// Two numbers and their digits compared.
fn versus(a: u64, b: u64, w: usize) -> String {
    format!("{} {}: {}", padded(a, w), padded(b, w), compare_digits(a, b, w))
}

fn spaced(numbers: &[u64], w: usize) -> String {
    numbers.iter().map(|n| padded(*n, w)).collect::<Vec<_>>().join(" ")
}

/// Three to five numbers in order.
pub(super) fn sorting(rng: &mut Rng) -> Task {
    let count = 3 + rng.weighted(&[40, 35, 25]);
    let numbers = numbers(rng, count, 3);
    sort(rng, &numbers)
}

/// These numbers in order, up or down.
pub(super) fn sort(rng: &mut Rng, numbers: &[u64]) -> Task {
    let end = if rng.chance(65) { End::Low } else { End::High };
    let templates = if end == End::Low { SORT_UP } else { SORT_DOWN };
    let question = ask_list(rng, templates, numbers);
    let w = numbers.iter().map(|n| width(*n)).max().unwrap_or(1);
    let mut lines = vec![spaced(numbers, w)];
    let (mut left, mut sorted) = (numbers.to_vec(), Vec::new());
    while !left.is_empty() {
        let found = end.of(&left);
        left.retain(|n| *n != found);
        lines.push(format!("{} {} left {}", end.word(), padded(found, w), spaced(&left, w)).trim_end().to_owned());
        sorted.push(found);
    }
    let check: Vec<String> = sorted.windows(2).map(|pair| versus(pair[0], pair[1], w)).collect();
    let thought = Thought::new(lines.join("\n"), format!("check {}", check.join("\n")));
    let answer: Vec<String> = sorted.iter().map(u64::to_string).collect();
    Task::new(set_key(numbers), question, thought, answer.join(", "))
}
