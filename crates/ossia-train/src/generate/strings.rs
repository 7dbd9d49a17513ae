//! Letters of a word: the working spells it, each letter with its place, so that every later step looks one up.

use super::phrases::ask;
use super::rng::Rng;
use super::task::{Task, Thought};
use super::words::{SPELLED, SYLLABLES};

/// What is asked about a word.
struct Question {
    name: &'static str,
    templates: &'static [&'static str],
    solve: fn(&[char], char, usize) -> Solved,
}

/// The working after the spelling, and the answer.
struct Solved {
    working: String,
    answer: String,
}

const QUESTIONS: &[Question] = &[
    Question {
        name: "reverse",
        templates: &[
            "Reverse the word {w}.",
            "Reverse {w}.",
            "Write {w} backwards.",
            "Spell {w} backwards.",
            "What is {w} in reverse?",
            "reverse({w})",
        ],
        solve: reversed,
    },
    Question {
        name: "upper",
        templates: &[
            "Write {w} in capital letters.",
            "Uppercase {w}.",
            "Put {w} in upper case.",
            "What is {w} in capitals?",
            "upper({w})",
        ],
        solve: upper,
    },
    Question {
        name: "count",
        templates: &[
            "How many {l} are in {w}?",
            "Count the letter {l} in {w}.",
            "How often does {l} occur in {w}?",
            "How many times is {l} in the word {w}?",
            "Count {l} in {w}.",
        ],
        solve: counted,
    },
    Question {
        name: "first",
        templates: &["What is the first letter of {w}?", "First letter of {w}?", "Which letter does {w} begin with?"],
        solve: |word, _, _| lookup(word, 1),
    },
    Question {
        name: "last",
        templates: &["What is the last letter of {w}?", "Last letter of {w}?", "Which letter does {w} end with?"],
        solve: |word, _, _| lookup(word, word.len()),
    },
    Question {
        name: "place",
        templates: &["What is letter {n} of {w}?", "Which letter is number {n} in {w}?", "Letter {n} of {w}?"],
        solve: |word, _, place| lookup(word, place),
    },
    Question {
        name: "length",
        templates: &["How many letters does {w} have?", "How long is the word {w}?", "Count the letters of {w}."],
        solve: |word, _, _| Solved { working: String::new(), answer: word.len().to_string() },
    },
];

/// A question about a word.
pub(super) fn letters(rng: &mut Rng) -> Task {
    let word = word(rng);
    let chars: Vec<char> = word.chars().collect();
    let question = &QUESTIONS[rng.weighted(&[30, 15, 20, 8, 9, 10, 8])];
    let other = char::from(b'a' + rng.below(26) as u8);
    let letter = if rng.chance(80) { rng.pick(&chars) } else { other };
    let place = 1 + rng.below(chars.len());
    let shown = if rng.chance(50) { format!("\"{word}\"") } else { word.clone() };
    let values = [("w", shown.as_str()), ("l", &letter.to_string()), ("n", &place.to_string())];
    let asked = ask(rng, question.templates, &values);
    let Solved { working, answer } = (question.solve)(&chars, letter, place);
    let spelled = spelled(chars.iter().enumerate());
    let thought = Thought::new(format!("{spelled}\n{working}").trim_end(), format!("check {spelled}"));
    let detail = match question.name {
        "count" => letter.to_string(),
        "place" => place.to_string(),
        _ => String::new(),
    };
    Task::new(format!("letters {} {word} {detail}", question.name), asked, thought, answer)
}

/// A word of three to eight letters, most often one that does not exist.
fn word(rng: &mut Rng) -> String {
    if rng.chance(35) {
        return rng.pick(SPELLED).to_owned();
    }
    let mut word = invented(rng, 2);
    if rng.chance(50) {
        word.push_str(rng.pick(SYLLABLES));
    }
    if rng.chance(60) {
        word.push(rng.pick(&['b', 'd', 'g', 'k', 'l', 'm', 'n', 'p', 'r', 's', 't', 'x']));
    }
    word
}

/// A word of so many syllables that does not exist.
pub(super) fn invented(rng: &mut Rng, syllables: usize) -> String {
    (0..syllables).map(|_| rng.pick(SYLLABLES)).collect()
}

/// `1m 2a 3p`
fn spelled<'c>(letters: impl Iterator<Item = (usize, &'c char)>) -> String {
    joined(letters.map(|(place, letter)| format!("{}{letter}", place + 1)))
}

fn joined(steps: impl Iterator<Item = String>) -> String {
    steps.collect::<Vec<_>>().join(" ")
}

fn reversed(word: &[char], _: char, _: usize) -> Solved {
    Solved { working: spelled(word.iter().enumerate().rev()), answer: word.iter().rev().collect() }
}

fn upper(word: &[char], _: char, _: usize) -> Solved {
    let steps = joined(word.iter().map(|letter| format!("{letter}>{}", letter.to_ascii_uppercase())));
    Solved { working: steps, answer: word.iter().map(char::to_ascii_uppercase).collect() }
}

/// Every letter with the count so far.
fn counted(word: &[char], letter: char, _: usize) -> Solved {
    let mut count = 0;
    let steps = joined(word.iter().map(|&here| {
        count += usize::from(here == letter);
        format!("{here}{count}")
    }));
    Solved { working: format!("{letter}: {steps}"), answer: count.to_string() }
}

fn lookup(word: &[char], place: usize) -> Solved {
    let letter = word[place - 1];
    Solved { working: format!("{place}{letter}"), answer: letter.to_string() }
}
