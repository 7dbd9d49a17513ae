//! Wrong safetensors files, indices and folders: each ends in one line that names file, tensor, wanted and found.

use std::path::{Path, PathBuf};

use super::support::{assert_fails, copy_files, data, safetensors, scratch};

/// A folder with nano's config and this file as model.safetensors.
fn folder(name: &str, file: &[u8]) -> PathBuf {
    let dir = scratch(name);
    std::fs::copy(data("nano/config.json"), dir.join("config.json")).unwrap();
    std::fs::write(dir.join("model.safetensors"), file).unwrap();
    dir
}

#[track_caller]
fn header_fails(header: &str, data: usize, parts: &[&str]) {
    let dir = folder("bad_header", &safetensors(header, &vec![0; data]));
    assert_fails(&dir, &[&["model.safetensors"], parts].concat());
}

#[test]
fn every_truncation_fails() {
    for (source, file) in
        [("nano", "model.safetensors"), ("nano/original", "model.safetensors"), ("nano", "config.json")]
    {
        let dir = scratch("bad_truncated");
        copy_files(&data(source), &dir);
        let whole = std::fs::read(data(source).join(file)).unwrap();
        for point in 0..50 {
            std::fs::write(dir.join(file), &whole[..whole.len() * point / 50]).unwrap();
            assert_fails(&dir, &[file]);
        }
    }
}

#[test]
fn header_lengths_are_not_believed() {
    for (length, found) in [(u64::MAX, "18446744073709551615"), (1 << 32, "4294967296"), (100_000_001, "100000001")] {
        let file = [&length.to_le_bytes()[..], &[b'{'; 100]].concat();
        assert_fails(&folder("bad_length", &file), &["model.safetensors", "at most 100000000", found]);
    }
    let file = [&5000u64.to_le_bytes()[..], b"{}"].concat();
    assert_fails(&folder("bad_length", &file), &["model.safetensors", "5000", "10 bytes"]);
    assert_fails(&folder("bad_length", b"1234567"), &["model.safetensors", "7 bytes"]);
    assert_fails(&folder("bad_length", b""), &["model.safetensors", "0 bytes"]);
}

