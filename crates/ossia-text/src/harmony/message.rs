//! Conversations: who says what to whom on which channel. Serialised as JSON in the shape that OpenAI's harmony library
//! uses, so that saved conversations can be exchanged with it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The channel of the chain of thought, and of calls to built-in tools.
pub const ANALYSIS: &str = "analysis";
/// The channel of function calls and of preambles for the user.
pub const COMMENTARY: &str = "commentary";
/// The channel of the answer.
pub const FINAL: &str = "final";

/// Who a message is from. Precedence in conflicts: system, developer, user, assistant, tool (SPEC 9.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The platform: identity, dates, effort, built-in tools.
    System,
    /// The application: instructions and function tools.
    Developer,
    /// The person.
    User,
    /// The model.
    Assistant,
    /// A tool's result; its message needs the tool's name.
    Tool,
}

impl Role {
    /// The word that stands in a message's header.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::System => "system",
            Role::Developer => "developer",
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::Tool => "tool",
        }
    }

    /// The role of a header's first word; tools are named, so that "tool" is none.
    pub(super) fn from_word(word: &str) -> Option<Self> {
        [Role::System, Role::Developer, Role::User, Role::Assistant].into_iter().find(|role| role.as_str() == word)
    }
}

/// The author of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Author {
    /// The role.
    pub role: Role,
    /// The name: of a tool always (such as `functions.get_weather`), of others where they have one.
    #[serde(default)]
    pub name: Option<String>,
}

/// How long the model thinks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Effort {
    /// Short.
    Low,
    /// The default.
    #[default]
    Medium,
    /// Long.
    High,
}

/// Which channels the system message lists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelConfig {
    /// Names, in the order shown; none leaves the section out.
    pub valid_channels: Vec<String>,
    /// Adds "Channel must be included for every message."
    pub channel_required: bool,
}

impl Default for ChannelConfig {
    fn default() -> Self {
        Self { valid_channels: [ANALYSIS, COMMENTARY, FINAL].map(String::from).to_vec(), channel_required: true }
    }
}

/// The content of a system message (SPEC 9.3). What is None is left out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SystemContent {
    /// The first line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_identity: Option<String>,
    /// How long to think.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning_effort: Option<Effort>,
    /// Today, as YYYY-MM-DD. There is no default: the caller has the clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conversation_start_date: Option<String>,
    /// As YYYY-MM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub knowledge_cutoff: Option<String>,
    /// The channels listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel_config: Option<ChannelConfig>,
    /// Built-in tools, by namespace, shown in alphabetical order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<BTreeMap<String, ToolNamespace>>,
}

impl Default for SystemContent {
    fn default() -> Self {
        Self {
            model_identity: Some("You are ChatGPT, a large language model trained by OpenAI.".to_owned()),
            reasoning_effort: Some(Effort::default()),
            conversation_start_date: None,
            knowledge_cutoff: Some("2024-06".to_owned()),
            channel_config: Some(ChannelConfig::default()),
            tools: None,
        }
    }
}

/// The content of a developer message (SPEC 9.4).
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct DeveloperContent {
    /// What applications call the system prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instructions: Option<String>,
    /// Tools by namespace; functions go to the namespace `functions`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<BTreeMap<String, ToolNamespace>>,
}

impl DeveloperContent {
    /// Instructions and functions, either of which may be missing.
    pub fn new(instructions: Option<String>, functions: Vec<ToolDescription>) -> Self {
        let namespace = ToolNamespace { name: "functions".to_owned(), description: None, tools: functions };
        let tools = (!namespace.tools.is_empty()).then(|| BTreeMap::from([(namespace.name.clone(), namespace)]));
        Self { instructions, tools }
    }

    /// True where the `functions` namespace has a function.
    pub(super) fn has_functions(&self) -> bool {
        let functions = self.tools.as_ref().and_then(|tools| tools.get("functions"));
        functions.is_some_and(|namespace| !namespace.tools.is_empty())
    }
}

/// A group of tools.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolNamespace {
    /// The name, such as `functions` or `browser`.
    pub name: String,
    /// Shown at its top.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The tools; a namespace without any is called by its own name (python).
    #[serde(default)]
    pub tools: Vec<ToolDescription>,
}

/// One tool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolDescription {
    /// The name without its namespace.
    pub name: String,
    /// What it does.
    pub description: String,
    /// JSON schema of the arguments; the order of its properties is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<Value>,
}

/// A part of a message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Content {
    /// Text.
    Text {
        /// The text itself.
        text: String,
    },
    /// Only in system messages.
    SystemContent(SystemContent),
    /// Only in developer messages.
    DeveloperContent(DeveloperContent),
}

/// A message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Who it is from.
    #[serde(flatten)]
    pub author: Author,
    /// Its parts, rendered one after the other.
    pub content: Vec<Content>,
    /// `analysis`, `commentary`, `final`, or whatever a model wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// A tool that is called, or `assistant` for a tool's result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipient: Option<String>,
    /// Such as `<|constrain|>json`, `json` or `code`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// The ids that the model wrote this message with, from `<|start|>` to its end: rendering repeats them to the letter.
    /// A model may order its header and cut its text in other ways than rendering does, and what it said must not become
    /// another prompt. Never read from JSON: such ids would be special tokens in a stranger's hands.
    #[serde(skip)]
    pub written: Option<Arc<[u32]>>,
}

impl Message {
    /// A message with one part and no channel.
    pub fn new(role: Role, content: Content) -> Self {
        let author = Author { role, name: None };
        Self { author, content: vec![content], channel: None, recipient: None, content_type: None, written: None }
    }

    /// A message of text and no channel.
    pub fn text(role: Role, text: impl Into<String>) -> Self {
        Self::new(role, Content::Text { text: text.into() })
    }

    /// A message from the user.
    pub fn user(text: impl Into<String>) -> Self {
        Self::text(Role::User, text)
    }

    /// A message from the model on a channel.
    pub fn assistant(channel: &str, text: impl Into<String>) -> Self {
        Self { channel: Some(channel.to_owned()), ..Self::text(Role::Assistant, text) }
    }

    /// The system message.
    pub fn system(content: SystemContent) -> Self {
        Self::new(Role::System, Content::SystemContent(content))
    }

    /// The developer message.
    pub fn developer(content: DeveloperContent) -> Self {
        Self::new(Role::Developer, Content::DeveloperContent(content))
    }

    /// What the tool `name` (such as `functions.get_weather`) gave back, on the channel of the call (SPEC 9.2).
    pub fn tool_result(name: impl Into<String>, channel: &str, text: impl Into<String>) -> Self {
        let mut message = Self::text(Role::Tool, text);
        message.author.name = Some(name.into());
        message.channel = Some(channel.to_owned());
        message.recipient = Some("assistant".to_owned());
        message
    }

    /// The text parts, end to end.
    pub fn content_text(&self) -> String {
        let text = |part: &Content| match part {
            Content::Text { text } => text.clone(),
            Content::SystemContent(_) | Content::DeveloperContent(_) => String::new(),
        };
        self.content.iter().map(text).collect()
    }

    pub(super) fn is_on(&self, channel: &str) -> bool {
        self.channel.as_deref() == Some(channel)
    }
}

/// Messages in order.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Conversation {
    /// The messages.
    pub messages: Vec<Message>,
}

impl From<Vec<Message>> for Conversation {
    fn from(messages: Vec<Message>) -> Self {
        Self { messages }
    }
}
