//! From items to a harmony conversation. Chain of thought stands before the call or answer that it led to: as the client
//! sent it, plain or encrypted, else out of the server's memory by the call's id. Harmony's rendering then drops what is
//! before the last final message. Every way of sending the same conversation gives the same tokens.

use std::collections::HashMap;
use std::sync::Arc;

use ossia_text::harmony::{ANALYSIS, COMMENTARY, FINAL};
use ossia_text::{Conversation, Message};

use super::tools::Declared;
use crate::error::ApiError;
use crate::reasoning::{ReasoningMemory, Said, Sealer, Thought};
use crate::turn::{Opening, later_instructions};
use crate::types::responses::{InputItem, Item, Phase, Speaker};
use crate::types::sampling::Thinking;

/// Where chain of thought comes from, and whose it is.
pub struct Sources<'a> {
    /// What clients have lost.
    pub memory: &'a ReasoningMemory,
    /// What they hold encrypted.
    pub sealer: &'a Sealer,
    /// The key's id.
    pub owner: &'a str,
}

/// What stands before the items.
pub struct Frame<'a> {
    /// The application's words.
    pub instructions: Option<&'a str>,
    /// Tools and format.
    pub declared: &'a Declared,
    /// How long to think.
    pub thinking: Thinking,
    /// The day on which the conversation began, if the server keeps it.
    pub date: Option<&'a str>,
    /// The day that it is.
    pub today: &'a str,
}

/// The conversation and the date that it began with.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    /// To be rendered.
    pub conversation: Conversation,
    /// As YYYY-MM-DD.
    pub date: String,
}

/// Reads items, oldest first.
pub fn told(items: &[InputItem], frame: &Frame, sources: &Sources) -> Result<Told, ApiError> {
    let is_instruction = |item: &&InputItem| matches!(item.item, Item::Message { speaker: Speaker::Application, .. });
    let (leading, rest) = items.split_at(items.iter().take_while(is_instruction).count());
    let said = leading.iter().filter_map(|item| match &item.item {
        Item::Message { text, .. } => Some(text.as_str()),
        _ => None,
    });
    let instructions: Vec<&str> = frame.instructions.into_iter().chain(said).filter(|text| !text.is_empty()).collect();
    let mut teller =
        Teller { declared: frame.declared, sources, calls: HashMap::new(), date: None, messages: Vec::new() };
    teller.read(rest)?;
    let date = frame.date.map(str::to_owned).or(teller.date).unwrap_or_else(|| frame.today.to_owned());
    let opening = Opening {
        effort: frame.thinking.effort,
        date: date.clone(),
        instructions: (!instructions.is_empty()).then(|| instructions.join("\n\n")),
        functions: frame.declared.shown.clone(),
        format: frame.declared.format.clone(),
    };
    let mut messages = opening.messages();
    messages.append(&mut teller.messages);
    Ok(Told { conversation: Conversation::from(messages), date })
}

struct Teller<'a> {
    declared: &'a Declared,
    sources: &'a Sources<'a>,
    /// The tool that each call was addressed to.
    calls: HashMap<&'a str, String>,
    date: Option<String>,
    messages: Vec<Message>,
}

/// What the model said, up to a call or to the end of its turn.
#[derive(Default)]
struct Step {
    said: Vec<(Said, Option<Phase>)>,
}

