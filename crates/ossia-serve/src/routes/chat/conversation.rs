//! From chat messages to a harmony conversation: instructions become the developer message, earlier reasoning comes back
//! as analysis in front of the call or answer that it led to, tool results get their tool's name. What the client lost of
//! the reasoning is put back from the server's memory.

use std::collections::HashMap;

use ossia_text::harmony::{ANALYSIS, COMMENTARY, FINAL};
use ossia_text::{Conversation, Message};
use serde_json::Value;

use super::tools::Declared;
use crate::error::ApiError;
use crate::reasoning::{Beginning, ReasoningMemory, Said, Thought, tags};
use crate::turn::{Opening, later_instructions};
use crate::types::chat::{CallIn, ChatMessage, Part};
use crate::types::fields::TextOr;
use crate::types::sampling::Thinking;

/// The most messages of a request.
const MOST_MESSAGES: usize = 8192;

/// The conversation and the date it began with.
#[derive(Debug)]
pub struct Told {
    /// To be rendered.
    pub conversation: Conversation,
    /// As YYYY-MM-DD.
    pub date: String,
}

/// Where lost reasoning is looked up, and for whom.
pub struct Lookup<'a> {
    /// The memory.
    pub memory: &'a ReasoningMemory,
    /// Whose.
    pub owner: &'a str,
}

/// Reads `messages`. `today` is the date unless the conversation is known to have begun on another day.
pub fn told(
    messages: &[ChatMessage],
    declared: &Declared,
    thinking: Thinking,
    lookup: &Lookup,
    today: &str,
) -> Result<Told, ApiError> {
    if messages.is_empty() {
        return Err(ApiError::invalid("messages", "messages: wanted at least one"));
    }
    if messages.len() > MOST_MESSAGES {
        return Err(ApiError::invalid("messages", format!("messages: wanted at most {MOST_MESSAGES}")));
    }
    let is_instruction = |message: &&ChatMessage| matches!(message.role.as_str(), "system" | "developer");
    let num_leading = messages.iter().take_while(is_instruction).count();
    let mut teller = Teller { lookup, calls: HashMap::new(), date: None, messages: Vec::new() };
    let mut instructions = Vec::new();
    for (index, message) in messages.iter().enumerate() {
        match index < num_leading {
            true => instructions.push(text(message, index)?),
            false => teller.message(message, index)?,
        }
    }
    let date = match teller.date {
        Some(date) => date,
        None => {
            let first = messages.get(num_leading).map(|message| text(message, num_leading)).transpose()?;
            let words: Vec<&str> = instructions.iter().chain(&first).map(String::as_str).collect();
            let goes_on = messages.iter().any(|message| message.role == "assistant");
            lookup.memory.date(lookup.owner, Beginning { words: &words, goes_on }, today)
        }
    };
    let opening = Opening {
        effort: thinking.effort,
        date: date.clone(),
        instructions: (!instructions.is_empty()).then(|| instructions.join("\n\n")),
        functions: declared.shown.clone(),
        format: declared.format.clone(),
    };
    let mut told = opening.messages();
    told.append(&mut teller.messages);
    Ok(Told { conversation: Conversation::from(told), date })
}

struct Teller<'a> {
    lookup: &'a Lookup<'a>,
    /// The tool that each call was addressed to.
    calls: HashMap<String, String>,
    date: Option<String>,
    messages: Vec<Message>,
}

impl Teller<'_> {
    fn message(&mut self, message: &ChatMessage, index: usize) -> Result<(), ApiError> {
        match message.role.as_str() {
            "system" | "developer" => self.messages.push(later_instructions(text(message, index)?)),
            "user" => self.messages.push(Message::user(text(message, index)?)),
            "assistant" => self.assistant(message, index)?,
            "tool" => self.tool(message, index)?,
            other => {
                let wanted = "wanted system, developer, user, assistant or tool";
                return Err(ApiError::invalid(format!("messages[{index}].role"), format!("{wanted}, found {other:?}")));
            }
        }
        Ok(())
    }

    fn assistant(&mut self, message: &ChatMessage, index: usize) -> Result<(), ApiError> {
        let calls = message.tool_calls.as_deref().unwrap_or_default();
        let whole = text(message, index)?;
        let (tagged, said) = tags::split(&whole);
        let reasoning = Some(reasoning(message)).filter(|text| !text.is_empty()).unwrap_or_else(|| tagged.join("\n\n"));
        let known = calls.iter().filter_map(|call| call.id.as_deref()).find_map(|id| self.recall(id));
        if let Some(date) = known.as_ref().and_then(|thought| thought.date.clone()) {
            self.date.get_or_insert(date);
        }
        match known.filter(|thought| is_same(thought, &reasoning, said)) {
            Some(thought) => self.messages.extend(thought.said.iter().map(Said::message)),
            None => {
                if !reasoning.is_empty() {
                    self.messages.push(Message::assistant(ANALYSIS, reasoning.as_str()));
                }
                let channel = if calls.is_empty() { FINAL } else { COMMENTARY };
                if !said.is_empty() || calls.is_empty() && reasoning.is_empty() {
                    self.messages.push(Message::assistant(channel, said));
                }
            }
        }
        for (number, call) in calls.iter().enumerate() {
            self.call(call, &format!("messages[{index}].tool_calls[{number}]"))?;
        }
        Ok(())
    }

    fn recall(&self, call_id: &str) -> Option<std::sync::Arc<Thought>> {
        self.lookup.memory.recall(self.lookup.owner, call_id)
    }

    fn call(&mut self, call: &CallIn, at: &str) -> Result<(), ApiError> {
        let (name, input, is_json) = match (&call.function, &call.custom) {
            (Some(function), _) => match &function.arguments {
                Value::String(text) => (&function.name, text.clone(), true),
                Value::Null => (&function.name, "{}".to_owned(), true),
                object => (&function.name, object.to_string(), true),
            },
            (None, Some(custom)) => (&custom.name, custom.input.clone(), false),
            (None, None) => return Err(ApiError::invalid(format!("{at}.function"), "wanted a function's call")),
        };
        let recipient = format!("functions.{name}");
        let mut message = Message::assistant(COMMENTARY, input);
        message.recipient = Some(recipient.clone());
        message.content_type = is_json.then(|| "<|constrain|>json".to_owned());
        let known = call.id.as_deref().and_then(|id| self.recall(id));
        self.messages.push(match known {
            Some(thought) => thought.as_written(message),
            None => message,
        });
        if let Some(id) = &call.id {
            self.calls.insert(id.clone(), recipient);
        }
        Ok(())
    }

    fn tool(&mut self, message: &ChatMessage, index: usize) -> Result<(), ApiError> {
        let called = message.tool_call_id.as_ref().and_then(|id| self.calls.get(id)).cloned();
        let Some(name) = called.or_else(|| message.name.as_ref().map(|name| format!("functions.{name}"))) else {
            let problem = "a tool's message must answer a call of an earlier assistant message, by its tool_call_id";
            return Err(ApiError::invalid(format!("messages[{index}].tool_call_id"), problem));
        };
        self.messages.push(Message::tool_result(name, COMMENTARY, text(message, index)?));
        Ok(())
    }
}

