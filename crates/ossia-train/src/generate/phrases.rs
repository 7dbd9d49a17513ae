//! Questions as people type them: a template, filled in, now and then without a capital, a mark or with a word before.

use super::rng::Rng;

/// What may stand before a question.
const OPENERS: &[&str] = &["Hi, ", "Hello, ", "Hey, ", "Ok, ", "Now: ", "Please tell me: ", "Quick question: "];

/// The template with each `{name}` replaced by its value.
pub(super) fn fill(template: &str, values: &[(&str, &str)]) -> String {
    values.iter().fold(template.to_owned(), |text, (name, value)| text.replace(&format!("{{{name}}}"), value))
}

/// One of the templates, filled in and typed casually.
pub(super) fn ask(rng: &mut Rng, templates: &[&str], values: &[(&str, &str)]) -> String {
    let template = rng.pick(templates);
    let text = fill(template, values);
    // A value keeps its capital: it may be a name.
    let text = if template.starts_with('{') { text } else { casual_start(rng, &text) };
    casual_end(rng, text)
}

fn casual_start(rng: &mut Rng, text: &str) -> String {
    match rng.below(100) {
        0..6 => format!("{}{}", rng.pick(OPENERS), lower_first(text)),
        6..26 => lower_first(text),
        _ => text.to_owned(),
    }
}

fn casual_end(rng: &mut Rng, text: String) -> String {
    let bare = text.trim_end_matches(['?', '.', '!']);
    if rng.chance(20) { bare.to_owned() } else { text }
}

/// The text with a capital at its start.
pub(super) fn upper_first(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().collect::<String>() + chars.as_str()).unwrap_or_default()
}

/// The text without a capital at its start.
pub(super) fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_lowercase().collect::<String>() + chars.as_str()).unwrap_or_default()
}

/// Items as in a sentence: `a, b and c`.
pub(super) fn listed(items: &[String]) -> String {
    match items {
        [] => String::new(),
        [only] => only.clone(),
        [start @ .., last] => format!("{} and {last}", start.join(", ")),
    }
}
