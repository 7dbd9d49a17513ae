//! Second turns that refer to the first. What was thought in the first turn is gone by then: the renderer leaves out
//! the analysis of finished turns.

use super::arithmetic::{difference, sum};
use super::context::two_questions;
use super::greeting::hello;
use super::order::{End, find_end, numbers};
use super::phrases::{ask, fill};
use super::rng::Rng;
use super::task::{Task, Thought};
use super::words::{CITIES, NAMES};

const PLUS: &[&str] = &["And plus {n}?", "Plus {n}?", "Now add {n}.", "And {n} more?", "Add {n} to that.", "+{n}"];
const MINUS: &[&str] =
    &["And minus {n}?", "Minus {n}?", "Now subtract {n}.", "And {n} less?", "Take {n} from that.", "-{n}"];
const LIST: &[&str] =
    &["What is the {e} of {l}?", "Find the {e} of {l}.", "Numbers: {l}. Which is the {e}?", "The {e} of {l}?"];
const OTHER_END: &[&str] = &["And the {e}?", "And which is the {e}?", "What about the {e}?", "Now the {e}."];

/// A dialogue of two turns.
pub(super) fn second_turn(rng: &mut Rng) -> Task {
    match rng.weighted(&[30, 20, 25, 10, 15]) {
        0 => goes_on(rng),
        1 => both_ends(rng),
        2 => two_questions(rng),
        3 => after_hello(rng),
        _ => remembers(rng),
    }
}

fn number(rng: &mut Rng) -> u64 {
    let digits = rng.between(1, 3) as u32;
    rng.with_digits(digits)
}

/// A sum, then more or less.
fn goes_on(rng: &mut Rng) -> Task {
    let (first, next) = (number_pair(rng), number(rng));
    let total = first.0 + first.1;
    let question = sum_question(rng, first);
    let begin = sum(first.0, first.1, question);
    let value = next.to_string();
    let then = if rng.chance(60) {
        let question = ask(rng, PLUS, &[("n", &value)]);
        sum(total, next, question)
    } else {
        let question = ask(rng, MINUS, &[("n", &value)]);
        difference(total, next, question)
    };
    begin.then(then)
}

fn number_pair(rng: &mut Rng) -> (u64, u64) {
    (number(rng), number(rng))
}

fn sum_question(rng: &mut Rng, (a, b): (u64, u64)) -> String {
    let templates =
        ["What is {a} + {b}?", "{a}+{b}=", "Add {a} and {b}.", "How much is {a} plus {b}?", "Calculate {a} + {b}."];
    ask(rng, &templates, &[("a", &a.to_string()), ("b", &b.to_string())])
}

/// The largest, then the smallest, or the other way round.
fn both_ends(rng: &mut Rng) -> Task {
    let count = rng.between(3, 4) as usize;
    let numbers = numbers(rng, count, 3);
    let list: Vec<String> = numbers.iter().map(u64::to_string).collect();
    let (high, low) = ((End::High, "largest"), (End::Low, "smallest"));
    let ends = if rng.chance(50) { [high, low] } else { [low, high] };
    let question = ask(rng, LIST, &[("e", ends[0].1), ("l", &list.join(", "))]);
    let begin = find_end(&numbers, ends[0].0, question);
    let question = ask(rng, OTHER_END, &[("e", ends[1].1)]);
    begin.then(find_end(&numbers, ends[1].0, question))
}

/// A greeting, then a sum.
fn after_hello(rng: &mut Rng) -> Task {
    let begin = hello(rng);
    let pair = number_pair(rng);
    let question = sum_question(rng, pair);
    begin.then(sum(pair.0, pair.1, question))
}

/// A name or a city is told, then asked for.
fn remembers(rng: &mut Rng) -> Task {
    let (name, city) = (rng.pick(NAMES), rng.pick(CITIES));
    let values = [("n", name), ("c", city)];
    let tells =
        ["My name is {n} and I live in {c}.", "I am {n} from {c}.", "I'm {n}. I live in {c}.", "{n} here, from {c}."];
    let told = ask(rng, &tells, &values);
    let begin = Task::new(
        format!("told {name} {city}"),
        told,
        Thought::new("They say who they are.", "I greet them."),
        fill("Hello, {n}! What can I do for you?", &values),
    );
    let asks_name = rng.chance(50);
    let (templates, answer): (&[&str], _) = if asks_name {
        (&["What is my name?", "Who am I?", "Do you know my name?", "What am I called?"], "Your name is {n}.")
    } else {
        (&["Where do I live?", "In which city do I live?", "Where am I from?", "What is my city?"], "You live in {c}.")
    };
    let question = ask(rng, templates, &[]);
    let (slot, value) = if asks_name { ("name", name) } else { ("city", city) };
    let thought = Thought::new(format!("{slot}: {value}"), "check: they said so");
    begin.then(Task::new(format!("remember {slot} {name} {city}"), question, thought, fill(answer, &values)))
}