/// Whether the client gives back what the server remembers, or nothing of the reasoning: then memory, which also knows
/// where one message ended and the next began, counts. A client that has changed it is believed.
fn is_same(thought: &Thought, reasoning: &str, said: &str) -> bool {
    let all = |thinking| {
        let texts = thought.said.iter().filter(|said| said.thinking == thinking).map(|said| said.text.as_str());
        texts.collect::<Vec<_>>().join("\n\n")
    };
    let is = |text: &str, thinking| text.is_empty() || tags::are_alike(text, &all(thinking));
    is(reasoning, true) && is(said, false)
}

/// The assistant's chain of thought, by whichever name it came.
fn reasoning(message: &ChatMessage) -> String {
    let names = [&message.reasoning, &message.reasoning_content, &message.thinking];
    if let Some(text) = names.into_iter().flatten().find(|text| !text.is_empty()) {
        return text.clone();
    }
    let Some(TextOr::List(parts)) = &message.content else { return String::new() };
    let thoughts: Vec<&str> = parts.iter().filter_map(|part| part.thinking.as_deref()).collect();
    thoughts.join("\n\n")
}

/// The text of a message: its parts, end to end.
fn text(message: &ChatMessage, index: usize) -> Result<String, ApiError> {
    match &message.content {
        None => Ok(message.refusal.clone().unwrap_or_default()),
        Some(TextOr::Text(text)) => Ok(text.clone()),
        Some(TextOr::List(parts)) => {
            let part_text =
                |(number, part): (usize, &Part)| part_text(part, || format!("messages[{index}].content[{number}]"));
            parts.iter().enumerate().map(part_text).collect()
        }
    }
}

fn part_text(part: &Part, at: impl Fn() -> String) -> Result<String, ApiError> {
    match part.kind.as_deref() {
        None | Some("text" | "input_text" | "output_text") => match &part.text {
            Some(text) => Ok(text.clone()),
            None => Err(ApiError::invalid(format!("{}.text", at()), "wanted a text")),
        },
        Some("refusal") => Ok(part.refusal.clone().unwrap_or_default()),
        Some("thinking" | "reasoning") => Ok(String::new()),
        Some(kind @ ("image_url" | "input_audio" | "file" | "video_url" | "image" | "input_image" | "input_file")) => {
            Err(ApiError::unsupported(at(), format!("this model reads text only, not {kind:?}: send text parts")))
        }
        Some(kind) => Err(ApiError::invalid(format!("{}.type", at()), format!("wanted \"text\", found {kind:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use ossia_text::harmony::Effort;
    use serde_json::json;

    use super::super::tools::declared;
    use super::{Lookup, told};
    use crate::reasoning::{MemoryLimits, ReasoningMemory};
    use crate::types::chat::ChatRequest;
    use crate::types::sampling::Thinking;

    #[test]
    fn a_conversation_keeps_its_day_past_midnight() {
        let memory = ReasoningMemory::new(MemoryLimits::default());
        let date = |owner, messages: serde_json::Value, today| {
            let body = json!({ "model": "nano", "messages": messages });
            let request: ChatRequest = serde_json::from_value(body).unwrap();
            let declared = declared(&request, true).unwrap();
            let thinking = Thinking { effort: Effort::Low, allowed: true };
            told(&request.messages, &declared, thinking, &Lookup { memory: &memory, owner }, today).unwrap().date
        };
        let [system, hi, hello, more] =
            [("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello"), ("user", "And?")]
                .map(|(role, content)| json!({ "role": role, "content": content }));
        let (monday, tuesday) = ("2026-11-23", "2026-11-24");
        assert_eq!(date("ada", json!([system, hi]), monday), monday);
        assert_eq!(date("ada", json!([system, hi, hello, more]), tuesday), monday);
        assert_eq!(date("eve", json!([system, hi, hello, more]), tuesday), tuesday);
        assert_eq!(date("ada", json!([hi, hello, more]), tuesday), tuesday, "other instructions");
        assert_eq!(date("ada", json!([system, hi]), tuesday), tuesday, "begun again");
    }
}
