//! What runs when a server can wait no longer is told so.

use crate::common::TestServer;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_are_cut_end_with_a_last_event() {
    let server = TestServer::start().await;
    // Sixteen long texts, of which most still run, or wait, when they are cut.
    let body = json!({ "prompt": "one two three", "stream": true, "n": 16, "max_tokens": 1900 });
    let mut open = server.open(Some(&server.key), "POST", "/v1/completions", Some(&body)).await;
    assert_eq!(open.status, 200);
    server.app.turns.cut();
    let text = open.rest().await.text;
    let last = text.trim_end().lines().last().unwrap();
    assert!(last.starts_with("data: ") && text.contains("\"error\""), "{last}");
    server.wait_idle().await;
}
