//! From items to a harmony conversation. Chain of thought stands before the call or answer that it led to: as the client
//! sent it, plain or encrypted, else out of the server's memory by the call's id. Harmony's rendering then drops what is
//! before the last final message. Every way of sending the same conversation gives the same tokens.

use std::collections::HashMap;

use ossia_text::harmony::{COMMENTARY, FINAL};
use ossia_text::{Conversation, Harmony, Message};

use super::compact;
use super::tools::Declared;
use crate::error::ApiError;
use crate::reasoning::{Beginning, ReasoningMemory, Said, Sealed, Sealer, Thought, are_thinking, tags};
use crate::turn::{Opening, later_instructions};
use crate::types::responses::{InputItem, Item, Phase, Speaker};
use crate::types::sampling::Thinking;

/// Where chain of thought comes from, and whose it is.
pub struct Sources<'a> {
    /// What clients have lost.
    pub memory: &'a ReasoningMemory,
    /// What they hold encrypted.
    pub sealer: &'a Sealer,
    /// The model's text.
    pub harmony: &'a Harmony,
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
    let date = frame.date.map(str::to_owned).or(teller.date).unwrap_or_else(|| {
        let first = rest.iter().find_map(|item| match &item.item {
            Item::Message { text, .. } => Some(text.as_str()),
            _ => None,
        });
        let words: Vec<&str> = instructions.iter().copied().chain(first).collect();
        let goes_on = rest.iter().any(|item| is_models(&item.item));
        sources.memory.date(sources.owner, Beginning { words: &words, goes_on }, frame.today)
    });
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

/// True for what the model said.
fn is_models(item: &Item) -> bool {
    matches!(item, Item::Message { speaker: Speaker::Assistant, .. } | Item::Reasoning { .. } | Item::Call { .. })
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
    said: Vec<Words>,
}

/// One message of it, as the client gives it back.
struct Words {
    said: Said,
    phase: Option<Phase>,
    /// Only a summary of thinking is left: anything that is remembered is better.
    is_summary: bool,
}

impl From<Said> for Words {
    fn from(said: Said) -> Self {
        Self { said, phase: None, is_summary: false }
    }
}

impl<'a> Teller<'a> {
    fn read(&mut self, items: &'a [InputItem]) -> Result<(), ApiError> {
        let mut step = Step::default();
        for item in items {
            match &item.item {
                Item::Message { speaker: Speaker::Assistant, text, phase } => {
                    step.spoke(text, *phase);
                }
                Item::Reasoning { text, summary, encrypted } => {
                    let thought = self.thinking(text.as_deref(), encrypted.as_deref(), &item.id)?.map(Words::from);
                    let summary = summary.as_deref().map(|text| Said::new(true, text));
                    step.said.extend(thought.or_else(|| Some(Words { is_summary: true, ..summary?.into() })));
                }
                Item::Compaction { encrypted } => {
                    self.end_step(std::mem::take(&mut step), None);
                    let opened = self.open(encrypted, &item.id)?;
                    self.messages.push(compact::told(&opened.text));
                }
                Item::Call { .. } if item.made_call().is_none() => {}
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

    /// What a reasoning item says. What is encrypted must open even where the text is there beside it.
    fn thinking(&mut self, text: Option<&str>, encrypted: Option<&str>, id: &str) -> Result<Option<Said>, ApiError> {
        let Some(encrypted) = encrypted else { return Ok(text.map(|text| Said::new(true, text))) };
        let opened = self.open(encrypted, id)?;
        let text = text.map_or(opened.text, str::to_owned);
        let written = opened.ids.filter(|ids| are_thinking(self.sources.harmony, &text, ids)).map(Into::into);
        Ok(Some(Said { thinking: true, text, written }))
    }

    /// What was sealed here for this key.
    fn open(&mut self, encrypted: &str, id: &str) -> Result<Sealed, ApiError> {
        let opened = self.sources.sealer.open(self.sources.owner, encrypted).map_err(|error| {
            ApiError::invalid("input", format!("the encrypted_content of item {id:?} could not be verified: {error}"))
        })?;
        self.pin(opened.date.clone());
        Ok(opened)
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
            Some(thought) => self.messages.extend(thought.said.iter().map(Said::message)),
            None => self.messages.extend(step.said.into_iter().map(|Words { said, phase, .. }| {
                let is_preamble = phase.map_or(before_call, |phase| phase == Phase::Commentary);
                match said.thinking || is_preamble {
                    true => said.message(),
                    false => Message::assistant(FINAL, said.text),
                }
            })),
        }
    }

    fn call(&mut self, call_id: &'a str, name: &str, input: &str, custom: bool) {
        let recipient = format!("functions.{name}");
        let mut message = Message::assistant(COMMENTARY, input);
        message.recipient = Some(recipient.clone());
        message.content_type = (!custom).then(|| "<|constrain|>json".to_owned());
        self.messages.push(match self.sources.memory.recall(self.sources.owner, call_id) {
            Some(thought) => thought.as_written(message),
            None => message,
        });
        self.calls.insert(call_id, recipient);
    }
}

impl Step {
    /// Takes a message of the assistant. Some clients put the thinking into it, in tags before the words.
    fn spoke(&mut self, text: &str, phase: Option<Phase>) {
        let (thoughts, words) = tags::split(text);
        let has_thoughts = !thoughts.is_empty();
        self.said.extend(thoughts.into_iter().map(|text| Words::from(Said::new(true, text))));
        if !words.is_empty() || !has_thoughts {
            self.said.push(Words { phase, ..Said::new(false, words).into() });
        }
    }

    /// Whether the client gives back what the server remembers, or less: then the memory counts, which also knows the
    /// order and the tokens. A client that has changed something is believed.
    fn is_of(&self, thought: &Thought) -> bool {
        // Some clients join several thoughts to one, and quote them.
        let all: Vec<&str> = thought.said.iter().filter(|said| said.thinking).map(|said| said.text.as_str()).collect();
        let all = all.join("\n\n");
        let is_known = |Words { said, is_summary, .. }: &Words| {
            let is_it = |known: &Said| known.thinking == said.thinking && tags::are_alike(&known.text, &said.text);
            let is_lost = said.text.is_empty() || *is_summary && !thought.said.is_empty();
            is_lost || thought.said.iter().any(is_it) || said.thinking && tags::are_alike(&all, &said.text)
        };
        self.said.iter().all(is_known)
    }
}
