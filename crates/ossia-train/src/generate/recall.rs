//! Saying again what was given: all of it, some values of a table, sentences in another order. Every word of an answer
//! is looked up in the question, so these are the tasks from which looking up is learned; the others need it for a word
//! here and there.

use super::context;
use super::phrases::{ask, fill};
use super::rng::Rng;
use super::strings::invented;
use super::task::{Task, Thought};
use super::words::{ANIMALS, CITIES, COLORS, FOODS, JOBS, NAMES, THINGS};

const REPEAT: &[&str] =
    &["Repeat: {t}", "Say this again: {t}", "Repeat after me: {t}", "{t}\nRepeat this.", "Copy this: {t}", "Echo: {t}"];

const VALUES: &[&str] = &[
    "{t}\nWhat are the values of {n}?",
    "Table: {t}\nGive me {n}.",
    "{t}\nLook up {n}.",
    "Find {n} in this list: {t}",
    "What do {n} have?\n{t}",
];

/// All kinds in turn.
pub(super) fn recall(rng: &mut Rng) -> Task {
    match rng.weighted(&[35, 35, 30]) {
        0 => repeated(rng),
        1 => looked_up(rng),
        _ => context::by_person(rng),
    }
}

fn words(rng: &mut Rng, count: usize) -> Vec<String> {
    let lists = [ANIMALS, CITIES, COLORS, FOODS, JOBS, NAMES, THINGS];
    let one = |rng: &mut Rng| match rng.weighted(&[60, 25, 15]) {
        0 => {
            let list = rng.pick(&lists);
            rng.pick(list).to_owned()
        }
        1 => rng.between(0, 999).to_string(),
        _ => invented(rng, 2),
    };
    (0..count).map(|_| one(rng)).collect()
}

fn repeated(rng: &mut Rng) -> Task {
    let text = if rng.chance(40) {
        context::some_text(rng)
    } else {
        let count = rng.between(3, 12) as usize;
        words(rng, count).join(rng.pick(&[" ", ", "]))
    };
    let question = ask(rng, REPEAT, &[("t", &text)]);
    Task::new(format!("repeat {text}"), question, Thought::new("repeat", "check: the same"), text)
}

fn looked_up(rng: &mut Rng) -> Task {
    let count = rng.between(3, 8) as usize;
    let names = rng.some(NAMES, count);
    let values = words(rng, count);
    let (between, after) = rng.pick(&[(" ", ", "), (": ", "\n"), (": ", ", "), (" = ", "; ")]);
    let entry = |i: usize| format!("{}{between}{}", names[i], values[i]);
    let table = (0..count).map(entry).collect::<Vec<_>>().join(after);
    let mut wanted: Vec<usize> = (0..count).collect();
    rng.shuffle(&mut wanted);
    wanted.truncate(rng.between(2, count as u64) as usize);
    let listed = wanted.iter().map(|&i| names[i]).collect::<Vec<_>>().join(", ");
    let question = fill(rng.pick(VALUES), &[("t", &table), ("n", &listed)]);
    let answer = wanted.iter().map(|&i| entry(i)).collect::<Vec<_>>().join(after);
    Task::new(format!("look up {listed} {answer}"), question, Thought::new("look up", "check: all found"), answer)
}
