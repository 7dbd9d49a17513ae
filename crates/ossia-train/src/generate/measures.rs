//! Units, with the factor in the question, and dates. Products and sums are worked out in columns, as in arithmetic.

use super::arithmetic::{add_key, multiply_inner, multiply_key, nines, subtract_key};
use super::columns::{add, multiply, subtract};
use super::frame::date;
use super::phrases::ask;
use super::rng::Rng;
use super::strings::invented;
use super::task::{Task, Thought};
use super::words::{DAYS, MONTHS};

/// One of the unit, many of it, many of the smaller one, and how many of those make one.
const UNITS: &[(&str, &str, &str, u64)] = &[
    ("foot", "feet", "inches", 12),
    ("yard", "yards", "feet", 3),
    ("day", "days", "hours", 24),
    ("hour", "hours", "minutes", 60),
    ("minute", "minutes", "seconds", 60),
    ("week", "weeks", "days", 7),
    ("year", "years", "months", 12),
    ("meter", "meters", "centimeters", 100),
    ("kilometer", "kilometers", "meters", 1000),
    ("kilogram", "kilograms", "grams", 1000),
    ("pound", "pounds", "ounces", 16),
    ("gallon", "gallons", "quarts", 4),
    ("gallon", "gallons", "cups", 16),
    ("box", "boxes", "eggs", 12),
    ("euro", "euros", "cents", 100),
    ("decade", "decades", "years", 10),
    ("crate", "crates", "bottles", 20),
    ("mile", "miles", "furlongs", 8),
];

const CONVERT: &[&str] = &[
    "1 {o} is {f} {s}. How many {s} are {n} {m}?",
    "1 {o} = {f} {s}. {n} {m} = ? {s}",
    "One {o} has {f} {s}. How many {s} do {n} {m} have?",
    "Convert {n} {m} to {s}. 1 {o} is {f} {s}.",
    "How many {s} are {n} {m}, if 1 {o} is {f} {s}?",
    "There are {f} {s} in a {o}. How many are in {n} {m}?",
    "If 1 {o} makes {f} {s}, what do {n} {m} make?",
    "{n} {m} in {s}? (1 {o} = {f} {s})",
];

const WEEKDAY_AFTER: &[&str] = &[
    "What day is {n} days after {d}?",
    "Today is {d}. What day is it in {n} days?",
    "It is {d}. Which day comes {n} days later?",
    "{d} plus {n} days?",
    "Which weekday is {n} days after {d}?",
];

const WEEKDAY_BEFORE: &[&str] = &[
    "What day is {n} days before {d}?",
    "Today is {d}. What day was it {n} days ago?",
    "{d} minus {n} days?",
    "Which weekday is {n} days before {d}?",
];

const DATE_AFTER: &[&str] = &[
    "What date is {n} days after {d}?",
    "Today is {d}. What is the date in {n} days?",
    "Add {n} days to {d}.",
    "{d} plus {n} days?",
    "It is {d}. Which date is {n} days later?",
    "Which date comes {n} days after {d}?",
    "My trip begins on {d} and takes {n} days. When does it end?",
    "What is {d} + {n} days?",
];

const TODAY: &[&str] = &[
    "What is the date today?",
    "What date is it?",
    "Which date is today?",
    "Tell me today's date.",
    "What is today's date?",
    "Today's date?",
    "Do you know the date?",
    "Give me the current date.",
];

const THIS_YEAR: &[&str] = &[
    "What year is it?",
    "Which year is it now?",
    "Tell me the year.",
    "What is the current year?",
    "Which year do we have?",
];

/// A quantity in a smaller unit.
pub(super) fn units(rng: &mut Rng) -> Task {
    let (one, many, small, factor) = unit(rng);
    let most = if factor > 99 { 99 } else { 60 };
    let n = rng.between(2, most);
    let (f, count) = (factor.to_string(), n.to_string());
    let values = [("o", one.as_str()), ("m", &many), ("s", &small), ("f", &f), ("n", &count)];
    let question = ask(rng, CONVERT, &values);
    let product = n * factor;
    // A power of ten appends its zeros; everything else is multiplied.
    let zeros = f.strip_prefix('1').filter(|rest| !rest.is_empty() && rest.chars().all(|c| c == '0'));
    let working = match zeros {
        Some(zeros) => format!("{n}*{factor}\n{n} {zeros}\n{product}"),
        None => multiply(n, factor),
    };
    let check = if zeros.is_some() { format!("check {product} = {n} {factor}s") } else { nines(n, factor) };
    let thought = Thought::new(format!("1 {one} = {factor} {small}\n{working}"), check);
    let mut inner = vec![multiply_key(n, factor)];
    inner.extend(multiply_inner(n, factor));
    let inner = if zeros.is_some() { Vec::new() } else { inner };
    let key = format!("units {one} {small} {n} {factor}");
    Task { inner, ..Task::new(key, question, thought, format!("{product} {small}")) }
}

