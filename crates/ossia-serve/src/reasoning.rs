//! Chain of thought between the requests of one tool loop (what the model said before it called a tool must stand in
//! front of the call again when the result arrives, or the model begins to think anew).
//!
//! Two ways back in: [`ReasoningMemory`] keeps it on the server by the call's id, for clients that lose it, and
//! [`Sealer`] hands it to the client as `encrypted_content` that only the same key can send back. Both carry the date
//! that the conversation began with, so that its system message stays the same at midnight.

mod memory;
mod seal;

pub use memory::{MemoryLimits, ReasoningMemory};
pub use seal::{SealError, Sealed, Sealer};

/// One message of the model before a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// True for chain of thought (analysis), false for words to the user (commentary).
    pub thinking: bool,
    /// The whole text.
    pub text: String,
}

/// What a generation said before it called a tool.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Thought {
    /// Its messages in order.
    pub said: Vec<Said>,
    /// The date in the conversation's system message, as YYYY-MM-DD.
    pub date: Option<String>,
    /// What it gave to the call, to the letter; empty where that is not known.
    pub called: String,
}

impl Thought {
    /// The call's arguments as the model wrote them, where `given` means the same. Some clients (LangChain) read them and
    /// write them anew: with other spaces they would be another prompt.
    pub fn as_written(&self, given: &str) -> String {
        let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).ok();
        let is_same = given != self.called && json(given).is_some_and(|value| json(&self.called) == Some(value));
        if is_same { self.called.clone() } else { given.to_owned() }
    }

    /// True where something was thought: only then is there anything that a client can lose.
    pub fn has_thinking(&self) -> bool {
        self.said.iter().any(|said| said.thinking)
    }

    /// The texts' bytes.
    fn num_bytes(&self) -> usize {
        self.said.iter().map(|said| said.text.len()).sum::<usize>() + self.called.len()
    }
}

#[cfg(test)]
mod tests {
    use super::Thought;

    #[test]
    fn arguments_come_back_as_they_were_written() {
        let thought = Thought { called: r#"{"a":1,"b":[2]}"#.to_owned(), ..Thought::default() };
        for (given, back) in [
            (r#"{"a": 1, "b": [2]}"#, r#"{"a":1,"b":[2]}"#),
            (r#"{"a":1,"b":[3]}"#, r#"{"a":1,"b":[3]}"#),
            (r#"{"a":1,"#, r#"{"a":1,"#),
            ("", ""),
        ] {
            assert_eq!(thought.as_written(given), back);
        }
        assert_eq!(Thought::default().as_written("{ }"), "{ }");
    }
}
