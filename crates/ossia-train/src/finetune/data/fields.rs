//! Fields of an example's JSON, each error with the field's place: `messages[2].content: wanted a text, found 7`.

use serde_json::{Map, Value};

use super::error::Bad;

/// Characters of a value that an error shows.
const SHOWN: usize = 60;

/// The value as an error shows it: short, on one line.
pub(super) fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

pub(super) fn wrong(at: &str, wanted: &str, found: &Value) -> Bad {
    Bad::Wrong(format!("{at}: wanted {wanted}, found {}", shown(found)))
}

/// An object.
pub(super) fn object<'v>(value: &'v Value, at: &str) -> Result<&'v Map<String, Value>, Bad> {
    value.as_object().ok_or_else(|| wrong(at, "an object", value))
}

/// A list.
pub(super) fn list<'v>(value: &'v Value, at: &str) -> Result<&'v [Value], Bad> {
    value.as_array().map(Vec::as_slice).ok_or_else(|| wrong(at, "a list", value))
}

/// A field that may be missing or null.
pub(super) fn field<'v>(object: &'v Map<String, Value>, key: &str) -> Option<&'v Value> {
    object.get(key).filter(|value| !value.is_null())
}

/// A text that must be there.
pub(super) fn text<'v>(object: &'v Map<String, Value>, key: &str, at: &str) -> Result<&'v str, Bad> {
    let at = join(at, key);
    match object.get(key) {
        None => Err(Bad::Wrong(format!("{at}: wanted a text, found nothing"))),
        Some(value) => value.as_str().ok_or_else(|| wrong(&at, "a text", value)),
    }
}

/// A text that may be missing or null.
pub(super) fn text_or_none<'v>(object: &'v Map<String, Value>, key: &str, at: &str) -> Result<Option<&'v str>, Bad> {
    let as_text = |value: &'v Value| value.as_str().ok_or_else(|| wrong(&join(at, key), "a text", value));
    field(object, key).map(as_text).transpose()
}

/// `at.key`, or `key` at the top.
pub(super) fn join(at: &str, key: &str) -> String {
    if at.is_empty() { key.to_owned() } else { format!("{at}.{key}") }
}

/// A text, or a list of text parts, end to end: what OpenAI calls content. Missing and null are no text.
pub(super) fn content(object: &Map<String, Value>, at: &str) -> Result<String, Bad> {
    let at = join(at, "content");
    match field(object, "content") {
        None => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Array(parts)) => {
            parts.iter().enumerate().map(|(place, part)| part_text(part, &format!("{at}[{place}]"))).collect()
        }
        Some(other) => Err(wrong(&at, "a text or a list of text parts", other)),
    }
}

fn part_text(part: &Value, at: &str) -> Result<String, Bad> {
    let part = object(part, at)?;
    match field(part, "type").and_then(Value::as_str).unwrap_or("text") {
        "text" | "input_text" | "output_text" => text(part, "text", at).map(str::to_owned),
        "refusal" => text(part, "refusal", at).map(str::to_owned),
        // It is read as the chain of thought.
        "thinking" | "reasoning" => Ok(String::new()),
        kind => Err(Bad::Wrong(format!("{at}.type: wanted \"text\", found {kind:?}: the model reads text only"))),
    }
}
