//! POST /v1/chat/completions over a real connection, with a model that speaks harmony.

use crate::common::TestServer;
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

fn weather() -> Value {
    json!({ "type": "function", "function": {
        "name": "get_weather", "description": "Weather of a city", "parameters": { "type": "object",
            "properties": { "city": { "type": "string" }, "unit": { "type": "string", "enum": ["celsius", "fahrenheit"] } },
            "required": ["city", "unit"] },
    } })
}

fn asked() -> Value {
    json!({ "messages": [{ "role": "user", "content": "What is the weather in Paris in celsius?" }], "tools": [weather()] })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_loop() {
    let server = TestServer::start().await;
    let first = server.chat(asked()).await.json();
    let choice = &first["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls", "{first:#}");
    let message = choice["message"].clone();
    let call = &message["tool_calls"][0];
    assert_eq!((&call["type"], &call["function"]["name"]), (&json!("function"), &json!("get_weather")));
    let arguments: Value = serde_json::from_str(call["function"]["arguments"].as_str().unwrap()).unwrap();
    assert_eq!(arguments, json!({ "city": "Paris", "unit": "celsius" }));
    assert!(message["content"].is_null() && message["reasoning"].is_string(), "{message:#}");

    let streamed = server.chat(with(asked(), json!({ "stream": true }))).await.events();
    let heard = heard(&streamed, 0);
    assert_eq!(heard.calls, [("get_weather".to_owned(), call["function"]["arguments"].as_str().unwrap().to_owned())]);
    assert_eq!((heard.finish.as_deref(), heard.content.as_str()), (Some("tool_calls"), ""));

    // The result comes back: with the reasoning by each of its names, and without it, which the server remembers.
    let reasoning = message["reasoning"].clone();
    let result =
        json!({ "role": "tool", "tool_call_id": call["id"], "content": r#"{"temperature":21,"sky":"sunny"}"# });
    let mut answers = Vec::new();
    // Open WebUI's way is in tags before the content.
    let tagged = json!(format!("<think>{}\n</think>\n", reasoning.as_str().unwrap()));
    for name in ["reasoning", "reasoning_content", "thinking", "nothing", "content"] {
        let mut said = message.clone();
        said.as_object_mut().unwrap().remove("reasoning");
        said[name] = if name == "content" { tagged.clone() } else { reasoning.clone() };
        if name == "nothing" {
            // LangChain's way is without reasoning, and with the arguments written anew.
            said["tool_calls"][0]["function"]["arguments"] = json!(r#"{ "city": "Paris", "unit": "celsius" }"#);
        }
        let mut body = asked();
        body["messages"].as_array_mut().unwrap().extend([said, result.clone()]);
        let answer = server.chat(body).await.json();
        assert!(answer["choices"][0]["message"]["content"].as_str().unwrap().contains("21"), "{answer:#}");
        answers.push((answer["choices"][0].clone(), answer["usage"]["prompt_tokens"].clone()));
    }
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "the same prompt, the same answer: {answers:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn choice_and_format_are_kept_to() {
    let server = TestServer::start().await;
    let hello = json!([{ "role": "user", "content": "Hello!" }]);
    // Free thinking and free text may go on for ever; a call without them comes to its end.
    let mut called = 0;
    for choice in [json!("required"), json!({ "type": "function", "function": { "name": "get_weather" } })] {
        for temperature in [0, 2] {
            let fields = json!({ "messages": hello, "tool_choice": choice, "temperature": temperature, "seed": 5,
                "max_tokens": 400 });
            let answer = server.chat(with(asked(), fields)).await.json();
            let choice = &answer["choices"][0];
            if choice["finish_reason"] != "length" {
                assert_eq!(choice["finish_reason"], "tool_calls", "{answer:#}");
                assert_eq!(choice["message"]["tool_calls"][0]["function"]["name"], "get_weather");
                called += 1;
            }
        }
    }
    assert!(called > 0, "no call came to its end");
    let answer = server.chat(with(asked(), json!({ "tool_choice": "none" }))).await.json();
    assert_eq!(answer["choices"][0]["finish_reason"], "stop", "{answer:#}");

    let schema = json!({ "type": "object", "properties": { "greeting": { "type": "string", "maxLength": 20 },
        "n": { "type": "integer", "minimum": 0, "maximum": 9 } }, "required": ["greeting", "n"],
        "additionalProperties": false });
    let format = json!({ "type": "json_schema", "json_schema": { "name": "hello", "strict": true, "schema": schema } });
    for seed in 0..4 {
        let fields = json!({ "response_format": format, "reasoning_effort": "none", "temperature": 1.5, "seed": seed,
            "max_tokens": 600 });
        let answer = server.chat(with(greeting(), fields)).await.json();
        let choice = &answer["choices"][0];
        assert_eq!(choice["finish_reason"], "stop", "{answer:#}");
        let content = choice["message"]["content"].as_str().unwrap();
        let value: Value = serde_json::from_str(content).unwrap_or_else(|e| panic!("{e}: {content}"));
        assert!(value["greeting"].is_string() && value["n"].as_u64().unwrap() < 10, "{value}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_requests_name_the_field() {
    let server = TestServer::start().await;
    let image = json!([{ "role": "user", "content": [{ "type": "image_url", "image_url": { "url": "x" } }] }]);
    for (fields, status, param, code) in [
        (json!({ "model": "gpt-4o" }), 404, "model", "model_not_found"),
        (json!({ "messages": [] }), 400, "messages", "invalid_value"),
        (json!({ "messages": "x" }), 400, "messages", "invalid_value"),
        (json!({ "messages": [{ "role": "user", "content": 7 }] }), 400, "messages[0].content", "invalid_value"),
        (json!({ "messages": [{ "role": "wizard", "content": "x" }] }), 400, "messages[0].role", "invalid_value"),
        (json!({ "messages": [{ "content": "x" }] }), 400, "messages[0].role", "invalid_value"),
        (json!({ "messages": image }), 400, "messages[0].content[0]", "unsupported_value"),
        (
            json!({ "messages": [{ "role": "tool", "tool_call_id": "c", "content": "x" }] }),
            400,
            "messages[0].tool_call_id",
            "invalid_value",
        ),
        (json!({ "temperature": 2.1 }), 400, "temperature", "invalid_value"),
        (json!({ "temperature": "hot" }), 400, "temperature", "invalid_value"),
        (json!({ "n": 17 }), 400, "n", "invalid_value"),
        (json!({ "n": 1.5 }), 400, "n", "invalid_value"),
        (json!({ "max_tokens": 0 }), 400, "max_tokens", "invalid_value"),
        (json!({ "max_completion_tokens": -1 }), 400, "max_completion_tokens", "invalid_value"),
        (json!({ "top_logprobs": 3 }), 400, "top_logprobs", "invalid_value"),
        (json!({ "logprobs": true, "top_logprobs": 21 }), 400, "top_logprobs", "invalid_value"),
        (json!({ "logit_bias": { "1000000": 1 } }), 400, "logit_bias", "invalid_value"),
        (json!({ "stop": ["a", "b", "c", "d", "e"] }), 400, "stop", "invalid_value"),
        (json!({ "reasoning_effort": "huge" }), 400, "reasoning_effort", "invalid_value"),
        (json!({ "stream_options": {} }), 400, "stream_options", "invalid_value"),
        (
            json!({ "messages": [{ "role": "user", "content": "word ".repeat(3000) }] }),
            400,
            "messages",
            "context_length_exceeded",
        ),
        (
            json!({ "response_format": { "type": "json_schema", "json_schema": { "schema": { "type": "lion" } } } }),
            400,
            "response_format",
            "invalid_value",
        ),
    ] {
        let answer = server.chat(with(greeting(), fields.clone())).await;
        let error = &answer.json()["error"];
        assert_eq!((answer.status, &error["param"], &error["code"]), (status, &json!(param), &json!(code)), "{error}");
        assert_eq!(error["type"], "invalid_request_error");
        assert!(error["message"].as_str().unwrap().len() > 10, "{error}");
    }
    let long = server.chat(json!({ "messages": [{ "role": "user", "content": "word ".repeat(3000) }] })).await.json();
    let message = long["error"]["message"].as_str().unwrap();
    let known = ["model's maximum context length is", "exceeds the context window", "prompt is too long"];
    for part in known.into_iter().chain([crate::common::CONTEXT.to_string().as_str()]) {
        assert!(message.contains(part), "{part} in {message}");
    }
    server.wait_idle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_clients_send_besides_is_passed_over() {
    let server = TestServer::start().await;
    let fields = json!({ "user": "me", "store": false, "metadata": { "a": "b" }, "service_tier": "auto", "zzz": [[1]],
        "logit_bias": null, "stop": null, "tools": null, "max_tokens": 5, "max_completion_tokens": i64::MAX,
        "seed": i64::MIN, "top_k": -1, "reasoning": { "effort": "low" }, "parallel_tool_calls": false,
        "messages": [{ "role": "system", "content": "You are brief." }, { "role": "developer", "content": "Be kind." },
            { "role": "user", "name": "me", "content": [{ "type": "text", "text": "Hel" }, { "type": "text", "text": "lo!" }] },
            { "role": "assistant", "content": "Hi", "refusal": null, "annotations": [], "audio": null },
            { "role": "system", "content": "Now be long." }, { "role": "user", "content": "Hello!" }] });
    let answer = server.chat(with(greeting(), fields)).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
}
