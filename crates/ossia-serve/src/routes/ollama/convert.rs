//! Ollama's requests as chat requests. Its messages know calls by their order rather than by ids: a tool's message
//! answers the first call before it that has no answer yet.

use std::collections::VecDeque;

use serde_json::Value;

use crate::error::ApiError;
use crate::types::chat::{CallIn, ChatMessage, ChatRequest, FunctionCallIn, NamedSchema, ResponseFormat};
use crate::types::fields::TextOr;
use crate::types::ollama::{OllamaChat, OllamaGenerate, OllamaMessage, OllamaOptions};

/// Reads /api/chat's body.
pub fn chat(request: OllamaChat) -> Result<ChatRequest, ApiError> {
    let mut calls = VecDeque::new();
    let messages = request.messages.into_iter().flatten().enumerate();
    let messages = messages.map(|(index, message)| self::message(message, index, &mut calls));
    let base = ChatRequest {
        model: request.model,
        messages: messages.collect::<Result<_, _>>()?,
        tools: request.tools,
        response_format: format(request.format)?,
        reasoning_effort: effort(request.think)?,
        ..ChatRequest::default()
    };
    Ok(with_options(base, request.options))
}

/// Reads /api/generate's body.
pub fn generate(request: OllamaGenerate) -> Result<ChatRequest, ApiError> {
    if request.suffix.is_some_and(|suffix| !suffix.is_empty()) {
        return Err(ApiError::unsupported("suffix", "suffix: gpt-oss was not taught to fill a gap"));
    }
    if request.raw == Some(true) {
        return Err(ApiError::unsupported("raw", "raw: not supported here; /v1/completions continues plain text"));
    }
    no_images(request.images.as_deref(), || "images".to_owned())?;
    let say = |role: &str, text: String| ChatMessage {
        role: role.to_owned(),
        content: Some(TextOr::Text(text)),
        ..ChatMessage::default()
    };
    let system = request.system.filter(|system| !system.is_empty()).map(|system| say("system", system));
    let base = ChatRequest {
        model: request.model,
        messages: system.into_iter().chain([say("user", request.prompt.unwrap_or_default())]).collect(),
        response_format: format(request.format)?,
        reasoning_effort: effort(request.think)?,
        ..ChatRequest::default()
    };
    Ok(with_options(base, request.options))
}

fn message(message: OllamaMessage, index: usize, open: &mut VecDeque<String>) -> Result<ChatMessage, ApiError> {
    no_images(message.images.as_deref(), || format!("messages[{index}].images"))?;
    let calls = message.tool_calls.unwrap_or_default().into_iter().enumerate();
    let calls: Vec<CallIn> = calls
        .map(|(number, call)| {
            let id = call.id.filter(|id| !id.is_empty()).unwrap_or_else(|| format!("{index}.{number}"));
            let function = FunctionCallIn { name: call.function.name, arguments: call.function.arguments };
            CallIn { id: Some(id), function: Some(function), custom: None }
        })
        .collect();
    open.extend(calls.iter().filter_map(|call| call.id.clone()));
    let tool_call_id = match message.role.as_str() {
        "tool" => {
            let answered = message.tool_call_id.filter(|id| open.contains(id)).or_else(|| open.front().cloned());
            open.retain(|id| Some(id) != answered.as_ref());
            answered
        }
        _ => None,
    };
    Ok(ChatMessage {
        role: message.role,
        content: message.content.map(TextOr::Text),
        name: message.tool_name.or(message.name),
        thinking: message.thinking,
        tool_calls: (!calls.is_empty()).then_some(calls),
        tool_call_id,
        ..ChatMessage::default()
    })
}

fn no_images(images: Option<&[Value]>, param: impl Fn() -> String) -> Result<(), ApiError> {
    match images.is_none_or(<[Value]>::is_empty) {
        true => Ok(()),
        false => Err(ApiError::unsupported(param(), "this model reads text only: leave the images out")),
    }
}

/// "json", a schema, or nothing.
fn format(format: Option<Value>) -> Result<Option<ResponseFormat>, ApiError> {
    let of = |kind: &str, json_schema| Ok(Some(ResponseFormat { kind: kind.to_owned(), json_schema }));
    match format {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(word)) if word.is_empty() => Ok(None),
        Some(Value::String(word)) if word == "json" => of("json_object", None),
        Some(schema @ Value::Object(_)) => {
            let (name, description, strict) = (None, None, None);
            of("json_schema", Some(NamedSchema { name, description, schema: Some(schema), strict }))
        }
        Some(_) => Err(ApiError::invalid("format", "format: wanted \"json\" or a JSON schema")),
    }
}

/// gpt-oss always thinks a little: false is the least of it.
fn effort(think: Option<Value>) -> Result<Option<String>, ApiError> {
    match think {
        None | Some(Value::Null | Value::Bool(true)) => Ok(None),
        Some(Value::Bool(false)) => Ok(Some("none".to_owned())),
        Some(Value::String(word)) => Ok(Some(word)),
        Some(_) => Err(ApiError::invalid("think", "think: wanted true, false, \"low\", \"medium\" or \"high\"")),
    }
}

fn with_options(request: ChatRequest, options: Option<OllamaOptions>) -> ChatRequest {
    let options = options.unwrap_or_default();
    ChatRequest {
        temperature: options.temperature,
        top_p: options.top_p,
        top_k: options.top_k,
        min_p: options.min_p,
        presence_penalty: options.presence_penalty,
        frequency_penalty: options.frequency_penalty,
        repetition_penalty: options.repeat_penalty,
        seed: options.seed,
        max_tokens: options.num_predict.filter(|&limit| limit > 0),
        stop: options.stop,
        ..request
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::chat;

    #[test]
    fn results_find_their_calls_by_order() {
        let body = json!({ "messages": [
            { "role": "assistant", "tool_calls": [
                { "function": { "name": "a", "arguments": { "x": 1 } } }, { "function": { "name": "b" } }] },
            { "role": "tool", "content": "of a" },
            { "role": "tool", "tool_name": "b", "content": "of b" },
            { "role": "tool", "content": "of nothing" },
        ] });
        let request = chat(serde_json::from_value(body).unwrap()).unwrap();
        let ids: Vec<Option<&str>> = request.messages.iter().map(|m| m.tool_call_id.as_deref()).collect();
        assert_eq!(ids, [None, Some("0.0"), Some("0.1"), None]);
    }

    #[test]
    fn options_and_words() {
        for (limit, wanted) in [(json!(0), None), (json!(-2), None), (json!(7.0), Some(7)), (json!(null), None)] {
            let body = json!({ "messages": null, "options": { "num_predict": limit, "top_k": 40.0 } });
            assert_eq!(chat(serde_json::from_value(body).unwrap()).unwrap().max_tokens, wanted, "{limit}");
        }
        let body = json!({ "messages": [], "think": "high", "format": "json", "options": {
            "num_predict": -1, "num_ctx": 8192, "temperature": 0.5, "stop": ["x"] } });
        let request = chat(serde_json::from_value(body).unwrap()).unwrap();
        assert_eq!((request.max_tokens, request.temperature), (None, Some(0.5)));
        assert_eq!(request.reasoning_effort.as_deref(), Some("high"));
        assert_eq!(request.response_format.unwrap().kind, "json_object");
        for wrong in [json!({ "format": 7 }), json!({ "think": 7 })] {
            assert!(chat(serde_json::from_value(wrong).unwrap()).is_err());
        }
    }
}
