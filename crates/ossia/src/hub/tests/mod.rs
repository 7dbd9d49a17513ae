//! Downloads from a loopback server with its faults, and the cache as it is found. No test leaves the machine.

mod cached;
mod server;

use super::*;
use server::{COMMIT, Faults, Server};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const CONFIG: &[u8] = br#"{"model_type": "gpt_oss"}"#;

/// Weights of 100,000 bytes without a period that a mistaken resume could hide behind.
fn weights() -> Vec<u8> {
    (0..100_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

fn start(faults: Faults) -> (Server, TempDir) {
    let files: [(&str, &[u8]); 4] = [
        ("config.json", CONFIG),
        ("README.md", b"x"),
        ("model.safetensors", &weights()),
        ("original/config.json", b"{}"),
    ];
    (Server::start(&files, faults), TempDir::new().unwrap())
}

fn fetch(server: &Server, cache: &TempDir) -> Result<Pulled, HubError> {
    pull("gpt-oss-20b", &PullOptions::default(), &server.settings(cache.path()), &mut Silent)
}

fn folder(cache: &TempDir) -> PathBuf {
    cache.path().join("models--openai--gpt-oss-20b")
}

/// Nothing that a reader of the cache would take for a model.
fn assert_nothing_shown(cache: &TempDir) {
    assert!(!folder(cache).join("snapshots").exists() && !folder(cache).join("refs").exists());
}

fn partial(cache: &TempDir) -> Option<PathBuf> {
    let blobs = std::fs::read_dir(folder(cache).join("blobs")).ok()?;
    blobs.flatten().map(|entry| entry.path()).find(|path| path.extension().is_some_and(|e| e == "incomplete"))
}

#[test]
fn a_fresh_pull_fills_the_cache_and_a_second_fetches_nothing() {
    let (server, cache) = start(Faults::default());
    let pulled = fetch(&server, &cache).unwrap();
    let snapshot = folder(&cache).join("snapshots").join(COMMIT);
    let bytes = (CONFIG.len() + weights().len()) as u64;
    let want = Pulled {
        repo: "openai/gpt-oss-20b".to_owned(),
        revision: COMMIT.to_owned(),
        path: snapshot.clone(),
        num_files: 2,
        bytes,
        received_bytes: bytes,
    };
    assert_eq!(pulled, want);
    assert_eq!(std::fs::read(snapshot.join("model.safetensors")).unwrap(), weights());
    assert_eq!(std::fs::read(snapshot.join("config.json")).unwrap(), CONFIG);
    assert!(!snapshot.join("README.md").exists());
    assert_eq!(std::fs::read_to_string(folder(&cache).join("refs/main")).unwrap(), COMMIT);
    let blob = snapshot.join("model.safetensors").canonicalize().unwrap();
    assert_eq!(blob.file_name().unwrap().to_str().unwrap(), sha256_of(&blob, &mut |_| {}).unwrap());

    let asked = server.requests().len();
    assert_eq!(fetch(&server, &cache).unwrap(), Pulled { received_bytes: 0, ..want });
    assert_eq!(server.requests().len(), asked + 1, "only the description is asked for again");
}

#[test]
fn a_cached_file_can_be_checked_again() {
    let (server, cache) = start(Faults::default());
    let path = fetch(&server, &cache).unwrap().path;
    for name in ["config.json", "model.safetensors"] {
        let file = path.join(name);
        let promised = Digest::promised(&file).unwrap();
        assert_eq!(promised.found(&file, &mut |_| {}).unwrap(), promised, "{name}");
        let mut bytes = std::fs::read(&file).unwrap();
        bytes[1] ^= 1;
        std::fs::write(&file, bytes).unwrap();
        assert_ne!(promised.found(&file, &mut |_| {}).unwrap(), promised, "{name}");
    }
    assert_eq!(Digest::promised(&folder(&cache).join("refs/main")), None);
}

#[test]
fn a_model_that_was_pulled_is_found_by_its_name() {
    let (server, cache) = start(Faults::default());
    let settings = server.settings(cache.path());
    let before = resolve("gpt-oss-20b", &settings).unwrap_err().to_string();
    assert!(before.contains("ossia pull gpt-oss-20b") && before.contains("refs/main"), "{before}");
    let pulled = fetch(&server, &cache).unwrap();
    for name in ["gpt-oss-20b", "openai/gpt-oss-20b"] {
        assert_eq!(resolve(name, &settings).unwrap().path, pulled.path);
    }
}

#[test]
fn the_original_layout_lies_in_its_own_folder() {
    let (server, cache) = start(Faults::default());
    let options = PullOptions { original: true, file: None };
    let pulled = pull("gpt-oss-20b", &options, &server.settings(cache.path()), &mut Silent).unwrap();
    assert_eq!(std::fs::read(pulled.path.join("config.json")).unwrap(), b"{}");
    assert!(pulled.path.ends_with("original"));
}

#[test]
fn a_cut_connection_is_taken_up_where_it_ended() {
    let (server, cache) = start(Faults { cut_after: 30_000, cuts: 3, ..Faults::default() });
    let pulled = fetch(&server, &cache).unwrap();
    assert_eq!(std::fs::read(pulled.path.join("model.safetensors")).unwrap(), weights());
    let ranges: Vec<String> = server.requests().iter().filter_map(|r| r.headers.get("range").cloned()).collect();
    // The first cut hits config.json after its last byte: a body that is shorter than the cut is whole.
    assert_eq!(ranges, ["bytes=30000-", "bytes=60000-"]);
    assert_eq!(pulled.received_bytes, pulled.bytes);
}

#[test]
fn a_later_run_goes_on_with_a_partial_file() {
    let (server, cache) = start(Faults::default());
    let impatient = Settings { retries: 0, ..server.settings(cache.path()) };
    let once = |cuts| {
        server.set(Faults { cut_after: 25_000, cuts, ..Faults::default() });
        pull("gpt-oss-20b", &PullOptions::default(), &impatient, &mut Silent)
    };
    assert!(matches!(once(2), Err(HubError::Network { .. })));
    assert_nothing_shown(&cache);
    assert_eq!(partial(&cache).unwrap().metadata().unwrap().len(), 25_000);
    let pulled = once(0).unwrap();
    assert_eq!(pulled.received_bytes, 75_000);
    assert_eq!(std::fs::read(pulled.path.join("model.safetensors")).unwrap(), weights());
    assert_eq!(partial(&cache), None);
}

#[test]
fn a_server_without_ranges_sends_all_again() {
    let (server, cache) = start(Faults { cut_after: 30_000, cuts: 2, no_ranges: true, ..Faults::default() });
    let pulled = fetch(&server, &cache).unwrap();
    assert_eq!(std::fs::read(pulled.path.join("model.safetensors")).unwrap(), weights());
    assert_eq!(pulled.received_bytes, pulled.bytes + 30_000);
}

#[test]
fn attempts_without_progress_end() {
    let (server, cache) = start(Faults { cut_after: 30_000, cuts: usize::MAX, no_ranges: true, ..Faults::default() });
    assert!(matches!(fetch(&server, &cache), Err(HubError::Network { .. })));
    let asked = server.requests().iter().filter(|r| r.path.ends_with("model.safetensors")).count();
    assert_eq!(asked, 3, "sent again from its start, the same bytes are no progress");
    assert_nothing_shown(&cache);
}

#[test]
fn a_wrong_hash_is_refused_and_leaves_nothing() {
    let (server, cache) = start(Faults { corrupt: true, ..Faults::default() });
    let error = fetch(&server, &cache).unwrap_err();
    assert!(matches!(&error, HubError::Hash { file, .. } if file == "config.json"), "{error}");
    assert_nothing_shown(&cache);
    assert_eq!(std::fs::read_dir(folder(&cache).join("blobs")).unwrap().count(), 0);
}

#[test]
fn a_partial_file_with_wrong_bytes_is_refused_too() {
    let (server, cache) = start(Faults::default());
    fetch(&server, &cache).unwrap();
    let blob = folder(&cache).join("snapshots").join(COMMIT).join("model.safetensors").canonicalize().unwrap();
    std::fs::remove_file(&blob).unwrap();
    let partial = blob.with_extension("incomplete");
    std::fs::write(&partial, vec![7; 50_000]).unwrap();
    assert!(matches!(fetch(&server, &cache), Err(HubError::Hash { .. })));
    assert!(!blob.exists() && !partial.exists());
    assert_eq!(fetch(&server, &cache).unwrap().received_bytes, 100_000);
}

#[test]
fn the_token_goes_to_the_endpoint_only() {
    let (other, cache) = start(Faults::default());
    let (endpoint, _cache) = start(Faults { redirect: Some(other.address.clone()), ..Faults::default() });
    fetch(&endpoint, &cache).unwrap();
    let tokens = |server: &Server| -> Vec<bool> {
        server
            .requests()
            .iter()
            .map(|r| r.headers.get("authorization").is_some_and(|t| t == "Bearer hf_secret"))
            .collect()
    };
    assert_eq!(tokens(&endpoint), [true; 3]);
    assert_eq!(tokens(&other), [false; 2]);
    assert!(other.requests().iter().all(|r| !r.headers.contains_key("authorization")));
}

#[test]
fn redirects_end() {
    let (server, cache) = start(Faults::default());
    server.set(Faults { redirect: Some(server.address.clone()), ..Faults::default() });
    let error = fetch(&server, &cache).unwrap_err().to_string();
    assert!(error.contains("redirects"), "{error}");
}

#[test]
fn offline_asks_nobody() {
    let (server, cache) = start(Faults::default());
    let settings = Settings { offline: true, ..server.settings(cache.path()) };
    let error = pull("gpt-oss-20b", &PullOptions::default(), &settings, &mut Silent).unwrap_err().to_string();
    assert!(error.contains("HF_HUB_OFFLINE"), "{error}");
    assert_eq!(server.requests().len(), 0);
}

#[test]
fn names_from_the_server_stay_in_the_folder() {
    for name in
        ["../../../evil.safetensors", "/evil.safetensors", "a\\..\\evil.safetensors", "original/../../x.safetensors"]
    {
        let (server, cache) = start(Faults { rename: Some(name.to_owned()), ..Faults::default() });
        assert!(matches!(fetch(&server, &cache), Err(HubError::Listing { .. })), "{name}");
        assert_eq!(std::fs::read_dir(cache.path()).unwrap().count(), 0, "{name}");
    }
}

#[test]
fn refusals_say_what_to_do() {
    for (status, advice, attempts) in
        [(401, "HF_TOKEN", 1), (403, "HF_TOKEN", 1), (404, "check the name", 1), (503, "later", 3)]
    {
        let (server, cache) = start(Faults { status: Some(status), ..Faults::default() });
        let error = fetch(&server, &cache).unwrap_err().to_string();
        assert!(error.contains(advice) && error.contains(&status.to_string()), "{error}");
        assert!(!error.contains("hf_secret"), "{error}");
        assert_eq!(server.requests().len(), attempts, "{status}");
    }
}

#[test]
fn what_does_not_fit_is_refused_before_the_first_byte() {
    let (server, cache) = start(Faults { size: Some(u64::MAX / 4), ..Faults::default() });
    let error = fetch(&server, &cache).unwrap_err();
    assert!(matches!(error, HubError::Room { .. }), "{error}");
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn two_programs_do_not_write_one_file() {
    let (server, cache) = start(Faults::default());
    let blobs = folder(&cache).join("blobs");
    std::fs::create_dir_all(&blobs).unwrap();
    let hash = server::hex(&<sha2::Sha256 as sha2::Digest>::digest(weights()));
    let held = std::fs::File::create(blobs.join(format!("{hash}.incomplete"))).unwrap();
    held.lock().unwrap();
    assert!(matches!(fetch(&server, &cache), Err(HubError::Busy { .. })));
    held.unlock().unwrap();
    fetch(&server, &cache).unwrap();
}

#[test]
fn an_unreachable_server_is_one_line() {
    let settings = Settings {
        endpoint: "http://127.0.0.1:1".to_owned(),
        ..start(Faults::default()).0.settings(Path::new("unused"))
    };
    let error = pull("gpt-oss-20b", &PullOptions::default(), &settings, &mut Silent).unwrap_err().to_string();
    assert!(error.contains("127.0.0.1:1") && error.lines().count() == 1, "{error}");
}
