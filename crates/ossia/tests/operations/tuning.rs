//! Fine-tuning jobs of each kind over the API, done by the program itself: files go up, a process of its own trains, and
//! the new model answers. Each is as small as it can be.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::server::{Server, output};

/// A job may take so long.
const MOST: Duration = Duration::from_secs(240);

/// The body of an answer, which must be good.
#[track_caller]
fn good(answer: Option<(u16, String)>) -> Value {
    let (status, text) = answer.expect("the server answers");
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}"))
}

fn start(data: &Path) -> Server {
    let scopes = ["train", "files", "infer"].map(|scope| ["--scope", scope]).concat();
    let added = output(data, &[&["keys", "add"][..], &scopes].concat());
    let key = String::from_utf8(added.stdout).unwrap();
    Server::start(data, key.trim(), &["--train-threads", "1"])
}

/// Uploads `lines`, makes a job that learns from them, and waits for its end: the job and its events.
fn trained(server: &Server, lines: &[Value], method: &Value) -> (Value, Vec<Value>) {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let file = good(server.upload("train.jsonl", "fine-tune", &text));
    let body = json!({ "model": "nano", "training_file": file["id"], "seed": 3, "suffix": "small", "method": method });
    let mut job = good(server.ask("POST", "/v1/fine_tuning/jobs", &body.to_string()));
    let path = format!("/v1/fine_tuning/jobs/{}", job["id"].as_str().unwrap());
    let begun = Instant::now();
    while !["succeeded", "failed", "cancelled"].contains(&job["status"].as_str().unwrap()) {
        assert!(begun.elapsed() < MOST, "{job}");
        std::thread::sleep(Duration::from_millis(100));
        job = good(server.ask("GET", &path, ""));
    }
    let events = good(server.ask("GET", &format!("{path}/events?limit=100"), ""));
    let mut events = events["data"].as_array().unwrap().clone();
    events.reverse();
    assert_eq!((&job["status"], &job["error"]), (&json!("succeeded"), &Value::Null), "{events:?}");
    (job, events)
}

/// What each update's event says of `field`.
fn numbers(events: &[Value], field: &str) -> Vec<f64> {
    events.iter().filter_map(|event| event["data"][field].as_f64()).collect()
}

fn answers(server: &Server, job: &Value) {
    let body = json!({ "model": job["fine_tuned_model"], "messages": [{ "role": "user", "content": "Hello!" }],
        "max_tokens": 8 });
    let answer = good(server.ask("POST", "/v1/chat/completions", &body.to_string()));
    assert_eq!(answer["model"], job["fine_tuned_model"]);
    assert!(answer["usage"]["completion_tokens"].as_u64().unwrap() > 0, "{answer}");
}

#[test]
fn a_model_learns_from_pairs() {
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path());
    let said = |text: String| json!([{ "role": "assistant", "content": text }]);
    let pair = |n: usize| {
        json!({ "input": { "messages": [{ "role": "user", "content": format!("What is {n} + 1?") }] },
            "preferred_output": said(format!("It is {}.", n + 1)), "non_preferred_output": said(format!("No idea of {n}.")) })
    };
    let numbers_of = json!({ "n_epochs": 4, "learning_rate_multiplier": 4, "beta": 0.2 });
    let method = json!({ "type": "dpo", "dpo": { "hyperparameters": numbers_of } });
    let (job, events) = trained(&server, &(0..8).map(pair).collect::<Vec<_>>(), &method);
    let (losses, margins) = (numbers(&events, "train_loss"), numbers(&events, "train_margin"));
    assert!(
        (losses[0] - std::f64::consts::LN_2).abs() < 1e-9,
        "before the first update all pairs are even: {losses:?}"
    );
    assert!(losses.last() < losses.first() && margins.last() > margins.first(), "{losses:?} {margins:?}");
    assert_eq!(numbers(&events, "train_accuracy").len(), losses.len());
    answers(&server, &job);
}

#[test]
fn a_model_learns_from_graded_answers_of_its_own() {
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path());
    let grader = json!({ "type": "string_check", "name": "sum", "operation": "like", "input": "{{sample.output_text}}",
        "reference": "{{item.sum}}" });
    let tried = json!({ "grader": grader, "model_sample": "It is 5.", "item": { "sum": "5" } });
    let tried = good(server.ask("POST", "/v1/fine_tuning/alpha/graders/run", &tried.to_string()));
    assert_eq!((&tried["reward"], &tried["metadata"]["type"]), (&json!(1.0), &json!("string_check")), "{tried}");
    let item = |n: usize| json!({ "messages": [{ "role": "user", "content": format!("What is {n} + 1?") }], "sum": (n + 1).to_string() });
    let numbers_of = json!({ "n_epochs": 1, "batch_size": 2, "compute_multiplier": 0.25, "reasoning_effort": "low" });
    let method = json!({ "type": "reinforcement",
        "reinforcement": { "hyperparameters": numbers_of, "grader": grader } });
    let (job, events) = trained(&server, &(1..5).map(item).collect::<Vec<_>>(), &method);
    let rewards = numbers(&events, "train_mean_reward");
    assert_eq!(rewards.len(), 2, "four questions, two in each update: {events:?}");
    assert!(rewards.iter().all(|reward| (0.0..=1.0).contains(reward)), "{rewards:?}");
    answers(&server, &job);
}
