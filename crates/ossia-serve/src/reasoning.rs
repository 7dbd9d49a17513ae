//! What the model wrote up to a call, between the requests of one tool loop: its chain of thought must stand in front of
//! the call again when the result arrives, or the model begins to think anew, and every message must come back with the
//! very tokens that it was written with, or it is another prompt of which nothing is cached.
//!
//! Two ways back in: [`ReasoningMemory`] keeps it on the server by the call's id, for clients that lose it, and
//! [`Sealer`] hands thinking to the client as `encrypted_content` that only the same key can send back. Both carry the
//! date that the conversation began with, so that its system message stays the same at midnight.

mod dates;
mod memory;
mod seal;
pub mod tags;

use std::sync::Arc;

use ossia_text::harmony::{ANALYSIS, COMMENTARY, MessageEnd, MessageKind};
use ossia_text::{Event, Harmony, Message, ParsedMessage, RenderOptions};

pub use dates::Beginning;
pub use memory::{Keep, MemoryLimits, ReasoningMemory};
pub use seal::{SealError, Sealed, Sealer};

/// One message of the model before a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// True for chain of thought (analysis), false for words to the user (commentary).
    pub thinking: bool,
    /// The whole text.
    pub text: String,
    /// The ids that the model wrote it with, where they are known.
    pub written: Option<Arc<[u32]>>,
}

/// A call as the model made it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Called {
    /// The tool's full name.
    pub recipient: String,
    /// What it was given, to the letter.
    pub input: String,
    /// The ids that the model wrote it with, header and end included.
    pub written: Option<Arc<[u32]>>,
}

/// What a generation said up to a call, and the call.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Thought {
    /// Its messages before the call, in order.
    pub said: Vec<Said>,
    /// The date in the conversation's system message, as YYYY-MM-DD.
    pub date: Option<String>,
    /// The call, where it is known.
    pub called: Option<Called>,
}

impl Said {
    /// What was said, with its tokens unknown.
    pub fn new(thinking: bool, text: impl Into<String>) -> Self {
        Self { thinking, text: text.into(), written: None }
    }

    /// A message as it was read.
    pub fn read(thinking: bool, message: ParsedMessage) -> Self {
        Self { thinking, written: written(message.ids), text: message.text }
    }

    /// For the conversation.
    pub fn message(&self) -> Message {
        let channel = if self.thinking { ANALYSIS } else { COMMENTARY };
        Message { written: self.written.clone(), ..Message::assistant(channel, self.text.as_str()) }
    }
}

impl Called {
    /// A call as it was read.
    pub fn read(message: ParsedMessage) -> Self {
        let recipient = message.header.recipient.unwrap_or_default();
        Self { recipient, written: written(message.ids), input: message.text }
    }
}

impl Thought {
    /// The call that a client gives back, as the model wrote it: with its header's order and type and its tokens, where
    /// the same tool is given the same. Some clients (LangChain) read the arguments and write them anew: with other
    /// spaces they would be another prompt. Whatever a client has changed stays changed.
    pub fn as_written(&self, mut given: Message) -> Message {
        let Some(called) = &self.called else { return given };
        let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).ok();
        let text = given.content_text();
        let is_same = || text == called.input || json(&text).is_some_and(|value| json(&called.input) == Some(value));
        if given.recipient.as_deref() == Some(&called.recipient) && is_same() {
            given.content = Message::assistant(COMMENTARY, called.input.as_str()).content;
            given.written = called.written.clone();
        }
        given
    }

    /// The same without what was said before the call.
    pub fn call_only(&self) -> Self {
        Self { said: Vec::new(), ..self.clone() }
    }

    /// The bytes of texts and tokens.
    fn num_bytes(&self) -> usize {
        let ids = |written: &Option<Arc<[u32]>>| written.as_ref().map_or(0, |ids| size_of_val(&ids[..]));
        let said: usize = self.said.iter().map(|said| said.text.len() + ids(&said.written)).sum();
        let call = |call: &Called| call.recipient.len() + call.input.len() + ids(&call.written);
        said + self.called.as_ref().map_or(0, call)
    }
}

fn written(ids: Vec<u32>) -> Option<Arc<[u32]>> {
    (!ids.is_empty()).then(|| ids.into())
}

