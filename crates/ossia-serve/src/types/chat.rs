//! POST /v1/chat/completions: what clients send. OpenAI's fields, and the ones that gpt-oss' other servers have taught
//! clients to send; what has no meaning here (`store`, `user`, `metadata`, ...) is passed over.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::fields::{TextOr, WordOr};
use super::sampling::Controls;

/// The body.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(expecting = "an object")]
pub struct ChatRequest {
    /// A model's id; the server's own where there is none.
    pub model: Option<String>,
    /// What has been said.
    pub messages: Vec<ChatMessage>,
    /// Answer as events.
    pub stream: Option<bool>,
    /// How.
    pub stream_options: Option<StreamOptions>,
    /// Answers, 1 to 16.
    pub n: Option<i64>,
    /// New tokens at most, thinking included.
    pub max_completion_tokens: Option<i64>,
    /// The older name of the same.
    pub max_tokens: Option<i64>,
    /// 0 to 2.
    pub temperature: Option<f64>,
    /// 0 to 1.
    pub top_p: Option<f64>,
    /// The k likeliest tokens; 0 and -1: all.
    pub top_k: Option<i64>,
    /// 0 to 1.
    pub min_p: Option<f64>,
    /// -2 to 2.
    pub presence_penalty: Option<f64>,
    /// -2 to 2.
    pub frequency_penalty: Option<f64>,
    /// Above 0, at most 2; 1 is off.
    pub repetition_penalty: Option<f64>,
    /// Token ids and -100 to 100.
    pub logit_bias: Option<BTreeMap<String, f64>>,
    /// The same seed and request give the same answer.
    pub seed: Option<i64>,
    /// A text or up to four.
    pub stop: Option<TextOr<String>>,
    /// Report log probabilities.
    pub logprobs: Option<bool>,
    /// Of so many of the likeliest, 0 to 20; needs `logprobs`.
    pub top_logprobs: Option<i64>,
    /// none, minimal, low, medium, high.
    pub reasoning_effort: Option<String>,
    /// The same as in the Responses API.
    pub reasoning: Option<Reasoning>,
    /// What the answer's text is.
    pub response_format: Option<ResponseFormat>,
    /// What may be called.
    pub tools: Option<Vec<Tool>>,
    /// none, auto, required, or an object that names a tool or allowed ones.
    pub tool_choice: Option<WordOr<ToolChoice>>,
    /// False: one call in a turn at most.
    pub parallel_tool_calls: Option<bool>,
    /// The older form of tools; refused.
    pub functions: Option<Value>,
    /// Audio and such; only `["text"]` is there.
    pub modalities: Option<Vec<String>>,
}

/// `stream_options`
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(expecting = "an object")]
pub struct StreamOptions {
    /// A last chunk with the usage.
    pub include_usage: Option<bool>,
}

/// `reasoning`
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(expecting = "an object")]
pub struct Reasoning {
    /// As `reasoning_effort`.
    pub effort: Option<String>,
}

/// One message, of any role; which fields count depends on the role.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(expecting = "an object")]
pub struct ChatMessage {
    /// system, developer, user, assistant or tool.
    pub role: String,
    /// Text, or parts of it.
    pub content: Option<TextOr<Part>>,
    /// Who speaks, where there are several.
    pub name: Option<String>,
    /// The assistant's chain of thought...
    pub reasoning: Option<String>,
    /// ... by another name...
    pub reasoning_content: Option<String>,
    /// ... and a third.
    pub thinking: Option<String>,
    /// The assistant's refusal.
    pub refusal: Option<String>,
    /// What the assistant calls.
    pub tool_calls: Option<Vec<CallIn>>,
    /// Which call a tool's message answers.
    pub tool_call_id: Option<String>,
}

/// A part of a message.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(expecting = "an object")]
pub struct Part {
    /// text, refusal, or a kind that this model cannot read.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Of a text.
    pub text: Option<String>,
    /// Of a refusal.
    pub refusal: Option<String>,
    /// Of a thinking part.
    pub thinking: Option<String>,
}

