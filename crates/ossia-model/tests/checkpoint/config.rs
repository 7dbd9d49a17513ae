//! Configs in every dialect, the published counts, and what is refused.

use std::path::Path;

use ossia_model::checkpoint::Checkpoint;
use ossia_model::gpt_oss::config::{Config, Dialect, LayerKind, PRESETS};
use serde_json::{Value, json};

use super::support::{assert_says, data};

fn parse(value: &Value) -> Result<Config, ossia_model::checkpoint::Error> {
    Config::from_json(value, Path::new("x/config.json"))
}

fn nano() -> Value {
    serde_json::from_slice(&std::fs::read(data("nano/config.json")).unwrap()).unwrap()
}

#[test]
fn the_published_totals() {
    let big = Config::preset("20b", None).unwrap();
    let counts = big.param_counts();
    assert_eq!((counts.total, counts.active, counts.packed_bytes), (20_914_757_184, 3_608_307_264, 13_761_264_768));
    let bigger = Config::preset("120b", None).unwrap().param_counts();
    assert_eq!((bigger.total, bigger.active, bigger.packed_bytes), (116_829_156_672, 5_132_849_472, 65_248_815_744));
    assert!((big.rope.concentration() - 1.346_573_590_279_972_7).abs() < 1e-12);
    let (low, high) = big.rope.ramp(big.head_dim);
    assert!((low - 8.092_779).abs() < 1e-6 && (high - 17.398_025).abs() < 1e-6);
}

#[test]
fn counts_are_those_of_the_tensor_list() {
    for name in PRESETS {
        let config = Config::preset(name, None).unwrap();
        let bytes: usize = ossia_model::gpt_oss::synth::tensors(&config).iter().map(|t| t.bytes().unwrap()).sum();
        assert_eq!(config.param_counts().packed_bytes, bytes as u128, "{name}");
    }
}

#[test]
fn presets_are_the_fixtures_and_survive_a_round_trip() {
    for name in PRESETS {
        let preset = Config::preset(name, None).unwrap();
        let again = parse(&preset.to_hf_json()).unwrap();
        assert_eq!(Config { dialect: Dialect::Preset, ..again }, preset);
    }
    for name in ["nano", "tiny"] {
        let file = Config::from_checkpoint(&Checkpoint::open(&data(name)).unwrap()).unwrap();
        assert_eq!(file.dialect, Dialect::RopeScaling);
        assert_eq!(Config { dialect: Dialect::Preset, ..file }, Config::preset(name, None).unwrap());
    }
    let mut written = Config::preset("nano", None).unwrap().to_hf_json();
    let mut read = nano();
    for value in [&mut written, &mut read] {
        value.as_object_mut().unwrap().remove("transformers_version");
        value["rope_theta"] = json!(value["rope_theta"].as_f64());
    }
    assert_eq!(written, read);
    assert_eq!(Config::preset("20b", Some(3)).unwrap().layer_types.len(), 3);
    assert_says(&Config::preset("20b", Some(0)).unwrap_err(), &["20b", "num_layers", "1 to 1024", "0"]);
    assert_says(&Config::preset("20b", Some(usize::MAX)).unwrap_err(), &["20b", "num_layers", "1 to 1024"]);
    assert_says(&Config::preset("7b", None).unwrap_err(), &["preset", "nano, tiny", "7b"]);
}

#[test]
fn original_says_the_same_as_far_as_it_says_anything() {
    let original = Config::from_checkpoint(&Checkpoint::open(&data("nano/original")).unwrap()).unwrap();
    let hf = parse(&nano()).unwrap();
    let known = Config { dialect: hf.dialect, eos_ids: hf.eos_ids.clone(), pad_id: hf.pad_id, ..original.clone() };
    assert_eq!(known, hf);
    assert_eq!((original.dialect, original.eos_ids.len()), (Dialect::Original, 0));
}

#[test]
fn transformers_5_moves_the_rope() {
    let mut value = nano();
    let top = value.as_object_mut().unwrap();
    let mut rope = top.remove("rope_scaling").unwrap();
    rope["rope_theta"] = top.remove("rope_theta").unwrap();
    top.insert("rope_parameters".into(), rope);
    top.insert("swiglu_alpha".into(), json!(1.702));
    top.insert("bos_token_id".into(), Value::Null);
    let config = parse(&value).unwrap();
    assert_eq!(config.dialect, Dialect::RopeParameters);
    assert_eq!(Config { dialect: Dialect::RopeScaling, ..config }, parse(&nano()).unwrap());
    value["rope_parameters"]["rope_theta"] = Value::Null;
    assert_says(&parse(&value).unwrap_err(), &["config.json", "rope_parameters.rope_theta", "nothing"]);
}

