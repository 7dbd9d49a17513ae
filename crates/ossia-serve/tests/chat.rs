//! POST /v1/chat/completions over a real connection, with a model that speaks harmony.

mod common;

use common::TestServer;
use serde_json::{Value, json};

fn greeting() -> Value {
    json!({ "model": "nano", "messages": [{ "role": "user", "content": "Hello!" }] })
}

fn with(mut body: Value, fields: Value) -> Value {
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    body
}

/// What a client makes of the chunks of choice `index`.
#[derive(Debug, Default, PartialEq)]
struct Heard {
    content: String,
    reasoning: String,
    calls: Vec<(String, String)>,
    finish: Option<String>,
    logprobs: Vec<Value>,
}

fn heard(events: &[Value], index: u64) -> Heard {
    let mut heard = Heard::default();
    let choices = events.iter().flat_map(|event| event["choices"].as_array().unwrap());
    for choice in choices.filter(|choice| choice["index"] == index) {
        assert_eq!(heard.finish, None, "nothing after the end");
        let delta = &choice["delta"];
        heard.content.push_str(delta["content"].as_str().unwrap_or_default());
        heard.reasoning.push_str(delta["reasoning"].as_str().unwrap_or_default());
        for call in delta["tool_calls"].as_array().into_iter().flatten() {
            if let Some(name) = call["function"]["name"].as_str() {
                assert_eq!(call["index"], heard.calls.len());
                assert!(call["id"].as_str().unwrap().starts_with("call_") && call["type"] == "function");
                heard.calls.push((name.to_owned(), String::new()));
            }
            heard.calls.last_mut().unwrap().1.push_str(call["function"]["arguments"].as_str().unwrap());
        }
        heard.logprobs.extend(choice["logprobs"]["content"].as_array().into_iter().flatten().cloned());
        heard.finish = choice["finish_reason"].as_str().map(str::to_owned);
    }
    heard
}

#[tokio::test(flavor = "multi_thread")]
async fn whole_and_streamed_are_the_same() {
    let server = TestServer::start().await;
    for fields in [
        json!({}),
        json!({ "temperature": 1, "seed": 7 }),
        json!({ "n": 3, "temperature": 1, "seed": -1, "logprobs": true, "top_logprobs": 2 }),
        json!({ "max_tokens": 12 }),
        json!({ "stop": [" "], "temperature": 1, "seed": 3 }),
    ] {
        let body = with(greeting(), fields.clone());
        let whole = server.chat(body.clone()).await;
        assert_eq!(whole.status, 200, "{}", whole.text);
        let whole = whole.json();
        let streamed = with(body, json!({ "stream": true, "stream_options": { "include_usage": true } }));
        let events = server.chat(streamed).await.events();
        assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
        let (last, rest) = events.split_last().unwrap();
        assert_eq!(last["choices"], json!([]));
        assert!(rest.iter().all(|event| event["usage"].is_null() && event["id"] == last["id"]));
        for part in ["completion_tokens", "prompt_tokens", "total_tokens"] {
            assert_eq!(last["usage"][part], whole["usage"][part], "{fields}");
        }
        for choice in whole["choices"].as_array().unwrap() {
            let heard = heard(rest, choice["index"].as_u64().unwrap());
            assert_eq!(heard.content, choice["message"]["content"].as_str().unwrap(), "{fields}");
            assert_eq!(heard.reasoning, choice["message"]["reasoning"].as_str().unwrap_or_default());
            assert_eq!(heard.finish.as_deref(), choice["finish_reason"].as_str());
            assert_eq!(heard.logprobs, *choice["logprobs"]["content"].as_array().unwrap_or(&Vec::new()));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_have_everything_that_clients_read() {
    let server = TestServer::start().await;
    let answer = server.chat(with(greeting(), json!({ "model": "gpt-oss:20b" }))).await.json();
    println!("{answer:#}");
    assert_eq!((&answer["object"], &answer["model"]), (&json!("chat.completion"), &json!("gpt-oss:20b")));
    assert!(answer["id"].as_str().unwrap().starts_with("chatcmpl-"));
    let message = &answer["choices"][0]["message"];
    assert_eq!(message["role"], "assistant");
    assert!(!message["content"].as_str().unwrap().is_empty());
    assert!(message.get("reasoning_content").is_none() && message.get("tool_calls").is_none());
    let usage = &answer["usage"];
    assert_eq!(
        usage["total_tokens"].as_u64().unwrap(),
        usage["prompt_tokens"].as_u64().unwrap() + usage["completion_tokens"].as_u64().unwrap()
    );
    assert!(usage["prompt_tokens_details"]["cached_tokens"].is_u64());
    assert!(usage["completion_tokens_details"]["reasoning_tokens"].is_u64());
}
