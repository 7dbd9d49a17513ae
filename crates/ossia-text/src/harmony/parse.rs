//! The incremental parser (SPEC 9.8), total: any sequence of token ids gives messages, no id is an error, no text is
//! lost. Feed it one id at a time; it gives events as soon as they are certain.
//!
//! The invariant that tests hold on to: the sources of all messages (`ParsedMessage::source`) and the trailing text,
//! end to end, are the text of all tokens, special ones by name, with U+FFFD for bytes that are not UTF-8.

use std::sync::Arc;

use serde::Serialize;

use super::header::{Anomaly, Began, Mark, RawHeader};
use super::message::{Author, Content, FINAL, Message, Role};
use super::{Harmony, Marks};
use crate::{Tokenizer, Utf8Stream};

/// A header longer than this, in bytes, is taken for text without a header, so that it can be shown while it arrives;
/// one that could still be a header may have four times as much.
const MAX_HEADER: usize = 256;

/// What a message's header says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Header {
    /// Who speaks.
    pub role: Role,
    /// A tool's name, or the speaker's.
    pub name: Option<String>,
    /// The channel; None where the model gave none.
    pub channel: Option<String>,
    /// The tool that is called.
    pub recipient: Option<String>,
    /// The content's type, such as `<|constrain|>json`.
    pub content_type: Option<String>,
}

/// How a message ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum MessageEnd {
    /// `<|end|>`
    End,
    /// `<|call|>`
    Call,
    /// `<|return|>`
    Return,
    /// `<|endoftext|>`
    EndOfText,
    /// The next message began without an end.
    Missing,
    /// The tokens ran out: finish_reason is length (or the caller stopped).
    Truncated,
}

impl MessageEnd {
    /// The name of the token, or nothing.
    pub fn as_str(self) -> &'static str {
        match self {
            MessageEnd::End => "<|end|>",
            MessageEnd::Call => "<|call|>",
            MessageEnd::Return => "<|return|>",
            MessageEnd::EndOfText => "<|endoftext|>",
            MessageEnd::Missing | MessageEnd::Truncated => "",
        }
    }
}

/// A message as the model wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ParsedMessage {
    /// What the header says.
    pub header: Header,
    /// The content.
    pub text: String,
    /// How it ended.
    pub end: MessageEnd,
    /// What was not as it should be.
    pub anomalies: Vec<Anomaly>,
    /// The text before the content as it came: special tokens by name, words that had no place, `<|message|>`.
    pub raw_header: String,
    /// All of its ids, from `<|start|>` on even where the prompt had its beginning.
    #[serde(skip)]
    pub ids: Vec<u32>,
}

impl ParsedMessage {
    /// The message for a conversation.
    pub fn to_message(&self) -> Message {
        let Header { role, name, channel, recipient, content_type } = self.header.clone();
        let content = vec![Content::Text { text: self.text.clone() }];
        Message { author: Author { role, name }, content, channel, recipient, content_type, written: None }
    }

    /// The text of all tokens that went into this message, special ones by name.
    pub fn source(&self) -> String {
        [&self.raw_header, &self.text, self.end.as_str()].concat()
    }
}

/// What happened. Every message gives one `Start`, any number of `Delta`, one `End`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Event {
    /// A message's header is known; its content follows.
    Start(Header),
    /// More of the content, whole characters only.
    Delta(String),
    /// The message is complete; its text is all deltas end to end.
    End(ParsedMessage),
}

/// The parser. Made by [`Harmony::completion_parser`] or [`Harmony::parser`].
#[derive(Debug, Clone)]
pub struct HarmonyParser {
    tokenizer: Arc<Tokenizer>,
    marks: Marks,
    stream: Utf8Stream,
    state: State,
    /// Special tokens between messages.
    stray: String,
    /// The ids since the last message's end.
    ids: Vec<u32>,
}

#[derive(Debug, Clone)]
enum State {
    Between,
    Header(RawHeader),
    Content(ParsedMessage),
}

/// What a special token means here.
enum Special {
    Start,
    Message,
    End(MessageEnd),
    Mark(Mark),
}

