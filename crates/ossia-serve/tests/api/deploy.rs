//! What is deployed beside the server speaks of metrics, routes and flags that there are.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::common::TestServer;
use ossia_serve::app::table;
use serde_json::{Value, json};

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(deploy().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Words of a text that look like our metrics.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("ossia_")).map(str::to_owned).collect()
}

/// Names that /metrics exports after a request, those of a histogram's series among them.
async fn exported() -> BTreeSet<String> {
    let server = TestServer::start().await;
    server.chat(json!({ "messages": [{ "role": "user", "content": "Hello!" }] })).await;
    let text = server.send("GET", "/metrics", None).await.text;
    let series = text.lines().filter(|line| !line.starts_with('#'));
    series.filter_map(|line| line.split(['{', ' ']).next()).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn dashboards_and_alerts_use_metrics_that_are_exported() {
    let exported = exported().await;
    for path in ["grafana/ossia.json", "prometheus/alerts.yaml"] {
        let named = named(&read(path));
        assert!(named.len() > 5, "{path} shows next to nothing: {named:?}");
        let unknown: Vec<_> = named.difference(&exported).collect();
        assert!(unknown.is_empty(), "{path} uses {unknown:?}, which /metrics does not export: {exported:?}");
    }
}

#[test]
fn the_dashboard_is_one() {
    let dashboard: Value = serde_json::from_str(&read("grafana/ossia.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut ids = BTreeSet::new();
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        assert!(!panel["title"].as_str().unwrap().is_empty(), "{panel}");
        if panel["type"] != "row" {
            let targets = panel["targets"].as_array().unwrap();
            assert!(targets.iter().all(|target| target["expr"].as_str().unwrap().contains("ossia_")), "{panel}");
        }
    }
    assert!(dashboard["uid"].is_string() && panels.len() >= 8, "{} panels", panels.len());
}

/// Probes ask for routes that need no key.
#[test]
fn probes_ask_for_open_routes() {
    let text = read("kubernetes/deployment.yaml");
    let paths: Vec<&str> = text.split("path: /").skip(1).filter_map(|rest| rest.split([',', '\n']).next()).collect();
    assert_eq!(paths, ["health", "health", "ready"]);
    for path in paths {
        let route = table().into_iter().find(|route| route.path == format!("/{path}")).unwrap();
        assert_eq!(route.access, ossia_serve::app::Access::Open, "{path}");
    }
}
