//! Wrong GGUF files: each ends in one line that names file, key or tensor, wanted and found.

use ossia_model::checkpoint::Checkpoint;
use ossia_model::gpt_oss::config::Config;

use super::support::{Gguf, array, assert_fails, assert_says, data, scratch, string};

#[track_caller]
fn fails(name: &str, bytes: &[u8], parts: &[&str]) {
    let file = scratch(name).join("x.gguf");
    std::fs::write(&file, bytes).unwrap();
    assert_fails(&file, &[&["x.gguf"], parts].concat());
}

#[test]
fn every_truncation_fails() {
    let file = scratch("gguf_truncated").join("x.gguf");
    for name in ["nano", "tiny"] {
        let whole = std::fs::read(data(name).join("model.gguf")).unwrap();
        for point in 0..50 {
            std::fs::write(&file, &whole[..whole.len() * point / 50]).unwrap();
            assert_fails(&file, &["x.gguf"]);
        }
    }
    // Inside the head, every single byte counts; the message says where it was.
    let small = Gguf::small().bytes();
    for end in 4..small.len() {
        std::fs::write(&file, &small[..end]).unwrap();
        assert_fails(&file, &["x.gguf"]);
    }
    std::fs::write(&file, &small[..small.len() - 1]).unwrap();
    assert_fails(&file, &["x.gguf", "tensor b", "17 bytes at offset 96", "112 bytes"]);
}

#[test]
fn heads_are_not_believed() {
    let small = Gguf::small;
    fails("gguf_magic", b"GGML----------------", &["GGUF", "47, 47, 4d, 4c"]);
    fails("gguf_v1", &Gguf { version: 1, ..small() }.bytes(), &["version 2 or 3", "version 1"]);
    fails("gguf_v4", &Gguf { version: 4, ..small() }.bytes(), &["version 2 or 3", "version 4"]);
    fails("gguf_be", &Gguf { version: 3 << 24, ..small() }.bytes(), &["little-endian", "big-endian"]);
    for count in [65_537, 1 << 40, u64::MAX] {
        fails(
            "gguf_count",
            &Gguf { num_tensors: Some(count), ..small() }.bytes(),
            &["65536 tensors", &count.to_string()],
        );
        fails(
            "gguf_count",
            &Gguf { num_keys: Some(count), ..small() }.bytes(),
            &["65536 metadata keys", &count.to_string()],
        );
    }
    fails("gguf_more", &Gguf { num_keys: Some(60_000), ..small() }.bytes(), &["key"]);
    fails("gguf_more", &Gguf { num_tensors: Some(60_000), ..small() }.bytes(), &["tensor"]);
    fails("gguf_split", &small().with("split.count", 2, vec![3, 0]).bytes(), &["whole", "3 parts"]);
}

#[test]
fn metadata_values_are_checked() {
    let value = |kind, bytes: Vec<u8>| Gguf::small().with("k", kind, bytes).bytes();
    let huge = u64::MAX.to_le_bytes().to_vec();
    fails("gguf_value", &value(13, vec![0; 8]), &["key k", "0 to 12", "13"]);
    fails("gguf_value", &value(7, vec![2]), &["key k", "boolean", "2"]);
    fails("gguf_value", &value(8, huge.clone()), &["key k", "18446744073709551615 bytes"]);
    for kind in [0, 1, 4, 7, 8, 10, 12] {
        fails("gguf_value", &value(9, array(kind, u64::MAX, &[])), &["key k", "bytes for"]);
        fails("gguf_value", &value(9, array(kind, 1 << 61, &[])), &["key k", "bytes for"]);
    }
    fails("gguf_value", &value(9, array(9, u64::MAX, &[])), &["key k"]);
    fails("gguf_value", &value(9, array(99, 1, &[])), &["key k", "element type", "99"]);
    let deep = (0..6).fold(array(0, 1, &[7]), |inner, _| array(9, 1, &inner));
    fails("gguf_value", &value(9, deep), &["key k", "4 levels"]);
    let nested = (0..3).fold(array(8, 2, &[string("a"), string("")].concat()), |inner, _| array(9, 1, &inner));
    let good = scratch("gguf_nested").join("x.gguf");
    std::fs::write(&good, value(9, nested)).unwrap();
    assert_eq!(Checkpoint::open(&good).unwrap().tensors().count(), 3);
    let mut twice = Gguf::small();
    twice.keys.push(twice.keys[0].clone());
    fails("gguf_value", &twice.bytes(), &["key general.architecture", "once"]);
    for alignment in [0, 1, 24, 1 << 31] {
        let file = Gguf::small().with("general.alignment", 4, u32::to_le_bytes(alignment).to_vec());
        fails("gguf_value", &file.bytes(), &["key general.alignment", "power of two", &alignment.to_string()]);
    }
    fails(
        "gguf_value",
        &Gguf::small().with("general.alignment", 8, string("x")).bytes(),
        &["general.alignment", "integer"],
    );
    let mut unnamed = Gguf::small();
    unnamed.keys.push((String::new(), 0, vec![1]));
    fails("gguf_value", &unnamed.bytes(), &["a key of 1 to 512 bytes"]);
}

