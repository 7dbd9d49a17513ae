//! POST /v1/completions: plain text continued.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::chat::StreamOptions;
use super::chat_answer::UsageOut;
use super::fields::{Prompts, TextOr};
use super::sampling::Controls;

/// The body.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(expecting = "an object")]
pub struct CompletionRequest {
    /// A model's id; the server's own where there is none.
    pub model: Option<String>,
    /// A text, texts, token ids, or lists of token ids.
    pub prompt: Prompts,
    /// Text after the completion; not supported.
    pub suffix: Option<String>,
    /// New tokens at most, 16 by default; 0 only with `echo`.
    pub max_tokens: Option<i64>,
    /// Completions of each prompt, 1 to 16.
    pub n: Option<i64>,
    /// Not supported beyond `n`.
    pub best_of: Option<i64>,
    /// Give the prompt too.
    pub echo: Option<bool>,
    /// Log probabilities, with those of so many of the likeliest, 0 to 20.
    pub logprobs: Option<i64>,
    /// Answer as events.
    pub stream: Option<bool>,
    /// How.
    pub stream_options: Option<StreamOptions>,
    /// A text or up to four.
    pub stop: Option<TextOr<String>>,
    /// Any.
    pub seed: Option<i64>,
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
}

impl CompletionRequest {
    /// The controls of how tokens are chosen.
    pub fn controls(&self) -> Controls {
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
            top_logprobs: self.logprobs,
        }
    }
}

/// The answer, whole or a chunk of it.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Completion {
    /// `cmpl-...`
    pub id: String,
    /// `text_completion`
    pub object: &'static str,
    /// Seconds since 1970.
    pub created: u64,
    /// The model's id, as the request gave it.
    pub model: String,
    /// The same for the same program and model.
    pub system_fingerprint: String,
    /// `n` for each prompt, in order.
    pub choices: Vec<CompletionChoice>,
    /// In a whole answer, and in the last chunk if it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<UsageOut>,
}

/// One completion.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct CompletionChoice {
    /// From 0.
    pub index: usize,
    /// The text.
    pub text: String,
    /// If they were asked for.
    pub logprobs: Option<CompletionLogprobs>,
    /// stop or length; null in a chunk that is not the last.
    pub finish_reason: Option<&'static str>,
}

/// Four lists, one entry for each token.
#[derive(Debug, Clone, Default, PartialEq, Serialize, JsonSchema)]
pub struct CompletionLogprobs {
    /// Texts.
    pub tokens: Vec<String>,
    /// ln of probabilities; null for the first token of all.
    pub token_logprobs: Vec<Option<f32>>,
    /// The likeliest in each place.
    pub top_logprobs: Vec<Option<BTreeMap<String, f32>>>,
    /// Where each token begins, in characters.
    pub text_offset: Vec<usize>,
}