impl HarmonyParser {
    pub(super) fn new(harmony: &Harmony, role_in_prompt: Option<Role>) -> Self {
        let Harmony { tokenizer, marks } = harmony.clone();
        let (state, ids) = match role_in_prompt {
            Some(role) => {
                // A tokenizer that cannot write the role has rendered no prompt.
                let word = tokenizer.encode_text(role.as_str()).unwrap_or_default();
                let ids = std::iter::once(marks.start).chain(word).collect();
                (State::Header(RawHeader::new(Began::InPrompt(role), String::new())), ids)
            }
            None => (State::Between, Vec::new()),
        };
        Self { tokenizer, marks, stream: Utf8Stream::new(), state, stray: String::new(), ids }
    }

    /// Takes the next token id, any number, and gives what it completed.
    pub fn push(&mut self, id: u32) -> Vec<Event> {
        let mut events = Vec::new();
        let tokenizer = Arc::clone(&self.tokenizer);
        let bytes = tokenizer.token_bytes(id);
        // A message that `<|start|>` ends does not have it, and one without an end cannot be ended by text.
        let begins = id == self.marks.start;
        self.ids.extend((!begins).then_some(id));
        match bytes {
            Some(bytes) if !tokenizer.is_special(id) => {
                let text = self.stream.push(bytes);
                self.push_text(&text, &mut events);
            }
            _ => {
                let rest = self.stream.flush();
                self.push_text(&rest, &mut events);
                let unknown = format!("<|unknown_{id}|>");
                let name = bytes.and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or(&unknown);
                self.push_special(self.meaning(id), name, &mut events);
            }
        }
        self.hand_over_ids(&mut events);
        self.ids.extend(begins.then_some(id));
        events
    }

    /// Gives the message that has ended its ids: an id ends one message at most.
    fn hand_over_ids(&mut self, events: &mut [Event]) {
        for event in events {
            if let Event::End(message) = event {
                message.ids = std::mem::take(&mut self.ids);
            }
        }
    }

    /// Ends the sequence. A message that has begun is given as truncated; tokens may follow, as a new beginning.
    pub fn finish(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        let rest = self.stream.flush();
        self.push_text(&rest, &mut events);
        match std::mem::replace(&mut self.state, State::Between) {
            State::Between => {}
            State::Header(raw) => {
                let (header, at, _) = raw.parse_bare();
                let says_something = at < raw.raw.len() || header.channel.is_some() || header.recipient.is_some();
                match says_something {
                    true => close(open_bare(raw, &mut events), MessageEnd::Truncated, &mut events),
                    false => self.stray = raw.raw,
                }
            }
            State::Content(message) => close(message, MessageEnd::Truncated, &mut events),
        }
        self.hand_over_ids(&mut events);
        events
    }

    /// The header of the message whose content is being read.
    pub fn header(&self) -> Option<&Header> {
        match &self.state {
            State::Content(message) => Some(&message.header),
            State::Between | State::Header(_) => None,
        }
    }

    /// True while tokens go to the content of a final message: the only place where constrained decoding applies
    /// (SPEC 9.9 number 10).
    pub fn is_in_final(&self) -> bool {
        self.header().is_some_and(|h| h.role == Role::Assistant && h.channel.as_deref() == Some(FINAL))
    }

    /// What came after the last message and belongs to none: special tokens by name, a header that says nothing.
    pub fn trailing(&self) -> &str {
        &self.stray
    }

    fn meaning(&self, id: u32) -> Special {
        let m = &self.marks;
        match id {
            _ if id == m.start => Special::Start,
            _ if id == m.message => Special::Message,
            _ if id == m.end => Special::End(MessageEnd::End),
            _ if id == m.call => Special::End(MessageEnd::Call),
            _ if id == m.return_ => Special::End(MessageEnd::Return),
            _ if Some(id) == m.end_of_text => Special::End(MessageEnd::EndOfText),
            _ if id == m.channel => Special::Mark(Mark::Channel),
            _ if id == m.constrain => Special::Mark(Mark::Constrain),
            _ => Special::Mark(Mark::Other),
        }
    }

    fn push_text(&mut self, text: &str, events: &mut Vec<Event>) {
        if text.is_empty() {
            return;
        }
        self.state = match std::mem::replace(&mut self.state, State::Between) {
            State::Between => self.header_with(Mark::Text, text),
            State::Header(mut raw) => {
                raw.push(Mark::Text, text);
                if raw.len() <= MAX_HEADER || raw.len() <= 4 * MAX_HEADER && raw.parse_bare().1 == raw.raw.len() {
                    State::Header(raw)
                } else {
                    State::Content(open_bare(raw, events))
                }
            }
            State::Content(mut message) => {
                message.text.push_str(text);
                events.push(Event::Delta(text.to_owned()));
                State::Content(message)
            }
        };
    }

