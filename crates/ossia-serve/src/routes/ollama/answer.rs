//! Answers in Ollama's form: JSON objects, one a line as they come, or one at the end.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Instant;

use axum::Json;
use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures_core::Stream;
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};

use super::OllamaError;
use crate::app::Shared;
use crate::auth::Identity;
use crate::clock;
use crate::error::ApiError;
use crate::routes::chat::{Begun, Piece, Speaker, begin, failure, remember};
use crate::turn::{FinishReason, TurnStream, Usage};
use crate::types::chat::ChatRequest;

/// Which route answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// /api/chat
    Chat,
    /// /api/generate
    Generate,
}

impl Form {
    /// An object with some of an answer in it.
    pub fn object(self, model: &str, words: &str, thinking: &str, calls: Vec<Value>) -> Value {
        let mut object = json!({ "model": model, "created_at": clock::rfc3339(clock::now_s()) });
        let place = match self {
            Form::Generate => {
                object["response"] = json!(words);
                &mut object
            }
            Form::Chat => {
                object["message"] = json!({ "role": "assistant", "content": words });
                &mut object["message"]
            }
        };
        if !thinking.is_empty() {
            place["thinking"] = json!(thinking);
        }
        if !calls.is_empty() {
            place["tool_calls"] = json!(calls);
        }
        object["done"] = json!(false);
        object
    }
}

/// Answers a request.
pub async fn answer(
    app: Shared,
    identity: Identity,
    request: ChatRequest,
    form: Form,
    is_stream: bool,
) -> Result<Response, OllamaError> {
    let began = Instant::now();
    let Begun { mut streams, mut speakers, model, date, identity, app, .. } = begin(app, identity, request).await?;
    let (Some(stream), Some(speaker)) = (streams.pop(), speakers.pop()) else { return Err(ApiError::Internal.into()) };
    let voice = Voice {
        stream,
        speaker: Some(speaker),
        form,
        model,
        call: None,
        num_calls: 0,
        began,
        first: None,
        keep: (app, identity, date),
    };
    match is_stream {
        true => Ok(([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines(voice))).into_response()),
        false => Ok(Json(whole(voice).await?).into_response()),
    }
}

/// One answer as it arrives.
struct Voice {
    stream: TurnStream,
    speaker: Option<Speaker>,
    form: Form,
    model: String,
    /// The call that is being made, as name, id and arguments: calls are told whole.
    call: Option<(String, String, String)>,
    num_calls: usize,
    began: Instant,
    first: Option<Instant>,
    keep: (Shared, Identity, String),
}

/// What is told next.
enum Told {
    Words(String),
    Thinking(String),
    Call(Value),
    Done(Value),
}

impl Voice {
    /// What comes next; nothing after `Done`.
    async fn next(&mut self) -> Result<VecDeque<Told>, ApiError> {
        let mut told = VecDeque::new();
        while told.is_empty() {
            let event = self.stream.next().await.ok_or(ApiError::Internal)?;
            let Some(speaker) = &mut self.speaker else { return Err(ApiError::Internal) };
            let Some(piece) = speaker.hear(event)? else { continue };
            self.first.get_or_insert_with(Instant::now);
            match piece {
                Piece::Words(text, _) => told.push_back(Told::Words(text)),
                Piece::Thinking(text, _) => told.push_back(Told::Thinking(text)),
                Piece::Call { id, name, .. } => {
                    told.extend(self.end_call());
                    self.call = Some((name, id, String::new()));
                }
                Piece::Arguments(text) => {
                    if let Some((_, _, arguments)) = &mut self.call {
                        arguments.push_str(&text);
                    }
                }
                Piece::Done(finish, usage) => {
                    told.extend(self.end_call());
                    told.push_back(Told::Done(self.done(&finish, usage)?));
                }
            }
        }
        Ok(told)
    }

    fn end_call(&mut self) -> Option<Told> {
        let (name, id, text) = self.call.take()?;
        // Clients take an object for granted; what is none is given to them as one.
        let arguments = serde_json::from_str::<Value>(&text).ok().filter(Value::is_object);
        let arguments = arguments.unwrap_or_else(|| json!({ "input": text }));
        let index = self.num_calls;
        self.num_calls += 1;
        Some(Told::Call(json!({ "id": id, "function": { "index": index, "name": name, "arguments": arguments } })))
    }

    /// The last object.
    fn done(&mut self, finish: &FinishReason, usage: Usage) -> Result<Value, ApiError> {
        let reason = match finish {
            FinishReason::Stop | FinishReason::ToolCalls => "stop",
            FinishReason::Length => "length",
            FinishReason::Cancelled | FinishReason::Failed(_) => return Err(failure(finish)),
        };
        if let Some(speaker) = self.speaker.take() {
            let (app, identity, date) = &self.keep;
            remember(app, identity, speaker, date);
        }
        let nanos = |from: Instant, to: Instant| u64::try_from((to - from).as_nanos()).unwrap_or(u64::MAX);
        let (now, first) = (Instant::now(), self.first.unwrap_or(self.began));
        let mut object = self.form.object(&self.model, "", "", Vec::new());
        object["done"] = json!(true);
        object["done_reason"] = json!(reason);
        object["total_duration"] = json!(nanos(self.began, now));
        object["load_duration"] = json!(0);
        object["prompt_eval_count"] = json!(usage.prompt_tokens);
        object["prompt_eval_duration"] = json!(nanos(self.began, first));
        object["eval_count"] = json!(usage.completion_tokens);
        object["eval_duration"] = json!(nanos(first, now));
        Ok(object)
    }

    fn object(&self, told: Told) -> Value {
        match told {
            Told::Words(text) => self.form.object(&self.model, &text, "", Vec::new()),
            Told::Thinking(text) => self.form.object(&self.model, "", &text, Vec::new()),
            Told::Call(call) => self.form.object(&self.model, "", "", vec![call]),
            Told::Done(object) => object,
        }
    }
}

fn lines(voice: Voice) -> impl Stream<Item = Result<String, Infallible>> + Send + 'static {
    stream::unfold(Some(voice), |voice| async move {
        let mut voice = voice?;
        match voice.next().await {
            Ok(told) => {
                let ended = told.iter().any(|told| matches!(told, Told::Done(_)));
                let lines: String = told.into_iter().map(|told| format!("{}\n", voice.object(told))).collect();
                Some((Ok(lines), (!ended).then_some(voice)))
            }
            Err(error) => Some((Ok(format!("{}\n", json!({ "error": error.to_string() }))), None)),
        }
    })
}

async fn whole(mut voice: Voice) -> Result<Value, ApiError> {
    let (mut words, mut thinking, mut calls) = (String::new(), String::new(), Vec::new());
    loop {
        for told in voice.next().await? {
            match told {
                Told::Words(text) => words.push_str(&text),
                Told::Thinking(text) => thinking.push_str(&text),
                Told::Call(call) => calls.push(call),
                Told::Done(done) => {
                    let mut object = voice.form.object(&voice.model, &words, &thinking, calls);
                    for (name, value) in done.as_object().into_iter().flatten() {
                        if !["message", "response"].contains(&name.as_str()) {
                            object[name] = value.clone();
                        }
                    }
                    return Ok(object);
                }
            }
        }
    }
}
