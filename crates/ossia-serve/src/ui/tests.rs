//! The page's files: all are served, each names only files that are, and nothing in them could run what a text contains.
//! What the modules do is tested in `tests/ui`, here run by Node where there is one.

use std::path::Path;
use std::process::Command;

use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderValue, StatusCode};

use super::{FILES, SERVED, file, lean};

const MOST_BYTES: usize = 150_000;

#[test]
fn every_file_of_the_folder_is_served() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ui");
    let mut on_disk: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    on_disk.retain(|name| !name.ends_with(".rs"));
    on_disk.sort();
    let mut served: Vec<&str> = FILES.iter().map(|(name, _)| *name).collect();
    served.sort_unstable();
    assert_eq!(on_disk, served);
    for (name, text) in FILES {
        let answer = file(name, &HeaderMap::new());
        assert_eq!(answer.status(), StatusCode::OK);
        assert_ne!(answer.headers()[CONTENT_TYPE], "application/octet-stream", "{name}");
        assert!(!text.is_empty());
    }
}

#[test]
fn other_names_are_not_found() {
    for name in ["", "mod.rs", "../mod.rs", "INDEX.HTML", "app.js/", "."] {
        assert_eq!(file(name, &HeaderMap::new()).status(), StatusCode::NOT_FOUND, "{name}");
    }
}

#[test]
fn a_known_version_is_not_sent_again() {
    let first = file("app.js", &HeaderMap::new());
    let tag = first.headers()[ETAG].to_str().unwrap().to_owned();
    for (given, status) in [
        (tag.clone(), StatusCode::NOT_MODIFIED),
        (format!("W/{tag}"), StatusCode::NOT_MODIFIED),
        (format!("\"old\", {tag}"), StatusCode::NOT_MODIFIED),
        ("\"old\"".to_owned(), StatusCode::OK),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(IF_NONE_MATCH, HeaderValue::from_str(&given).unwrap());
        assert_eq!(file("app.js", &headers).status(), status, "{given}");
    }
}

#[test]
fn the_policy_allows_only_these_files() {
    let answer = file("index.html", &HeaderMap::new());
    let policy = answer.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap();
    assert!(policy.starts_with("default-src 'self';") && !policy.contains("unsafe"), "{policy}");
}

#[test]
fn imports_and_links_lead_to_files() {
    let known = |name: &str| FILES.iter().any(|(file, _)| *file == name);
    for (name, text) in FILES {
        for part in text.split("from \"./").skip(1).chain(text.split("=\"/ui/").skip(1)) {
            let target = part.split('"').next().unwrap();
            assert!(known(target), "{name} names {target}, which is not served");
        }
    }
}

/// Doors through which text could become markup or code, and addresses that a browser would fetch.
#[test]
fn nothing_runs_text_and_nothing_is_fetched_elsewhere() {
    let doors = [
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "new Function",
        "srcdoc",
        "DOMParser",
    ];
    for (name, text) in FILES {
        for door in doors {
            assert!(!text.contains(door), "{name} has {door}");
        }
        for part in text.split("://").skip(1) {
            assert!(
                part.starts_with("www.w3.org/") || !part.starts_with(char::is_alphanumeric),
                "{name}: ://{part:.20}"
            );
        }
        assert!(
            !name.ends_with(".html") || !text.contains(" style=") && !text.contains(" on"),
            "{name} has inline code"
        );
    }
}

#[test]
fn comments_and_indentation_stay_here() {
    assert_eq!(
        lean("// why\n\nlet a = 1; // one\n  {\n    // two\n    b(\"//\");\n  }\n"),
        "let a = 1; // one\n{\nb(\"//\");\n}\n"
    );
}

#[test]
fn the_page_stays_small() {
    let total: usize = SERVED.iter().map(|(_, text)| text.len()).sum();
    assert!(total <= MOST_BYTES, "{total} bytes");
}

#[test]
fn the_modules_pass_their_tests() {
    if Command::new("node").arg("--version").output().is_err() {
        eprintln!("skipped: there is no node");
        return;
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/ui");
    let mut tests: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    tests.retain(|path| path.to_string_lossy().ends_with(".test.mjs"));
    assert!(tests.len() >= 5);
    let output = Command::new("node").arg("--test").args(tests).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