/// A call that the assistant made earlier.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(expecting = "an object")]
pub struct CallIn {
    /// The id that its result repeats.
    pub id: Option<String>,
    /// Of a function.
    pub function: Option<FunctionCallIn>,
    /// Of a custom tool.
    pub custom: Option<CustomCallIn>,
}

/// A function's call.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(expecting = "an object")]
pub struct FunctionCallIn {
    /// The function.
    pub name: String,
    /// JSON as text; some clients send the object itself.
    #[serde(default)]
    pub arguments: Value,
}

/// A custom tool's call.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(expecting = "an object")]
pub struct CustomCallIn {
    /// The tool.
    pub name: String,
    /// Any text.
    #[serde(default)]
    pub input: String,
}

/// A tool that may be called.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(expecting = "an object")]
pub struct Tool {
    /// function or custom.
    #[serde(rename = "type")]
    pub kind: String,
    /// A function.
    pub function: Option<Function>,
    /// A custom tool.
    pub custom: Option<Custom>,
}

/// A function.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(expecting = "an object")]
pub struct Function {
    /// Letters, digits, `_` and `-`, at most 64.
    pub name: String,
    /// What it does.
    pub description: Option<String>,
    /// JSON schema of its arguments.
    pub parameters: Option<Value>,
    /// The arguments must follow the schema.
    pub strict: Option<bool>,
}

/// A tool that takes text.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(expecting = "an object")]
pub struct Custom {
    /// As a function's.
    pub name: String,
    /// What it does.
    pub description: Option<String>,
    /// What the text is.
    pub format: Option<CustomFormat>,
}

/// The text that a custom tool takes.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(expecting = "an object")]
pub struct CustomFormat {
    /// text or grammar.
    #[serde(rename = "type")]
    pub kind: String,
    /// The grammar.
    pub grammar: Option<Grammar>,
}

/// A grammar.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(expecting = "an object")]
pub struct Grammar {
    /// lark or regex.
    pub syntax: String,
    /// The grammar's text.
    pub definition: String,
}

/// `tool_choice` as an object.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(expecting = "an object")]
pub struct ToolChoice {
    /// function, custom or allowed_tools.
    #[serde(rename = "type")]
    pub kind: String,
    /// The function that is called.
    pub function: Option<Named>,
    /// The custom tool that is called.
    pub custom: Option<Named>,
    /// The tools that may be called.
    pub allowed_tools: Option<AllowedTools>,
}

/// A tool by its name.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(expecting = "an object")]
pub struct Named {
    /// The name.
    pub name: String,
}

/// Some of the tools.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(expecting = "an object")]
pub struct AllowedTools {
    /// auto or required.
    pub mode: Option<String>,
    /// Which.
    pub tools: Vec<AllowedTool>,
}

/// One of them.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(expecting = "an object")]
pub struct AllowedTool {
    /// A function.
    pub function: Option<Named>,
    /// A custom tool.
    pub custom: Option<Named>,
}

/// `response_format`
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(expecting = "an object")]
pub struct ResponseFormat {
    /// text, json_object or json_schema.
    #[serde(rename = "type")]
    pub kind: String,
    /// The schema.
    pub json_schema: Option<NamedSchema>,
}

/// A named schema.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(expecting = "an object")]
pub struct NamedSchema {
    /// What the model is told that it is called.
    pub name: Option<String>,
    /// What it is for.
    pub description: Option<String>,
    /// The schema itself.
    pub schema: Option<Value>,
    /// Here every schema is followed, strict or not.
    pub strict: Option<bool>,
}

impl ChatRequest {
    /// The controls of how tokens are chosen.
    pub fn controls(&self) -> Controls {
        let logprobs = self.logprobs.unwrap_or(false);
        Controls {
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k,
            min_p: self.min_p,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            repetition_penalty: self.repetition_penalty,
            logit_bias: self.logit_bias.clone(),
            seed: self.seed,
            top_logprobs: logprobs.then(|| self.top_logprobs.unwrap_or(0)),
        }
    }
}
