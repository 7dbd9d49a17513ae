//! Checkpoints that are torn, altered or missing: named, never used, and an older one goes on to the same bits.

use std::path::Path;

use serde_json::{Value, json};

use super::program::{Place, damaged};

#[test]
fn damage_is_named_and_an_older_checkpoint_goes_on() {
    let place = Place::with_run();
    let want = place.works();
    for name in ["model.safetensors", "optimizer.safetensors", "state.json", "config.json", "tokenizer.json"] {
        let file = place.checkpoint(4).join(name);
        let whole = std::fs::read(&file).unwrap();
        for bytes in damaged(&whole) {
            std::fs::write(&file, &bytes).unwrap();
            place.fails(&["step-00000004", name, "is not what was saved", "latest.json"]);
        }
        std::fs::remove_file(&file).unwrap();
        place.fails(&["step-00000004", name, "could not open"]);
        std::fs::write(&file, whole).unwrap();
    }
    assert!(place.works() == want, "whole again");
    std::fs::write(place.checkpoint(4).join("model.safetensors"), "").unwrap();
    for step in [2, 0] {
        place.point_at(step);
        assert!(place.works() == want, "from step {step}");
    }
}

#[test]
fn a_pointer_that_points_at_nothing() {
    let place = Place::with_run();
    let want = place.works();
    let whole = std::fs::read(place.latest()).unwrap();
    // Without its last line's end it is the same.
    for length in [0, 1, whole.len() / 2, whole.len() - 2] {
        std::fs::write(place.latest(), &whole[..length]).unwrap();
        place.fails(&["latest.json", "is not what was saved"]);
    }
    for name in ["", "..", "../checkpoints/step-00000004", "/", "step-../../..", "step-0000000\u{1b}4", "latest.json"] {
        std::fs::write(place.latest(), json!({ "name": name }).to_string()).unwrap();
        place.fails(&["latest.json", "wanted a checkpoint beside it"]);
    }
    for bytes in [&b"\xff\xff"[..], b"null", b"{}", b"{\"name\": 7}", b"{\"name\": \"step-00000004\", \"x\": 1}"] {
        std::fs::write(place.latest(), bytes).unwrap();
        place.fails(&["latest.json", "is not what was saved"]);
    }
    place.point_at(99);
    place.fails(&["step-00000099", "state.json", "could not"]);
    std::fs::remove_file(place.latest()).unwrap();
    // The log still tells that there was a run.
    place.fails(&["metrics.jsonl", "already holds 4 records"]);
    std::fs::create_dir(place.latest()).unwrap();
    place.fails(&["latest.json", "could not read"]);
    std::fs::remove_dir(place.latest()).unwrap();
    std::fs::write(place.latest(), whole).unwrap();
    assert!(place.works() == want);
}

/// Changes the state of a checkpoint and lets the run go on from it.
fn with_state(place: &Place, step: u64, change: impl Fn(&mut Value)) {
    let file = place.checkpoint(step).join("state.json");
    let mut state: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    change(&mut state);
    std::fs::write(&file, state.to_string()).unwrap();
    place.point_at(step);
}

#[test]
fn a_state_that_cannot_be() {
    let place = Place::with_run();
    let file = place.checkpoint(2).join("state.json");
    let whole = std::fs::read(&file).unwrap();
    type Change = fn(&mut Value);
    let cases: [(Change, &[&str]); 7] = [
        (|s| s["cursor"]["position"] = json!(100), &["the data cursor", "position 100"]),
        (|s| s["cursor"]["seed"] = json!(9), &["the data cursor", "seed 9"]),
        (|s| s["cursor"] = json!(null), &["state.json", "is not what was saved"]),
        (|s| s["step"] = json!(-1), &["state.json", "is not what was saved"]),
        (|s| s["hashes"] = json!({}), &["model.safetensors", "is not what was saved"]),
        (|s| s["hashes"]["optimizer.safetensors"] = json!("00"), &["optimizer.safetensors", "is not what was saved"]),
        (|s| s["recipe"]["training"]["clip"] = json!(0.5), &["training.clip was 0.5", "has 1.0"]),
    ];
    for (change, parts) in cases {
        with_state(&place, 2, change);
        place.fails(parts);
        std::fs::write(&file, &whole).unwrap();
    }
    place.works();
}

/// A checkpoint whose hashes are right and whose tensors are another model's.
#[test]
fn tensors_of_another_model() {
    let place = Place::with_run();
    let other = Place::new();
    other.change_recipe("intermediate_size = 32", "intermediate_size = 64");
    other.works();
    let part = "has no F32 model.layers.0.mlp.experts.gate_up_projs.0.weight [64, 32]";
    for (name, part) in [("model.safetensors", part), ("optimizer.safetensors", "has no F32 first [")] {
        let file = place.checkpoint(2).join(name);
        let whole = std::fs::read(&file).unwrap();
        std::fs::copy(other.checkpoint(2).join(name), &file).unwrap();
        with_state(&place, 2, |state| state["hashes"][name] = json!(sha256(&file)));
        place.fails(&[name, part]);
        std::fs::write(&file, whole).unwrap();
        with_state(&place, 2, |state| state["hashes"][name] = json!(sha256(&file)));
    }
    place.works();
}

/// As a checkpoint's state writes it.
pub fn sha256(file: &Path) -> String {
    use sha2::Digest;
    let hash = sha2::Sha256::digest(std::fs::read(file).unwrap());
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn old_checkpoints_are_removed_and_the_best_stays() {
    let place = Place::new();
    place.change_recipe("keep = 9", "keep = 1");
    place.works();
    let names: Vec<_> =
        std::fs::read_dir(place.run().join("checkpoints")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "latest.json and one checkpoint: {names:?}");
    assert!(place.checkpoint(4).is_dir() && place.latest().is_file());
}