impl<'a> Teller<'a> {
    fn read(&mut self, items: &'a [InputItem]) -> Result<(), ApiError> {
        let mut step = Step::default();
        for item in items {
            match &item.item {
                Item::Message { speaker: Speaker::Assistant, text, phase } => {
                    step.said.push((Said { thinking: false, text: text.clone() }, *phase));
                }
                Item::Reasoning { text, encrypted } => {
                    if let Some(text) = self.thinking(text.as_deref(), encrypted.as_deref(), &item.id)? {
                        step.said.push((Said { thinking: true, text }, None));
                    }
                }
                // A call that was cut off was never made.
                Item::Call { .. } if item.json["status"] == "incomplete" => {}
                Item::Call { call_id, name, namespace, input, custom } => {
                    self.end_step(std::mem::take(&mut step), Some(call_id));
                    let model_name = self.declared.model_name(name, namespace.as_deref());
                    self.call(call_id, &model_name, input, *custom);
                }
                Item::Message { speaker, text, .. } => {
                    self.end_step(std::mem::take(&mut step), None);
                    self.messages.push(match speaker {
                        Speaker::Application => later_instructions(text.clone()),
                        _ => Message::user(text.as_str()),
                    });
                }
                Item::Output { call_id, text } => {
                    self.end_step(std::mem::take(&mut step), None);
                    let Some(name) = self.calls.get(call_id.as_str()) else {
                        let problem = format!("no tool call found for the output with call_id {call_id:?}");
                        return Err(ApiError::invalid("input", problem));
                    };
                    self.messages.push(Message::tool_result(name.as_str(), COMMENTARY, text.as_str()));
                }
                Item::Reference => {
                    let problem = format!("item {:?} is not kept here: send the item itself", item.id);
                    return Err(ApiError::invalid("input", problem));
                }
                Item::Foreign => {}
            }
        }
        self.end_step(step, None);
        Ok(())
    }

    /// The text of a reasoning item. What is encrypted must open even where the text is there beside it.
    fn thinking(&mut self, text: Option<&str>, encrypted: Option<&str>, id: &str) -> Result<Option<String>, ApiError> {
        let Some(encrypted) = encrypted else { return Ok(text.map(str::to_owned)) };
        let opened = self.sources.sealer.open(self.sources.owner, encrypted).map_err(|error| {
            ApiError::invalid("input", format!("the encrypted_content of item {id:?} could not be verified: {error}"))
        })?;
        self.pin(opened.date);
        Ok(Some(text.map_or(opened.text, str::to_owned)))
    }

    /// The first date that is known counts.
    fn pin(&mut self, date: Option<String>) {
        if let Some(date) = date {
            self.date.get_or_insert(date);
        }
    }

    /// Writes what was said before a call, or at the end of a turn.
    fn end_step(&mut self, step: Step, call_id: Option<&str>) {
        let known = call_id.and_then(|id| self.sources.memory.recall(self.sources.owner, id));
        self.pin(known.as_ref().and_then(|thought| thought.date.clone()));
        let before_call = call_id.is_some();
        match known.filter(|thought| step.is_of(thought)) {
            Some(thought) => self.remembered(&thought),
            None => self.messages.extend(step.said.into_iter().map(|(said, phase)| {
                let is_preamble = phase.map_or(before_call, |phase| phase == Phase::Commentary);
                let spoken = if is_preamble { COMMENTARY } else { FINAL };
                Message::assistant(if said.thinking { ANALYSIS } else { spoken }, said.text)
            })),
        }
    }

    fn remembered(&mut self, thought: &Arc<Thought>) {
        self.messages.extend(
            thought
                .said
                .iter()
                .map(|said| Message::assistant(if said.thinking { ANALYSIS } else { COMMENTARY }, said.text.as_str())),
        );
    }

    fn call(&mut self, call_id: &'a str, name: &str, input: &str, custom: bool) {
        let known = self.sources.memory.recall(self.sources.owner, call_id);
        let input = known.map_or_else(|| input.to_owned(), |thought| thought.as_written(input));
        let recipient = format!("functions.{name}");
        let mut message = Message::assistant(COMMENTARY, input);
        message.recipient = Some(recipient.clone());
        message.content_type = (!custom).then(|| "<|constrain|>json".to_owned());
        self.messages.push(message);
        self.calls.insert(call_id, recipient);
    }
}

impl Step {
    /// Whether the client gives back what the server remembers, or less: then the memory counts, which also knows the
    /// order. A client that has changed something is believed.
    fn is_of(&self, thought: &Thought) -> bool {
        let texts = |thinking| self.said.iter().filter(move |(said, _)| said.thinking == thinking);
        let is_known = |said: &Said| thought.said.contains(said);
        // Some clients join several thoughts to one.
        let all: Vec<&str> = thought.said.iter().filter(|said| said.thinking).map(|said| said.text.as_str()).collect();
        let is_all =
            |said: &Said| said.text == all.join("\n\n") || said.text == all.join("\n") || said.text == all.concat();
        texts(true).all(|(said, _)| is_known(said) || is_all(said)) && texts(false).all(|(said, _)| is_known(said))
    }
}
