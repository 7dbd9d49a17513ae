//! OpenAI's chat examples: `{"messages": [...], "tools": [...]}`, with `weight` 0 for what the assistant says as context,
//! and reasoning under any of the names that it has in the world.

use std::collections::HashMap;

use ossia_text::harmony::Effort;
use serde_json::{Map, Value};

use super::error::Bad;
use super::fields::{content, field, join, list, object, shown, text, text_or_none, wrong};
use super::talk::{Call, Said, Spoken, Talk, without_tags};
use super::tools::{check_name, format_section, tools};

/// The most messages of an example.
const MOST_MESSAGES: usize = 8192;
/// Names of the chain of thought.
const THOUGHTS: [&str; 4] = ["reasoning", "reasoning_content", "thinking", "reasoning_text"];

/// A whole example.
pub(super) fn talk(example: &Map<String, Value>) -> Result<Talk, Bad> {
    let messages = example.get("messages").ok_or("messages: wanted a list of messages, found nothing")?;
    let mut reader = Reader::default();
    reader.read(messages, "messages")?;
    frame(example, reader.said)
}

/// What stands beside the messages.
pub(super) fn frame(example: &Map<String, Value>, said: Vec<Said>) -> Result<Talk, Bad> {
    let tools = tools(example)?;
    for said in &said {
        let Said::Assistant(spoken) = said else { continue };
        let unknown = |call: &&Call| !tools.is_empty() && tools.iter().all(|tool| tool.name != call.name);
        if let Some(call) = spoken.calls.iter().find(unknown) {
            let names: Vec<&str> = tools.iter().map(|tool| tool.name.as_str()).collect();
            let (name, names) = (&call.name, names.join(", "));
            return Err(Bad::Wrong(format!("a call of {name:?}, which is not among the example's tools ({names})")));
        }
    }
    let format = format_section(example)?;
    Ok(Talk { said, tools, format, effort: effort(example)?, date: date(example)? })
}

fn effort(example: &Map<String, Value>) -> Result<Option<Effort>, Bad> {
    let Some(word) = text_or_none(example, "reasoning_effort", "")? else { return Ok(None) };
    match word {
        "low" => Ok(Some(Effort::Low)),
        "medium" => Ok(Some(Effort::Medium)),
        "high" => Ok(Some(Effort::High)),
        _ => Err(wrong("reasoning_effort", "\"low\", \"medium\" or \"high\"", &Value::from(word))),
    }
}

fn date(example: &Map<String, Value>) -> Result<Option<String>, Bad> {
    let Some(date) = text_or_none(example, "date", "")? else { return Ok(None) };
    match is_date(date) {
        true => Ok(Some(date.to_owned())),
        false => Err(wrong("date", "a day as YYYY-MM-DD", &Value::from(date))),
    }
}

/// Whether a text has the form YYYY-MM-DD.
pub(super) fn is_date(text: &str) -> bool {
    let form = |(byte, place): (u8, usize)| if matches!(place, 4 | 7) { byte == b'-' } else { byte.is_ascii_digit() };
    text.len() == 10 && text.bytes().zip(0..).all(form)
}

/// Reads messages, one list after the other.
#[derive(Default)]
pub(super) struct Reader {
    /// What was said so far.
    pub said: Vec<Said>,
    /// Calls that no result has answered, as id (where it has one) and full name.
    open: Vec<(Option<String>, String)>,
    /// Every call with an id.
    known: HashMap<String, String>,
}

impl Reader {
    pub fn read(&mut self, messages: &Value, at: &str) -> Result<(), Bad> {
        let messages = list(messages, at)?;
        if messages.is_empty() {
            return Err(Bad::Wrong(format!("{at}: wanted at least one message, found none")));
        }
        if messages.len() > MOST_MESSAGES {
            return Err(Bad::Wrong(format!("{at}: wanted at most {MOST_MESSAGES} messages, found {}", messages.len())));
        }
        for (place, message) in messages.iter().enumerate() {
            let at = format!("{at}[{place}]");
            let message = object(message, &at)?;
            let said = self.message(message, &at)?;
            self.said.push(said);
        }
        Ok(())
    }

    fn message(&mut self, message: &Map<String, Value>, at: &str) -> Result<Said, Bad> {
        match text(message, "role", at)? {
            "system" | "developer" => content(message, at).map(Said::Instructions),
            "user" => {
                let text = content(message, at)?;
                if text.is_empty() {
                    return Err(Bad::Wrong(format!("{at}: the user's message is empty")));
                }
                Ok(Said::User(text))
            }
            "assistant" => self.assistant(message, at).map(Said::Assistant),
            "tool" => self.tool(message, at),
            "function" => Err(Bad::Wrong(format!("{at}.role: \"function\" is the older form, write \"tool\""))),
            other => {
                let wanted = "\"system\", \"developer\", \"user\", \"assistant\" or \"tool\"";
                Err(wrong(&join(at, "role"), wanted, &Value::from(other)))
            }
        }
    }

