//! More requests than will be served soon: refused before they are read, on connections that are kept, and nobody else's.

use std::time::Duration;

use ossia_engine::EngineOptions;
use ossia_serve::auth::Scope;
use ossia_serve::keys::NewKey;
use serde_json::{Value, json};

use crate::common::{CONTEXT, Open, TestServer, engine, nano};

const HELLO: &str = r#"{"messages":[{"role":"user","content":"Hello!"}]}"#;

/// Requests of one key that may wait; the test server has as many places.
const WAIT: usize = 32;

/// Requests of one key that fill all places, then its part of the queue; they run as long as what is returned lives.
async fn crowd(server: &TestServer, key: &str) -> Vec<Open> {
    let engine = server.app.turns.engine();
    // None of them ends by itself, which would make room.
    let stops = server.app.turns.harmony().stop_ids();
    let bias: serde_json::Map<String, Value> = stops.iter().map(|id| (id.to_string(), json!(-100))).collect();
    let mut open = Vec::new();
    for (running, waiting) in [(engine.limits().sequences, 0), (engine.limits().sequences, WAIT)] {
        let body = json!({ "prompt": ["a", "b"], "n": WAIT / 2, "max_tokens": 2000, "temperature": 2, "logit_bias": bias,
            "stream": true });
        open.push(server.open(Some(key), "POST", "/v1/completions", Some(&body)).await);
        assert_eq!(open.last().map(|open| open.status), Some(200));
        let there = async {
            while engine.stats().running < running || engine.stats().waiting < waiting {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), there).await.expect("the queue does not fill");
    }
    open
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_before_it_reads() {
    // The places fill whatever the machine has to do besides: how long anybody would wait is not asked.
    let hour = Duration::from_secs(3600);
    let options = EngineOptions { queue_per_client: WAIT, longest_wait: hour, ..EngineOptions::default() };
    let server = TestServer::start_over(tempfile::tempdir().unwrap(), engine(&nano(), CONTEXT, options)).await;
    let new = |name: &str| NewKey { name: name.into(), scopes: vec![Scope::Infer], ..NewKey::default() };
    let (key, other) = (server.key(new("many")), server.key(new("other")));
    let crowd = crowd(&server, &key).await;
    let head = |path: &str, len: usize| {
        format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {key}\r\ncontent-length: {len}\r\n\r\n"
        )
    };
    for path in ["/v1/chat/completions", "/v1/completions", "/v1/responses", "/api/chat", "/api/generate"] {
        // Of a long body not a byte is there yet.
        let read = async { server.raw(head(path, 1 << 20).as_bytes()).await.rest().await };
        let refused = tokio::time::timeout(Duration::from_secs(10), read).await.expect("it waits for the body");
        assert_eq!(refused.status, 429, "{path}: {}", refused.text);
        assert!((1..=600).contains(&refused.headers["retry-after"].parse::<u64>().unwrap()), "{:?}", refused.headers);
        let error = &refused.json()["error"];
        match path.starts_with("/api") {
            true => assert!(error.as_str().is_some_and(|text| text.contains("busy")), "{error}"),
            false => assert_eq!(error["code"], "slow_down"),
        }
    }
    // A connection is kept where the body was there.
    let mut open = server.raw(format!("{}{HELLO}", head("/v1/chat/completions", HELLO.len())).as_bytes()).await;
    assert_eq!(open.rest().await.status, 429);
    let mut next = open.again(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    assert_eq!(next.rest().await.json(), json!({ "status": "ok" }));
    // The others' part of the queue is theirs.
    let body: Value = serde_json::from_str(HELLO).unwrap();
    assert_eq!(server.send_as(Some(&other), "POST", "/v1/chat/completions", Some(&body)).await.status, 200);
    assert_eq!(
        server.send_as(Some(&key), "GET", "/v1/models", None).await.status,
        200,
        "what does not generate goes on"
    );
    drop(crowd);
    server.wait_idle().await;
    assert_eq!(server.send_as(Some(&key), "POST", "/v1/chat/completions", Some(&body)).await.status, 200);
}
