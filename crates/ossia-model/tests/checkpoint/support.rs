//! Folders to work in, and builders of files that may be wrong.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use ossia_model::checkpoint::{Checkpoint, Error};

/// A file or folder of the tests' data.
pub fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// A new empty folder of this call alone, with this name in its path.
pub fn scratch(name: &str) -> PathBuf {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("checkpoint/{call}/{name}"));
    if dir.exists() {
        std::fs::remove_dir_all(&dir).unwrap();
    }
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

/// Copies the files of `from`, not its folders, into `to`.
pub fn copy_files(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// The error of opening `path`, which must be one line that holds every one of `parts`.
#[track_caller]
pub fn assert_fails(path: &Path, parts: &[&str]) {
    match Checkpoint::open(path) {
        Ok(_) => panic!("{} opens, wanted an error with {parts:?}", path.display()),
        Err(error) => assert_says(&error, parts),
    }
}

/// `error` must be one line that holds every one of `parts`, and what was wanted and found.
#[track_caller]
pub fn assert_says(error: &Error, parts: &[&str]) {
    let line = error.to_string();
    assert!(!line.contains('\n') && line.len() < 2000, "not one short line: {line}");
    for part in parts {
        assert!(line.contains(part), "no {part:?} in: {line}");
    }
    assert!(line.contains("wanted") && line.contains("found") || line.contains("cannot"), "{line}");
}

/// A safetensors file with this header and data.
pub fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
}

/// A GGUF file in parts, each of which may be wrong.
#[derive(Clone)]
pub struct Gguf {
    pub version: u32,
    pub num_tensors: Option<u64>,
    pub num_keys: Option<u64>,
    /// Key, type, the value's bytes.
    pub keys: Vec<(String, u32, Vec<u8>)>,
    /// Name, dimensions, type, offset.
    pub tensors: Vec<(String, Vec<u64>, u32, u64)>,
    pub data: Vec<u8>,
}

impl Gguf {
    /// A valid file with no keys and no tensors.
    pub fn empty() -> Self {
        Self { version: 3, num_tensors: None, num_keys: None, keys: vec![], tensors: vec![], data: vec![] }
    }

    /// A valid file with a config, an array of strings, and three tensors of 32, 34 and 17 bytes.
    pub fn small() -> Self {
        let mut file = Self::empty();
        for (key, value) in [("general.architecture", "gpt-oss"), ("gpt-oss.rope.scaling.type", "yarn")] {
            file.keys.push((key.into(), 8, string(value)));
        }
        for (key, value) in [
            ("gpt-oss.block_count", 2),
            ("gpt-oss.context_length", 2048),
            ("gpt-oss.embedding_length", 32),
            ("gpt-oss.feed_forward_length", 64),
            ("gpt-oss.expert_feed_forward_length", 64),
            ("gpt-oss.attention.head_count", 4),
            ("gpt-oss.attention.head_count_kv", 2),
            ("gpt-oss.attention.key_length", 16),
            ("gpt-oss.attention.value_length", 16),
            ("gpt-oss.attention.sliding_window", 4),
            ("gpt-oss.expert_count", 4),
            ("gpt-oss.expert_used_count", 2),
            ("gpt-oss.rope.scaling.original_context_length", 64),
        ] {
            file.keys.push((key.into(), 4, u32::to_le_bytes(value).to_vec()));
        }
        for (key, value) in [
            ("gpt-oss.rope.freq_base", 150_000.0),
            ("gpt-oss.rope.scaling.factor", 32.0),
            ("gpt-oss.rope.scaling.yarn_beta_fast", 4.0),
            ("gpt-oss.rope.scaling.yarn_beta_slow", 0.25),
            ("gpt-oss.attention.layer_norm_rms_epsilon", 1e-5),
        ] {
            file.keys.push((key.into(), 6, f32::to_le_bytes(value).to_vec()));
        }
        file.keys.push(("tokenizer.ggml.tokens".into(), 9, array(8, 2, &[string("a"), string("bc")].concat())));
        file.keys.push(("tokenizer.ggml.token_type".into(), 9, array(5, 2, &[1, 0, 0, 0, 3, 0, 0, 0])));
        file.tensors.push(("token_embd.weight".into(), vec![2, 4], 0, 0));
        file.tensors.push(("a".into(), vec![32], 8, 32));
        file.tensors.push(("b".into(), vec![32], 39, 96));
        file.data = vec![1; 113];
        file
    }

    /// Replaces the value of `key`, or adds it.
    pub fn with(mut self, key: &str, kind: u32, value: Vec<u8>) -> Self {
        self.keys.retain(|(k, ..)| k != key);
        self.keys.push((key.into(), kind, value));
        self
    }

    /// Adds a tensor.
    pub fn tensor(mut self, name: &str, dims: &[u64], kind: u32, offset: u64) -> Self {
        self.tensors.push((name.into(), dims.into(), kind, offset));
        self
    }

    /// The file.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend(self.num_tensors.unwrap_or(self.tensors.len() as u64).to_le_bytes());
        out.extend(self.num_keys.unwrap_or(self.keys.len() as u64).to_le_bytes());
        for (key, kind, value) in &self.keys {
            out.extend(string(key));
            out.extend(kind.to_le_bytes());
            out.extend(value);
        }
        for (name, dims, kind, offset) in &self.tensors {
            out.extend(string(name));
            out.extend((dims.len() as u32).to_le_bytes());
            dims.iter().for_each(|d| out.extend(d.to_le_bytes()));
            out.extend(kind.to_le_bytes());
            out.extend(offset.to_le_bytes());
        }
        out.resize(out.len().next_multiple_of(32), 0);
        out.extend(&self.data);
        out
    }
}

/// A GGUF string.
pub fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

/// A GGUF array.
pub fn array(kind: u32, len: u64, elements: &[u8]) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &len.to_le_bytes(), elements].concat()
}
