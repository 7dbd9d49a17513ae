//! A turn's events as chat pieces: thinking, words of the answer, calls. Both the whole answer and the chunks are made of
//! these, so that they cannot differ.

use std::collections::HashSet;

use ossia_text::ParsedMessage;
use ossia_text::harmony::{Header, MessageEnd, MessageKind};

use crate::error::ApiError;
use crate::ids;
use crate::reasoning::{Called, Said, Thought};
use crate::turn::{FinishReason, TokenLogprob, TurnEvent, Usage};

/// What stands between two messages that both belong to the answer, or both to the chain of thought.
const BETWEEN: &str = "\n\n";

/// A piece of an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Piece {
    /// More of the chain of thought.
    Thinking(String, Vec<TokenLogprob>),
    /// More of the answer.
    Words(String, Vec<TokenLogprob>),
    /// A call begins.
    Call {
        /// Its number, from 0.
        index: usize,
        /// Its id.
        id: String,
        /// The tool's name, without a namespace.
        name: String,
        /// It takes text rather than JSON.
        is_custom: bool,
    },
    /// More of the arguments of the call that has begun.
    Arguments(String),
    /// The end.
    Done(FinishReason, Usage),
}

/// Turns events into pieces; remembers what has to be kept for the next request.
pub struct Speaker {
    custom: HashSet<String>,
    kind: Option<MessageKind>,
    has_thought: bool,
    has_spoken: bool,
    /// The ids of the calls.
    call_ids: Vec<String>,
    thought: Thought,
}

impl Speaker {
    /// `custom` are the tools that take text.
    pub fn new(custom: HashSet<String>) -> Self {
        Self {
            custom,
            kind: None,
            has_thought: false,
            has_spoken: false,
            call_ids: Vec::new(),
            thought: Thought::default(),
        }
    }

    /// The pieces of an event. Fails only where the system has no random bytes for an id.
    pub fn hear(&mut self, event: TurnEvent) -> Result<Option<Piece>, ApiError> {
        Ok(match event {
            TurnEvent::Started { .. } => None,
            TurnEvent::Start(header) => self.start(&header)?,
            TurnEvent::Delta { text, logprobs } => self.kind.map(|kind| match kind {
                MessageKind::Thinking => Piece::Thinking(text, logprobs),
                MessageKind::ToolCall => Piece::Arguments(text),
                _ => Piece::Words(text, logprobs),
            }),
            TurnEvent::End(message) => {
                self.end(message);
                None
            }
            TurnEvent::Done { finish, usage } => Some(Piece::Done(finish, usage)),
        })
    }

    fn start(&mut self, header: &Header) -> Result<Option<Piece>, ApiError> {
        let kind = header.kind();
        self.kind = Some(kind);
        let between = |had: &mut bool| std::mem::replace(had, true).then(|| BETWEEN.to_owned());
        Ok(match kind {
            MessageKind::Thinking => between(&mut self.has_thought).map(|text| Piece::Thinking(text, Vec::new())),
            MessageKind::ToolCall => {
                let recipient = header.recipient.as_deref().unwrap_or_default();
                let name = recipient.strip_prefix("functions.").unwrap_or(recipient).to_owned();
                let (index, id, is_custom) = (self.call_ids.len(), ids::new("call")?, self.custom.contains(&name));
                self.call_ids.push(id.clone());
                Some(Piece::Call { index, id, name, is_custom })
            }
            _ => between(&mut self.has_spoken).map(|text| Piece::Words(text, Vec::new())),
        })
    }

    fn end(&mut self, message: ParsedMessage) {
        match message.header.kind() {
            MessageKind::ToolCall if message.end == MessageEnd::Truncated => {}
            MessageKind::ToolCall => self.thought.called = Some(Called::read(message)),
            kind => self.thought.said.push(Said::read(kind == MessageKind::Thinking, message)),
        }
    }

    /// What stands up to the call when its result comes, and the call's id; nothing where there was no call.
    pub fn to_remember(self, date: &str) -> Option<(String, Thought)> {
        let id = self.call_ids.into_iter().next_back()?;
        Some((id, Thought { date: Some(date.to_owned()), ..self.thought }))
    }
}
