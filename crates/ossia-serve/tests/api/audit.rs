//! The audit log of a whole server: every API's requests, streams, clients that go away, batches; refusals are not in it.

use crate::common::TestServer;
use ossia_serve::audit::{AnchorKey, FOLDER, Verify};
use ossia_serve::auth::Scope;
use ossia_serve::keys::{self, NewKey};
use serde_json::{Value, json};

/// Ends the log, checks it, and gives the entries of requests.
pub async fn entries(server: &TestServer) -> Vec<Value> {
    server.app.audit.as_ref().unwrap().close().await;
    let folder = server.folder.path().join(FOLDER);
    let secret = keys::secret(server.folder.path(), keys::SERVER_SECRET).unwrap();
    let report = Verify { key: Some(AnchorKey::new(&secret)), ..Verify::default() }.run(&folder).unwrap();
    assert!(report.ok && report.anchored + 1 == report.last, "{report:?}");
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|end| end == "jsonl"));
    let text: String = files.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|entry| entry["event"] == "request").collect()
}

fn of<'e>(entries: &'e [Value], route: &str) -> Vec<&'e Value> {
    entries.iter().filter(|entry| entry["route"] == route).collect()
}

fn hello() -> Value {
    json!({ "messages": [{ "role": "user", "content": "Hello!" }], "temperature": 0, "max_tokens": 40 })
}

#[tokio::test(flavor = "multi_thread")]
async fn every_api_is_logged_with_its_tokens() {
    let server = TestServer::start().await;
    let whole = server.chat(hello()).await;
    let usage = whole.json()["usage"].clone();
    let mut streamed = hello();
    streamed["stream"] = true.into();
    server.chat(streamed).await;
    let responses = json!({ "model": "nano", "input": "Hello!", "store": false });
    assert_eq!(server.send("POST", "/v1/responses", Some(&responses)).await.status, 200);
    let completion = json!({ "model": "nano", "prompt": "Hello", "max_tokens": 3 });
    assert_eq!(server.send("POST", "/v1/completions", Some(&completion)).await.status, 200);
    assert_eq!(server.send("GET", "/v1/models", None).await.status, 200);
    assert_eq!(server.chat(json!({ "messages": 7 })).await.status, 400);
    server.wait_idle().await;
    let entries = entries(&server).await;
    let chats = of(&entries, "POST /v1/chat/completions");
    assert_eq!(chats.len(), 3);
    let first = chats.iter().find(|entry| entry["request"] == whole.headers["x-request-id"].as_str()).unwrap();
    for field in ["prompt_tokens", "completion_tokens"] {
        assert_eq!(first[field], usage[field], "{field}");
    }
    assert_eq!((&first["name"], &first["model"], &first["status"]), (&json!("test"), &json!("nano"), &json!(200)));
    assert!(first["key"].as_str().unwrap().starts_with("key_") && first.get("content").is_none(), "{first}");
    let second = chats.iter().find(|entry| entry["cached_tokens"] != 0).expect("the prompt came from the cache");
    assert_eq!(second["completion_tokens"], first["completion_tokens"]);
    let wrong = chats.iter().find(|entry| entry["status"] == 400).unwrap();
    assert!(wrong["model"].is_null() && wrong["ended"] == json!([]), "{wrong}");
    for route in ["POST /v1/responses", "POST /v1/completions"] {
        assert!(of(&entries, route)[0]["completion_tokens"].as_u64().unwrap() > 0, "{route}");
    }
    assert_eq!(of(&entries, "GET /v1/models").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_goes_away_is_logged_and_who_never_came_in_is_not() {
    let server = TestServer::start().await;
    let mut body = hello();
    body["stream"] = true.into();
    body["max_tokens"] = 2000.into();
    let mut open = server.open(Some(&server.key), "POST", "/v1/chat/completions", Some(&body)).await;
    open.line().await;
    drop(open);
    server.wait_idle().await;
    assert_eq!(server.send_as(None, "GET", "/v1/models", None).await.status, 401);
    assert_eq!(server.send_as(None, "GET", "/health", None).await.status, 200);
    let other = server.key(NewKey { name: "other".into(), scopes: vec![Scope::Metrics], ..NewKey::default() });
    assert_eq!(server.send_as(Some(&other), "GET", "/v1/models", None).await.status, 403);
    let entries = entries(&server).await;
    assert_eq!(entries.len(), 1, "{entries:?}");
    assert_eq!((&entries[0]["status"], entries[0]["ended"].as_array().unwrap().len()), (&json!(200), 1));
}

/// While the log is closed no request gets to a handler.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_done_unlogged() {
    let server = TestServer::start().await;
    server.app.audit.as_ref().unwrap().close().await;
    let refused = server.chat(hello()).await;
    assert_eq!((refused.status, refused.headers["retry-after"].as_str()), (503, "5"));
    assert_eq!(refused.json()["error"]["code"], "audit_log_unavailable");
    assert_eq!(server.send_as(None, "GET", "/health", None).await.status, 200);
    assert_eq!(server.app.turns.engine().stats().requests, 0);
}