/// A unit: half of the time one that does not exist, so that the factor must be read.
fn unit(rng: &mut Rng) -> (String, String, String, u64) {
    if rng.chance(50) {
        let (one, many, small, factor) = rng.pick(UNITS);
        return (one.to_owned(), many.to_owned(), small.to_owned(), factor);
    }
    let (one, small) = (invented(rng, 2), invented(rng, 2));
    let factor = rng.between(2, 40);
    (one.clone(), format!("{one}s"), format!("{small}s"), factor)
}

/// A weekday, a date, or today's date.
pub(super) fn dates(rng: &mut Rng) -> Task {
    match rng.weighted(&[35, 50, 15]) {
        0 => weekday(rng),
        1 => later_date(rng),
        _ => today(rng),
    }
}

/// Whole weeks do nothing; the days that are left are counted.
fn weekday(rng: &mut Rng) -> Task {
    let (start, n, after) = (rng.below(7), rng.between(1, 40) as usize, rng.chance(65));
    let at = |steps: usize| if after { DAYS[(start + steps) % 7] } else { DAYS[(start + 7 - steps) % 7] };
    let (templates, word) = if after { (WEEKDAY_AFTER, "after") } else { (WEEKDAY_BEFORE, "before") };
    let question = ask(rng, templates, &[("n", &n.to_string()), ("d", DAYS[start])]);
    let rest = n % 7;
    let counted: Vec<String> = (0..=rest).map(|steps| format!("{steps} {}", at(steps))).collect();
    let working = format!("{word} {n}={}+{rest}\n{}", n - rest, counted.join(" "));
    let back: Vec<String> = counted.into_iter().rev().collect();
    let key = format!("weekday {word} {} {n}", DAYS[start]);
    Task::new(key, question, Thought::new(working, format!("check {}", back.join(" "))), at(rest))
}

/// A day and month some days later, over at most one end of a month. No date is in February, whose length depends on
/// the year; 28 days after the last of January are still well defined.
fn later_date(rng: &mut Rng) -> Task {
    let months: Vec<usize> = (0..12).filter(|month| *month != 1).collect();
    let month = rng.pick(&months);
    let (name, length) = MONTHS[month];
    let (day, n) = (rng.between(1, length), rng.between(2, 28));
    let question = ask(rng, DATE_AFTER, &[("n", &n.to_string()), ("d", &format!("{name} {day}"))]);
    let sum = day + n;
    let head = format!("{name} {day}+{n}\n{}\n{name} has {length}", add(day, n));
    let mut inner = vec![add_key(day, n)];
    let (working, check, answer) = if sum > length {
        inner.push(subtract_key(sum, length));
        let answer = format!("{} {}", MONTHS[(month + 1) % 12].0, sum - length);
        let working = format!("{head}\n{sum}>{length}\n{}\n{answer}", subtract(sum, length));
        (working, format!("check {length}-{day}={} {n}-{}={}", length - day, length - day, sum - length), answer)
    } else {
        let answer = format!("{name} {sum}");
        let sign = if sum == length { '=' } else { '<' };
        (format!("{head}\n{sum}{sign}{length}\n{answer}"), format!("check {sum}-{n}={day}"), answer)
    };
    let key = format!("date {name} {day} {n}");
    Task { inner, ..Task::new(key, question, Thought::new(working, check), answer) }
}

/// What the system message says about today.
fn today(rng: &mut Rng) -> Task {
    let date = date(rng);
    let whole = rng.chance(70);
    let (name, templates) = if whole { ("today", TODAY) } else { ("year", THIS_YEAR) };
    let question = ask(rng, templates, &[]);
    let answer = if whole { date.clone() } else { date[..4].to_owned() };
    let thought = Thought::new(format!("Current date: {date}"), "check: the system message says so");
    Task { today: Some(date.clone()), ..Task::new(format!("{name} {date}"), question, thought, answer) }
}