    fn push_special(&mut self, special: Special, name: &str, events: &mut Vec<Event>) {
        self.state = match std::mem::replace(&mut self.state, State::Between) {
            State::Between => self.special_between(special, name, events),
            State::Header(raw) => self.special_in_header(raw, special, name, events),
            State::Content(message) => self.special_in_content(message, special, name, events),
        };
    }

    /// A header that begins without `<|start|>`.
    fn header_with(&mut self, mark: Mark, text: &str) -> State {
        let mut raw = RawHeader::new(Began::Nowhere, std::mem::take(&mut self.stray));
        raw.push(mark, text);
        State::Header(raw)
    }

    fn header_at_start(&mut self, name: &str) -> State {
        let before = std::mem::take(&mut self.stray);
        let mut raw = RawHeader::new(Began::AtStart, before);
        raw.raw.push_str(name);
        State::Header(raw)
    }

    fn special_between(&mut self, special: Special, name: &str, events: &mut Vec<Event>) -> State {
        match special {
            Special::Start => self.header_at_start(name),
            Special::Mark(mark @ (Mark::Channel | Mark::Constrain)) => self.header_with(mark, name),
            Special::Message => {
                let raw = RawHeader::new(Began::Nowhere, std::mem::take(&mut self.stray));
                State::Content(open(raw, name, events))
            }
            Special::End(_) | Special::Mark(_) => {
                self.stray.push_str(name);
                State::Between
            }
        }
    }

    fn special_in_header(
        &mut self,
        mut raw: RawHeader,
        special: Special,
        name: &str,
        events: &mut Vec<Event>,
    ) -> State {
        match special {
            Special::Start if raw.parse_bare().1 < raw.raw.len() => {
                close(open_bare(raw, events), MessageEnd::Missing, events);
                self.header_at_start(name)
            }
            Special::Start => {
                raw.restart(name);
                State::Header(raw)
            }
            Special::Message => State::Content(open(raw, name, events)),
            Special::End(end) => {
                close(open_bare(raw, events), end, events);
                State::Between
            }
            Special::Mark(mark) => {
                raw.push(mark, name);
                State::Header(raw)
            }
        }
    }

    /// Special tokens that have no meaning in content become literal text, as in the library; `<|start|>` begins the
    /// next message.
    fn special_in_content(
        &mut self,
        mut message: ParsedMessage,
        special: Special,
        name: &str,
        events: &mut Vec<Event>,
    ) -> State {
        match special {
            Special::Start => {
                close(message, MessageEnd::Missing, events);
                self.header_at_start(name)
            }
            Special::End(end) => {
                close(message, end, events);
                State::Between
            }
            Special::Message | Special::Mark(_) => {
                message.text.push_str(name);
                events.push(Event::Delta(name.to_owned()));
                State::Content(message)
            }
        }
    }
}

/// Opens a message whose header `<|message|>` ended.
fn open(mut raw: RawHeader, message_name: &str, events: &mut Vec<Event>) -> ParsedMessage {
    let (header, anomalies) = raw.parse();
    raw.raw.push_str(message_name);
    events.push(Event::Start(header.clone()));
    ParsedMessage {
        header,
        text: String::new(),
        end: MessageEnd::Truncated,
        anomalies,
        raw_header: raw.raw,
        ids: Vec::new(),
    }
}

/// Opens a message that has no `<|message|>`; its text so far becomes content.
fn open_bare(raw: RawHeader, events: &mut Vec<Event>) -> ParsedMessage {
    let (header, at, anomalies) = raw.parse_bare();
    let mut raw_header = raw.raw;
    let text = raw_header.split_off(at);
    events.push(Event::Start(header.clone()));
    if !text.is_empty() {
        events.push(Event::Delta(text.clone()));
    }
    ParsedMessage { header, text, end: MessageEnd::Truncated, anomalies, raw_header, ids: Vec::new() }
}

fn close(message: ParsedMessage, end: MessageEnd, events: &mut Vec<Event>) {
    events.push(Event::End(ParsedMessage { end, ..message }));
}
