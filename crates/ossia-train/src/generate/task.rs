//! What the families make: a question, its working and its answer, not yet a conversation.

use ossia_text::Message;
use ossia_text::harmony::{ANALYSIS, Effort, FINAL, ToolDescription};

use super::Expected;

/// A question with its answer.
#[derive(Debug, Clone)]
pub(super) struct Task {
    /// The essential content, without its wording.
    pub key: String,
    /// Keys of tasks that the working or an earlier turn shows.
    pub inner: Vec<String>,
    /// The text of a developer message, where the task needs one.
    pub instructions: Option<String>,
    /// Functions that are offered.
    pub tools: Vec<ToolDescription>,
    /// The date of the system message, where the task asks for it.
    pub today: Option<String>,
    /// What is said before the answer; ends with the user or a tool.
    pub turns: Vec<Turn>,
    /// What is thought.
    pub thought: Thought,
    /// What it comes to.
    pub answer: Expected,
}

/// A message before the answer, or a whole earlier turn of the assistant.
#[derive(Debug, Clone)]
pub(super) enum Turn {
    /// As it is.
    Said(Message),
    /// What the assistant thought, as much as the effort allows.
    Thought(Thought),
}

/// What is thought: `working` at medium effort, `working` and `check` at high effort, nothing at low effort.
#[derive(Debug, Clone, Default)]
pub(super) struct Thought {
    pub working: String,
    pub check: String,
}

impl Thought {
    pub fn new(working: impl Into<String>, check: impl Into<String>) -> Self {
        Self { working: working.into(), check: check.into() }
    }

    /// The message that shows it, if any.
    pub fn message(&self, effort: Effort) -> Option<Message> {
        match effort {
            Effort::Low => None,
            Effort::Medium => Some(Message::assistant(ANALYSIS, self.working.clone())),
            Effort::High => Some(Message::assistant(ANALYSIS, format!("{}\n{}", self.working, self.check))),
        }
    }
}

impl Task {
    /// A question by the user that is answered in words.
    pub fn new(key: String, question: String, thought: Thought, answer: impl Into<String>) -> Self {
        let (instructions, today) = (None, None);
        let (tools, inner) = (Vec::new(), Vec::new());
        let turns = vec![Turn::Said(Message::user(question))];
        Self { key, inner, instructions, tools, today, turns, thought, answer: Expected::Final(answer.into()) }
    }

    /// The task's own key and those inside it.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.key).chain(&self.inner).map(String::as_str)
    }

    /// This task as the first turn, answered, and another one after it.
    pub fn then(self, next: Task) -> Self {
        let mut turns = self.turns;
        turns.push(Turn::Thought(self.thought));
        if let Expected::Final(text) = self.answer {
            turns.push(Turn::Said(Message::assistant(FINAL, text)));
        }
        turns.extend(next.turns);
        let mut inner = self.inner;
        inner.push(self.key);
        inner.extend(next.inner);
        Self { inner, turns, instructions: self.instructions, ..next }
    }
}
