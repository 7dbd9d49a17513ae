//! The answer as one object.

use futures_util::{StreamExt, future};

use super::{Begun, Piece, Speaker, remember};
use crate::error::ApiError;
use crate::turn::{FinishReason, TurnStream, Usage};
use crate::types::chat_answer::{
    AnswerMessage, CallOut, ChatChoice, ChatCompletion, CustomOut, FunctionOut, Logprobs, UsageOut, finish_word,
};

/// Waits for all choices.
pub async fn answer(begun: Begun) -> Result<ChatCompletion, ApiError> {
    let Begun { id, created, model, fingerprint, streams, speakers, wants_logprobs, date, identity, app } = begun;
    let each = streams.into_iter().zip(speakers).enumerate();
    let each = each.map(|(index, (stream, speaker))| choice(index, stream, speaker, wants_logprobs));
    let (mut choices, mut usages) = (Vec::new(), Vec::new());
    for done in future::try_join_all(each).await? {
        let (choice, usage, speaker) = done;
        remember(&app, &identity, speaker, &date);
        choices.push(choice);
        usages.push(usage);
    }
    Ok(ChatCompletion {
        id,
        object: "chat.completion",
        created,
        model,
        system_fingerprint: fingerprint,
        choices,
        usage: UsageOut::of(&usages),
    })
}

async fn choice(
    index: usize,
    mut stream: TurnStream,
    mut speaker: Speaker,
    wants_logprobs: bool,
) -> Result<(ChatChoice, Usage, Speaker), ApiError> {
    let (mut words, mut thinking, mut calls) = (String::new(), String::new(), Vec::new());
    let mut logprobs = Logprobs::default();
    while let Some(event) = stream.next().await {
        match speaker.hear(event)? {
            None => {}
            Some(Piece::Thinking(text, of)) => {
                thinking.push_str(&text);
                logprobs.reasoning.extend(of.into_iter().map(Into::into));
            }
            Some(Piece::Words(text, of)) => {
                words.push_str(&text);
                logprobs.content.extend(of.into_iter().map(Into::into));
            }
            Some(Piece::Call { id, name, is_custom, .. }) => calls.push(match is_custom {
                true => CallOut::Custom { id, custom: CustomOut { name, input: String::new() } },
                false => CallOut::Function { id, function: FunctionOut { name, arguments: String::new() } },
            }),
            Some(Piece::Arguments(text)) => match calls.last_mut() {
                Some(CallOut::Function { function, .. }) => function.arguments.push_str(&text),
                Some(CallOut::Custom { custom, .. }) => custom.input.push_str(&text),
                None => {}
            },
            Some(Piece::Done(finish, usage)) => {
                let finish_reason = finish_word(&finish).ok_or_else(|| failure(&finish))?;
                let message = AnswerMessage {
                    role: "assistant",
                    content: (!words.is_empty() || calls.is_empty()).then_some(words),
                    refusal: None,
                    reasoning: (!thinking.is_empty()).then_some(thinking),
                    tool_calls: calls,
                };
                let logprobs = wants_logprobs.then_some(logprobs);
                return Ok((ChatChoice { index, message, logprobs, finish_reason }, usage, speaker));
            }
        }
    }
    Err(ApiError::Internal)
}

/// What a client is told of a turn that did not end well.
pub fn failure(finish: &FinishReason) -> ApiError {
    match finish {
        FinishReason::Cancelled => ApiError::Draining,
        _ => {
            ApiError::Generation("it could not go on, and the server's log says why. Other requests are not affected.")
        }
    }
}
