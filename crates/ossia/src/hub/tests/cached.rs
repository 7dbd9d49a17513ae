//! Settings from variables, names to places, and what the cache holds.

use crate::hub::*;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn settings(variables: &[(&str, &str)]) -> Result<Settings, HubError> {
    let lookup = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
    Settings::from_lookup(lookup, Some(Path::new("home")))
}

fn in_cache(cache: &Path) -> Settings {
    settings(&[("HF_HUB_CACHE", cache.to_str().unwrap())]).unwrap()
}

fn write(path: PathBuf, text: &[u8]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

#[test]
fn the_cache_is_where_hugging_face_puts_it() {
    let cases: [(&[(&str, &str)], &str); 6] = [
        (&[], "home/.cache/huggingface/hub"),
        (&[("XDG_CACHE_HOME", "x")], "x/huggingface/hub"),
        (&[("HF_HOME", "hf"), ("XDG_CACHE_HOME", "x")], "hf/hub"),
        (&[("HF_HOME", "~/hf")], "home/hf/hub"),
        (&[("HF_HUB_CACHE", "c"), ("HF_HOME", "hf")], "c"),
        (&[("HF_HUB_CACHE", ""), ("HF_HOME", "hf")], "hf/hub"),
    ];
    for (variables, want) in cases {
        assert_eq!(settings(variables).unwrap().cache, Path::new(want), "{variables:?}");
    }
}

#[test]
fn variables_are_checked() {
    assert_eq!(settings(&[("HF_ENDPOINT", "http://h:1/x/")]).unwrap().endpoint, "http://h:1/x");
    for bad in ["h.co", "ftp://h", "https://", "https://me:secret@h"] {
        let error = settings(&[("HF_ENDPOINT", bad)]).unwrap_err().to_string();
        assert!(error.starts_with("HF_ENDPOINT") && !error.contains("secret"), "{error}");
    }
    let error = settings(&[("HF_TOKEN", "hf secret")]).unwrap_err().to_string();
    assert!(error.starts_with("HF_TOKEN") && !error.contains("secret"), "{error}");
    let with_token = settings(&[("HF_TOKEN", " hf_secret\n")]).unwrap();
    assert!(with_token.token.is_some() && !format!("{with_token:?}").contains("secret"));
    for (value, offline) in [("1", true), ("True", true), ("YES", true), ("0", false), ("", false)] {
        assert_eq!(settings(&[("HF_HUB_OFFLINE", value)]).unwrap().offline, offline, "{value}");
    }
}

#[test]
fn paths_are_found_before_names() {
    let dir = TempDir::new().unwrap();
    let at = |name: &str| dir.path().join(name);
    write(at("hf/config.json"), b"{}");
    write(at("hf/model.safetensors"), b"");
    write(at("both/original/config.json"), b"{}");
    write(at("both/original/model.safetensors"), b"");
    write(at("one/x.gguf"), b"");
    for (name, want, layout) in [
        ("hf", "hf", Layout::Folder),
        ("both", "both/original", Layout::Folder),
        ("both/original", "both/original", Layout::Folder),
        ("one", "one/x.gguf", Layout::Gguf),
        ("one/x.gguf", "one/x.gguf", Layout::Gguf),
    ] {
        let found = resolve(at(name).to_str().unwrap(), &in_cache(dir.path())).unwrap();
        assert_eq!(found, Located { path: at(want), layout, repo: None }, "{name}");
    }
}

#[test]
fn what_is_not_there_says_so() {
    let dir = TempDir::new().unwrap();
    let ask = |name: &str| resolve(name, &in_cache(dir.path())).unwrap_err().to_string();
    write(dir.path().join("two/a.gguf"), b"");
    write(dir.path().join("two/b.gguf"), b"");
    write(dir.path().join("none/notes.txt"), b"");
    assert!(ask(dir.path().join("two").to_str().unwrap()).contains("a.gguf, b.gguf"));
    assert!(ask(dir.path().join("none").to_str().unwrap()).contains("found notes.txt"));
    assert!(ask("gpt-oss-120b").contains("openai/gpt-oss-120b is not on this machine"));
    assert!(ask("missing.gguf").contains("there is no file missing.gguf"));
    assert!(ask("me/mine").contains("ossia pull me/mine"));
    for name in ["", "llama", "/no/such/folder", "../x", "a/..", "a/b/c", "a/b c", "-x/y", "gpt-oss-\u{e9}"] {
        assert!(ask(name).contains("is neither a folder"), "{name}: {}", ask(name));
    }
}

#[test]
fn a_reference_that_leaves_the_cache_is_not_followed() {
    let dir = TempDir::new().unwrap();
    let at = |path: &str| dir.path().join(path);
    write(at("elsewhere/config.json"), b"{}");
    write(at("elsewhere/model.safetensors"), b"");
    std::fs::create_dir_all(at("cache/models--openai--gpt-oss-20b/snapshots")).unwrap();
    write(at("cache/models--openai--gpt-oss-20b/refs/main"), b"../../../elsewhere");
    assert!(at("cache/models--openai--gpt-oss-20b/snapshots/../../../elsewhere/config.json").exists());
    assert!(matches!(resolve("gpt-oss-20b", &in_cache(&at("cache"))), Err(HubError::NotCached { .. })));
}

#[test]
fn the_list_holds_the_family_only() {
    let dir = TempDir::new().unwrap();
    let at = |path: &str| dir.path().join(path);
    write(at("models--openai--gpt-oss-20b/snapshots/aa/config.json"), br#"{"model_type": "gpt_oss"}"#);
    write(at("models--openai--gpt-oss-20b/snapshots/aa/model-0.safetensors"), b"1234");
    write(
        at("models--openai--gpt-oss-20b/snapshots/aa/model.safetensors.index.json"),
        br#"{"weight_map": {"a": "model-1.safetensors"}}"#,
    );
    write(at("models--openai--gpt-oss-20b/snapshots/aa/other.gguf"), b"GGUF");
    write(at("models--me--llama/snapshots/bb/config.json"), br#"{"model_type": "llama"}"#);
    write(at("models--me--llama/snapshots/bb/model.safetensors"), b"1");
    let gguf =
        [&b"GGUF\x03\0\0\0"[..], &[0; 24], b"general.architecture", &[8, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0], b"gpt-oss"]
            .concat();
    write(at("models--me--quantized/snapshots/cc/x.gguf"), &gguf);
    write(at("models--me--other/snapshots/dd/x.gguf"), b"GGUFgeneral.architecture");
    write(at("datasets--me--x/snapshots/ee/config.json"), br#"{"model_type": "gpt_oss"}"#);
    let models = list(&in_cache(dir.path())).unwrap();
    let short: Vec<_> = models.iter().map(|m| (m.repo.as_str(), m.revision.as_str(), m.layout, m.complete)).collect();
    assert_eq!(
        short,
        [("me/quantized", "cc", Layout::Gguf, true), ("openai/gpt-oss-20b", "aa", Layout::Folder, false)]
    );
    assert_eq!(models[0].bytes, gguf.len() as u64);
    let bytes = models[1].bytes;
    write(at("models--openai--gpt-oss-20b/snapshots/aa/model-1.safetensors"), b"56");
    let again = list(&in_cache(dir.path())).unwrap();
    assert!(again[1].complete && again[1].bytes == bytes + 2);
    assert_eq!(bytes, 25 + 4 + 44, "config, one shard, index; not the .gguf");
    assert_eq!(list(&in_cache(&at("absent"))).unwrap(), []);
}

#[test]
fn hashes_of_files_are_the_known_ones() {
    let dir = TempDir::new().unwrap();
    write(dir.path().join("x"), b"abc");
    let mut heard = 0;
    let hash = sha256_of(&dir.path().join("x"), &mut |bytes| heard += bytes).unwrap();
    assert_eq!(hash, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_eq!(heard, 3);
    assert!(sha256_of(&dir.path().join("y"), &mut |_| {}).unwrap_err().to_string().contains("opening failed"));
}
