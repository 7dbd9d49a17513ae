//! Who comes in and what is too much: every route of the table without a key, with keys that lack the scope, other hosts,
//! limits of headers and bodies, quotas.

use crate::common::TestServer;
use ossia_serve::app::{Access, table};
use ossia_serve::auth::Scope;
use ossia_serve::keys::NewKey;
use serde_json::json;

/// The only routes that need no key; the reason stands where they are defined.
const OPEN: &[&str] = &["/health", "/ready"];

fn key(scopes: &[Scope]) -> NewKey {
    NewKey { name: "some".into(), scopes: scopes.to_vec(), ..NewKey::default() }
}

/// A path of the route: letters for what is between braces.
fn path(pattern: &str) -> String {
    let parts = pattern.split('/').map(|part| if part.starts_with('{') { "x" } else { part });
    parts.collect::<Vec<_>>().join("/")
}

/// Pages are for people who have no key yet; they hold no data.
fn is_page(route: &ossia_serve::app::Route) -> bool {
    route.method == "GET" && !route.path.starts_with("/v1") && !route.path.starts_with("/api")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_but_the_open_ones_needs_a_key() {
    let server = TestServer::start().await;
    let wrong = format!("sk-ossia-{}", "A".repeat(43));
    let mut num_closed = 0;
    for route in table() {
        let path = path(route.path);
        let status = async |key: Option<&str>| server.send_as(key, route.method, &path, Some(&json!({}))).await.status;
        if route.access == Access::Open {
            assert!(OPEN.contains(&route.path) || is_page(&route), "{} {} must not be open", route.method, route.path);
            continue;
        }
        num_closed += 1;
        assert_eq!(status(None).await, 401, "{} {}", route.method, route.path);
        assert_eq!(status(Some(&wrong)).await, 401, "{} {}", route.method, route.path);
        if let Access::Key(scope) = route.access {
            let others: Vec<Scope> = Scope::ALL.into_iter().filter(|other| *other != scope).collect();
            let other = server.key(key(&others));
            assert_eq!(status(Some(&other)).await, 403, "{} {}", route.method, route.path);
        }
        assert!(![401, 403].contains(&status(Some(&server.key)).await), "{} {}", route.method, route.path);
    }
    assert!(num_closed >= 5, "{num_closed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn open_routes_say_little() {
    let server = TestServer::start().await;
    let health = server.send_as(None, "GET", "/health", None).await;
    assert_eq!((health.status, health.text.as_str()), (200, r#"{"status":"ok"}"#));
    assert!(health.headers["x-request-id"].starts_with("req_"));
    assert_eq!(server.send_as(None, "GET", "/ready", None).await.status, 200);
    server.app.drain();
    let ready = server.send_as(None, "GET", "/ready", None).await;
    assert_eq!((ready.status, ready.headers["retry-after"].as_str()), (503, "5"));
    let refused = server.chat(json!({ "messages": [{ "role": "user", "content": "Hello!" }] })).await;
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (503, &json!("server_is_overloaded")));
    let lost = server.send_as(None, "GET", "/models", None).await;
    assert!(lost.status == 404 && lost.text.contains("under /v1"), "a base URL without /v1: {}", lost.text);
    assert_eq!(server.send("PUT", "/v1/models", None).await.status, 405);
}

#[tokio::test(flavor = "multi_thread")]
async fn models_and_metrics() {
    let server = TestServer::start().await;
    let models = server.send("GET", "/v1/models", None).await.json();
    assert_eq!((&models["data"][0]["id"], &models["data"][1]["id"]), (&json!("nano"), &json!("gpt-oss:20b")));
    assert_eq!(server.send("GET", "/v1/models/nano", None).await.json()["object"], "model");
    let missing = server.send("GET", "/v1/models/openai/gpt-4o", None).await;
    assert_eq!((missing.status, &missing.json()["error"]["code"]), (404, &json!("model_not_found")));
    server.chat(json!({ "messages": [{ "role": "user", "content": "Hello!" }] })).await;
    let metrics = server.send("GET", "/metrics", None).await;
    assert!(metrics.text.contains("ossia_generations_total{ended=\"stop\"} 1\n"), "{}", metrics.text);
    let of_chat = "route=\"/v1/chat/completions\",status=\"200\"} 1\n";
    assert!(metrics.text.contains(of_chat), "{}", metrics.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_hosts_and_origins_stay_out() {
    let server = TestServer::start().await;
    let at = server.at;
    let get =
        async |headers: &str| server.raw(format!("GET /health HTTP/1.1\r\n{headers}\r\n").as_bytes()).await.status;
    assert_eq!(get(&format!("host: {at}\r\n")).await, 200);
    assert_eq!(get("host: evil.example\r\n").await, 403);
    assert_eq!(get(&format!("host: {at}\r\norigin: https://evil.example\r\n")).await, 403);
    assert_eq!(get(&format!("host: {at}\r\norigin: http://{at}\r\n")).await, 200);
    let absolute = format!("GET http://evil.example/health HTTP/1.1\r\nhost: {at}\r\n\r\n");
    assert_eq!(server.raw(absolute.as_bytes()).await.status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_and_bodies_have_limits() {
    let server = TestServer::start().await;
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\n",
        server.at, server.key
    );
    let status = async |rest: &str| server.raw(format!("{head}{rest}").as_bytes()).await.status;
    assert_eq!(status(&format!("x: {}\r\n\r\n", "a".repeat(70_000))).await, 431);
    assert_eq!(status(&format!("{}\r\n", "x: a\r\n".repeat(200))).await, 431);
    assert_eq!(status(&format!("content-length: {}\r\n\r\n", 9 << 20)).await, 413);
    assert_eq!(status("content-length: 2\r\ncontent-encoding: gzip\r\n\r\n{}").await, 415);
    assert_eq!(status("content-length: -1\r\n\r\n{}").await, 400);
    assert_eq!(status("content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n").await, 400);
    assert_eq!(status("transfer-encoding: chunked\r\n\r\nzz\r\n").await, 400);
    // Many tiny chunks are only slow for the one who sends them.
    let chunks = "1\r\n \r\n".repeat(100_000);
    assert_eq!(status(&format!("transfer-encoding: chunked\r\n\r\n{chunks}0\r\n\r\n")).await, 400);
    let big = format!("{{\"messages\":\"{}\"}}", "a".repeat(9 << 20));
    assert_eq!(status(&format!("content-length: {}\r\n\r\n{big}", big.len())).await, 413);
    assert_eq!(status("content-length: 4\r\n\r\n\u{0}\u{1}\u{2}\u{3}").await, 400);
    server.wait_idle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn quotas_answer_429_and_say_when() {
    let server = TestServer::start().await;
    let new = NewKey { requests_per_minute: Some(2), tokens_per_minute: Some(100_000), ..key(&[Scope::Infer]) };
    let mine = server.key(new);
    for left in ["1", "0"] {
        let answer = server.send_as(Some(&mine), "GET", "/v1/models", None).await;
        assert_eq!((answer.status, answer.headers["x-ratelimit-remaining-requests"].as_str()), (200, left));
        assert_eq!(answer.headers["x-ratelimit-limit-tokens"], "100000");
    }
    let refused = server.send_as(Some(&mine), "GET", "/v1/models", None).await;
    let error = &refused.json()["error"];
    assert_eq!(
        (refused.status, &error["code"], &error["type"]),
        (429, &json!("rate_limit_exceeded"), &json!("requests"))
    );
    assert!((1..=30).contains(&refused.headers["retry-after"].parse::<u64>().unwrap()), "{:?}", refused.headers);
    let other = server.key(NewKey { tokens_per_minute: Some(10), ..key(&[Scope::Infer]) });
    let body = json!({ "messages": [{ "role": "user", "content": "Hello!" }] });
    let first = server.send_as(Some(&other), "POST", "/v1/chat/completions", Some(&body)).await;
    assert_eq!(first.status, 200, "a prompt longer than the quota goes when the bucket is full");
    let second = server.send_as(Some(&other), "POST", "/v1/chat/completions", Some(&body)).await;
    assert_eq!((second.status, &second.json()["error"]["type"]), (429, &json!("tokens")));
    server.app.memory.sweep();
}
