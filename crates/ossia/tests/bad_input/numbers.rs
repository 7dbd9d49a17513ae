//! Weights that are not finite: wherever they lie, generation stops and says where. Vectors and routers are looked at
//! when they are loaded, so the message names the tensor; of the matrices, whose bytes loading does not read, the first
//! op that gives a wrong number is named with its layer.

use super::program::{command, copy_of, data, fails, generate, model_fails, ossia, text};
use super::safetensors::Safetensors;

const VECTORS: [&str; 11] = [
    "model.norm.weight",
    "model.layers.1.input_layernorm.weight",
    "model.layers.1.post_attention_layernorm.weight",
    "model.layers.1.self_attn.q_proj.bias",
    "model.layers.1.self_attn.v_proj.bias",
    "model.layers.1.self_attn.o_proj.bias",
    "model.layers.1.self_attn.sinks",
    "model.layers.1.mlp.router.bias",
    "model.layers.1.mlp.router.weight",
    "model.layers.1.mlp.experts.gate_up_proj_bias",
    "model.layers.1.mlp.experts.down_proj_bias",
];

/// A matrix, an element that every token meets, and what is said of it.
const MATRICES: [(&str, usize, &str); 9] = [
    ("model.embed_tokens.weight", 32 * 3 + 5, "embed"),
    ("model.layers.0.self_attn.q_proj.weight", 7, "linear of layer 0"),
    ("model.layers.0.self_attn.o_proj.weight", 7, "linear_add of layer 0"),
    ("model.layers.1.self_attn.q_proj.weight", 7, "linear of layer 1"),
    ("model.layers.1.self_attn.k_proj.weight", 7, "linear of layer 1"),
    ("model.layers.1.self_attn.v_proj.weight", 7, "linear of layer 1"),
    ("model.layers.1.self_attn.o_proj.weight", 7, "linear_add of layer 1"),
    ("lm_head.weight", 7, "unembedding"),
    ("lm_head.weight", 127 * 32, "unembedding"),
];

#[test]
fn a_vector_that_is_not_finite_is_named() {
    let model = copy_of("nano");
    let whole = Safetensors::read(&model.join("model.safetensors"));
    for name in VECTORS {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut tensors = whole.clone();
            tensors.get(name).set_bf16(3, value);
            tensors.write(&model.join("model.safetensors"));
            model_fails(&model, &[&format!("model.safetensors: tensor {name}: wanted finite"), "element 3"]);
        }
    }
}

#[test]
fn a_matrix_that_is_not_finite_stops_with_its_layer() {
    let model = copy_of("nano");
    let whole = Safetensors::read(&model.join("model.safetensors"));
    for (name, at, place) in MATRICES {
        for value in [f32::NAN, f32::INFINITY] {
            let mut tensors = whole.clone();
            tensors.get(name).set_bf16(at, value);
            tensors.write(&model.join("model.safetensors"));
            for more in [&["--precision", "fast"][..], &["--precision", "f32"], &["--dense", "q8_0"], &["--chunk", "1"]]
            {
                fails(&[&generate(&model)[..], more].concat(), &["not finite", place]);
            }
        }
    }
}

/// The fault is met in the first of many steps, whose logits nobody asked for, and the window has gone on since.
#[test]
fn a_fault_far_back_in_the_prompt_is_placed_where_it_was() {
    let model = copy_of("nano");
    let whole = Safetensors::read(&model.join("model.safetensors"));
    let prompt = ["--tokens", "1,2,2,2,2,2,2,2,2,2", "--chunk", "1", "-n", "1", "--json", "-m", text(&model)];
    let mut tensors = whole.clone();
    tensors.get("model.embed_tokens.weight").set_bf16(32 + 5, f32::NAN);
    tensors.write(&model.join("model.safetensors"));
    fails(&[&["generate"][..], &prompt].concat(), &["the embedding gave a value that is not finite"]);
    // Only the first token has anything in channel 5, so only it makes the largest number larger still.
    let mut tensors = whole;
    let table = tensors.get("model.embed_tokens.weight");
    (0..128).for_each(|row| table.set_bf16(row * 32 + 5, if row == 1 { 1.0 } else { 0.0 }));
    let weights = tensors.get("model.layers.0.self_attn.v_proj.weight");
    (0..32).for_each(|row| weights.set_bf16(row * 32 + 5, f32::MAX));
    tensors.write(&model.join("model.safetensors"));
    fails(&[&["generate"][..], &prompt].concat(), &["of layer 0 gave a value that is not finite"]);
}

#[test]
fn every_version_of_the_kernels_stops() {
    let model = copy_of("nano");
    let whole = Safetensors::read(&model.join("model.safetensors"));
    for (name, at, place) in MATRICES {
        let mut tensors = whole.clone();
        tensors.get(name).set_bf16(at, f32::NAN);
        tensors.write(&model.join("model.safetensors"));
        let output = command("OSSIA_ISA=scalar; export OSSIA_ISA;", &generate(&model)).output().unwrap();
        super::program::assert_failed(&output, 1, &["not finite", place]);
    }
}

#[test]
fn weights_that_overflow_stop_with_their_layer() {
    let model = copy_of("nano");
    let whole = Safetensors::read(&model.join("model.safetensors"));
    // The largest scale makes the experts' outputs as large as 2^127.
    let mut tensors = whole.clone();
    tensors.get("model.layers.0.mlp.experts.gate_up_proj_scales").bytes.fill(254);
    tensors.get("model.layers.0.mlp.experts.down_proj_scales").bytes.fill(254);
    tensors.write(&model.join("model.safetensors"));
    for precision in ["fast", "f32"] {
        let more = ["--precision", precision];
        fails(&[&generate(&model)[..], &more].concat(), &["experts of layer 0", "not finite", "ossia verify"]);
    }
}

#[test]
fn what_no_token_meets_does_no_harm_but_is_found_by_verify() {
    let model = copy_of("nano");
    let mut tensors = Safetensors::read(&model.join("model.safetensors"));
    tensors.get("model.embed_tokens.weight").set_bf16(100 * 32 + 9, f32::NAN);
    tensors.write(&model.join("model.safetensors"));
    let untouched = ossia(&generate(&data("nano")));
    assert_eq!(ossia(&generate(&model)).stdout, untouched.stdout);
    let element = format!("element or block {}", 100 * 32 + 9);
    fails(&["verify", text(&model)], &["model.safetensors: tensor model.embed_tokens.weight", "finite", &element]);
    let output = ossia(&["verify", text(&data("nano")), "--json"]);
    assert!(output.status.success() && output.stdout.starts_with(b"{\"ok\":true"));
}