/// The ids that a thought was written with, if they are not those that rendering would choose.
pub fn unusual(harmony: &Harmony, text: &str, ids: &[u32]) -> Option<Vec<u32>> {
    let message = Message::assistant(ANALYSIS, text);
    let usual = harmony.render(&vec![message].into(), &RenderOptions::default()).ok()?;
    (!ids.is_empty() && usual != ids).then(|| ids.to_vec())
}

/// True where `ids` are one whole message of thinking with this text: what was sealed under another model is not
/// rendered under this one.
pub fn are_thinking(harmony: &Harmony, text: &str, ids: &[u32]) -> bool {
    let mut parser = harmony.parser();
    let events: Vec<_> = ids.iter().flat_map(|&id| parser.push(id)).collect();
    let mut ends = events.iter().filter_map(|event| match event {
        Event::End(message) => Some(message),
        _ => None,
    });
    let first = ends.next();
    let is_it = |message: &ParsedMessage| {
        let is_whole = message.end == MessageEnd::End && message.anomalies.is_empty() && message.ids == ids;
        is_whole && message.text == text && message.header.kind() == MessageKind::Thinking
    };
    first.is_some_and(is_it) && ends.next().is_none()
}

#[cfg(test)]
mod tests {
    use ossia_text::harmony::COMMENTARY;
    use ossia_text::{Harmony, Message, Tokenizer};

    use super::{Called, Thought, are_thinking, unusual};

    fn call(recipient: &str, input: &str) -> Message {
        Message { recipient: Some(recipient.to_owned()), ..Message::assistant(COMMENTARY, input) }
    }

    #[test]
    fn a_call_comes_back_as_it_was_written() {
        let input = r#"{"a":1,"b":[2]}"#.to_owned();
        let called = Called { recipient: "functions.f".into(), input, written: Some([1, 2, 3].into()) };
        let thought = Thought { called: Some(called), ..Thought::default() };
        for (recipient, given, back, is_known) in [
            ("functions.f", r#"{"a":1,"b":[2]}"#, r#"{"a":1,"b":[2]}"#, true),
            ("functions.f", r#"{ "b": [2], "a": 1 }"#, r#"{"a":1,"b":[2]}"#, true),
            ("functions.f", r#"{"a":1,"b":[3]}"#, r#"{"a":1,"b":[3]}"#, false),
            ("functions.f", r#"{"a":1,"#, r#"{"a":1,"#, false),
            ("functions.g", r#"{"a":1,"b":[2]}"#, r#"{"a":1,"b":[2]}"#, false),
            ("functions.f", "", "", false),
        ] {
            let message = thought.as_written(call(recipient, given));
            assert_eq!((message.content_text().as_str(), message.written.is_some()), (back, is_known), "{given}");
        }
        assert_eq!(Thought::default().as_written(call("functions.f", "{ }")), call("functions.f", "{ }"));
    }

    #[test]
    fn only_unusual_tokens_are_worth_sealing_and_only_thinking_is_taken_back() {
        let harmony = Harmony::new(Tokenizer::o200k_harmony().into()).unwrap();
        let ids = |text: &str| harmony.tokenizer().encode_text(text).unwrap();
        let special = |name: &str| harmony.tokenizer().special_id(name).unwrap();
        let message = |channel: &str, words: Vec<u32>| {
            [
                vec![special("<|start|>")],
                ids("assistant"),
                vec![special("<|channel|>")],
                ids(channel),
                vec![special("<|message|>")],
                words,
                vec![special("<|end|>")],
            ]
            .concat()
        };
        let usual = message("analysis", ids("Hello there"));
        assert_eq!(unusual(&harmony, "Hello there", &usual), None);
        let odd = message("analysis", [ids("Hel"), ids("lo there")].concat());
        assert_eq!(unusual(&harmony, "Hello there", &odd), Some(odd.clone()));
        assert!(are_thinking(&harmony, "Hello there", &odd));
        for wrong in [message("final", ids("Hello there")), odd[1..].to_vec(), [odd.clone(), odd.clone()].concat()] {
            assert!(!are_thinking(&harmony, "Hello there", &wrong));
        }
        assert!(!are_thinking(&harmony, "Hello!", &odd));
        let foreign: Vec<u32> = odd.iter().map(|id| id + 1).collect();
        assert!(!are_thinking(&harmony, "Hello there", &foreign));
    }
}
