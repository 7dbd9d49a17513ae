//! What `POST /v1/responses` and `POST /v1/responses/input_tokens` take.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::error::ApiError;
use crate::types::fields::{TextOr, WordOr};
use crate::types::sampling::Controls;

/// The words of `include`. Most belong to tools that only OpenAI has.
const INCLUDES: [&str; 8] = [
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
    "reasoning.encrypted_content",
    "message.output_text.logprobs",
];

/// Checks words of `include`, each at its place in the list.
pub fn check_includes<'w>(words: impl IntoIterator<Item = &'w str>) -> Result<(), ApiError> {
    match words.into_iter().enumerate().find(|(_, word)| !INCLUDES.contains(word)) {
        None => Ok(()),
        Some((index, word)) => {
            let at = format!("include[{index}]");
            let problem = format!("{at}: wanted one of {}, found {word:?}", INCLUDES.join(", "));
            Err(ApiError::invalid(at, problem))
        }
    }
}

/// The body. Every field but `model` is optional; what is not listed here is passed over, such as `client_metadata`.
#[derive(Debug, Clone, Deserialize)]
#[serde(expecting = "an object")]
pub struct CreateResponse {
    /// The model.
    pub model: String,
    /// A text of the user, or items. They are read by hand, see `items`.
    pub input: Option<TextOr<Value>>,
    /// The application's words; not carried over from the previous response.
    pub instructions: Option<String>,
    /// Tools; read by hand, because those that are not there are passed over.
    pub tools: Option<Vec<Value>>,
    /// none, auto, required, or an object that names a tool or allowed ones.
    pub tool_choice: Option<WordOr<Value>>,
    /// False: one call in a turn at most.
    pub parallel_tool_calls: Option<bool>,
    /// The answer's form.
    pub text: Option<TextConfig>,
    /// How long to think.
    pub reasoning: Option<ReasoningConfig>,
    /// Words of [`INCLUDES`]: `reasoning.encrypted_content` and `message.output_text.logprobs` say something here, the
    /// others are passed over.
    pub include: Option<Vec<String>>,
    /// False: nothing is kept. The default is true.
    pub store: Option<bool>,
    /// Go on from this response.
    pub previous_response_id: Option<String>,
    /// Go on in this conversation.
    pub conversation: Option<WordOr<ConversationRef>>,
    /// Run without the client.
    pub background: Option<bool>,
    /// Events instead of one object.
    pub stream: Option<bool>,
    /// Tokens at most, those of the thinking too.
    pub max_output_tokens: Option<i64>,
    /// Of built-in tools, of which there are none; echoed.
    pub max_tool_calls: Option<i64>,
    /// 0 to 2.
    pub temperature: Option<f64>,
    /// 0 to 1.
    pub top_p: Option<f64>,
    /// 0 to 20.
    pub top_logprobs: Option<i64>,
    /// The same seed and request give the same answer. Not in OpenAI's API.
    pub seed: Option<i64>,
    /// The client's own words, at most 16 texts.
    pub metadata: Option<Map<String, Value>>,
    /// Requests that begin alike; echoed, since everything that begins alike is found anyway.
    pub prompt_cache_key: Option<String>,
    /// Echoed.
    pub prompt_cache_retention: Option<String>,
    /// Echoed.
    pub safety_identifier: Option<String>,
    /// Echoed as `default`: there is one tier.
    pub service_tier: Option<String>,
    /// Only `disabled`: nothing is ever cut silently.
    pub truncation: Option<String>,
    /// Echoed.
    pub user: Option<String>,
    /// A prompt kept at OpenAI; refused.
    pub prompt: Option<Value>,
}

/// `text`
#[derive(Debug, Clone, Deserialize)]
#[serde(expecting = "an object")]
pub struct TextConfig {
    /// text, json_object or json_schema.
    pub format: Option<TextFormat>,
    /// Echoed; gpt-oss has no such control.
    pub verbosity: Option<String>,
}

/// `text.format`
#[derive(Debug, Clone, Deserialize)]
#[serde(expecting = "an object")]
pub struct TextFormat {
    /// text, json_object or json_schema.
    #[serde(rename = "type")]
    pub kind: String,
    /// What the model is told that the schema is called.
    pub name: Option<String>,
    /// What it is for.
    pub description: Option<String>,
    /// The schema.
    pub schema: Option<Value>,
    /// Echoed: every schema is followed, strict or not.
    pub strict: Option<bool>,
}

/// `reasoning`
#[derive(Debug, Clone, Deserialize)]
#[serde(expecting = "an object")]
pub struct ReasoningConfig {
    /// none, minimal, low, medium, high.
    pub effort: Option<String>,
    /// auto or concise: the thinking's first sentence; detailed: one of each paragraph.
    pub summary: Option<String>,
    /// The older name of `summary`.
    pub generate_summary: Option<String>,
}

/// `conversation` as an object.
#[derive(Debug, Clone, Deserialize)]
#[serde(expecting = "an object")]
pub struct ConversationRef {
    /// Which.
    pub id: String,
}

impl CreateResponse {
    /// The conversation's id.
    pub fn conversation_id(&self) -> Option<&str> {
        match self.conversation.as_ref()? {
            WordOr::Word(id) => Some(id),
            WordOr::Object(conversation) => Some(&conversation.id),
        }
    }

    /// True where `include` has this word.
    pub fn includes(&self, what: &str) -> bool {
        self.include.iter().flatten().any(|word| word == what)
    }

    /// True where log probabilities are to be told.
    pub fn wants_logprobs(&self) -> bool {
        self.top_logprobs.is_some_and(|top| top > 0) || self.includes("message.output_text.logprobs")
    }

    /// The controls of how tokens are chosen.
    pub fn controls(&self) -> Controls {
        Controls {
            temperature: self.temperature,
            top_p: self.top_p,
            seed: self.seed,
            top_logprobs: match self.wants_logprobs() {
                true => Some(self.top_logprobs.unwrap_or(0)),
                // Checked all the same.
                false => self.top_logprobs.filter(|top| *top != 0),
            },
            ..Controls::default()
        }
    }
}
