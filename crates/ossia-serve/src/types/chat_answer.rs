//! POST /v1/chat/completions: what clients get, whole or in chunks.

use schemars::JsonSchema;
use serde::Serialize;

use crate::turn::{FinishReason, TokenLogprob, Usage};

/// The answer, whole.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ChatCompletion {
    /// `chatcmpl-...`
    pub id: String,
    /// `chat.completion`
    pub object: &'static str,
    /// Seconds since 1970.
    pub created: u64,
    /// The model's id, as the request gave it.
    pub model: String,
    /// The same for the same program and model: same seed, same answer.
    pub system_fingerprint: String,
    /// As many as `n`.
    pub choices: Vec<ChatChoice>,
    /// Of all choices together.
    pub usage: UsageOut,
}

/// One answer.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ChatChoice {
    /// From 0.
    pub index: usize,
    /// What the assistant says.
    pub message: AnswerMessage,
    /// If they were asked for.
    pub logprobs: Option<Logprobs>,
    /// stop, length or tool_calls.
    pub finish_reason: &'static str,
}

/// What the assistant says.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct AnswerMessage {
    /// `assistant`
    pub role: &'static str,
    /// The answer; null where a tool is called without a word.
    pub content: Option<String>,
    /// Always null: gpt-oss refuses in plain words.
    pub refusal: Option<String>,
    /// The chain of thought.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<String>,
    /// What is called.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<CallOut>,
}

/// A call of a tool.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum CallOut {
    /// Of a function.
    Function {
        /// To be repeated with the result.
        id: String,
        /// What is called.
        function: FunctionOut,
    },
    /// Of a custom tool.
    Custom {
        /// To be repeated with the result.
        id: String,
        /// What is called.
        custom: CustomOut,
    },
}

/// A function and its arguments.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct FunctionOut {
    /// The function.
    pub name: String,
    /// JSON as text.
    pub arguments: String,
}

/// A custom tool and its input.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct CustomOut {
    /// The tool.
    pub name: String,
    /// Any text.
    pub input: String,
}

/// Log probabilities of the answer's tokens, and of the chain of thought's.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
pub struct Logprobs {
    /// Of `content`.
    pub content: Vec<LogprobOut>,
    /// Of `reasoning`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reasoning: Vec<LogprobOut>,
    /// Always null.
    pub refusal: Option<Vec<LogprobOut>>,
}

/// A token and how likely it was.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct LogprobOut {
    /// Its text; U+FFFD for what is no whole character.
    pub token: String,
    /// ln of its probability.
    pub logprob: f32,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// The likeliest in its place.
    pub top_logprobs: Vec<TopOut>,
}

/// One of the likeliest.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct TopOut {
    /// Its text.
    pub token: String,
    /// ln of its probability.
    pub logprob: f32,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// A part of the answer.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ChatChunk {
    /// The same for all chunks.
    pub id: String,
    /// `chat.completion.chunk`
    pub object: &'static str,
    /// Seconds since 1970.
    pub created: u64,
    /// The model's id, as the request gave it.
    pub model: String,
    /// As in a whole answer.
    pub system_fingerprint: String,
    /// One; none in the chunk that has the usage.
    pub choices: Vec<ChunkChoice>,
    /// Null, then in the last chunk the usage, if it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Option<UsageOut>>,
}

/// More of one answer.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ChunkChoice {
    /// From 0.
    pub index: usize,
    /// What is new.
    pub delta: Delta,
    /// If they were asked for.
    pub logprobs: Option<Logprobs>,
    /// In the last chunk of this answer.
    pub finish_reason: Option<&'static str>,
}

/// What is new.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
pub struct Delta {
    /// In the first chunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<&'static str>,
    /// Text of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// Text of the chain of thought.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<String>,
    /// Of a call.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<CallDelta>,
}

/// The beginning of a call (with id, type and name), or more of its arguments.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
pub struct CallDelta {
    /// Which call, from 0.
    pub index: usize,
    /// In its first chunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// function or custom, in its first chunk.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<&'static str>,
    /// Of a function.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function: Option<FunctionDelta>,
    /// Of a custom tool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub custom: Option<CustomDelta>,
}

/// See [`CallDelta`].
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
pub struct FunctionDelta {
    /// In the first chunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// More of the arguments.
    pub arguments: String,
}

/// See [`CallDelta`].
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
pub struct CustomDelta {
    /// In the first chunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// More of the input.
    pub input: String,
}

/// Tokens, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct UsageOut {
    /// Of the prompt.
    pub prompt_tokens: usize,
    /// Of the answers.
    pub completion_tokens: usize,
    /// Both.
    pub total_tokens: usize,
    /// Of the prompt, in detail.
    pub prompt_tokens_details: PromptDetails,
    /// Of the answers, in detail.
    pub completion_tokens_details: CompletionDetails,
}

/// Of the prompt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct PromptDetails {
    /// From the prefix cache.
    pub cached_tokens: usize,
}

/// Of the answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct CompletionDetails {
    /// Chain of thought.
    pub reasoning_tokens: usize,
}

impl UsageOut {
    /// The usage of several answers to one prompt: the prompt counts once.
    pub fn of(usages: &[Usage]) -> Self {
        let sum = |part: fn(&Usage) -> usize| usages.iter().map(part).sum::<usize>();
        let prompt_tokens = usages.first().map_or(0, |usage| usage.prompt_tokens);
        let completion_tokens = sum(|usage| usage.completion_tokens);
        let cached_tokens = usages.first().map_or(0, |usage| usage.cached_tokens);
        Self {
            prompt_tokens,
            completion_tokens,
            total_tokens: prompt_tokens + completion_tokens,
            prompt_tokens_details: PromptDetails { cached_tokens },
            completion_tokens_details: CompletionDetails { reasoning_tokens: sum(|usage| usage.reasoning_tokens) },
        }
    }
}

impl From<TokenLogprob> for LogprobOut {
    fn from(of: TokenLogprob) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let top = of.top.into_iter();
        let top = top.map(|top| TopOut { token: text(&top.bytes), logprob: finite(top.logprob), bytes: top.bytes });
        Self { token: text(&of.bytes), logprob: finite(of.logprob), top_logprobs: top.collect(), bytes: of.bytes }
    }
}

/// JSON has no infinity; OpenAI writes this for what cannot be.
pub fn finite(logprob: f32) -> f32 {
    if logprob.is_finite() { logprob } else { -9999.0 }
}

/// OpenAI's word; None where the turn failed or was cancelled.
pub fn finish_word(finish: &FinishReason) -> Option<&'static str> {
    match finish {
        FinishReason::Stop => Some("stop"),
        FinishReason::Length => Some("length"),
        FinishReason::ToolCalls => Some("tool_calls"),
        FinishReason::Cancelled | FinishReason::Failed(_) => None,
    }
}
