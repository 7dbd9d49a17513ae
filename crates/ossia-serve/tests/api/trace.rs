//! What a real agent sent in a long tool loop (tests/clients/record_agent.py), played against a server with a prefix cache
//! and one without: the same answers to the letter, and next to nothing of what was there before is computed again.
//!
//! The model is nano with more positions than it was trained for: what it says late in the loop need not have sense.

use std::path::Path;

use crate::common::{TestServer, engine, nano};
use ossia_engine::EngineOptions;
use serde_json::{Value, json};

/// Positions.
const CONTEXT: usize = 8192;

/// A recorded agent: where it asks, and what.
struct Trace {
    path: String,
    requests: Vec<Value>,
}

impl Trace {
    fn read(name: &str) -> Self {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/traces").join(name);
        let trace: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        Self {
            path: trace["path"].as_str().unwrap().to_owned(),
            requests: trace["requests"].as_array().unwrap().clone(),
        }
    }

    /// Plays it; gives the answers.
    async fn play(&self, server: &TestServer) -> Vec<Value> {
        let (mut answers, mut before) = (Vec::new(), json!({}));
        for request in &self.requests {
            let body = spelled_out(request, &before, &answers);
            let answer = server.send("POST", &self.path, Some(&body)).await;
            assert_eq!(answer.status, 200, "request {}: {}", answers.len(), answer.text);
            answers.push(answer.json());
            before = body;
        }
        answers
    }
}

/// The request with what the server said in its place, and with what it shares with the one before.
fn spelled_out(value: &Value, before: &Value, answers: &[Value]) -> Value {
    match value {
        Value::Object(fields) => match &fields.get("$from") {
            Some(from) => {
                let (answer, pointer) = (from[0].as_u64().unwrap() as usize, from[1].as_str().unwrap());
                answers[answer].pointer(pointer).unwrap_or_else(|| panic!("{pointer} of {}", answers[answer])).clone()
            }
            None => {
                let field =
                    |(name, value): (&String, &Value)| (name.clone(), spelled_out(value, &before[name], answers));
                fields.iter().map(field).collect()
            }
        },
        Value::Array(list) => {
            let element = |value: &Value| match value["$same"].as_u64() {
                Some(same) => before.as_array().unwrap()[..same as usize].to_vec(),
                None => vec![spelled_out(value, &Value::Null, answers)],
            };
            list.iter().flat_map(element).collect()
        }
        plain => plain.clone(),
    }
}

/// What the model said in a chat, without ids and times.
fn said(answer: &Value) -> Value {
    let message = &answer["choices"][0]["message"];
    json!([message["reasoning"], message["content"], message["tool_calls"][0]["function"]])
}

/// Tokens of the prompt, those of them from the cache, and those that were made.
fn counts(answer: &Value) -> (u64, u64, u64) {
    let count = |paths: [&str; 2]| paths.iter().find_map(|path| answer["usage"].pointer(path)?.as_u64()).unwrap();
    (
        count(["/prompt_tokens", "/input_tokens"]),
        count(["/prompt_tokens_details/cached_tokens", "/input_tokens_details/cached_tokens"]),
        count(["/completion_tokens", "/output_tokens"]),
    )
}

/// A copy of nano that says of itself that it has more positions.
fn long_nano() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(nano()).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
    }
    let path = folder.path().join("config.json");
    let mut config: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    config["max_position_embeddings"] = CONTEXT.into();
    std::fs::write(&path, config.to_string()).unwrap();
    folder
}

/// A server over it.
async fn serve(model: &Path, options: EngineOptions) -> TestServer {
    TestServer::start_over(tempfile::tempdir().unwrap(), engine(model, CONTEXT, options)).await
}

/// Plays a trace with a cache; gives the answers, and checks how much of what was there before was found.
async fn play_cached(trace: &Trace, model: &Path) -> Vec<Value> {
    assert!(trace.requests.len() > 20, "{}", trace.requests.len());
    let answers = trace.play(&serve(model, EngineOptions::default()).await).await;
    let counts: Vec<_> = answers.iter().map(counts).collect();
    let replayed: u64 = counts.iter().take(counts.len() - 1).map(|(prompt, _, made)| prompt + made).sum();
    let found: u64 = counts.iter().skip(1).map(|(_, cached, _)| cached).sum();
    println!("{}: {found} of {replayed} replayed tokens cached", trace.path);
    // All but the last token of each answer, which is not computed before it is read.
    assert_eq!(found, replayed - (counts.len() as u64 - 1), "{counts:?}");
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agents_chat_is_the_same_without_a_cache() {
    let (trace, model) = (Trace::read("agents-chat.json"), long_nano());
    let with = play_cached(&trace, model.path()).await;
    let plain = EngineOptions { cache: false, ..EngineOptions::default() };
    let without = trace.play(&serve(model.path(), plain).await).await;
    for (number, (with, without)) in with.iter().zip(&without).enumerate() {
        assert_eq!(said(with), said(without), "answer {number}");
        assert_eq!((counts(with).0, counts(with).2), (counts(without).0, counts(without).2), "answer {number}");
        assert_eq!(counts(without).1, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agents_responses() {
    play_cached(&Trace::read("agents-responses.json"), long_nano().path()).await;
}
