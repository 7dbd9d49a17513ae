//! What a message is for, and tool calls as models really make them (SPEC 9.9 numbers 4 to 7).

use serde_json::Value;

use super::message::{ANALYSIS, COMMENTARY, DeveloperContent, Role, ToolDescription};
use super::parse::{Header, MessageEnd, ParsedMessage};

/// What a message is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageKind {
    /// Chain of thought.
    Thinking,
    /// The answer; also text on no channel or an unknown one, so that nothing a model says is hidden.
    Answer,
    /// Commentary for the user, to no tool.
    Preamble,
    /// A call of a tool, on whatever channel.
    ToolCall,
    /// From somebody else than the assistant.
    NotAssistant,
}

impl Header {
    /// What the message is for.
    pub fn kind(&self) -> MessageKind {
        let calls = self.recipient.as_ref().is_some_and(|name| !["all", "user", "assistant"].contains(&name.as_str()));
        match self.channel.as_deref() {
            _ if self.role != Role::Assistant => MessageKind::NotAssistant,
            _ if calls => MessageKind::ToolCall,
            Some(ANALYSIS) => MessageKind::Thinking,
            Some(COMMENTARY) => MessageKind::Preamble,
            _ => MessageKind::Answer,
        }
    }
}

/// The arguments of a call.
#[derive(Debug, Clone, PartialEq)]
pub enum Arguments {
    /// A JSON object.
    Json(Value),
    /// Something else, such as python code.
    Text(String),
    /// The tokens ran out before the arguments were a JSON object.
    Truncated(String),
}

/// A call of a tool.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolCall {
    /// As the model wrote it: `functions.get_weather`, `python`, `get_weather`.
    pub recipient: String,
    /// What it passes.
    pub arguments: Arguments,
}

impl ToolCall {
    /// The recipient without `functions.`.
    pub fn function_name(&self) -> &str {
        self.recipient.strip_prefix("functions.").unwrap_or(&self.recipient)
    }

    /// The tool that is meant: by its full name, or a function by its bare name. None for one that does not exist.
    pub fn find<'d>(&self, developer: &'d DeveloperContent) -> Option<&'d ToolDescription> {
        let namespaces = developer.tools.as_ref()?;
        let (namespace, name) = self.recipient.split_once('.').unwrap_or(("functions", &self.recipient));
        namespaces.get(namespace)?.tools.iter().find(|tool| tool.name == name)
    }
}

impl ParsedMessage {
    /// The call that this message makes, if it is one.
    pub fn tool_call(&self) -> Option<ToolCall> {
        if self.header.kind() != MessageKind::ToolCall {
            return None;
        }
        let recipient = self.header.recipient.clone()?;
        let arguments = match serde_json::from_str::<Value>(&self.text) {
            Ok(value) if value.is_object() => Arguments::Json(value),
            _ if self.end == MessageEnd::Truncated => Arguments::Truncated(self.text.clone()),
            _ => Arguments::Text(self.text.clone()),
        };
        Some(ToolCall { recipient, arguments })
    }
}
