//! What a caller asks of an answer: which tools it may call and how, and what its final message is.

use serde_json::Value;

/// What a whole assistant turn, everything after `<|start|>assistant`, may look like.
#[derive(Debug, Clone, PartialEq)]
pub struct AnswerRules {
    /// The tools that may be called: all declared ones, or those that a choice has narrowed them to.
    pub tools: Vec<ToolRule>,
    /// Whether a tool is called.
    pub choice: Choice,
    /// More than one call in a turn. gpt-oss ends a turn at `<|call|>`: a caller that stops there gets one in any case.
    pub parallel: bool,
    /// What the final message is.
    pub format: Format,
    /// Analysis messages may come before.
    pub thinking: bool,
}

impl Default for AnswerRules {
    /// Thinking and text, no tools.
    fn default() -> Self {
        Self { tools: Vec::new(), choice: Choice::Auto, parallel: false, format: Format::Text, thinking: true }
    }
}

/// A tool that may be called.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolRule {
    /// A function's name, which is called as `functions.NAME`. One with a dot is the whole recipient, such as
    /// `browser.search`.
    pub name: String,
    /// What it is given.
    pub input: ToolInput,
}

impl ToolRule {
    /// A function; its arguments follow the schema only if `strict`, else they are any JSON object.
    pub fn function(name: impl Into<String>, parameters: Option<Value>, strict: bool) -> Self {
        let input = match parameters {
            Some(schema) if strict => ToolInput::Schema(schema),
            _ => ToolInput::JsonObject,
        };
        Self { name: name.into(), input }
    }

    /// Whom a call of it is addressed to.
    pub fn recipient(&self) -> String {
        if self.name.contains('.') { self.name.clone() } else { format!("functions.{}", self.name) }
    }

    /// True where it is given JSON.
    pub(super) fn takes_json(&self) -> bool {
        matches!(self.input, ToolInput::JsonObject | ToolInput::Schema(_))
    }
}

/// What a call passes.
#[derive(Debug, Clone, PartialEq)]
pub enum ToolInput {
    /// Any JSON object.
    JsonObject,
    /// JSON that follows this schema.
    Schema(Value),
    /// Any text.
    Free,
    /// Text that a Lark grammar derives from its rule `start`.
    Lark(String),
    /// Text that an expression matches as a whole.
    Regex(String),
}

/// Whether a tool is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Choice {
    /// Never.
    None,
    /// If the model likes to.
    Auto,
    /// Always: the turn ends in a call.
    Required,
}

/// What the final message is.
#[derive(Debug, Clone, PartialEq)]
pub enum Format {
    /// Text.
    Text,
    /// A JSON object.
    JsonObject,
    /// JSON that follows this schema.
    JsonSchema(Value),
}
