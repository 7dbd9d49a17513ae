//! Conversations, and responses in them.

use crate::common::TestServer;
use ossia_serve::auth::Scope;
use ossia_serve::keys::NewKey;
use serde_json::{Value, json};

async fn send(server: &TestServer, method: &str, path: &str, body: Value) -> Value {
    let body = (!body.is_null()).then_some(body);
    let answer = server.send(method, path, body.as_ref()).await;
    assert_eq!(answer.status, 200, "{method} {path}: {}", answer.text);
    answer.json()
}

fn said(texts: &[&str]) -> Value {
    texts.iter().map(|text| json!({ "role": "user", "content": text })).collect()
}

fn texts(list: &Value) -> Vec<&str> {
    list["data"].as_array().unwrap().iter().map(|item| item["content"][0]["text"].as_str().unwrap()).collect()
}

/// The id of the oldest item.
async fn made_first(server: &TestServer, conversation: &str) -> String {
    let page = send(server, "GET", &format!("{conversation}/items?order=asc&limit=1"), Value::Null).await;
    page["last_id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn made_changed_listed_and_deleted() {
    let server = TestServer::start().await;
    let body = json!({ "items": said(&["a", "b"]), "metadata": { "topic": "x" } });
    let made = send(&server, "POST", "/v1/conversations", body).await;
    let path = format!("/v1/conversations/{}", made["id"].as_str().unwrap());
    assert_eq!((&made["object"], &made["metadata"]), (&json!("conversation"), &json!({ "topic": "x" })));
    assert_eq!(send(&server, "GET", &path, Value::Null).await, made);
    let changed = send(&server, "POST", &path, json!({ "metadata": { "topic": "y" } })).await;
    assert_eq!(send(&server, "GET", &path, Value::Null).await, changed);
    let missing = server.send("POST", &path, Some(&json!({}))).await;
    assert_eq!((missing.status, &missing.json()["error"]["param"]), (400, &json!("metadata")), "nothing is taken away");
    assert_eq!(send(&server, "GET", &path, Value::Null).await, changed);

    let added = send(&server, "POST", &format!("{path}/items"), json!({ "items": said(&["c", "d"]) })).await;
    assert_eq!((texts(&added), &added["has_more"]), (vec!["c", "d"], &json!(false)));
    let page = send(&server, "GET", &format!("{path}/items?limit=3&order=asc"), Value::Null).await;
    assert_eq!((texts(&page), &page["has_more"]), (vec!["a", "b", "c"], &json!(true)));
    let after = page["last_id"].as_str().unwrap();
    let rest = send(&server, "GET", &format!("{path}/items?order=asc&after={after}"), Value::Null).await;
    assert_eq!(texts(&rest), ["d"]);
    let none =
        send(&server, "GET", &format!("{path}/items?after={}", made_first(&server, &path).await), Value::Null).await;
    assert_eq!((texts(&none), &none["has_more"]), (vec![], &json!(false)), "after the last is nothing");
    let item = format!("{path}/items/{after}");
    assert_eq!(send(&server, "GET", &item, Value::Null).await["content"][0]["text"], "c");
    send(&server, "DELETE", &item, Value::Null).await;
    assert_eq!(server.send("GET", &item, None).await.status, 404);
    assert_eq!(server.send("DELETE", &item, None).await.status, 404);
    let gone = server.send("GET", &format!("{path}/items?after={after}"), None).await;
    assert_eq!((gone.status, &gone.json()["error"]["param"]), (400, &json!("after")), "an empty page is a list's end");
    assert_eq!(texts(&send(&server, "GET", &format!("{path}/items"), Value::Null).await), ["d", "b", "a"]);

    let other = server.key(NewKey { name: "other".into(), scopes: vec![Scope::Infer], ..NewKey::default() });
    for (method, path) in [("GET", &path), ("DELETE", &path), ("GET", &format!("{path}/items"))] {
        assert_eq!(server.send_as(Some(&other), method, path, None).await.status, 404);
    }
    assert_eq!(send(&server, "DELETE", &path, Value::Null).await["deleted"], true);
    assert_eq!(server.send("GET", &path, None).await.status, 404);
}

#[tokio::test]
async fn wrong_items_are_refused() {
    let server = TestServer::start().await;
    for (body, param) in [
        (json!({ "items": said(&["x"; 21]) }), "items"),
        (json!({ "items": [{ "id": "msg_1" }] }), "items[0]"),
        (json!({ "items": [{ "role": "user" }] }), "items[0].content"),
        (json!({ "metadata": { "a": "b".repeat(513) } }), "metadata"),
        (json!({ "items": [{ "role": "user", "content": "x" }, result("call_1")] }), "items[1].call_id"),
        (json!({ "items": [result("call_1"), call("call_1")] }), "items[0].call_id"),
        (json!({ "items": [{ "type": "compaction", "encrypted_content": "x" }] }), "items[0].encrypted_content"),
        (
            json!({ "items": [call("a"), { "type": "reasoning", "summary": [], "encrypted_content": "x" }] }),
            "items[1].encrypted_content",
        ),
    ] {
        let answer = server.send("POST", "/v1/conversations", Some(&body)).await;
        assert_eq!((answer.status, &answer.json()["error"]["param"]), (400, &json!(param)), "{body}");
    }
}

fn call(id: &str) -> Value {
    json!({ "type": "function_call", "call_id": id, "name": "look", "arguments": "{}", "id": format!("fc_{id}") })
}

fn result(id: &str) -> Value {
    json!({ "type": "function_call_output", "call_id": id, "output": "1" })
}

/// One that was kept would make every later response in the conversation fail.
#[tokio::test]
async fn a_result_needs_its_call_before_it() {
    let server = TestServer::start().await;
    let made = send(&server, "POST", "/v1/conversations", json!({ "items": [call("a"), result("a")] })).await;
    let items = format!("/v1/conversations/{}/items", made["id"].as_str().unwrap());
    let cut_off =
        json!({ "type": "function_call", "call_id": "b", "name": "look", "arguments": "{", "status": "incomplete" });
    let mut taken = call("b");
    taken["id"] = json!("fc_a");
    for (body, param) in [
        (json!({ "items": [result("b")] }), "items[0].call_id"),
        (json!({ "items": [result("a"), result("b"), call("b")] }), "items[1].call_id"),
        (json!({ "items": [cut_off, result("b")] }), "items[1].call_id"),
        // Its id is another item's: it is not added.
        (json!({ "items": [taken, result("b")] }), "items[1].call_id"),
    ] {
        let answer = server.send("POST", &items, Some(&body)).await;
        assert_eq!((answer.status, &answer.json()["error"]["param"]), (400, &json!(param)), "{body}");
        assert!(answer.text.contains(r#"call_id \"b\""#), "{}", answer.text);
    }
    send(&server, "POST", &items, json!({ "items": [call("b"), result("b"), result("a")] })).await;
    let all = send(&server, "GET", &items, Value::Null).await;
    assert_eq!(all["data"].as_array().unwrap().len(), 5, "what is refused is not kept");
    let ask = json!({ "model": "nano", "conversation": made["id"], "input": "Go on.", "max_output_tokens": 1 });
    send(&server, "POST", "/v1/responses", ask).await;
}

/// What a conversation holds is what a client would have sent.
#[tokio::test]
async fn responses_read_it_and_add_to_it() {
    let server = TestServer::start().await;
    let first = json!({ "role": "user", "content": "My name is Ada." });
    let made = send(&server, "POST", "/v1/conversations", json!({ "items": [first] })).await;
    let id = made["id"].as_str().unwrap();
    let ask = |fields: Value| {
        let mut body = json!({ "model": "nano", "seed": 5, "max_output_tokens": 400 });
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        body
    };
    let body = ask(json!({ "input": "What is 2 + 3?", "conversation": id }));
    let one = send(&server, "POST", "/v1/responses", body).await;
    assert_eq!(one["conversation"], json!({ "id": id }));
    let path = format!("/v1/conversations/{id}/items?order=asc");
    let items = send(&server, "GET", &path, Value::Null).await;
    let items = items["data"].as_array().unwrap();
    assert_eq!(items[1]["content"][0]["text"], "What is 2 + 3?");
    assert_eq!(items[2..], one["output"].as_array().unwrap()[..]);

    let inside = ask(json!({ "input": "And 3 + 4?", "conversation": { "id": id } }));
    let inside = send(&server, "POST", "/v1/responses", inside).await;
    let mut all = items.clone();
    all.push(json!({ "role": "user", "content": "And 3 + 4?" }));
    let outside = send(&server, "POST", "/v1/responses", ask(json!({ "input": all }))).await;
    let said = |response: &Value| -> Vec<Value> {
        response["output"].as_array().unwrap().iter().map(|item| item["content"].clone()).collect()
    };
    assert_eq!(inside["usage"]["input_tokens"], outside["usage"]["input_tokens"]);
    assert_eq!(said(&inside), said(&outside));
}

/// The code is what OpenAI's Agents SDK waits and asks again at.
#[tokio::test]
async fn one_response_at_a_time() {
    let server = TestServer::start().await;
    let made = send(&server, "POST", "/v1/conversations", json!({})).await;
    let long = json!({ "model": "nano", "input": "Count to a thousand.", "background": true, "conversation": made["id"],
        "text": { "format": { "type": "json_schema", "name": "n", "schema": { "type": "array", "minItems": 400,
            "items": { "type": "integer" } } } } });
    let first = send(&server, "POST", "/v1/responses", long).await;
    let short = json!({ "model": "nano", "input": "Hi", "max_output_tokens": 8, "conversation": made["id"] });
    let refused = server.send("POST", "/v1/responses", Some(&short)).await;
    let error = &refused.json()["error"];
    assert_eq!((refused.status, &error["code"]), (400, &json!("conversation_locked")), "{error}");
    assert_eq!(error["param"], "conversation");
    let cancel = format!("/v1/responses/{}/cancel", first["id"].as_str().unwrap());
    assert_eq!(send(&server, "POST", &cancel, Value::Null).await["status"], "cancelled");
    send(&server, "POST", "/v1/responses", short).await;
}
