//! Many clients at once, and clients that go away.

use crate::common::TestServer;
use serde_json::{Value, json};

fn counting(seed: usize) -> Value {
    json!({ "messages": [{ "role": "user", "content": format!("What is {seed} plus 17?") }], "temperature": 1,
        "seed": seed, "stream": true })
}

fn text(events: &[Value]) -> String {
    let deltas = events.iter().map(|event| &event["choices"][0]["delta"]);
    let texts = deltas.flat_map(|delta| [&delta["reasoning"], &delta["content"]]);
    texts.filter_map(Value::as_str).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn company_changes_nothing() {
    let server = TestServer::start().await;
    let mut alone = Vec::new();
    for seed in 0..32 {
        alone.push(text(&server.chat(counting(seed)).await.events()));
    }
    let together = futures_util::future::join_all((0..32).map(|seed| server.chat(counting(seed)))).await;
    let together: Vec<String> = together.iter().map(|answer| text(&answer.events())).collect();
    assert_eq!(alone, together);
    server.wait_idle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_goes_away_frees_everything() {
    let server = TestServer::start().await;
    let endless = json!({ "prompt": "a", "max_tokens": 2000, "stream": true, "temperature": 2, "logit_bias": {},
        "n": 4, "top_p": 1 });
    let chat = json!({ "messages": [{ "role": "user", "content": "Hello!" }], "stream": true, "n": 4 });
    for (path, body) in [("/v1/completions", &endless), ("/v1/chat/completions", &chat)] {
        for lines in [0, 1, 9] {
            let mut open = server.open(Some(&server.key), "POST", path, Some(body)).await;
            assert_eq!(open.status, 200);
            for _ in 0..lines {
                open.line().await;
            }
            drop(open);
        }
    }
    // A whole answer that nobody waits for.
    let whole = json!({ "prompt": "a", "max_tokens": 2000, "n": 4, "temperature": 2 });
    let open = server.open(Some(&server.key), "POST", "/v1/completions", Some(&whole));
    let _ = tokio::time::timeout(std::time::Duration::from_millis(30), open).await;
    server.wait_idle().await;
    let stats = server.app.turns.engine().stats();
    assert!(stats.cancelled > 0, "{stats:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn going_down_lets_streams_finish() {
    let server = TestServer::start().await;
    let mut open = server.open(Some(&server.key), "POST", "/v1/chat/completions", Some(&counting(3))).await;
    assert_eq!(open.status, 200);
    server.app.drain();
    server.stop();
    let answer = open.rest().await;
    assert_eq!(answer.events().last().unwrap()["choices"][0]["finish_reason"], "stop");
}
