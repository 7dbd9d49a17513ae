//! Graders on trial, and permissions, which there are none of.

use ossia_serve::auth::Scope;
use ossia_serve::keys::NewKey;
use serde_json::{Value, json};

use crate::common::TestServer;

fn equal() -> Value {
    json!({ "type": "string_check", "name": "same", "operation": "eq", "input": null })
}

async fn post(server: &TestServer, route: &str, body: Value) -> (u16, Value) {
    let answer = server.send("POST", &format!("/v1/fine_tuning/alpha/graders/{route}"), Some(&body)).await;
    (answer.status, answer.json())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grader_is_validated_and_run() {
    let server = TestServer::start().await;
    let validated = post(&server, "validate", json!({ "grader": equal() })).await;
    assert_eq!(validated, (200, json!({ "grader": equal() })));
    let run = async |sample: &str, item: Value| {
        let (status, ran) =
            post(&server, "run", json!({ "grader": equal(), "model_sample": sample, "item": item })).await;
        assert_eq!(status, 200, "{ran}");
        ran
    };
    let right = run("7", json!({ "answer": "7" })).await;
    assert_eq!((&right["reward"], &right["sub_rewards"]), (&json!(1.0), &json!({ "equal": 1.0 })));
    assert_eq!((&right["metadata"]["name"], &right["metadata"]["type"]), (&json!("same"), &json!("string_check")));
    assert!(right["metadata"]["execution_time"].as_f64().unwrap() >= 0.0);
    let errors = right["metadata"]["errors"].as_object().unwrap();
    assert!(errors.len() == 14 && errors.values().all(|error| error.is_null() || error == false), "{errors:?}");
    assert_eq!(run("8", json!({ "answer": "7" })).await["reward"], 0.0);
    let missing = run("7", Value::Null).await;
    assert_eq!(
        (&missing["reward"], &missing["metadata"]["errors"]["invalid_variable_error"]),
        (&json!(0.0), &json!(true))
    );
    assert!(missing["metadata"]["problem"].as_str().unwrap().contains("item.answer"), "{missing}");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_graders_and_those_that_do_more_than_compute_are_refused() {
    let server = TestServer::start().await;
    let command = json!({ "type": "command", "command": ["touch", "/tmp/graded"] });
    let inside = json!({ "type": "multi", "graders": { "x": command }, "calculate_output": "x" });
    let long = "x".repeat((1 << 20) + 1);
    for (body, param) in [
        (json!({ "grader": command }), "grader.type"),
        (json!({ "grader": inside }), "grader.graders.x.type"),
        (json!({ "grader": { "type": "python", "source": "1" } }), "grader.type"),
        (json!({ "grader": { "type": "score_model" } }), "grader.type"),
        (json!({ "grader": "string_check" }), "grader.type"),
        (json!({ "grader": { "type": "string_check", "operation": "is" } }), "grader.operation"),
        (json!({}), "grader"),
        (json!({ "grader": equal(), "graders": [] }), "graders"),
    ] {
        for route in ["validate", "run"] {
            let mut body = body.clone();
            if route == "run" {
                body["model_sample"] = json!("x");
            }
            let (status, answer) = post(&server, route, body.clone()).await;
            assert_eq!((status, &answer["error"]["type"]), (400, &json!("invalid_request_error")), "{route} {body}");
            let found = answer["error"]["param"].as_str().unwrap_or_default();
            assert!(
                found == param || answer["error"]["message"].as_str().unwrap().contains(param),
                "{route}: {answer}"
            );
        }
    }
    for (body, param) in [
        (json!({ "grader": equal(), "model_sample": long, "item": {} }), "model_sample"),
        (json!({ "grader": equal(), "model_sample": "x", "item": { "answer": long } }), "item"),
        (json!({ "grader": equal(), "model_sample": "x", "item": [] }), "item"),
        (json!({ "grader": equal() }), "model_sample"),
    ] {
        let (status, answer) = post(&server, "run", body).await;
        assert_eq!(status, 400, "{param}: {answer}");
        assert!(answer["error"].to_string().contains(param), "{param}: {answer}");
    }
    let infers = server.key(NewKey { name: "infers".into(), scopes: vec![Scope::Infer], ..NewKey::default() });
    let body = json!({ "grader": equal() });
    let path = "/v1/fine_tuning/alpha/graders/validate";
    assert_eq!(server.send_as(Some(&infers), "POST", path, Some(&body)).await.status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_have_no_permissions_and_say_so() {
    let server = TestServer::start().await;
    let path = "/v1/fine_tuning/checkpoints/ft:nano:ossia::one:ckpt-step-4/permissions";
    let body = json!({ "project_ids": ["proj_1"] });
    let cp = format!("{path}/cp_1");
    for (method, path, body) in [("POST", path, Some(&body)), ("GET", path, None), ("DELETE", &*cp, None)] {
        let answer = server.send(method, path, body).await;
        assert_eq!(
            (answer.status, &answer.json()["error"]["type"]),
            (400, &json!("invalid_request_error")),
            "{method}"
        );
        assert!(answer.text.contains("--adapter NAME=FOLDER"), "{}", answer.text);
    }
}
