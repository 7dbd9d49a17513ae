//! Bodies of new jobs: what they mean, and what is refused.

use serde_json::{Value, json};

use super::CreateJob;
use crate::types::body::read_json;

fn understood(fields: Value) -> Result<super::Understood, crate::error::ApiError> {
    let mut body = json!({ "model": "nano", "training_file": "file-1" });
    for (name, value) in fields.as_object().unwrap() {
        body[name] = value.clone();
    }
    let body: CreateJob = read_json(body.to_string().as_bytes())?;
    body.understood(100, 7)
}

fn table(fields: Value) -> Value {
    let settings = understood(fields).unwrap().settings;
    let parsed: toml::Table = settings.parse().unwrap();
    let mut value = serde_json::to_value(parsed).unwrap();
    value["finetune"].take()
}

#[test]
fn a_short_body_leaves_everything_to_the_program() {
    let wanted = json!({
        "method": "sft", "data": { "format": "auto", "on_bad": "fail" }, "validation": { "share": 0.0 },
        "checkpoints": { "keep": 3 }, "seed": 7,
    });
    assert_eq!(table(json!({})), wanted);
    let shown = understood(json!({})).unwrap();
    let auto = json!({ "batch_size": "auto", "learning_rate_multiplier": "auto", "n_epochs": "auto" });
    assert_eq!((shown.seed, &shown.hyperparameters), (7, &auto));
    assert_eq!(shown.method, json!({ "type": "supervised", "supervised": { "hyperparameters": auto } }));
}

#[test]
fn every_number_has_its_place() {
    let numbers = json!({ "n_epochs": 2, "batch_size": 4, "learning_rate_multiplier": 0.5 });
    let old = table(json!({ "hyperparameters": numbers, "seed": 3, "validation_file": "file-2" }));
    assert_eq!((&old["epochs"], &old["lr_multiplier"], &old["seed"]), (&json!(2.0), &json!(0.5), &json!(3)));
    assert_eq!(old["training"]["batch_tokens"], 400);
    assert_eq!(old["validation"], json!({ "share": 0.0, "file": "validation_file.jsonl" }));
    let new = json!({ "type": "supervised", "supervised": { "hyperparameters": numbers } });
    assert_eq!(table(json!({ "method": new, "seed": 3, "validation_file": "file-2" })), old);
    assert_eq!(
        table(json!({ "method": { "type": "supervised" }, "hyperparameters": numbers, "seed": 3,
        "validation_file": "file-2" })),
        old
    );
    let dpo = json!({ "type": "dpo", "dpo": { "hyperparameters": { "beta": 0.2, "n_epochs": "auto" } } });
    let dpo = table(json!({ "method": dpo }));
    assert_eq!(
        (&dpo["method"], &dpo["data"]["format"], &dpo["dpo"]["beta"]),
        (&json!("dpo"), &json!("preference"), &json!(0.2))
    );
    assert!(dpo["epochs"].is_null());
}

#[test]
fn a_grader_comes_through_to_the_letter() {
    let grader = json!({ "type": "multi", "name": null, "graders": { "a \"b\"": { "type": "string_check", "operation": "eq",
        "input": "{{sample.output_text}}\n\u{7f}\u{1}ä\\", "reference": "{{item.answer}}" } }, "calculate_output": "1" });
    let hyperparameters = json!({ "compute_multiplier": 2, "eval_interval": 5, "eval_samples": 20, "batch_size": 6,
        "reasoning_effort": "low" });
    let method = json!({ "type": "reinforcement",
        "reinforcement": { "grader": grader, "hyperparameters": hyperparameters } });
    let found = table(json!({ "method": method }));
    let mut wanted = grader.clone();
    wanted.as_object_mut().unwrap().remove("name");
    assert_eq!(found["grpo"], json!({ "prompts": 6, "group": 16, "grader": wanted }));
    assert_eq!((&found["validation"]["every"], &found["validation"]["most"]), (&json!(5), &json!(20)));
    assert_eq!((&found["data"]["reasoning"], &found["data"]["format"]), (&json!("low"), &json!("items")));
    assert_eq!(understood(json!({ "method": method })).unwrap().method["reinforcement"]["grader"], grader);
}

#[test]
fn wrong_bodies_are_named() {
    let rft = |grader: Value| json!({ "method": { "type": "reinforcement", "reinforcement": { "grader": grader } } });
    let way = |kind: &str, part: &str, numbers: Value| json!({ "method": { "type": kind, part: { "hyperparameters": numbers } } });
    let command = json!({ "type": "command", "command": ["sh", "-c", "id"] });
    let mut deep = json!({ "type": "string_check" });
    for _ in 0..8 {
        deep = json!({ "type": "multi", "graders": { "g": deep } });
    }
    for (fields, param) in [
        (json!({ "colour": 1 }), "colour"),
        (json!({ "n_epochs": 1 }), "n_epochs"),
        (json!({ "hyperparameters": { "n_epochs": "many" } }), "hyperparameters.n_epochs"),
        (json!({ "hyperparameters": { "n_epochs": 0 } }), "hyperparameters.n_epochs"),
        (json!({ "hyperparameters": { "n_epochs": 1.5 } }), "hyperparameters.n_epochs"),
        (json!({ "hyperparameters": { "beta": 0.1 } }), "hyperparameters.beta"),
        (
            way("supervised", "supervised", json!({ "batch_size": 1e300 })),
            "method.supervised.hyperparameters.batch_size",
        ),
        (way("dpo", "dpo", json!({ "beta": -1 })), "method.dpo.hyperparameters.beta"),
        (way("dpo", "supervised", json!({})), "method.supervised"),
        (json!({ "method": { "type": "magic" } }), "method.type"),
        (json!({ "method": { "type": "reinforcement" } }), "method.reinforcement.grader"),
        (rft(command.clone()), "method.reinforcement.grader.type"),
        (rft(json!({ "type": "python", "source": "x" })), "method.reinforcement.grader.type"),
        (rft(json!("string_check")), "method.reinforcement.grader.type"),
        (rft(json!({ "type": "multi", "graders": { "x": command } })), "method.reinforcement.grader.graders.x.type"),
        (rft(json!({ "type": "multi", "graders": [] })), "method.reinforcement.grader.graders"),
        (json!({ "suffix": "a b" }), "suffix"),
        (json!({ "suffix": "" }), "suffix"),
        (json!({ "suffix": "../x" }), "suffix"),
        (json!({ "seed": -1 }), "seed"),
        (json!({ "integrations": [{ "type": "wandb" }] }), "integrations"),
        (json!({ "model": 7 }), "model"),
    ] {
        let error = understood(fields.clone()).unwrap_err();
        assert_eq!(error.status(), 400, "{fields}");
        assert_eq!(error.param(), Some(param), "{fields}: {error}");
    }
    let error = understood(rft(deep)).unwrap_err();
    assert!(error.param().unwrap().ends_with(".g.type"), "{error}");
    let huge = rft(json!({ "type": "numeric", "tolerance": u64::MAX }));
    assert_eq!(understood(huge).unwrap_err().param(), Some("method"));
}
