//! The response object, with every field that OpenAI's clients know, and what it puts out.

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::items::Phase;
use super::request::CreateResponse;
use crate::turn::{TokenLogprob, TopLogprob, Usage};
use crate::types::fields::WordOr;

/// How far a response is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// In the background, not begun.
    Queued,
    /// Begun.
    InProgress,
    /// Whole.
    Completed,
    /// Cut by a limit.
    Incomplete,
    /// Ended by its client.
    Cancelled,
    /// Ended by a fault.
    Failed,
}

impl Status {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Queued => "queued",
            Status::InProgress => "in_progress",
            Status::Completed => "completed",
            Status::Incomplete => "incomplete",
            Status::Cancelled => "cancelled",
            Status::Failed => "failed",
        }
    }
}

/// The object.
#[derive(Debug, Clone, Serialize)]
pub struct Response {
    /// `resp_…`
    pub id: String,
    /// Always `response`.
    pub object: &'static str,
    /// Seconds since 1970.
    pub created_at: i64,
    /// Of a completed one.
    pub completed_at: Option<i64>,
    /// How far it is.
    pub status: Status,
    /// True where it runs without its client.
    pub background: bool,
    /// Of a failed one.
    pub error: Option<ResponseError>,
    /// Of an incomplete one.
    pub incomplete_details: Option<Incomplete>,
    /// As asked for.
    pub instructions: Option<String>,
    /// As asked for.
    pub max_output_tokens: Option<i64>,
    /// As asked for.
    pub max_tool_calls: Option<i64>,
    /// The model's name.
    pub model: String,
    /// What it says.
    pub output: Vec<OutputItem>,
    /// As asked for.
    pub parallel_tool_calls: bool,
    /// As asked for.
    pub previous_response_id: Option<String>,
    /// The conversation that it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conversation: Option<Value>,
    /// As asked for.
    pub prompt_cache_key: Option<String>,
    /// As asked for.
    pub prompt_cache_retention: Option<String>,
    /// Effort and summary.
    pub reasoning: Value,
    /// As asked for.
    pub safety_identifier: Option<String>,
    /// Always `default`.
    pub service_tier: &'static str,
    /// Whether it is kept.
    pub store: bool,
    /// What was used.
    pub temperature: f64,
    /// The answer's form.
    pub text: Value,
    /// As asked for, `auto` where nothing was.
    pub tool_choice: Value,
    /// As sent.
    pub tools: Vec<Value>,
    /// As asked for.
    pub top_logprobs: i64,
    /// What was used.
    pub top_p: f64,
    /// Always `disabled`.
    pub truncation: &'static str,
    /// At its end.
    pub usage: Option<ResponseUsage>,
    /// As asked for.
    pub user: Option<String>,
    /// The client's own words.
    pub metadata: Map<String, Value>,
}

/// Why a response failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ResponseError {
    /// OpenAI's word.
    pub code: String,
    /// A line.
    pub message: String,
}

/// Why a response is incomplete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Incomplete {
    /// `max_output_tokens`: also where the context is full.
    pub reason: &'static str,
}

/// Tokens, counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ResponseUsage {
    /// Of the prompt.
    pub input_tokens: usize,
    /// Those that came from the prefix cache.
    pub input_tokens_details: InputDetails,
    /// Generated.
    pub output_tokens: usize,
    /// Those of the thinking.
    pub output_tokens_details: OutputDetails,
    /// Both.
    pub total_tokens: usize,
}

/// See [`ResponseUsage`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct InputDetails {
    /// From the prefix cache.
    pub cached_tokens: usize,
    /// Always 0: keeping a prefix costs nothing here.
    pub cache_write_tokens: usize,
}

/// See [`ResponseUsage`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct OutputDetails {
    /// Of the thinking.
    pub reasoning_tokens: usize,
}

impl From<Usage> for ResponseUsage {
    fn from(usage: Usage) -> Self {
        Self {
            input_tokens: usage.prompt_tokens,
            input_tokens_details: InputDetails { cached_tokens: usage.cached_tokens, cache_write_tokens: 0 },
            output_tokens: usage.completion_tokens,
            output_tokens_details: OutputDetails { reasoning_tokens: usage.reasoning_tokens },
            total_tokens: usage.prompt_tokens + usage.completion_tokens,
        }
    }
}

/// What a response puts out. The same id stands in every event and in the object.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum OutputItem {
    /// Words to the user.
    Message {
        /// `msg_…`
        id: String,
        /// in_progress, completed or incomplete.
        status: Status,
        /// Always `assistant`.
        role: &'static str,
        /// `commentary` before calls, else `final_answer`.
        phase: &'static str,
        /// One part, or none yet.
        content: Vec<Part>,
    },
    /// Chain of thought.
    Reasoning {
        /// `rs_…`
        id: String,
        /// in_progress, completed or incomplete.
        status: Status,
        /// If it was asked for, the sentences that it begins with: gpt-oss makes no summaries.
        summary: Vec<Part>,
        /// One part, or none yet.
        content: Vec<Part>,
        /// The same, encrypted, if asked for; null before the item is done.
        encrypted_content: Option<String>,
    },
    /// A function's call.
    FunctionCall {
        /// `fc_…`
        id: String,
        /// in_progress, completed or incomplete.
        status: Status,
        /// `call_…`, which the result repeats.
        call_id: String,
        /// The function.
        name: String,
        /// The group that it is in.
        #[serde(skip_serializing_if = "Option::is_none")]
        namespace: Option<String>,
        /// JSON as text; of an incomplete one perhaps only its beginning.
        arguments: String,
    },
    /// A custom tool's call.
    CustomToolCall {
        /// `ctc_…`
        id: String,
        /// in_progress, completed or incomplete.
        status: Status,
        /// `call_…`, which the result repeats.
        call_id: String,
        /// The tool.
        name: String,
        /// The group that it is in.
        #[serde(skip_serializing_if = "Option::is_none")]
        namespace: Option<String>,
        /// Text.
        input: String,
    },
}

