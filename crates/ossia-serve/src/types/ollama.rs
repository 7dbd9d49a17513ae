//! Ollama's API: what its clients send. Fields that mean nothing here (keep_alive, template, num_ctx, ...) are passed over.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::chat::Tool;
use super::fields::{TextOr, whole};

/// POST /api/chat
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(expecting = "an object")]
pub struct OllamaChat {
    /// A model's name.
    pub model: Option<String>,
    /// What has been said.
    pub messages: Option<Vec<OllamaMessage>>,
    /// What may be called.
    pub tools: Option<Vec<Tool>>,
    /// Lines as they come, which is the default; false: one object.
    pub stream: Option<bool>,
    /// "json" or a schema.
    pub format: Option<Value>,
    /// Whether to think, or how long.
    pub think: Option<Value>,
    /// How tokens are chosen.
    pub options: Option<OllamaOptions>,
}

/// POST /api/generate
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(expecting = "an object")]
pub struct OllamaGenerate {
    /// A model's name.
    pub model: Option<String>,
    /// What the user says.
    pub prompt: Option<String>,
    /// Instructions.
    pub system: Option<String>,
    /// Text after the answer; not supported.
    pub suffix: Option<String>,
    /// Without the chat's form; not supported.
    pub raw: Option<bool>,
    /// Pictures; not supported.
    pub images: Option<Vec<Value>>,
    /// Lines as they come, which is the default; false: one object.
    pub stream: Option<bool>,
    /// "json" or a schema.
    pub format: Option<Value>,
    /// Whether to think, or how long.
    pub think: Option<Value>,
    /// How tokens are chosen.
    pub options: Option<OllamaOptions>,
}

/// A message.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(expecting = "an object")]
pub struct OllamaMessage {
    /// system, user, assistant or tool.
    pub role: String,
    /// The text.
    pub content: Option<String>,
    /// The assistant's chain of thought.
    pub thinking: Option<String>,
    /// Pictures; not supported.
    pub images: Option<Vec<Value>>,
    /// What the assistant calls.
    pub tool_calls: Option<Vec<OllamaCall>>,
    /// Which tool a tool's message is from.
    pub tool_name: Option<String>,
    /// The same, by its older name.
    pub name: Option<String>,
    /// Which call it answers, if the client keeps that.
    pub tool_call_id: Option<String>,
}

/// A call.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(expecting = "an object")]
pub struct OllamaCall {
    /// If the client keeps it.
    pub id: Option<String>,
    /// What is called.
    pub function: OllamaFunction,
}

/// A function and its arguments.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(expecting = "an object")]
pub struct OllamaFunction {
    /// The function.
    pub name: String,
    /// An object.
    #[serde(default)]
    pub arguments: Value,
}

/// `options`
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(expecting = "an object")]
pub struct OllamaOptions {
    /// 0 to 2.
    pub temperature: Option<f64>,
    /// 0 to 1.
    pub top_p: Option<f64>,
    /// 0: all.
    #[serde(default, deserialize_with = "whole")]
    pub top_k: Option<i64>,
    /// 0 to 1.
    pub min_p: Option<f64>,
    /// -2 to 2.
    pub presence_penalty: Option<f64>,
    /// -2 to 2.
    pub frequency_penalty: Option<f64>,
    /// 1 is off.
    pub repeat_penalty: Option<f64>,
    /// Any.
    #[serde(default, deserialize_with = "whole")]
    pub seed: Option<i64>,
    /// New tokens at most; 0 and less: as many as there is room for.
    #[serde(default, deserialize_with = "whole")]
    pub num_predict: Option<i64>,
    /// A text or several.
    pub stop: Option<TextOr<String>>,
}

/// POST /api/show and /api/pull
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(expecting = "an object")]
pub struct OllamaModel {
    /// A model's name...
    pub model: Option<String>,
    /// ... by its older field.
    pub name: Option<String>,
    /// Lines as they come, which is the default; false: one object.
    pub stream: Option<bool>,
}
