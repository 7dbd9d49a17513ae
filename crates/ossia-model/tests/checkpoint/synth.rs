//! Synthetic weights: the same bytes in memory and on disk, and statistics that keep a forward pass sane.

use ossia_model::checkpoint::Checkpoint;
use ossia_model::gpt_oss::config::Config;
use ossia_model::gpt_oss::synth;

use super::support::{assert_says, scratch};

#[test]
fn memory_and_disk_hold_the_same_bytes() {
    for name in ["nano", "tiny"] {
        let config = Config::preset(name, None).unwrap();
        let dir = scratch(&format!("synth_{name}"));
        let mut last = (0, 0);
        synth::write(&config, 7, &dir, &mut |done, total| last = (done, total)).unwrap();
        assert_eq!(last, (config.param_counts().packed_bytes as u64, config.param_counts().packed_bytes as u64));
        let disk = Checkpoint::open(&dir).unwrap();
        let memory = synth::checkpoint(&config, 7).unwrap();
        assert_eq!(Config { dialect: config.dialect, ..Config::from_checkpoint(&disk).unwrap() }, config);
        assert_eq!(Config { dialect: config.dialect, ..Config::from_checkpoint(&memory).unwrap() }, config);
        assert_eq!(disk.tensors().count(), memory.tensors().count());
        for tensor in memory.tensors() {
            let other = disk.get(&tensor.name).unwrap();
            assert_eq!((other.dtype, &other.shape, &*other.bytes), (tensor.dtype, &tensor.shape, &*tensor.bytes));
        }
        let generation: serde_json::Value =
            serde_json::from_slice(&std::fs::read(dir.join("generation_config.json")).unwrap()).unwrap();
        assert_eq!(generation["eos_token_id"], serde_json::json!([config.vocab_size - 1, config.vocab_size - 2]));
    }
}

#[test]
fn an_outline_is_the_model_without_its_numbers() {
    let config = Config::preset("tiny", None).unwrap();
    let (whole, outline) = (synth::checkpoint(&config, 0).unwrap(), synth::outline(&config).unwrap());
    let shape = |checkpoint: &Checkpoint| -> Vec<_> {
        checkpoint.tensors().map(|t| (t.name.clone(), t.dtype, t.shape.clone(), t.bytes.len())).collect()
    };
    assert_eq!(shape(&outline), shape(&whole));
    assert_eq!(Config::from_checkpoint(&outline).unwrap(), Config::from_checkpoint(&whole).unwrap());
    assert!(outline.tensors().all(|t| t.bytes.iter().all(|&byte| byte == 0)));
}

#[test]
fn a_seed_a_name_or_a_shape_makes_other_weights_and_layers_do_not() {
    let make = |name, layers, seed| synth::checkpoint(&Config::preset(name, layers).unwrap(), seed).unwrap();
    let (base, same, fewer) = (make("tiny", None, 0), make("tiny", None, 0), make("tiny", Some(1), 0));
    let other = make("tiny", None, 1);
    for tensor in base.tensors() {
        assert_eq!(*tensor.bytes, *same.get(&tensor.name).unwrap().bytes);
        assert_ne!(*tensor.bytes, *other.get(&tensor.name).unwrap().bytes, "{}", tensor.name);
    }
    for tensor in fewer.tensors() {
        assert_eq!(*tensor.bytes, *base.get(&tensor.name).unwrap().bytes, "{}", tensor.name);
    }
    let bytes = |name: &str| base.get(name).unwrap().bytes.to_vec();
    assert_ne!(bytes("model.embed_tokens.weight"), bytes("lm_head.weight"));
    assert_ne!(bytes("model.layers.0.self_attn.k_proj.bias"), bytes("model.layers.0.self_attn.v_proj.bias"));
}

/// The lm_head of small crosses a chunk's border 73 times: on disk it is made by one thread, in memory by all.
#[test]
fn chunks_join_without_a_seam() {
    let config =
        Config { vocab_size: 20_000, eos_ids: vec![], pad_id: None, ..Config::preset("small", Some(1)).unwrap() };
    let dir = scratch("synth_chunks");
    synth::write(&config, 3, &dir, &mut |_, _| ()).unwrap();
    let disk = Checkpoint::open(&dir).unwrap();
    for tensor in synth::checkpoint(&config, 3).unwrap().tensors() {
        assert!(*tensor.bytes == *disk.get(&tensor.name).unwrap().bytes, "{}", tensor.name);
    }
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn another_checkpoint_in_the_folder_is_neither_mixed_in_nor_lost() {
    let config = Config::preset("nano", None).unwrap();
    let dir = scratch("synth_others");
    let write = || synth::write(&config, 0, &dir, &mut |_, _| ());
    write().unwrap();
    write().expect("the same files may be written again");
    for other in ["model-00000-of-00001.safetensors", "model.safetensors.index.json"] {
        std::fs::write(dir.join(other), "x").unwrap();
        assert_says(&write().unwrap_err(), &["synth_others", "another checkpoint", other]);
        std::fs::remove_file(dir.join(other)).unwrap();
    }
}

#[test]
fn weights_have_the_wanted_spread() {
    let config = Config::preset("mini", None).unwrap();
    let weights = synth::checkpoint(&config, 0).unwrap();
    let spread = |name: &str| {
        let bytes = &weights.get(name).unwrap().bytes;
        let values: Vec<f64> =
            bytes.as_chunks::<2>().0.iter().map(|&b| half::bf16::from_le_bytes(b).to_f64()).collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        (mean, (values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / values.len() as f64).sqrt())
    };
    let near = |name: &str, mean: f64, std: f64| {
        let found = spread(name);
        assert!((found.0 - mean).abs() < 0.12 * std.max(0.1) && (found.1 / std - 1.0).abs() < 0.1, "{name}: {found:?}");
    };
    near("model.embed_tokens.weight", 0.0, 1.0);
    near("lm_head.weight", 0.0, 2.0 / 128f64.sqrt());
    near("model.layers.1.self_attn.q_proj.weight", 0.0, 0.9 / 128f64.sqrt());
    near("model.layers.1.self_attn.o_proj.weight", 0.0, 1.0 / 1024f64.sqrt());
    near("model.layers.0.mlp.experts.gate_up_proj_bias", 0.0, 2.0);
    near("model.layers.0.mlp.experts.down_proj_bias", 0.0, 0.3);
    let scales = &weights.get("model.layers.0.mlp.experts.gate_up_proj_scales").unwrap().bytes;
    let middle = 127 + (1.5 / 128f64.sqrt() / 2.93).log2().round() as i32;
    let count = |s: i32| scales.iter().filter(|&&b| i32::from(b) == s).count() * 3;
    assert_eq!(count(middle - 1) + count(middle) + count(middle + 1), scales.len() * 3);
    for scale in middle - 1..=middle + 1 {
        assert!((count(scale) as f64 / scales.len() as f64 - 1.0).abs() < 0.1);
    }
}
