//! Whether an answer is right: exact match, nothing in between.

use ossia_text::ParsedMessage;
use ossia_text::harmony::{Arguments, COMMENTARY, FINAL, MessageEnd, MessageKind};

use super::Expected;

/// What an answer is worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grade {
    /// It says what was expected, in the kind of message that was expected.
    pub correct: bool,
    /// It has the form of harmony, right or wrong: known channels, nothing odd, one answer or call at the end, properly
    /// ended; a call's arguments are a JSON object.
    pub valid: bool,
    /// What it says: the final text, or the call as `name {arguments}`; nothing where there is neither.
    pub said: String,
}

/// Grades the messages of one turn of the assistant.
pub fn grade(expected: &Expected, answer: &[ParsedMessage]) -> Grade {
    let last = answer.last();
    let call = last.and_then(ParsedMessage::tool_call);
    let text = last.filter(|message| message.header.kind() == MessageKind::Answer).map(|message| message.text.trim());
    let said = match (&call, text, last) {
        (Some(call), _, Some(message)) => format!("{} {}", call.function_name(), message.text),
        (None, Some(text), _) => text.to_owned(),
        _ => String::new(),
    };
    let correct = match expected {
        Expected::Final(wanted) => call.is_none() && text == Some(wanted.trim()),
        Expected::Call { name, arguments } => call.is_some_and(|call| {
            call.recipient == format!("functions.{name}") && call.arguments == Arguments::Json(arguments.clone())
        }),
    };
    Grade { correct, valid: is_valid(answer), said }
}

fn is_valid(answer: &[ParsedMessage]) -> bool {
    let Some((last, before)) = answer.split_last() else {
        return false;
    };
    let thinks = |m: &ParsedMessage| m.header.kind() == MessageKind::Thinking && m.end == MessageEnd::End;
    let ends_well = match last.header.kind() {
        MessageKind::Answer => last.header.channel.as_deref() == Some(FINAL) && last.end == MessageEnd::Return,
        MessageKind::ToolCall => {
            let json = last.tool_call().is_some_and(|call| matches!(call.arguments, Arguments::Json(_)));
            last.header.channel.as_deref() == Some(COMMENTARY) && last.end == MessageEnd::Call && json
        }
        _ => false,
    };
    ends_well && before.iter().all(thinks) && answer.iter().all(|message| message.anomalies.is_empty())
}
