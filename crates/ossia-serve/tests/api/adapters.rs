//! Adapters by name: those that the server was started with, and those that jobs have made.

use std::path::Path;
use std::time::Duration;

use crate::common::{Answer, CONTEXT, TestServer, engine, engine_with, nano, nano_config};
use ossia_engine::{EngineOptions, NewAdapter};
use ossia_kernels::Floats;
use ossia_model::gpt_oss::adapter::{AdapterConfig, AdapterParameters, Targets, peft};
use ossia_serve::adapters::Adapters;
use ossia_serve::auth::Scope;
use ossia_serve::keys::NewKey;
use ossia_serve::store::{JobEntry, JobNews, StoredJob};
use serde_json::{Value, json};

/// Writes an adapter of random numbers that changes every answer.
fn write_adapter(folder: &Path, rank: usize, seed: u64) {
    let targets = Targets { attention: true, ..Targets::default() };
    let parameters = AdapterParameters::of(&nano_config(), &AdapterConfig { rank, alpha: 16.0, targets });
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 / (1 << 24) as f32 - 0.5) * 0.4
    };
    let values: Vec<f32> = (0..parameters.len()).map(|_| next()).collect();
    peft::save(folder, &parameters, &values, "nano").unwrap();
}

async fn ask(server: &TestServer, key: &str, model: &str) -> Answer {
    let question = "Here are some words, so that the prompt is longer than a page of the cache: one, two, three, four, \
        five, six, seven, eight, nine, ten. What is 2 + 3?";
    let body = json!({ "model": model, "messages": [{ "role": "user", "content": question }], "max_tokens": 24,
        "temperature": 0 });
    server.send_as(Some(key), "POST", "/v1/chat/completions", Some(&body)).await
}

async fn said(server: &TestServer, model: &str) -> Value {
    let answer = ask(server, &server.key, model).await;
    assert_eq!(answer.status, 200, "{model}: {}", answer.text);
    let answer = answer.json();
    assert_eq!(answer["model"], model);
    answer["choices"][0].clone()
}

