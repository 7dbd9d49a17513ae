//! Ollama's routes over a real connection.

use crate::common::TestServer;
use serde_json::{Value, json};

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_programs_ask_before_they_begin() {
    let server = TestServer::start().await;
    assert!(server.send("GET", "/api/version", None).await.json()["version"].is_string());
    let tags = server.send("GET", "/api/tags", None).await.json();
    assert_eq!((&tags["models"][0]["name"], &tags["models"][1]["name"]), (&json!("nano"), &json!("gpt-oss:20b")));
    assert_eq!(tags["models"][0]["details"]["family"], "gptoss");
    let show = server.send("POST", "/api/show", Some(&json!({ "model": "nano:latest" }))).await.json();
    assert_eq!(show["model_info"]["gptoss.context_length"], crate::common::CONTEXT);
    let pull = server.send("POST", "/api/pull", Some(&json!({ "name": "gpt-oss:20b" }))).await;
    assert_eq!(lines(&pull.text).last().unwrap()["status"], "success");
    let missing = server.send("POST", "/api/pull", Some(&json!({ "model": "llama3" }))).await;
    assert_eq!(missing.status, 404);
    assert!(missing.json()["error"].as_str().unwrap().contains("llama3"));
    for (status, method, path) in [(400, "POST", "/api/chat"), (404, "POST", "/api/embed"), (405, "GET", "/api/chat")] {
        let wrong = server.send(method, path, Some(&json!({ "messages": 7 }))).await;
        assert!(wrong.status == status && wrong.json()["error"].is_string(), "{path}: {}", wrong.text);
    }
    let stranger = server.send_as(None, "GET", "/api/tags", None).await;
    assert!(stranger.status == 401 && stranger.json()["error"].is_string(), "{}", stranger.text);
    assert_eq!(stranger.headers["www-authenticate"], "Bearer");
    let running = server.send("GET", "/api/ps", None).await.json();
    assert_eq!((&running["models"][0]["name"], &running["models"][1]), (&json!("nano"), &Value::Null));
}

#[tokio::test(flavor = "multi_thread")]
async fn chat_and_generate() {
    let server = TestServer::start().await;
    let openai =
        server.chat(json!({ "messages": [{ "role": "user", "content": "What is 12 plus 30?" }] })).await.json();
    let message = &openai["choices"][0]["message"];
    let body = json!({ "model": "nano", "messages": [{ "role": "user", "content": "What is 12 plus 30?" }] });
    let streamed = server.send("POST", "/api/chat", Some(&body)).await;
    assert_eq!(streamed.headers["content-type"], "application/x-ndjson");
    let streamed = lines(&streamed.text);
    let told = |name: &str| streamed.iter().filter_map(|line| line["message"][name].as_str()).collect::<String>();
    assert_eq!(
        (json!(told("content")), json!(told("thinking"))),
        (message["content"].clone(), message["reasoning"].clone())
    );
    let last = streamed.last().unwrap();
    assert_eq!((&last["done"], &last["done_reason"]), (&json!(true), &json!("stop")));
    assert_eq!(last["prompt_eval_count"], openai["usage"]["prompt_tokens"]);
    let body = json!({ "model": "nano", "prompt": "What is 12 plus 30?", "stream": false });
    let whole = server.send("POST", "/api/generate", Some(&body)).await.json();
    assert_eq!((&whole["response"], &whole["thinking"]), (&message["content"], &message["reasoning"]));
    assert_eq!((&whole["done"], &whole["eval_count"]), (&json!(true), &openai["usage"]["completion_tokens"]));
    for (path, body) in [
        ("/api/generate", json!({ "model": "nano" })),
        ("/api/generate", json!({ "prompt": null, "keep_alive": 0 })),
        ("/api/chat", json!({ "messages": null })),
    ] {
        let loaded = server.send("POST", path, Some(&body)).await.json();
        assert_eq!(loaded["done_reason"], "load", "{path} {body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_loop_without_ids() {
    let server = TestServer::start().await;
    let tool = json!({ "type": "function", "function": { "name": "get_weather", "description": "Weather of a city",
        "parameters": { "type": "object", "properties": { "city": { "type": "string" },
            "unit": { "type": "string", "enum": ["celsius", "fahrenheit"] } }, "required": ["city", "unit"] } } });
    let ask = json!({ "role": "user", "content": "What is the weather in Paris in celsius?" });
    let mut body = json!({ "model": "nano", "messages": [ask], "tools": [tool], "stream": false });
    let first = server.send("POST", "/api/chat", Some(&body)).await.json();
    let mut message = first["message"].clone();
    let call = message["tool_calls"][0]["function"].clone();
    assert_eq!((&call["name"], &call["arguments"]["city"]), (&json!("get_weather"), &json!("Paris")), "{first:#}");
    message["tool_calls"][0].as_object_mut().unwrap().remove("id");
    let result =
        json!({ "role": "tool", "tool_name": "get_weather", "content": r#"{"temperature":21,"sky":"sunny"}"# });
    body["messages"].as_array_mut().unwrap().extend([message, result]);
    let second = server.send("POST", "/api/chat", Some(&body)).await.json();
    assert!(second["message"]["content"].as_str().unwrap().contains("21"), "{second:#}");
}
