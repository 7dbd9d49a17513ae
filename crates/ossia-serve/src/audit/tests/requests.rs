//! From a request to its entry, and what happens while the disk refuses.

use std::path::Path;

use axum::body::{Body, to_bytes};
use serde_json::Value;

use super::super::chain::files;
use super::super::{Audit, AuditOptions};
use super::{SECRET, verify};
use crate::auth::{Identity, Quota};
use crate::error::ApiError;
use crate::turn::Usage;

fn identity() -> Identity {
    let (key_id, name) = ("key_1".into(), "Ada".into());
    Identity { key_id, name, client: 1, salt: 1, quota: Quota::default(), trail: super::super::Trail::default() }
}

fn audit(data: &Path, content: bool) -> Audit {
    Audit::open(data, SECRET, "nano", &AuditOptions { content, ..AuditOptions::default() }).unwrap()
}

fn requests(data: &Path) -> Vec<Value> {
    let files = files(&data.join("audit")).unwrap();
    let text: String = files.iter().map(|(_, path)| std::fs::read_to_string(path).unwrap()).collect();
    let entries = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    entries.filter(|entry| entry["event"] == "request").collect()
}

#[tokio::test]
async fn an_entry_when_nothing_of_the_request_is_left() {
    let data = tempfile::tempdir().unwrap();
    let audit = audit(data.path(), false);
    let trail = audit.begin(&identity(), "req_1", "POST /v1/chat/completions").unwrap();
    let copy = trail.clone();
    trail.answered(200);
    drop(trail);
    let usage = Usage { prompt_tokens: 10, cached_tokens: 4, completion_tokens: 3, reasoning_tokens: 2 };
    copy.goes_through(Some("mine"));
    copy.spent(&usage, "stop");
    copy.spent(&usage, "gone");
    drop(copy);
    drop(audit.begin(&identity(), "req_2", "GET /v1/models").unwrap());
    audit.close().await;
    let [first, second] = &requests(data.path())[..] else { panic!("two entries") };
    for (field, wanted) in [("prompt_tokens", 20), ("cached_tokens", 8), ("completion_tokens", 6), ("status", 200)] {
        assert_eq!(first[field], wanted, "{field}");
    }
    for (field, wanted) in
        [("request", "req_1"), ("key", "key_1"), ("name", "Ada"), ("model", "nano"), ("adapter", "mine")]
    {
        assert_eq!(first[field], wanted, "{field}");
    }
    assert_eq!(first["ended"], serde_json::json!(["stop", "gone"]));
    assert!(second["status"].is_null() && second["model"].is_null(), "{second}");
    assert!(second.get("adapter").is_none(), "{second}");
    let report = verify(&data.path().join("audit"));
    assert!(report.ok && report.anchored + 1 == report.last, "all is anchored at the end: {report:?}");
}

#[tokio::test]
async fn contents_only_where_they_are_asked_for() {
    for content in [false, true] {
        let data = tempfile::tempdir().unwrap();
        let audit = audit(data.path(), content);
        let trail = audit.begin(&identity(), "req_1", "POST /v1/chat/completions").unwrap();
        let read = to_bytes(trail.hear_request(Body::from("What?")), 100).await.unwrap();
        let sent = to_bytes(trail.hear_answer(Body::from("x".repeat(3 << 20))), usize::MAX).await.unwrap();
        assert_eq!((&read[..], sent.len()), (&b"What?"[..], 3 << 20), "the bodies are as they were");
        drop(trail);
        audit.close().await;
        let entry = &requests(data.path())[0];
        match content {
            false => assert!(entry.get("content").is_none(), "{entry}"),
            true => {
                let content = &entry["content"];
                assert_eq!((&content["request"], &content["cut"]), (&"What?".into(), &true.into()));
                assert_eq!(content["answer"].as_str().unwrap().len(), 1 << 20);
            }
        }
    }
}

/// Running requests have a place; new ones are refused when there are no more.
#[tokio::test]
async fn no_place_no_request() {
    let data = tempfile::tempdir().unwrap();
    let audit = audit(data.path(), false);
    let mut running = Vec::new();
    let refused = loop {
        match audit.begin(&identity(), "req", "GET /v1/models") {
            Ok(trail) => running.push(trail),
            Err(error) => break error,
        }
    };
    assert_eq!(refused, ApiError::NotLogged);
    let num_running = running.len();
    running.clear();
    audit.close().await;
    assert_eq!(requests(data.path()).len(), num_running, "none is lost");
    let mut metrics = String::new();
    audit.write_metrics(&mut metrics);
    assert!(metrics.contains("ossia_audit_refused_total 1\n"), "{metrics}");
    assert!(metrics.contains(&format!("ossia_audit_entries_total {num_running}\n")), "{metrics}");
}