#[test]
fn headers_that_are_no_table_of_tensors_fail() {
    header_fails("", 0, &["JSON object"]);
    header_fails("[]", 0, &["JSON object"]);
    header_fails("{} x", 0, &["JSON object"]);
    header_fails(&"[".repeat(100_000), 0, &["JSON object"]);
    header_fails(&format!(r#"{{"__metadata__":{}"#, "[".repeat(100_000)), 0, &["JSON object"]);
    header_fails(&format!(r#"{{"a":{}"#, "[".repeat(1000)), 0, &["tensor a"]);
    header_fails(r#"{"a":{"shape":[1],"data_offsets":[0,1]}}"#, 1, &["tensor a", "no dtype"]);
    header_fails(r#"{"a":{"dtype":"U8","data_offsets":[0,1]}}"#, 1, &["tensor a", "no shape"]);
    header_fails(r#"{"a":{"dtype":"U8","shape":[1]}}"#, 1, &["tensor a", "no data_offsets"]);
    header_fails(
        r#"{"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#,
        1,
        &["tensor a", "dtype twice"],
    );
    header_fails(r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1,2]}}"#, 1, &["tensor a", "more than 2"]);
    header_fails(r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0]}}"#, 1, &["tensor a", "not two numbers"]);
    header_fails(r#"{"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}}"#, 1, &["tensor a", "-1"]);
    header_fails(r#"{"a":{"dtype":"U8","shape":[1.5],"data_offsets":[0,1]}}"#, 1, &["tensor a", "1.5"]);
    header_fails(
        r#"{"a":{"dtype":"U8","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,1]}}"#,
        1,
        &["tensor a", "more than 8"],
    );
    header_fails(&format!(r#"{{"{}":{{}}}}"#, "n".repeat(600)), 1, &["600 bytes", "512"]);
}

#[test]
fn shapes_and_offsets_are_checked() {
    let one = |dtype: &str, shape: &str, offsets: &str| {
        format!(r#"{{"a":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#)
    };
    header_fails(&one("F64", "[1]", "[0,8]"), 8, &["tensor a", "BF16", "dtype F64"]);
    header_fails(&one("F32", "[3]", "[0,8]"), 8, &["tensor a", "12 bytes", "8 bytes"]);
    header_fails(&one("F32", "[2]", "[8,0]"), 8, &["tensor a", "ascending", "8 to 0"]);
    header_fails(&one("F32", "[2]", "[0,8]"), 7, &["tensor a", "up to byte 8", "7 bytes"]);
    header_fails(&one("F32", "[2]", "[0,8]"), 9, &["8 bytes", "1 bytes that belong to no tensor"]);
    header_fails(&one("F32", "[2]", "[4,12]"), 12, &["tensor a", "a gap", "byte 4"]);
    header_fails(&one("U8", "[18446744073709551615]", "[0,18446744073709551615]"), 4, &["tensor a"]);
    header_fails(&one("F32", "[18446744073709551615,2]", "[0,8]"), 8, &["tensor a", "fits into memory"]);
    header_fails(&one("F32", "[4294967296,4294967296]", "[0,0]"), 0, &["tensor a", "fits into memory"]);
    header_fails(&one("F32", "[4611686018427387904]", "[0,0]"), 0, &["tensor a", "fits into memory"]);
    header_fails(&one("F32", "[1]", "[18446744073709551612,18446744073709551615]"), 4, &["tensor a"]);
    let two =
        r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}}"#;
    header_fails(two, 6, &["tensor b", "overlap", "byte 4", "byte 2"]);
    let twice =
        r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"a":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}}"#;
    header_fails(twice, 8, &["tensor a", "once"]);
}

/// A folder with two shards, one tensor in each, and this index.
fn sharded(index: &str) -> PathBuf {
    let dir = scratch("bad_index");
    std::fs::copy(data("nano/config.json"), dir.join("config.json")).unwrap();
    for name in ["a", "b"] {
        let header = format!(r#"{{"{name}":{{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}}}"#);
        std::fs::write(dir.join(format!("{name}.safetensors")), safetensors(&header, &[0; 4])).unwrap();
    }
    std::fs::write(dir.join("model.safetensors.index.json"), index).unwrap();
    dir
}

#[track_caller]
fn index_fails(index: &str, parts: &[&str]) {
    assert_fails(&sharded(index), &[&["model.safetensors.index.json"], parts].concat());
}

#[test]
fn an_index_must_agree_with_its_files() {
    let good = sharded(r#"{"metadata":{"total_size":8},"weight_map":{"a":"a.safetensors","b":"b.safetensors"}}"#);
    assert_eq!(ossia_model::checkpoint::Checkpoint::open(&good).unwrap().tensors().count(), 2);
    index_fails(r#"{"weight_map":{"a":"a.safetensors","b":"c.safetensors"}}"#, &["c.safetensors", "no such file"]);
    index_fails(
        r#"{"weight_map":{"a":"a.safetensors","b":"b.safetensors","c":"b.safetensors"}}"#,
        &["tensor c", "b.safetensors", "no tensor"],
    );
    index_fails(r#"{"weight_map":{"b":"b.safetensors","x":"a.safetensors"}}"#, &["tensor a", "a.safetensors", "none"]);
    index_fails(
        r#"{"weight_map":{"a":"b.safetensors","b":"a.safetensors"}}"#,
        &["tensor", "a.safetensors", "b.safetensors"],
    );
    index_fails(r#"{"weight_map":{"a":"a.safetensors","a":"b.safetensors"}}"#, &["tensor a", "two"]);
    index_fails(r#"{"weight_map":{}}"#, &["a weight_map that names tensors", "an empty one"]);
    index_fails("{}", &["no weight_map"]);
    index_fails(r#"{"weight_map":{"a":1}}"#, &["weight_map"]);
    index_fails("[", &["weight_map"]);
    index_fails(&format!(r#"{{"x":{}"#, "[".repeat(100_000)), &["weight_map"]);
}

#[test]
fn an_index_cannot_name_a_path() {
    for name in [
        "../a.safetensors",
        "/etc/passwd",
        "/tmp/a.safetensors",
        "x/a.safetensors",
        "./a.safetensors",
        "..",
        ".safetensors",
        "..\\\\a.safetensors",
        "C:a.safetensors",
        "a.safetensors\\u0000",
        "a\\n.safetensors",
        "",
        "config.json",
    ] {
        index_fails(&format!(r#"{{"weight_map":{{"a":"{name}","b":"b.safetensors"}}}}"#), &["plain", "file names"]);
    }
}

#[test]
fn two_files_cannot_hold_one_tensor() {
    let dir = scratch("bad_twice");
    std::fs::copy(data("nano/config.json"), dir.join("config.json")).unwrap();
    for name in ["x", "y"] {
        std::fs::copy(data("nano/model.safetensors"), dir.join(format!("{name}.safetensors"))).unwrap();
    }
    assert_fails(&dir, &["y.safetensors", "tensor lm_head.weight", "x.safetensors", "once"]);
}

#[test]
fn huge_and_deep_json_is_refused() {
    let dir = folder("bad_json", &std::fs::read(data("nano/model.safetensors")).unwrap());
    let config = |text: &str, parts: &[&str]| {
        std::fs::write(dir.join("config.json"), text).unwrap();
        assert_fails(&dir, &[&["config.json"], parts].concat());
    };
    config(&format!("{{\"a\":\"{}\"}}", "x".repeat(2 << 20)), &["at most 1048576 bytes", "more"]);
    config(&"[".repeat(500_000), &["recursion limit"]);
    config(&format!("{}1", "{\"a\":".repeat(50_000)), &["recursion limit"]);
    config("[]", &["JSON object"]);
    config("{\"a\": 1e999}", &["valid JSON"]);
    std::fs::copy(data("nano/config.json"), dir.join("config.json")).unwrap();
    std::fs::write(dir.join("model.safetensors.index.json"), vec![b' '; (64 << 20) + 1]).unwrap();
    assert_fails(&dir, &["model.safetensors.index.json", "at most 67108864 bytes"]);
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn what_is_no_checkpoint_says_so() {
    let dir = scratch("bad_folder");
    assert_fails(&dir, &["bad_folder", "config.json"]);
    assert_fails(&dir.join("absent"), &["absent", "cannot open"]);
    assert_fails(Path::new("/dev/zero"), &["/dev/zero", "regular file"]);
    assert_fails(&data("nano/model.safetensors"), &["model.safetensors", "folder"]);
    std::fs::copy(data("nano/config.json"), dir.join("config.json")).unwrap();
    assert_fails(&dir, &["bad_folder", "safetensors", "none"]);
    std::fs::create_dir(dir.join("model.safetensors")).unwrap();
    assert_fails(&dir, &["model.safetensors", "regular file", "a folder"]);
}
