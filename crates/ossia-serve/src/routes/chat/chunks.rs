//! The answer as server-sent events: a chunk with the role, chunks with what is new, one with the reason of the end, then
//! the usage if it was asked for, and `[DONE]`.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_core::Stream;
use serde::Serialize;

use super::whole::failure;
use super::{Begun, Piece, Speaker, remember};
use crate::error::ApiError;
use crate::turn::{TokenLogprob, TurnStream, Usage};
use crate::types::chat_answer::{
    CallDelta, ChatChunk, ChunkChoice, CustomDelta, Delta, FunctionDelta, Logprobs, UsageOut, finish_word,
};

/// After so long without an event a comment is sent, so that nobody on the way takes the connection for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The response.
pub fn response(begun: Begun, wants_usage: bool) -> Response {
    let choices = begun.streams.len();
    let mut chunks = Chunks {
        head: ChatChunk {
            id: begun.id,
            object: "chat.completion.chunk",
            created: begun.created,
            model: begun.model,
            system_fingerprint: begun.fingerprint,
            choices: Vec::new(),
            usage: wants_usage.then_some(None),
        },
        voices: begun.streams.into_iter().zip(begun.speakers).map(|voice| Some(Voice::new(voice))).collect(),
        wants_logprobs: begun.wants_logprobs,
        usages: Vec::new(),
        ready: VecDeque::new(),
        ended: false,
        keep: Keep { date: begun.date, identity: begun.identity, app: begun.app },
    };
    for index in 0..choices {
        chunks.say(index, Delta { role: Some("assistant"), content: Some(String::new()), ..Delta::default() });
    }
    sse(chunks)
}

/// A stream of events as a response, which no proxy is to collect.
pub fn sse(events: impl Stream<Item = Result<Event, Infallible>> + Send + 'static) -> Response {
    let mut response = Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response();
    response.headers_mut().insert("x-accel-buffering", axum::http::HeaderValue::from_static("no"));
    response
}

struct Chunks {
    head: ChatChunk,
    /// One for each choice, until it has ended.
    voices: Vec<Option<Voice>>,
    wants_logprobs: bool,
    usages: Vec<Usage>,
    ready: VecDeque<Event>,
    ended: bool,
    keep: Keep,
}

struct Voice {
    stream: TurnStream,
    speaker: Speaker,
    /// The call that has begun, and whether it takes text.
    call: (usize, bool),
}

/// What remembering needs.
struct Keep {
    date: String,
    identity: crate::auth::Identity,
    app: crate::app::Shared,
}

impl Voice {
    fn new((stream, speaker): (TurnStream, Speaker)) -> Self {
        Self { stream, speaker, call: (0, false) }
    }
}

impl Chunks {
    fn data(&mut self, data: &impl Serialize) {
        // Our own types always become JSON.
        if let Ok(event) = Event::default().json_data(data) {
            self.ready.push_back(event);
        }
    }

    fn chunk(&mut self, choice: ChunkChoice) {
        let chunk = ChatChunk { choices: vec![choice], ..self.head.clone() };
        self.data(&chunk);
    }

    fn say(&mut self, index: usize, delta: Delta) {
        self.chunk(ChunkChoice { index, delta, logprobs: None, finish_reason: None });
    }

    fn hear(&mut self, index: usize, piece: Piece) {
        match piece {
            Piece::Thinking(text, of) => {
                let logprobs = |of| Logprobs { reasoning: of, ..Logprobs::default() };
                self.text(index, Delta { reasoning: Some(text), ..Delta::default() }, of, logprobs);
            }
            Piece::Words(text, of) => {
                let logprobs = |of| Logprobs { content: of, ..Logprobs::default() };
                self.text(index, Delta { content: Some(text), ..Delta::default() }, of, logprobs);
            }
            Piece::Call { index: number, id, name, is_custom } => {
                if let Some(Some(voice)) = self.voices.get_mut(index) {
                    voice.call = (number, is_custom);
                }
                let mut call = call_delta(number, is_custom, Some(name), String::new());
                (call.id, call.kind) = (Some(id), Some(if is_custom { "custom" } else { "function" }));
                self.say(index, Delta { tool_calls: vec![call], ..Delta::default() });
            }
            Piece::Arguments(text) => {
                let (number, is_custom) =
                    self.voices.get(index).and_then(Option::as_ref).map_or((0, false), |v| v.call);
                let call = call_delta(number, is_custom, None, text);
                self.say(index, Delta { tool_calls: vec![call], ..Delta::default() });
            }
            Piece::Done(finish, usage) => match finish_word(&finish) {
                Some(word) => self.finish(index, word, usage),
                None => self.fail(&failure(&finish)),
            },
        }
    }

    fn text(
        &mut self,
        index: usize,
        delta: Delta,
        of: Vec<TokenLogprob>,
        logprobs: impl Fn(Vec<crate::types::chat_answer::LogprobOut>) -> Logprobs,
    ) {
        let of = of.into_iter().map(Into::into).collect();
        let logprobs = self.wants_logprobs.then(|| logprobs(of));
        self.chunk(ChunkChoice { index, delta, logprobs, finish_reason: None });
    }

    fn finish(&mut self, index: usize, word: &'static str, usage: Usage) {
        self.chunk(ChunkChoice { index, delta: Delta::default(), logprobs: None, finish_reason: Some(word) });
        self.usages.push(usage);
        if let Some(voice) = self.voices.get_mut(index).and_then(Option::take) {
            remember(&self.keep.app, &self.keep.identity, voice.speaker, &self.keep.date);
        }
        if self.voices.iter().all(Option::is_none) {
            if self.head.usage.is_some() {
                let chunk = ChatChunk { usage: Some(Some(UsageOut::of(&self.usages))), ..self.head.clone() };
                self.data(&chunk);
            }
            self.ready.push_back(Event::default().data("[DONE]"));
            self.ended = true;
        }
    }

    /// Ends all choices with an error: the status has been sent long ago.
    fn fail(&mut self, error: &ApiError) {
        self.data(&error.body());
        self.voices.clear();
        self.ended = true;
    }
}

fn call_delta(index: usize, is_custom: bool, name: Option<String>, text: String) -> CallDelta {
    let (function, custom) = match is_custom {
        true => (None, Some(CustomDelta { name, input: text })),
        false => (Some(FunctionDelta { name, arguments: text }), None),
    };
    CallDelta { index, id: None, kind: None, function, custom }
}

impl Stream for Chunks {
    type Item = Result<Event, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(event)));
            }
            if self.ended {
                return Poll::Ready(None);
            }
            let mut heard = Vec::new();
            for (index, voice) in self.voices.iter_mut().enumerate() {
                let Some(voice) = voice else { continue };
                if let Poll::Ready(event) = Pin::new(&mut voice.stream).poll_next(cx) {
                    heard.push((index, event.map_or(Err(ApiError::Internal), |event| voice.speaker.hear(event))));
                }
            }
            if heard.is_empty() {
                return Poll::Pending;
            }
            for (index, piece) in heard {
                match piece {
                    Ok(Some(piece)) => self.hear(index, piece),
                    Ok(None) => {}
                    Err(error) => self.fail(&error),
                }
            }
        }
    }
}