async fn listed(server: &TestServer, key: &str) -> Vec<String> {
    let models = server.send_as(Some(key), "GET", "/v1/models", None).await.json();
    models["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn registered_adapters_are_for_everybody() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (folder.path().join("one"), folder.path().join("two"));
    write_adapter(&one, 4, 1);
    write_adapter(&two, 16, 2);
    let engine = engine(&nano(), CONTEXT, EngineOptions::default());
    let registered = [("one", one.as_path()), ("v2.0-b_c", two.as_path())];
    let server = TestServer::start_with(folder, engine, &registered).await;
    assert_eq!(listed(&server, &server.key).await, ["nano", "gpt-oss:20b", "nano:one", "nano:v2.0-b_c"]);
    let base = said(&server, "nano").await;
    let first = ask(&server, &server.key, "nano:one").await.json();
    assert_eq!(first["usage"]["prompt_tokens_details"]["cached_tokens"], 0, "the base's cache is not the adapter's");
    let again = ask(&server, &server.key, "nano:one").await.json();
    assert!(again["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap() > 0, "{again}");
    let (one, two) = (first["choices"][0].clone(), said(&server, "nano:v2.0-b_c").await);
    assert!(base != one && one != two && two != base, "{base} {one} {two}");
    assert_eq!(again["choices"][0], one);
    assert_eq!(said(&server, "gpt-oss:20b:one").await, one, "under each name of the model");
    assert_eq!(said(&server, "nano:one:latest").await, one);
    assert_eq!(said(&server, "nano").await, base);
    for model in ["nano:three", "one", "nano:", ":one", "nano:../one", "ft:nano:ossia:x:1", "ft:\u{0}"] {
        let answer = ask(&server, &server.key, model).await;
        assert_eq!((answer.status, &answer.json()["error"]["code"]), (404, &json!("model_not_found")), "{model}");
    }
    for (path, body) in [
        ("/v1/completions", json!({ "model": "nano:one", "prompt": "2 + 3", "max_tokens": 4 })),
        ("/v1/responses", json!({ "model": "nano:one", "input": "2 + 3", "max_output_tokens": 40 })),
        (
            "/api/chat",
            json!({ "model": "nano:one", "messages": [{ "role": "user", "content": "Hi" }], "stream": false }),
        ),
        ("/api/show", json!({ "model": "nano:one" })),
    ] {
        let answer = server.send("POST", path, Some(&body)).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
    }
    assert_eq!(server.send("GET", "/v1/models/nano:one", None).await.json()["id"], "nano:one");
    assert_eq!(server.send("DELETE", "/v1/models/nano:one", None).await.status, 400);
    assert_eq!(server.send("DELETE", "/v1/models/nano", None).await.status, 400);
    assert_eq!(server.send("DELETE", "/v1/models/gone", None).await.status, 404);
}

/// A job that has succeeded, and what it has left behind.
async fn learned(server: &TestServer, model: &str, seed: u64) -> String {
    let store = &server.app.keeping.store;
    let id = ossia_serve::ids::new("ftjob").unwrap().replacen('_', "-", 1);
    let event = |text: &str| JobEntry { id: ossia_serve::ids::new("ftevent").unwrap(), body: text.to_owned() };
    let job = StoredJob {
        id: id.clone(),
        owner: server.owner.clone(),
        status: "running".into(),
        finished_at: None,
        last_step: 4,
        settings: String::new(),
        body: "{}".into(),
    };
    store.insert_job(&job, 1, event("{}")).await.unwrap();
    let end = StoredJob { status: "succeeded".into(), finished_at: Some(77), ..job };
    let news = JobNews { model: Some(model.to_owned()), ..JobNews::default() };
    assert!(store.change_job(&end, "running", news).await.unwrap());
    let folder = server.folder.path().join("fine-tuning").join(&id);
    write_adapter(&folder.join("adapter"), 16, seed);
    write_adapter(&folder.join("checkpoints/step-4"), 16, seed + 100);
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn models_of_jobs_are_their_owners() {
    let server = TestServer::start().await;
    let base = said(&server, "nano").await;
    let id = learned(&server, "ft:nano:ossia::one", 1).await;
    let model = "ft:nano:ossia::one";
    assert_eq!(listed(&server, &server.key).await.last().unwrap(), model);
    let one = said(&server, model).await;
    let checkpoint = said(&server, &format!("{model}:ckpt-step-4")).await;
    assert!(one != base && checkpoint != one && checkpoint != base, "{one} {checkpoint}");
    assert_eq!(said(&server, model).await, one);
    let other = server.key(NewKey { name: "other".into(), scopes: Scope::ALL.to_vec(), ..NewKey::default() });
    assert_eq!(ask(&server, &other, model).await.status, 404);
    assert!(!listed(&server, &other).await.contains(&model.to_owned()));
    let path = format!("/v1/models/{model}");
    assert_eq!(server.send_as(Some(&other), "DELETE", &path, None).await.status, 404);
    for wrong in [":ckpt-step-5", ":ckpt-step-04", ":ckpt-step-", ":ckpt-step-../adapter", ":ckpt-step--1", "x"] {
        assert_eq!(ask(&server, &server.key, &format!("{model}{wrong}")).await.status, 404, "{wrong}");
    }
    let gone = server.send("DELETE", &path, None).await;
    assert_eq!(gone.json(), json!({ "id": model, "object": "model", "deleted": true }));
    assert_eq!(ask(&server, &server.key, model).await.status, 404);
    assert_eq!(ask(&server, &server.key, &format!("{model}:ckpt-step-4")).await.status, 404);
    assert_eq!(server.send("DELETE", &path, None).await.status, 404);
    assert_eq!(listed(&server, &server.key).await, ["nano", "gpt-oss:20b"]);
    assert!(!server.folder.path().join("fine-tuning").join(id).exists());
    assert_eq!(said(&server, "nano").await, base);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_log_names_the_adapter() {
    let folder = tempfile::tempdir().unwrap();
    let one = folder.path().join("one");
    write_adapter(&one, 4, 1);
    let engine = engine(&nano(), CONTEXT, EngineOptions::default());
    let server = TestServer::start_with(folder, engine, &[("one", &one)]).await;
    let model = "ft:nano:ossia::logged";
    learned(&server, model, 1).await;
    let checkpoint = format!("{model}:ckpt-step-4");
    for asked in ["nano", "nano:one", "gpt-oss:20b:one:latest", model, &checkpoint] {
        said(&server, asked).await;
    }
    assert_eq!(ask(&server, &server.key, "nano:none").await.status, 404);
    server.wait_idle().await;
    let entries = crate::audit::entries(&server).await;
    let logged: Vec<_> = entries.iter().map(|entry| (&entry["model"], entry.get("adapter"))).collect();
    let of = |name: &str| (json!("nano"), Some(json!(name)));
    let wanted = [(json!("nano"), None), of("one"), of("one"), of(model), of(&checkpoint), (Value::Null, None)];
    assert_eq!(logged, wanted.iter().map(|(model, name)| (model, name.as_ref())).collect::<Vec<_>>());
}

/// More models than are held at once: those that left come back when they are asked for.
#[tokio::test(flavor = "multi_thread")]
async fn models_of_jobs_take_turns() {
    let server = TestServer::start().await;
    let names: Vec<String> = (0..10).map(|number| format!("ft:nano:ossia::{number}")).collect();
    for (seed, name) in (1..).zip(&names) {
        learned(&server, name, seed).await;
    }
    let mut first = Vec::new();
    for name in &names {
        first.push(said(&server, name).await);
    }
    for (name, before) in names.iter().zip(&first) {
        assert_eq!(&said(&server, name).await, before, "{name}");
    }
    assert!(first.windows(2).all(|pair| pair[0] != pair[1]), "{first:?}");
}

/// Room for one job's adapter beside the registered one: the next takes its place, unless a request still uses it.
#[tokio::test(flavor = "multi_thread")]
async fn adapters_keep_to_the_memory_that_was_planned_for_them() {
    let folder = tempfile::tempdir().unwrap();
    let one = folder.path().join("one");
    write_adapter(&one, 16, 1);
    let targets = Targets { attention: true, ..Targets::default() };
    let parameters = AdapterParameters::of(&nano_config(), &AdapterConfig { rank: 16, alpha: 16.0, targets });
    let engine = engine_with(&nano(), CONTEXT, EngineOptions::default(), 2 * parameters.bytes());
    let server = TestServer::start_with(folder, engine, &[("one", &one)]).await;
    let models = ["ft:nano:ossia::a", "ft:nano:ossia::b"];
    for (seed, model) in (2..).zip(models) {
        learned(&server, model, seed).await;
    }
    let first = [said(&server, models[0]).await, said(&server, models[1]).await];
    assert!(first[0] != first[1]);
    assert_eq!([said(&server, models[0]).await, said(&server, models[1]).await], first, "they take turns");
    // What somebody uses does not go: here it is held as a request holds it.
    server.app.adapters.forget(models[1]);
    let attach = || {
        let new = NewAdapter { values: Floats::new(parameters.init(1)), parameters: parameters.clone() };
        server.app.turns.engine().attach(new)
    };
    // An answer is there a moment before its request has let its adapter go.
    let mut held = attach();
    for _ in 0..500 {
        if held.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
            held = attach();
        }
    }
    let held = held.unwrap();
    let refused = ask(&server, &server.key, models[0]).await;
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (429, &json!("slow_down")), "{}", refused.text);
    assert_eq!(refused.headers["retry-after"], "5");
    drop(held);
    assert_eq!(said(&server, models[0]).await, first[0]);
    said(&server, "nano:one").await;
}

#[test]
fn what_cannot_be_registered_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let (good, large) = (folder.path().join("good"), folder.path().join("large"));
    write_adapter(&good, 4, 1);
    write_adapter(&large, 17, 1);
    let engine = engine(&nano(), CONTEXT, EngineOptions::default());
    let mut adapters = Adapters::new(nano_config(), folder.path().join("jobs"));
    adapters.register(&engine, "good", &good).unwrap();
    for (name, path, part) in [
        ("good", &good, "given twice"),
        ("a:b", &good, "letters"),
        ("", &good, "letters"),
        ("large", &large, "rank 17"),
        ("none", &folder.path().join("none"), "adapter_config.json"),
    ] {
        let error = adapters.register(&engine, name, path).unwrap_err().to_string();
        assert!(error.contains(part), "{name}: {error}");
    }
}