#[test]
fn tensor_descriptions_are_checked() {
    let with = |name: &str, dims: &[u64], kind, offset| Gguf::small().tensor(name, dims, kind, offset).bytes();
    fails("gguf_tensor", &with("c", &[4], 12, 128), &["tensor c", "MXFP4", "type 12 (Q4_K)"]);
    fails("gguf_tensor", &with("c", &[4], u32::MAX, 128), &["tensor c", "unknown"]);
    fails("gguf_tensor", &with("c", &[], 0, 128), &["tensor c", "1 to 4 dimensions", "found 0"]);
    fails("gguf_tensor", &with("c", &[1; 5], 0, 128), &["tensor c", "1 to 4 dimensions", "found 5"]);
    fails("gguf_tensor", &with("c", &[4, 0], 0, 128), &["tensor c", "no empty dimension"]);
    fails("gguf_tensor", &with("c", &[33], 8, 128), &["tensor c", "multiple of 32", "[33]"]);
    fails("gguf_tensor", &with("c", &[16, 2], 39, 128), &["tensor c", "multiple of 32", "MXFP4"]);
    for dims in [&[u64::MAX, 2][..], &[1 << 32, 1 << 32], &[1 << 62], &[u64::MAX; 4]] {
        fails("gguf_tensor", &with("c", dims, 0, 128), &["tensor c", "fit into memory"]);
    }
    fails("gguf_tensor", &with("c", &[1], 0, 127), &["tensor c", "multiple of 32", "127"]);
    fails("gguf_tensor", &with("c", &[1], 0, 32), &["overlap"]);
    fails("gguf_tensor", &with("c", &[1], 0, 128), &["tensor c", "4 bytes at offset 128", "113 bytes"]);
    fails("gguf_tensor", &with("c", &[1], 0, u64::MAX - 31), &["tensor c", "offset"]);
    fails("gguf_tensor", &with("c", &[1 << 40], 0, 96), &["tensor c"]);
    fails(
        "gguf_tensor",
        &Gguf { data: vec![0; 200], ..Gguf::small() }.tensor("a", &[1], 0, 160).bytes(),
        &["tensor a", "once"],
    );
    fails("gguf_tensor", &with(&"n".repeat(513), &[1], 0, 128), &["512 bytes"]);
}

#[test]
fn configs_are_checked() {
    let config = |file: Gguf| {
        let path = scratch("gguf_config").join("x.gguf");
        std::fs::write(&path, file.bytes()).unwrap();
        Config::from_checkpoint(&Checkpoint::open(&path).unwrap())
    };
    let good = config(Gguf::small()).unwrap();
    assert_eq!((good.vocab_size, good.num_experts, good.rope.truncate), (4, 4, false));
    for (key, value, parts) in [
        ("gpt-oss.expert_count", 0, &["1 to 16384", "found 0"][..]),
        ("gpt-oss.expert_used_count", 5, &["at most the number of experts, 4", "found 5"]),
        ("gpt-oss.expert_used_count", 0, &["found 0"]),
        ("gpt-oss.embedding_length", 33, &["multiple of 32"]),
        ("gpt-oss.attention.key_length", 17, &["key length 17", "16"]),
        ("gpt-oss.attention.head_count", u32::MAX, &["4294967295"]),
        ("gpt-oss.attention.sliding_window", 0, &["found 0"]),
        ("gpt-oss.block_count", u32::MAX, &["1 to 1024"]),
    ] {
        let error = config(Gguf::small().with(key, 4, u32::to_le_bytes(value).to_vec())).unwrap_err();
        assert_says(
            &error,
            &[&["x.gguf", if parts[0].starts_with("key length") { "value_length" } else { key }], parts].concat(),
        );
    }
    for (key, value, parts) in [
        ("gpt-oss.rope.freq_base", f32::NAN, ["more than 1", "NaN"]),
        ("gpt-oss.rope.scaling.factor", f32::INFINITY, ["1 to 1000000", "inf"]),
        ("gpt-oss.rope.scaling.yarn_beta_fast", 0.25, ["ramp", "0.25"]),
        ("gpt-oss.attention.layer_norm_rms_epsilon", -1.0, ["more than 0", "-1"]),
    ] {
        let error = config(Gguf::small().with(key, 6, f32::to_le_bytes(value).to_vec())).unwrap_err();
        assert_says(&error, &[&["x.gguf", key], &parts[..]].concat());
    }
    let other = config(Gguf::small().with("general.architecture", 8, string("llama"))).unwrap_err();
    assert_says(&other, &["x.gguf", "general.architecture", "gpt-oss", "llama"]);
    let text = config(Gguf::small().with("gpt-oss.expert_count", 8, string("4"))).unwrap_err();
    assert_says(&text, &["gpt-oss.expert_count", "integer", "the string \"4\""]);
    let mut no_table = Gguf::small();
    no_table.tensors.remove(0);
    assert_says(&config(no_table).unwrap_err(), &["x.gguf", "token_embd.weight", "no tensor"]);
}

#[test]
fn the_pattern_of_layers_may_be_a_period_or_a_list() {
    use ossia_model::gpt_oss::config::LayerKind::{Full, Sliding};
    let layers = |file: Gguf| {
        let path = scratch("gguf_pattern").join("x.gguf");
        std::fs::write(&path, file.bytes()).unwrap();
        Config::from_checkpoint(&Checkpoint::open(&path).unwrap()).map(|c| c.layer_types)
    };
    const KEY: &str = "gpt-oss.attention.sliding_window_pattern";
    let period = |p: u32| Gguf::small().with(KEY, 4, p.to_le_bytes().to_vec());
    assert_eq!(layers(Gguf::small()).unwrap(), [Sliding, Full]);
    assert_eq!(layers(period(1)).unwrap(), [Full, Full]);
    assert_eq!(layers(period(0)).unwrap(), [Sliding, Sliding]);
    assert_eq!(layers(Gguf::small().with(KEY, 9, array(7, 2, &[0, 1]))).unwrap(), [Full, Sliding]);
    assert_says(&layers(Gguf::small().with(KEY, 9, array(7, 3, &[0, 1, 1]))).unwrap_err(), &[KEY, "2", "3"]);
}
