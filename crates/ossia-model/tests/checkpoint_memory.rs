//! Hostile files of the largest allowed size, alone in this process so that its peak memory is theirs.

use std::io::Write;
use std::path::{Path, PathBuf};

use ossia_model::checkpoint::Checkpoint;

/// The most memory this process has had, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

/// Writes `head`, then `unit` until the file has `size` bytes, in pieces.
fn fill(path: &Path, head: &[u8], unit: &[u8], size: usize) {
    let mut out = std::io::BufWriter::new(std::fs::File::create(path).unwrap());
    out.write_all(head).unwrap();
    for _ in 0..size.saturating_sub(head.len()) / unit.len() {
        out.write_all(unit).unwrap();
    }
}

fn folder() -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("checkpoint_memory");
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

/// 100 MB of header in the shapes that cost a parser most; 64 MB of index; 100 MB of GGUF metadata.
#[test]
fn hostile_files_take_less_than_256_mb() {
    const MOST: usize = 100_000_000;
    let dir = folder();
    std::fs::write(dir.join("config.json"), "{}").unwrap();
    let model = dir.join("model.safetensors");
    let length = (MOST as u64).to_le_bytes();
    let check = |path: &Path, what: &str| {
        let error = Checkpoint::open(path).expect_err(what).to_string();
        assert!(error.len() < 2000 && !error.contains('\n'), "{what}: {error}");
        assert!(peak() < 256 << 20, "{what}: peak {} MB", peak() >> 20);
    };
    for (what, open, unit) in [
        ("deep arrays", r#"{"__metadata__":"#, "["),
        ("a shape of millions", r#"{"a":{"dtype":"U8","shape":["#, "0,"),
        ("an endless name", r#"{"\n"#, "x"),
        ("an endless escaped name", r#"{""#, "\\n"),
        ("tensors", "{", r#""":{"dtype":"","shape":[],"data_offsets":[0,0]},"#),
        ("an endless dtype", r#"{"a":{"dtype":"\n"#, "x"),
    ] {
        fill(&model, &[&length, open.as_bytes()].concat(), unit.as_bytes(), MOST + 8 + unit.len());
        check(&dir, what);
    }
    std::fs::remove_file(&model).unwrap();
    let index = dir.join("model.safetensors.index.json");
    fill(&index, br#"{"weight_map":{"#, br#""aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa":"a.safetensors","#, 64 << 20);
    check(&dir, "an index");
    fill(&dir.join("config.json"), b"[", b"{},", 1 << 20);
    check(&dir, "a config of empty objects");
    let gguf = dir.join("x.gguf");
    let head = [
        b"GGUF\x03\0\0\0",
        &0u64.to_le_bytes()[..],
        &1u64.to_le_bytes(),
        &1u64.to_le_bytes(),
        b"k",
        &9u32.to_le_bytes(),
    ]
    .concat();
    let strings = [&head[..], &8u32.to_le_bytes(), &(1u64 << 32).to_le_bytes()].concat();
    fill(&gguf, &strings, &[0; 8], MOST + (1 << 20));
    check(&gguf, "an array of empty strings");
    let bytes = [&head[..], &0u32.to_le_bytes(), &(MOST as u64 - 100).to_le_bytes()].concat();
    fill(&gguf, &bytes, &[0; 8], MOST + (1 << 20));
    Checkpoint::open(&gguf).expect("an array of 100 MB is allowed");
    assert!(peak() < 256 << 20, "a large array: peak {} MB", peak() >> 20);
    std::fs::remove_dir_all(dir).unwrap();
}