    fn assistant(&mut self, message: &Map<String, Value>, at: &str) -> Result<Spoken, Bad> {
        if field(message, "function_call").is_some() {
            return Err(Bad::Wrong(format!("{at}.function_call: this is the older form, write it as tool_calls")));
        }
        let mut whole = content(message, at)?;
        if whole.is_empty() {
            whole = text_or_none(message, "refusal", at)?.unwrap_or_default().to_owned();
        }
        let (tagged, text) = without_tags(&whole);
        let thought = Some(thought(message, at)?).filter(|text| !text.is_empty()).unwrap_or(tagged);
        let calls = self.calls(message, at)?;
        if text.is_empty() && calls.is_empty() {
            let what = if thought.is_empty() { "is empty" } else { "thinks and says nothing" };
            let wanted = "wanted content or tool_calls";
            return Err(Bad::Wrong(format!("{at}: the assistant's message {what}: {wanted}")));
        }
        Ok(Spoken { thought, text: text.to_owned(), calls, learned: learned(message, at)? })
    }

    fn calls(&mut self, message: &Map<String, Value>, at: &str) -> Result<Vec<Call>, Bad> {
        let Some(calls) = field(message, "tool_calls") else { return Ok(Vec::new()) };
        let at = join(at, "tool_calls");
        let mut read = Vec::new();
        self.open.clear();
        for (place, call) in list(calls, &at)?.iter().enumerate() {
            let at = format!("{at}[{place}]");
            let call = object(call, &at)?;
            let made = one_call(call, &at)?;
            let (id, name) = (text_or_none(call, "id", &at)?.map(str::to_owned), format!("functions.{}", made.name));
            if let Some(id) = &id {
                self.known.insert(id.clone(), name.clone());
            }
            self.open.push((id, name));
            read.push(made);
        }
        Ok(read)
    }

    /// The result of a call: by the call's id, else by the tool's name, else of the first call that has none yet.
    fn tool(&mut self, message: &Map<String, Value>, at: &str) -> Result<Said, Bad> {
        let id = text_or_none(message, "tool_call_id", at)?;
        let named = text_or_none(message, "name", at)?.map(|name| format!("functions.{name}"));
        let is_meant = |(open_id, name): &(Option<String>, String)| match (id, &named) {
            (Some(id), _) if open_id.is_some() => open_id.as_deref() == Some(id),
            (_, Some(named)) => name == named,
            _ => true,
        };
        let open = self.open.iter().position(is_meant).map(|place| self.open.remove(place).1);
        let earlier = || id.and_then(|id| self.known.get(id).cloned());
        let Some(name) = open.or_else(earlier) else {
            let found = id.or(named.as_deref()).unwrap_or("neither tool_call_id nor name");
            let problem = "a tool's message must answer a call of an earlier assistant message";
            return Err(Bad::Wrong(format!("{at}: {problem}, by its tool_call_id, found {found:?}")));
        };
        Ok(Said::Tool(name, content(message, at)?))
    }
}

/// A call, whose arguments are the text of a JSON object, or the object itself.
fn one_call(call: &Map<String, Value>, at: &str) -> Result<Call, Bad> {
    if let Some(custom) = field(call, "custom") {
        let at = join(at, "custom");
        let custom = object(custom, &at)?;
        let name = text(custom, "name", &at)?;
        check_name(name, &join(&at, "name"))?;
        let input = text_or_none(custom, "input", &at)?.unwrap_or_default().to_owned();
        return Ok(Call { name: name.to_owned(), input, is_json: false });
    }
    let (function, at) = match field(call, "function") {
        Some(function) => (object(function, &join(at, "function"))?, join(at, "function")),
        None => (call, at.to_owned()),
    };
    let name = text(function, "name", &at)?;
    check_name(name, &join(&at, "name"))?;
    let input = arguments(function.get("arguments"), &join(&at, "arguments"))?;
    Ok(Call { name: name.to_owned(), input, is_json: true })
}

/// The arguments of a function, to the letter where they are a text.
pub(super) fn arguments(arguments: Option<&Value>, at: &str) -> Result<String, Bad> {
    match arguments {
        None | Some(Value::Null) => Ok("{}".to_owned()),
        Some(object @ Value::Object(_)) => Ok(object.to_string()),
        Some(Value::String(text)) => match serde_json::from_str::<Value>(text) {
            Ok(Value::Object(_)) => Ok(text.clone()),
            Ok(other) => Err(wrong(at, "the text of a JSON object", &other)),
            Err(error) => {
                let found = shown(&Value::from(text.as_str()));
                Err(Bad::Wrong(format!("{at}: the call's arguments are not JSON ({error}): {found}")))
            }
        },
        Some(other) => Err(wrong(at, "the text of a JSON object", other)),
    }
}

/// The chain of thought, by whichever name it came.
fn thought(message: &Map<String, Value>, at: &str) -> Result<String, Bad> {
    for name in THOUGHTS {
        if let Some(text) = text_or_none(message, name, at)?.filter(|text| !text.is_empty()) {
            return Ok(text.to_owned());
        }
    }
    let parts = field(message, "content").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let thoughts: Vec<&str> = parts.iter().filter_map(|part| part.get("thinking").and_then(Value::as_str)).collect();
    Ok(thoughts.join("\n\n"))
}

fn learned(message: &Map<String, Value>, at: &str) -> Result<bool, Bad> {
    match field(message, "weight") {
        None => Ok(true),
        Some(weight) if weight.as_f64() == Some(0.0) => Ok(false),
        Some(weight) if weight.as_f64() == Some(1.0) => Ok(true),
        Some(other) => Err(wrong(&join(at, "weight"), "0 (context) or 1 (learned)", other)),
    }
}
