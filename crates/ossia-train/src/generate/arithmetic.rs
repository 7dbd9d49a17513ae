//! Sums, differences and products. The keys are those of unordered pairs: 48+274 and 274+48 are in the same split.

use super::columns::{add, digit_root, multiply, subtract, subtract_signed};
use super::phrases::{ask, fill};
use super::rng::Rng;
use super::task::{Task, Thought};

const ADD: &[&str] = &[
    "What is {a} + {b}?",
    "{a}+{b}=",
    "{a} + {b}",
    "Add {a} and {b}.",
    "How much is {a} plus {b}?",
    "What is the sum of {a} and {b}?",
    "Calculate {a}+{b}.",
    "{a} plus {b}?",
    "What do you get if you add {b} to {a}?",
    "Give me the total of {a} and {b}.",
    "I have {a} coins and get {b} more. How many coins do I have?",
    "There are {a} red and {b} blue books. How many books are there?",
];

const SUBTRACT: &[&str] = &[
    "What is {a} - {b}?",
    "{a}-{b}=",
    "{a} - {b}",
    "Subtract {b} from {a}.",
    "How much is {a} minus {b}?",
    "Take {b} away from {a}.",
    "Calculate {a}-{b}.",
    "{a} minus {b}?",
    "What is {a} less {b}?",
    "What is the difference {a} minus {b}?",
];

/// For differences that are not negative.
const LEFT: &[&str] = &[
    "I have {a} coins and give away {b}. How many are left?",
    "Of {a} books {b} are sold. How many are left?",
    "A road has {a} miles. We walked {b}. How many are left?",
];

const MULTIPLY: &[&str] = &[
    "What is {a} * {b}?",
    "{a}*{b}=",
    "{a} x {b}",
    "Multiply {a} by {b}.",
    "How much is {a} times {b}?",
    "What is the product of {a} and {b}?",
    "Calculate {a}*{b}.",
    "{a} times {b}?",
    "What is {a} multiplied by {b}?",
    "{b} boxes hold {a} pens each. How many pens are there?",
];

fn pair_key(name: &str, a: u64, b: u64) -> String {
    format!("{name} {} {}", a.min(b), a.max(b))
}

/// The key of a sum.
pub(super) fn add_key(a: u64, b: u64) -> String {
    pair_key("add", a, b)
}

/// The key of a difference.
pub(super) fn subtract_key(a: u64, b: u64) -> String {
    pair_key("subtract", a, b)
}

/// The key of a product.
pub(super) fn multiply_key(a: u64, b: u64) -> String {
    pair_key("multiply", a, b)
}

/// Products and sums that the working of `a * b` shows.
pub(super) fn multiply_inner(a: u64, b: u64) -> Vec<String> {
    let (tens, units) = (b / 10, b % 10);
    match b {
        0..10 => Vec::new(),
        _ => vec![multiply_key(a, units), multiply_key(a, tens), add_key(a * units, a * tens * 10)],
    }
}

/// A number of one to four digits.
fn operand(rng: &mut Rng) -> u64 {
    let digits = 1 + rng.weighted(&[12, 30, 32, 26]) as u32;
    rng.with_digits(digits)
}

fn question(rng: &mut Rng, templates: &[&str], a: u64, b: u64) -> String {
    ask(rng, templates, &[("a", &a.to_string()), ("b", &b.to_string())])
}

/// A sum of two numbers.
pub(super) fn addition(rng: &mut Rng) -> Task {
    let (a, b) = (operand(rng), operand(rng));
    asked_sum(rng, a, b)
}

/// The sum of these two, asked for in one of the usual ways.
pub(super) fn asked_sum(rng: &mut Rng, a: u64, b: u64) -> Task {
    let question = question(rng, ADD, a, b);
    sum(a, b, question)
}

/// The sum as a task, however it is asked for; its check takes the second number away again.
pub(super) fn sum(a: u64, b: u64, question: String) -> Task {
    let check = format!("check {}", subtract(a + b, b));
    let thought = Thought::new(add(a, b), check);
    let inner = vec![subtract_key(a + b, b)];
    Task { inner, ..Task::new(add_key(a, b), question, thought, (a + b).to_string()) }
}

/// A difference, negative one time in five or so.
pub(super) fn subtraction(rng: &mut Rng) -> Task {
    let (x, y) = (operand(rng), operand(rng));
    let (a, b) = if rng.chance(80) { (x.max(y), x.min(y)) } else { (x, y) };
    let templates = if a >= b && rng.chance(20) { LEFT } else { SUBTRACT };
    let question = question(rng, templates, a, b);
    difference(a, b, question)
}

/// The difference as a task; its check adds the smaller number again.
pub(super) fn difference(a: u64, b: u64, question: String) -> Task {
    let (small, rest) = (a.min(b), a.abs_diff(b));
    let thought = Thought::new(subtract_signed(a, b), format!("check {}", add(rest, small)));
    let answer = if a < b { format!("-{rest}") } else { rest.to_string() };
    let inner = vec![add_key(rest, small)];
    Task { inner, ..Task::new(subtract_key(a, b), question, thought, answer) }
}

/// A product.
pub(super) fn multiplication(rng: &mut Rng) -> Task {
    let (left, right) = [(1, 1), (2, 1), (3, 1), (2, 2)][rng.weighted(&[5, 25, 25, 45])];
    let (a, b) = (rng.with_digits(left), rng.with_digits(right));
    let question = question(rng, MULTIPLY, a, b);
    let thought = Thought::new(multiply(a, b), nines(a, b));
    let inner = multiply_inner(a, b);
    Task { inner, ..Task::new(multiply_key(a, b), question, thought, (a * b).to_string()) }
}

/// Casting out nines: the digit roots of the numbers, of their product, and of the result.
pub(super) fn nines(a: u64, b: u64) -> String {
    let root = |n: u64| if n == 0 { 0 } else { (n - 1) % 9 + 1 };
    let product = root(a) * root(b);
    let line = format!("{}*{}={product}", root(a), root(b));
    let product = if product < 10 { line } else { format!("{line} {}", digit_root(product)) };
    let [a, b, result] = [digit_root(a), digit_root(b), digit_root(a * b)];
    fill("check {a}\n{b}\n{p}\n{r}", &[("a", &a), ("b", &b), ("p", &product), ("r", &result)])
}
