//! Rewards: answers of the model's own, ratios that are exactly 1, and a score that gets better.

use serde_json::{Value, json};

use super::runs::assert_resumes;
use super::{Model, Place, write_lines};
use ossia_train::metrics;

const SCORED: &str = r#"
[finetune]
method = "grpo"
steps = 3
[finetune.adapter]
rank = 4
[finetune.data]
max_len = 384
[finetune.training]
micro_tokens = 800
[finetune.validation]
share = 0.2
every = 3
[finetune.grpo]
prompts = 3
group = 4
max_tokens = 24
kl = 0.01
updates = 2
grader = { type = "string_check", operation = "like", input = "{{sample.output_text}}", reference = "{{item.wanted}}" }
"#;

/// A question, and a letter that is wanted in the answer.
fn item(index: usize) -> Value {
    let (a, b) = (index % 9 + 1, index / 9 + 1);
    json!({ "messages": [{ "role": "user", "content": format!("What is {a} + {b}?") }], "wanted": (a + b).to_string() })
}

#[test]
fn on_policy_ratios_are_exactly_one() {
    let (model, dir) = (Model::nano(), tempfile::tempdir().unwrap());
    let (data, folder) = (dir.path().join("items.jsonl"), dir.path().join("run"));
    write_lines(&data, 60, item);
    let place = Place { model: &model, data: &data, folder: &folder, threads: 2, stopping: false };
    place.run(SCORED);
    let log = place.log();
    assert!(log[0].valid_reward.is_some() && log[0].valid_loss.is_none());
    for record in &log[1..] {
        let policy = record.policy.unwrap();
        println!("step {}: {policy:?}", record.step);
        assert_eq!(policy.off_policy.to_bits(), 0f64.to_bits());
        assert!(policy.rollout_difference <= 1e-5, "{policy:?}");
        assert!(policy.kl.unwrap() >= 0.0 && policy.length > 0.0);
    }
    assert!(log[1..].iter().any(|record| record.policy.unwrap().rollout_difference > 0.0), "two passes, not one");
}

/// The auxiliary loss is in the log as it was added: the experts of a token where all are used alike, and more elsewhere.
#[test]
fn the_auxiliary_loss_is_told() {
    let (model, dir) = (Model::nano(), tempfile::tempdir().unwrap());
    let data = dir.path().join("items.jsonl");
    write_lines(&data, 20, item);
    let run = |name: &str, toml: &str| {
        let folder = dir.path().join(name);
        Place { model: &model, data: &data, folder: &folder, threads: 2, stopping: false }.run(toml);
        metrics::read(&folder.join("metrics.jsonl")).unwrap()
    };
    let steps = SCORED.replace("steps = 3", "steps = 1").replace("updates = 2", "updates = 1");
    let with = |coefficient: f32| {
        steps.replace("[finetune.training]", &format!("[finetune.training]\naux_loss = {coefficient}"))
    };
    let k = model.config.experts_per_token as f64;
    let told = run("with", &with(0.5))[1].aux_loss;
    assert!(told >= 0.5 * 0.999 * k && told < 0.5 * 2.0 * k, "{told}");
    assert_eq!(run("without", &steps)[1].aux_loss, 0.0);
    // Where all answers are worth the same, and nothing else is asked for, no router is asked either.
    let same = with(0.5).replace("{{item.wanted}}", "").replace("kl = 0.01\n", "");
    assert_eq!(run("same", &same)[1].aux_loss, 0.0);
}

#[test]
fn stops_change_no_bit_of_answers() {
    let (model, dir) = (Model::random(), tempfile::tempdir().unwrap());
    let data = dir.path().join("items.jsonl");
    write_lines(&data, 20, item);
    // Answers of random weights: any that says an "e".
    let toml = SCORED.replace("{{item.wanted}}", "e");
    assert_resumes(&model, &data, &toml, 3);
}