impl OutputItem {
    /// Its id.
    pub fn id(&self) -> &str {
        match self {
            Self::Message { id, .. }
            | Self::Reasoning { id, .. }
            | Self::FunctionCall { id, .. }
            | Self::CustomToolCall { id, .. } => id,
        }
    }
}

/// A part of a message or of chain of thought.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Part {
    /// Of a message.
    OutputText {
        /// The text.
        text: String,
        /// Always empty.
        annotations: Vec<Value>,
        /// If asked for.
        logprobs: Vec<LogProb>,
    },
    /// Of chain of thought.
    ReasoningText {
        /// The text.
        text: String,
    },
    /// Of its summary.
    SummaryText {
        /// The text.
        text: String,
    },
}

/// A token and how likely it was.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LogProb {
    /// Its text; bytes that are not whole characters are replaced.
    pub token: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// ln of its probability.
    pub logprob: f32,
    /// The likeliest tokens in its place.
    pub top_logprobs: Vec<TopLogProb>,
}

/// One of the likeliest tokens.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TopLogProb {
    /// Its text.
    pub token: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// ln of its probability.
    pub logprob: f32,
}

impl From<TokenLogprob> for LogProb {
    fn from(logprob: TokenLogprob) -> Self {
        let top = |top: TopLogprob| TopLogProb {
            token: String::from_utf8_lossy(&top.bytes).into_owned(),
            bytes: top.bytes,
            logprob: top.logprob,
        };
        Self {
            token: String::from_utf8_lossy(&logprob.bytes).into_owned(),
            bytes: logprob.bytes,
            logprob: logprob.logprob,
            top_logprobs: logprob.top.into_iter().map(top).collect(),
        }
    }
}

/// What a new message's `phase` says.
pub fn phase_word(is_preamble: bool) -> &'static str {
    if is_preamble { Phase::Commentary.as_str() } else { Phase::FinalAnswer.as_str() }
}

impl Response {
    /// A response that has not said anything, echoing its request. `temperature` is what is used.
    pub fn begin(id: String, request: &CreateResponse, created_at: i64, temperature: f32) -> Self {
        let background = request.background.unwrap_or(false);
        Self {
            id,
            object: "response",
            created_at,
            completed_at: None,
            status: if background { Status::Queued } else { Status::InProgress },
            background,
            error: None,
            incomplete_details: None,
            instructions: request.instructions.clone(),
            max_output_tokens: request.max_output_tokens,
            max_tool_calls: request.max_tool_calls,
            model: request.model.clone(),
            output: Vec::new(),
            parallel_tool_calls: request.parallel_tool_calls.unwrap_or(true),
            previous_response_id: request.previous_response_id.clone(),
            conversation: request.conversation_id().map(|id| json!({ "id": id })),
            prompt_cache_key: request.prompt_cache_key.clone(),
            prompt_cache_retention: request.prompt_cache_retention.clone(),
            reasoning: reasoning_echo(request),
            safety_identifier: request.safety_identifier.clone(),
            service_tier: "default",
            store: request.store.unwrap_or(true),
            temperature: request.temperature.unwrap_or(f64::from(temperature)),
            text: text_echo(request),
            tool_choice: match &request.tool_choice {
                None => json!("auto"),
                Some(WordOr::Word(word)) => json!(word),
                Some(WordOr::Object(choice)) => choice.clone(),
            },
            tools: request.tools.clone().unwrap_or_default(),
            top_logprobs: request.top_logprobs.unwrap_or(0),
            top_p: request.top_p.unwrap_or(1.0),
            truncation: "disabled",
            usage: None,
            user: request.user.clone(),
            metadata: request.metadata.clone().unwrap_or_default(),
        }
    }
}

fn reasoning_echo(request: &CreateResponse) -> Value {
    let reasoning = request.reasoning.as_ref();
    let effort = reasoning.and_then(|reasoning| reasoning.effort.as_deref()).unwrap_or("medium");
    let summary = reasoning.and_then(|reasoning| reasoning.summary.as_ref().or(reasoning.generate_summary.as_ref()));
    json!({ "effort": effort, "summary": summary })
}

fn text_echo(request: &CreateResponse) -> Value {
    let text = request.text.as_ref();
    let verbosity = text.and_then(|text| text.verbosity.as_deref()).unwrap_or("medium");
    let format = match text.and_then(|text| text.format.as_ref()) {
        None => json!({ "type": "text" }),
        Some(format) if format.kind != "json_schema" => json!({ "type": format.kind }),
        Some(format) => json!({
            "type": format.kind, "name": format.name, "description": format.description,
            "schema": format.schema, "strict": format.strict.unwrap_or(true),
        }),
    };
    json!({ "format": format, "verbosity": verbosity })
}
