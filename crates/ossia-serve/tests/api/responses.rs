//! The Responses API over the nano model, as raw clients see it.

use crate::common::{Answer, TestServer};
use ossia_serve::auth::Scope;
use ossia_serve::keys::NewKey;
use serde_json::{Value, json};

fn tools() -> Value {
    json!([
        { "type": "function", "name": "get_weather", "description": "The weather in a city.", "strict": true,
            "parameters": { "type": "object", "properties": { "city": { "type": "string", "enum": ["Rome", "Oslo"] } },
                "required": ["city"], "additionalProperties": false } },
        { "type": "web_search", "external_web_access": true },
    ])
}

async fn post(server: &TestServer, body: Value) -> Answer {
    server.send("POST", "/v1/responses", Some(&body)).await
}

/// A response that must be there.
async fn made(server: &TestServer, body: Value) -> Value {
    let answer = post(server, body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()
}

async fn get(server: &TestServer, path: &str) -> Answer {
    server.send("GET", path, None).await
}

/// The events of a stream, whose names and data must agree and whose numbers must begin at `from` and go up by one.
fn events(answer: &Answer, from: u64) -> Vec<Value> {
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert!(answer.headers["content-type"].starts_with("text/event-stream"));
    let mut events = Vec::new();
    for block in answer.text.split("\n\n").filter(|block| !block.trim().is_empty()) {
        let (name, data) = block.split_once('\n').unwrap();
        let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(name, format!("event: {}", data["type"].as_str().unwrap()));
        assert_eq!(data["sequence_number"], from + events.len() as u64);
        events.push(data);
    }
    events
}

fn kinds(output: &Value) -> Vec<&str> {
    output.as_array().unwrap().iter().map(|item| item["type"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn made_read_listed_and_deleted() {
    let server = TestServer::start().await;
    let response = made(&server, json!({ "model": "nano", "input": "What is 2 + 3?", "max_output_tokens": 64 })).await;
    let id = response["id"].as_str().unwrap();
    assert_eq!(response["object"], "response");
    assert!(["completed", "incomplete"].contains(&response["status"].as_str().unwrap()));
    assert!(response["usage"]["output_tokens"].as_u64().unwrap() > 0);
    assert_eq!(get(&server, &format!("/v1/responses/{id}")).await.json(), response);
    let items = get(&server, &format!("/v1/responses/{id}/input_items")).await.json();
    assert_eq!(items["data"][0]["content"][0]["text"], "What is 2 + 3?");
    assert_eq!((&items["object"], &items["has_more"]), (&json!("list"), &json!(false)));
    let deleted = server.send("DELETE", &format!("/v1/responses/{id}"), None).await;
    assert_eq!(deleted.json(), json!({ "id": id, "object": "response", "deleted": true }));
    assert_eq!(get(&server, &format!("/v1/responses/{id}")).await.status, 404);
    assert_eq!(get(&server, &format!("/v1/responses/{id}/input_items")).await.status, 404);
    assert_eq!(server.send("DELETE", &format!("/v1/responses/{id}"), None).await.status, 404);
}

#[tokio::test]
async fn a_stream_ends_in_the_object_that_is_kept() {
    let server = TestServer::start().await;
    let body =
        json!({ "model": "nano", "input": "What is 2 + 3?", "stream": true, "max_output_tokens": 64, "seed": 1 });
    let events = events(&post(&server, body.clone()).await, 0);
    assert_eq!(events[0]["type"], "response.created");
    assert_eq!(events[1]["type"], "response.in_progress");
    let last = events.last().unwrap();
    let kept = get(&server, &format!("/v1/responses/{}", last["response"]["id"].as_str().unwrap())).await.json();
    assert_eq!(last["response"], kept);
    let text: String = events
        .iter()
        .filter(|e| e["type"] == "response.output_text.delta")
        .map(|e| e["delta"].as_str().unwrap())
        .collect();
    let mut whole = body;
    whole["stream"] = json!(false);
    let whole = made(&server, whole).await;
    let last_text = |response: &Value| {
        let messages = response["output"].as_array().unwrap().iter().filter(|item| item["type"] == "message");
        messages.map(|item| item["content"][0]["text"].as_str().unwrap()).collect::<String>()
    };
    assert_eq!(last_text(&whole), text, "the same seed, streamed or not");
    assert_eq!(
        server.send("GET", &format!("/v1/responses/{}?stream=true", kept["id"].as_str().unwrap()), None).await.status,
        400
    );
}

#[tokio::test]
async fn store_false_keeps_nothing() {
    let server = TestServer::start().await;
    let response =
        made(&server, json!({ "model": "nano", "input": "Hi", "store": false, "max_output_tokens": 8 })).await;
    assert_eq!(response["store"], false);
    let id = response["id"].as_str().unwrap();
    assert_eq!(get(&server, &format!("/v1/responses/{id}")).await.status, 404);
    let next = post(&server, json!({ "model": "nano", "input": "Hi", "previous_response_id": id })).await;
    assert_eq!((next.status, &next.json()["error"]["param"]), (400, &json!("previous_response_id")));
}

/// The same tool loop in every way that raw clients send it: the prompt has the same number of tokens, is cached as far,
/// and the model answers the same.
#[tokio::test]
async fn a_tool_loop_in_every_shape() {
    let server = TestServer::start().await;
    let user = json!({ "role": "user", "content": "What is the weather in Rome?" });
    let ask = |fields: Value| {
        let mut body = json!({ "model": "nano", "tools": tools(), "seed": 3, "instructions": "Be brief." });
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        body
    };
    let include = json!(["reasoning.encrypted_content"]);
    let first = ask(json!({ "input": [user], "tool_choice": "required", "include": include }));
    let first = made(&server, first).await;
    let output = first["output"].as_array().unwrap().clone();
    let call = output.iter().find(|item| item["type"] == "function_call").unwrap();
    assert_eq!((&first["status"], &call["name"]), (&json!("completed"), &json!("get_weather")));
    let arguments: Value = serde_json::from_str(call["arguments"].as_str().unwrap()).unwrap();
    assert!(["Rome", "Oslo"].contains(&arguments["city"].as_str().unwrap()), "strict arguments");
    let result = json!({ "type": "function_call_output", "call_id": call["call_id"], "output": "Sunny" });

    let edited = |edit: fn(&mut Value) -> bool| {
        let mut items = vec![user.clone()];
        items.extend(output.iter().cloned().filter_map(|mut item| edit(&mut item).then_some(item)));
        items.push(result.clone());
        json!({ "input": items, "store": false })
    };
    let shapes = [
        json!({ "input": [result], "previous_response_id": first["id"] }),
        edited(|_| true),
        edited(|item| {
            let fields = item.as_object_mut().unwrap();
            fields.remove("id");
            fields.remove("status");
            fields.remove("phase");
            true
        }),
        edited(|item| {
            if item["type"] == "reasoning" {
                item["content"] = json!(null);
            }
            true
        }),
        edited(|item| item["type"] != "reasoning"),
        edited(|item| item["type"] == "function_call"),
        json!({ "input": [user, { "type": "item_reference", "id": output[0]["id"] },
            { "id": output[output.len() - 1]["id"] }, result] }),
    ];
    let mut answers = Vec::new();
    for shape in shapes {
        let response = made(&server, ask(shape)).await;
        let texts: Vec<Value> =
            response["output"].as_array().unwrap().iter().map(|item| item["content"].clone()).collect();
        answers.push((response["usage"]["input_tokens"].clone(), texts));
    }
    assert!(kinds(&first["output"]).contains(&"reasoning"), "the test needs a chain of thought: {first}");
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:#?}");
}

#[tokio::test]
async fn encrypted_reasoning_is_another_keys_secret() {
    let server = TestServer::start().await;
    let body = json!({ "model": "nano", "input": "What is 2 + 3?", "store": false, "max_output_tokens": 64,
        "include": ["reasoning.encrypted_content"] });
    let response = made(&server, body).await;
    let reasoning = &response["output"][0];
    assert_eq!(reasoning["type"], "reasoning", "the test needs a chain of thought: {response}");
    let sealed = reasoning["encrypted_content"].as_str().unwrap();
    assert!(!sealed.is_empty());
    let item = json!({ "type": "reasoning", "summary": [], "encrypted_content": sealed });
    let next = json!({ "model": "nano", "input": [item, { "role": "user", "content": "Hi" }], "max_output_tokens": 8 });
    assert_eq!(post(&server, next.clone()).await.status, 200);
    let other = server.key(NewKey { name: "other".into(), scopes: vec![Scope::Infer], ..NewKey::default() });
    let answer = server.send_as(Some(&other), "POST", "/v1/responses", Some(&next)).await;
    assert_eq!(answer.status, 400, "{}", answer.text);
}

#[tokio::test]
async fn nobody_reads_anothers_responses() {
    let server = TestServer::start().await;
    let response =
        made(&server, json!({ "model": "nano", "input": "Hi", "max_output_tokens": 8, "background": true })).await;
    let id = response["id"].as_str().unwrap();
    let other = server.key(NewKey { name: "other".into(), scopes: vec![Scope::Infer], ..NewKey::default() });
    for (method, path) in [
        ("GET", format!("/v1/responses/{id}")),
        ("GET", format!("/v1/responses/{id}?stream=true")),
        ("GET", format!("/v1/responses/{id}/input_items")),
        ("POST", format!("/v1/responses/{id}/cancel")),
        ("DELETE", format!("/v1/responses/{id}")),
    ] {
        assert_eq!(server.send_as(Some(&other), method, &path, None).await.status, 404, "{method} {path}");
    }
    let next = json!({ "model": "nano", "input": "Hi", "previous_response_id": id });
    assert_eq!(server.send_as(Some(&other), "POST", "/v1/responses", Some(&next)).await.status, 400);
    assert_eq!(get(&server, &format!("/v1/responses/{id}")).await.status, 200);
}

#[tokio::test]
async fn in_the_background_read_again_from_any_event() {
    let server = TestServer::start().await;
    let body = json!({ "model": "nano", "input": "Tell me a story.", "background": true, "max_output_tokens": 48 });
    let response = made(&server, body).await;
    assert_eq!(response["status"], "queued");
    let path = format!("/v1/responses/{}", response["id"].as_str().unwrap());
    let all = events(&get(&server, &format!("{path}?stream=true")).await, 0);
    assert_eq!(all[1]["type"], "response.queued");
    assert_eq!(get(&server, &path).await.json(), all.last().unwrap()["response"]);
    let rest = events(&get(&server, &format!("{path}?stream=true&starting_after=4")).await, 5);
    assert_eq!(rest, all[5..]);
    let last = all.len() - 1;
    assert_eq!(get(&server, &format!("{path}?stream=true&starting_after={last}")).await.text, "");
    let cancelled = server.send("POST", &format!("{path}/cancel"), None).await;
    assert_eq!(cancelled.json(), all.last().unwrap()["response"], "what has ended stays as it is");
}

#[tokio::test]
async fn cancelled_in_the_background() {
    let server = TestServer::start().await;
    let body = json!({ "model": "nano", "input": "Count to a thousand.", "background": true, "stream": true,
        "text": { "format": { "type": "json_schema", "name": "n", "schema": { "type": "array", "minItems": 400,
            "items": { "type": "integer" } } } } });
    let mut stream = server.open(Some(&server.key), "POST", "/v1/responses", Some(&body)).await;
    let id = loop {
        let line = stream.line().await;
        if let Some(data) = line.strip_prefix("data: ") {
            let event: Value = serde_json::from_str(data).unwrap();
            break event["response"]["id"].as_str().unwrap().to_owned();
        }
    };
    let cancelled = server.send("POST", &format!("/v1/responses/{id}/cancel"), None).await.json();
    assert_eq!(cancelled["status"], "cancelled");
    let events = events(&get(&server, &format!("/v1/responses/{id}?stream=true")).await, 0);
    assert_eq!(events.last().unwrap()["type"], "response.cancelled");
    server.wait_idle().await;
}

#[tokio::test]
async fn a_client_that_goes_away_cancels() {
    let server = TestServer::start().await;
    let body = json!({ "model": "nano", "input": "Tell me a long story.", "stream": true,
        "text": { "format": { "type": "json_schema", "name": "n", "schema": { "type": "array", "minItems": 400,
            "items": { "type": "integer" } } } } });
    let mut stream = server.open(Some(&server.key), "POST", "/v1/responses", Some(&body)).await;
    let id = loop {
        let line = stream.line().await;
        if let Some(data) = line.strip_prefix("data: ") {
            let event: Value = serde_json::from_str(data).unwrap();
            break event["response"]["id"].as_str().unwrap().to_owned();
        }
    };
    drop(stream);
    server.wait_idle().await;
    server.app.keeping.runs.wait_idle().await;
    assert_eq!(get(&server, &format!("/v1/responses/{id}")).await.json()["status"], "cancelled");
}

#[tokio::test]
async fn what_was_unfinished_when_the_server_died_is_failed() {
    let server = TestServer::start().await;
    let body = json!({ "model": "nano", "input": "Hi", "background": true, "max_output_tokens": 8 });
    let id = made(&server, body).await["id"].as_str().unwrap().to_owned();
    server.app.keeping.runs.wait_idle().await;
    // As the row was while it ran.
    let owner = ossia_serve::keys::KeyFile::of(server.folder.path()).read().unwrap()[0].id.clone();
    let store = &server.app.keeping.store;
    let mut row = store.response(&owner, &id).await.unwrap().unwrap();
    let mut response: Value = serde_json::from_str(&row.body).unwrap();
    response["status"] = json!("in_progress");
    row.body = response.to_string();
    store.delete_response(&owner, &id).await.unwrap();
    let new = ossia_serve::store::NewResponse {
        id: id.clone(),
        created_at: response["created_at"].as_i64().unwrap(),
        status: "in_progress",
        previous_id: None,
        conversation_id: None,
        background: true,
        date: "2026-11-25".into(),
        input: row.input,
        body: row.body,
    };
    store.insert_response(&owner, &new).await.unwrap();
    let TestServer { folder, key, .. } = server;
    let again = TestServer::start_in(folder).await;
    let path = format!("/v1/responses/{id}");
    let kept = again.send_as(Some(&key), "GET", &path, None).await.json();
    assert_eq!((&kept["status"], &kept["error"]["code"]), (&json!("failed"), &json!("server_error")));
    let stream = again.send_as(Some(&key), "GET", &format!("{path}?stream=true&starting_after=41"), None).await;
    let events = events(&stream, 42);
    assert_eq!((events.len(), &events[0]["type"]), (1, &json!("response.failed")));
    assert_eq!(events[0]["response"], kept);
}

#[tokio::test]
async fn tokens_are_counted_without_generating() {
    let server = TestServer::start().await;
    let body = json!({ "model": "nano", "input": "What is 2 + 3?", "tools": tools(), "max_output_tokens": 1 });
    let counted = server.send("POST", "/v1/responses/input_tokens", Some(&body)).await.json();
    let response = made(&server, body).await;
    assert_eq!(
        counted,
        json!({ "object": "response.input_tokens", "input_tokens": response["usage"]["input_tokens"] })
    );
    assert_eq!(response["status"], "incomplete");
    assert_eq!(response["incomplete_details"], json!({ "reason": "max_output_tokens" }));
    let without_model = server.send("POST", "/v1/responses/input_tokens", Some(&json!({ "input": "Hi" }))).await;
    assert_eq!(without_model.status, 200);
}

#[tokio::test]
async fn formats_and_log_probabilities() {
    let server = TestServer::start().await;
    let schema = json!({ "type": "object", "properties": { "sum": { "type": "integer" } }, "required": ["sum"],
        "additionalProperties": false });
    let body = json!({ "model": "nano", "input": "What is 2 + 3?", "top_logprobs": 2, "reasoning": { "effort": "none" },
        "text": { "format": { "type": "json_schema", "name": "sum", "schema": schema, "strict": true } },
        "max_output_tokens": 200 });
    let response = made(&server, body).await;
    assert_eq!(kinds(&response["output"]), ["message"], "no thinking with effort none");
    let part = &response["output"][0]["content"][0];
    if response["status"] == "completed" {
        let sum: Value = serde_json::from_str(part["text"].as_str().unwrap()).unwrap();
        assert!(sum["sum"].is_i64(), "{sum}");
    }
    let logprobs = part["logprobs"].as_array().unwrap();
    let text: String = logprobs.iter().map(|logprob| logprob["token"].as_str().unwrap()).collect();
    assert!(part["text"].as_str().unwrap().starts_with(text.trim_end_matches('\u{fffd}')), "{part}");
    assert!(logprobs.iter().all(|logprob| logprob["top_logprobs"].as_array().unwrap().len() <= 2));
}

#[tokio::test]
async fn wrong_requests_name_the_field() {
    let server = TestServer::start().await;
    for (fields, param) in [
        (json!({}), "input"),
        (json!({ "input": [] }), "input"),
        (json!({ "input": 7 }), "input"),
        (json!({ "input": "Hi", "temperature": 3 }), "temperature"),
        (json!({ "input": "Hi", "max_output_tokens": 0 }), "max_output_tokens"),
        (json!({ "input": "Hi", "max_output_tokens": -5 }), "max_output_tokens"),
        (json!({ "input": "Hi", "top_logprobs": 21 }), "top_logprobs"),
        (json!({ "input": "Hi", "prompt": { "id": "pmpt_1" } }), "prompt"),
        (json!({ "input": "Hi", "background": true, "store": false }), "background"),
        (json!({ "input": "Hi", "previous_response_id": "resp_1", "conversation": "conv_1" }), "previous_response_id"),
        (json!({ "input": "Hi", "previous_response_id": "../../x" }), "previous_response_id"),
        (json!({ "input": "Hi", "metadata": { "a": 1 } }), "metadata"),
        (json!({ "input": "Hi", "reasoning": { "effort": "maximal" } }), "reasoning.effort"),
        (json!({ "input": "Hi", "truncation": "middle" }), "truncation"),
        (json!({ "input": "Hi", "include": ["reasoning.encrypted_content", "reasoning"] }), "include[1]"),
        (json!({ "input": "Hi", "reasoning": { "summary": "long" } }), "reasoning.summary"),
        (json!({ "input": "Hi", "text": { "verbosity": "chatty" } }), "text.verbosity"),
        (json!({ "input": "Hi", "reasoning": ["low", null, null] }), "reasoning"),
        (json!({ "input": "Hi", "tools": {} }), "tools"),
        (json!({ "input": [{ "role": "user", "content": [{ "type": "input_image" }] }] }), "input[0].content[0]"),
        (
            json!({ "input": "Hi", "text": { "format": { "type": "json_schema", "name": "n",
            "schema": { "type": "nothing" } } } }),
            "text.format",
        ),
    ] {
        let mut body = json!({ "model": "nano" });
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let answer = post(&server, body).await;
        assert_eq!(
            (answer.status, &answer.json()["error"]["param"]),
            (400, &json!(param)),
            "{fields}: {}",
            answer.text
        );
    }
    let include = json!({ "model": "nano", "input": "Hi", "include": ["all"] });
    let told = post(&server, include).await.text;
    for word in ["file_search_call.results", "reasoning.encrypted_content", "message.output_text.logprobs", "all"] {
        assert!(told.contains(word), "{told}");
    }
    assert_eq!(post(&server, json!({ "input": "Hi" })).await.status, 400);
    assert_eq!(post(&server, json!({ "model": "gpt-9", "input": "Hi" })).await.status, 404);
    let unknown = json!({ "model": "nano", "input": "Hi", "conversation": "conv_1" });
    assert_eq!(post(&server, unknown).await.status, 404);
}

#[tokio::test]
async fn a_prompt_that_is_too_long_is_blamed_on_its_field() {
    let server = TestServer::start().await;
    let long = "word ".repeat(4 * crate::common::CONTEXT);
    for (path, body, param) in [
        ("/v1/responses", json!({ "model": "nano", "input": long }), "input"),
        ("/v1/completions", json!({ "model": "nano", "prompt": long }), "prompt"),
        (
            "/v1/chat/completions",
            json!({ "model": "nano", "messages": [{ "role": "user", "content": long }] }),
            "messages",
        ),
    ] {
        let error = server.send("POST", path, Some(&body)).await.json()["error"].clone();
        assert_eq!((&error["code"], &error["param"]), (&json!("context_length_exceeded"), &json!(param)), "{path}");
    }
}
