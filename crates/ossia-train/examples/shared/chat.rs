//! Generated conversations as lines of chat JSON, for the examples of docs/training.md.

use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use ossia_text::Role;
use ossia_text::harmony::{ANALYSIS, Content, Effort, Message};
use ossia_train::generate::Sample;
use serde_json::{Map, Value, json};

/// A generated conversation as chat JSON.
pub fn conversation(sample: &Sample) -> Value {
    let mut line = Map::new();
    let effort = match sample.effort {
        Effort::Low => "low",
        Effort::Medium => "medium",
        Effort::High => "high",
    };
    line.insert("reasoning_effort".to_owned(), json!(effort));
    let (mut messages, mut thought) = (Vec::new(), None);
    for (place, message) in sample.conversation.messages.iter().enumerate() {
        let text = message.content_text();
        match message.author.role {
            Role::System => line.extend(date(message).map(|date| ("date".to_owned(), date))),
            Role::Developer => developer(message, &mut messages, &mut line),
            Role::User => messages.push(json!({"role": "user", "content": text})),
            Role::Tool => messages.push(json!({"role": "tool", "content": text})),
            Role::Assistant if message.channel.as_deref() == Some(ANALYSIS) => thought = Some(text),
            Role::Assistant => {
                let mut said = json!({"role": "assistant", "reasoning_content": thought.take()});
                match message.recipient.as_deref().and_then(|to| to.strip_prefix("functions.")) {
                    Some(name) => said["tool_calls"] = json!([{"function": {"name": name, "arguments": text}}]),
                    None => said["content"] = json!(text),
                }
                // What comes before the turn that a sample is about is given.
                if place < sample.prompt {
                    said["weight"] = json!(0);
                }
                messages.push(said);
            }
        }
    }
    line.insert("messages".to_owned(), Value::Array(messages));
    Value::Object(line)
}

fn date(message: &Message) -> Option<Value> {
    message.content.iter().find_map(|part| match part {
        Content::SystemContent(system) => system.conversation_start_date.as_ref().map(|date| json!(date)),
        _ => None,
    })
}

fn developer(message: &Message, messages: &mut Vec<Value>, line: &mut Map<String, Value>) {
    for part in &message.content {
        let Content::DeveloperContent(content) = part else { continue };
        if let Some(text) = &content.instructions {
            messages.push(json!({"role": "developer", "content": text}));
        }
        let tools = content.tools.iter().flat_map(|namespaces| namespaces.values()).flat_map(|space| &space.tools);
        let tools: Vec<Value> = tools
            .map(|tool| {
                json!({"type": "function", "function":
                    {"name": tool.name, "description": tool.description, "parameters": tool.parameters}})
            })
            .collect();
        line.insert("tools".to_owned(), Value::Array(tools));
    }
}

/// Writes one value a line.
pub fn write(path: &Path, lines: impl Iterator<Item = Value>) -> Result<(), Box<dyn Error>> {
    let mut out = BufWriter::new(File::create(path)?);
    for line in lines {
        writeln!(out, "{line}")?;
    }
    out.flush()?;
    Ok(())
}