#[test]
fn what_is_missing_has_the_documented_meaning() {
    let mut value = nano();
    value["rope_scaling"].as_object_mut().unwrap().remove("truncate");
    for key in ["layer_types", "rms_norm_eps", "swiglu_limit", "num_experts_per_tok", "eos_token_id", "pad_token_id"] {
        value.as_object_mut().unwrap().remove(key);
    }
    let config = parse(&value).unwrap();
    assert!(config.rope.truncate, "SPEC 1: missing means true");
    assert_eq!(config.rope.ramp(config.head_dim).0.fract(), 0.0);
    assert_eq!(config.layer_types, [LayerKind::Sliding, LayerKind::Full]);
    assert_eq!((config.rms_norm_eps, config.swiglu_limit, config.experts_per_token), (1e-5, 7.0, 2));
    assert_eq!((config.eos_ids, config.pad_id), (vec![], None));
    value["eos_token_id"] = json!([5, 6]);
    assert_eq!(parse(&value).unwrap().eos_ids, [5, 6]);
}

#[test]
fn wrong_values_are_named() {
    let big = 1u64 << 53;
    for (pointer, bad, key, found) in [
        ("/model_type", json!("llama"), "model_type", "llama"),
        ("/num_local_experts", json!(0), "num_local_experts", "found 0"),
        ("/num_experts_per_tok", json!(5), "experts_per_token", "2"),
        ("/num_experts_per_tok", json!(0), "experts_per_token", "2"),
        ("/hidden_size", json!(33), "hidden_size", "33"),
        ("/hidden_size", json!(big), "hidden_size", "9007199254740992"),
        ("/intermediate_size", json!(31), "intermediate_size", "31"),
        ("/vocab_size", json!(0), "vocab_size", "0"),
        ("/vocab_size", json!(u64::MAX), "vocab_size", "18446744073709551615"),
        ("/vocab_size", json!(-1), "vocab_size", "-1"),
        ("/vocab_size", json!(1.5), "vocab_size", "1.5"),
        ("/vocab_size", json!("128"), "vocab_size", "\"128\""),
        ("/vocab_size", json!(100), "eos_token_id", "127"),
        ("/num_attention_heads", json!(3), "num_attention_heads", "3"),
        ("/num_key_value_heads", json!(0), "num_key_value_heads", "0"),
        ("/head_dim", json!(12), "head_dim", "12"),
        ("/head_dim", json!(264), "head_dim", "264"),
        ("/head_dim", Value::Null, "head_dim", "nothing"),
        ("/num_hidden_layers", json!(0), "num_hidden_layers", "0"),
        ("/num_hidden_layers", json!(1025), "num_hidden_layers", "1025"),
        ("/num_hidden_layers", json!(3), "layer_types", "2"),
        ("/layer_types", json!(["sliding_attention", "chunked"]), "layer_types", "chunked"),
        ("/layer_types", json!({}), "layer_types", "an object"),
        ("/sliding_window", json!(0), "sliding_window", "0"),
        ("/sliding_window", Value::Null, "sliding_window", "nothing"),
        ("/rms_norm_eps", json!(0.0), "rms_norm_eps", "0"),
        ("/rms_norm_eps", json!(1e300), "rms_norm_eps", "inf"),
        ("/swiglu_limit", json!(-7.0), "swiglu_limit", "-7"),
        ("/max_position_embeddings", json!(0), "max_position_embeddings", "0"),
        ("/rope_theta", json!(1), "rope_theta", "1"),
        ("/rope_theta", json!([]), "rope_theta", "an array"),
        ("/rope_scaling", Value::Null, "rope_scaling", "nothing"),
        ("/rope_scaling/rope_type", json!("linear"), "rope_scaling.rope_type", "linear"),
        ("/rope_scaling/factor", json!(0.5), "factor", "0.5"),
        ("/rope_scaling/beta_fast", json!(0.25), "beta_fast", "ramp"),
        ("/rope_scaling/beta_slow", json!(0), "beta_slow", "0"),
        ("/rope_scaling/truncate", json!("no"), "rope_scaling.truncate", "no"),
        ("/rope_scaling/original_max_position_embeddings", json!(0), "original_max_position_embeddings", "0"),
        ("/eos_token_id", json!([1, 4_294_967_296u64]), "eos_token_id", "an array"),
        ("/pad_token_id", json!(128), "pad_token_id", "128"),
    ] {
        let mut value = nano();
        *value.pointer_mut(pointer).unwrap() = bad;
        let error = parse(&value).expect_err(pointer);
        assert_says(&error, &["x/config.json", key, found]);
    }
    let mut value = nano();
    value["num_experts_per_tok"] = json!(5);
    value["experts_per_token"] = json!(5);
    assert_says(&parse(&value).unwrap_err(), &["num_experts_per_tok", "at most the number of experts, 4", "found 5"]);
    value["rope_scaling"]["attention_factor"] = json!(1.0);
    assert_says(&parse(&value).unwrap_err(), &["rope_scaling.attention_factor", "1.34657", "1.0"]);
}
