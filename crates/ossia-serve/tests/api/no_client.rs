//! The server can call nobody over HTTP: nothing that it is made of is an HTTP client or looks names up by itself. Only the
//! program's `pull` has one, in a crate that the server does not use.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

/// Crates that fetch, or that exist to find out where to.
const CLIENTS: &[&str] = &[
    "attohttpc",
    "aws-config",
    "awc",
    "curl",
    "hickory-resolver",
    "hyper-rustls",
    "hyper-tls",
    "isahc",
    "minreq",
    "reqwest",
    "sentry",
    "surf",
    "tonic",
    "trust-dns-resolver",
    "tungstenite",
    "ureq",
];

/// Names of all packages that `root` is made of, from the lock file.
fn made_of(lock: &str, root: &str) -> BTreeSet<String> {
    let mut uses: HashMap<&str, Vec<&str>> = HashMap::new();
    for package in lock.split("[[package]]").skip(1) {
        let name = package.split('"').nth(1).expect("a name");
        let listed = package.split_once("dependencies = [").and_then(|(_, rest)| rest.split_once(']'));
        let listed = listed.map_or("", |(listed, _)| listed);
        let names = listed.lines().filter_map(|line| line.split('"').nth(1)?.split(' ').next());
        uses.entry(name).or_default().extend(names);
    }
    let (mut found, mut open) = (BTreeSet::new(), vec![root]);
    while let Some(name) = open.pop() {
        if found.insert(name.to_owned()) {
            open.extend(uses.get(name).into_iter().flatten());
        }
    }
    found
}

#[test]
fn the_server_links_no_http_client() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.lock");
    let lock = std::fs::read_to_string(path).unwrap();
    let server = made_of(&lock, "ossia-serve");
    assert!(server.contains("axum") && server.contains("tokio") && server.len() > 50, "{server:?}");
    let clients: Vec<_> = CLIENTS.iter().filter(|client| server.contains(**client)).collect();
    assert!(clients.is_empty(), "{clients:?}");
    assert!(made_of(&lock, "ossia").contains("ureq"), "the program's own client is found, so this test can fail");
}
