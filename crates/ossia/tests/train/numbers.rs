//! Numbers that break: the error names step and tensor, and the checkpoint from before stays usable.

use serde_json::{Value, json};

use super::checkpoints::sha256;
use super::program::{Place, object, ossia, text};

/// The checkpoint that latest.json names must open as a model.
#[track_caller]
fn latest_is_usable(place: &Place) {
    let pointer: Value = serde_json::from_slice(&std::fs::read(place.latest()).unwrap()).unwrap();
    let checkpoint = place.run().join("checkpoints").join(pointer["name"].as_str().unwrap());
    let out = place.path("exported");
    let args = ["export", "-m", text(&checkpoint), "--format", "bf16", "--out", text(&out), "--json"];
    assert!(object(&ossia(&args))["files"] == 1);
}

#[test]
fn a_learning_rate_that_is_far_too_high() {
    let place = Place::new();
    place.change_recipe("lr = 0.02", "lr = 1e30");
    place.fails(&["step 2: the loss", "and with it the gradient of model.", "lower training.lr"]);
    latest_is_usable(&place);
    // And so again: the run's state did not change.
    place.fails(&["step 2: the loss"]);
}

#[test]
fn an_update_that_overflows_is_not_saved() {
    for optimizer in ["adamw", "muon"] {
        let place = Place::new();
        place.change_recipe("lr = 0.02", "lr = 3e38\nweight_decay = 1e4");
        let recipe = std::fs::read_to_string(place.recipe()).unwrap();
        let recipe = recipe.replace("\"muon\"", &format!("\"{optimizer}\"")).replace("every = 2", "every = 1");
        place.write_recipe(recipe.as_bytes());
        place.fails(&["step 1: the updated weight model.", "is not finite"]);
        assert!(!place.checkpoint(1).exists());
        latest_is_usable(&place);
    }
}

/// Puts not-a-number where `tensor` begins in the checkpoint after two steps, with hashes that agree.
fn break_weight(place: &Place, tensor: &str) {
    let file = place.checkpoint(2).join("model.safetensors");
    let mut bytes = std::fs::read(&file).unwrap();
    let header_end = 8 + u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..header_end]).unwrap();
    let start = header_end + header[tensor]["data_offsets"][0].as_u64().unwrap() as usize;
    bytes[start..start + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&file, bytes).unwrap();
    let state_file = place.checkpoint(2).join("state.json");
    let mut state: Value = serde_json::from_slice(&std::fs::read(&state_file).unwrap()).unwrap();
    state["hashes"]["model.safetensors"] = json!(sha256(&file));
    std::fs::write(state_file, state.to_string()).unwrap();
    place.point_at(2);
}

#[test]
fn a_weight_that_is_not_a_number() {
    let tensors = [
        "model.layers.1.input_layernorm.weight",
        "model.layers.0.self_attn.q_proj.bias",
        "model.layers.0.mlp.experts.down_projs.1.weight",
        "lm_head.weight",
    ];
    for tensor in tensors {
        let place = Place::with_run();
        let want = place.works();
        break_weight(&place, tensor);
        place.fails(&["step 3: the", tensor, "is not finite"]);
        place.point_at(0);
        assert!(place.works() == want, "an older checkpoint goes on");
    }
}
