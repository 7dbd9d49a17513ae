//! `ossia serve` and `ossia keys` from the outside: the first key, restarts, revoked keys, signals, refusals.
#![cfg(unix)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};

fn ossia(data: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ossia"));
    command.args(args).arg("--data").arg(data).env_remove("OSSIA_MODEL").env_remove("OSSIA_DATABASE_URL");
    command
}

fn output(data: &Path, args: &[&str]) -> Output {
    ossia(data, args).output().expect("the program starts")
}

fn said(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A running server, ended when it is dropped.
struct Server {
    child: Child,
    /// What it said when it was ready.
    greeting: String,
    at: String,
    _stdout: BufReader<ChildStdout>,
}

impl Server {
    fn start(data: &Path, args: &[&str]) -> Self {
        let args = [&["serve", "--port", "0", "--parallel", "4"], args].concat();
        let mut command = ossia(data, &args);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the program starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let mut greeting = String::new();
        while !greeting.contains("env_key") {
            assert_ne!(stdout.read_line(&mut greeting).expect("stdout is text"), 0, "it ended early: {greeting}");
        }
        let at = greeting.split("http://").nth(1).expect("an address").split('/').next().expect("a part").to_owned();
        Self { child, greeting, at, _stdout: stdout }
    }

    fn key(&self) -> Option<String> {
        let (_, rest) = self.greeting.split_once("#key=")?;
        rest.split_whitespace().next().map(str::to_owned)
    }

    /// The status and the body.
    fn get(&self, path: &str, key: Option<&str>) -> (u16, String) {
        let key = key.map(|key| format!("Authorization: Bearer {key}\r\n")).unwrap_or_default();
        let mut stream = TcpStream::connect(&self.at).expect("it listens");
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n{key}Connection: close\r\n\r\n", self.at);
        stream.write_all(request.as_bytes()).expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        let status = answer.split(' ').nth(1).and_then(|word| word.parse().ok()).expect("a status");
        (status, answer.split_once("\r\n\r\n").expect("a body").1.to_owned())
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(sent.expect("kill is there").success());
    }

    /// Waits for its end; true if it went well.
    fn ended_well(&mut self) -> bool {
        self.child.wait().expect("it ends").success()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_first_start_makes_a_key_that_lasts_until_it_is_revoked() {
    let data = tempfile::tempdir().unwrap();
    let mut first = Server::start(data.path(), &[]);
    let key = first.key().expect("a key");
    assert_eq!(first.get("/v1/models", None).0, 401);
    let (status, models) = first.get("/v1/models", Some(&key));
    assert!(status == 200 && models.contains("\"nano\""), "{models}");
    first.signal("TERM");
    assert!(first.ended_well());

    let mut second = Server::start(data.path(), &["--alias", "mine"]);
    assert_eq!(second.key(), None, "it is shown once");
    assert!(second.get("/v1/models", Some(&key)).1.contains("\"mine\""));
    let added = output(data.path(), &["keys", "add", "--name", "shop", "--expires", "1d"]);
    let shop = said(&added.stdout).trim().to_owned();
    assert_eq!(second.get("/v1/models", Some(&shop)).0, 200, "a running server knows a new key");
    assert_eq!(second.get("/metrics", Some(&shop)).0, 403, "it may only infer");
    assert!(said(&output(data.path(), &["keys", "list"]).stdout).contains("shop"));
    assert!(output(data.path(), &["keys", "revoke", "shop"]).status.success());
    assert_eq!(second.get("/v1/models", Some(&shop)).0, 401);
    second.signal("INT");
    assert!(second.ended_well());
}

#[test]
fn without_a_key_on_this_machine_alone() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &["--no-key"]);
    assert_eq!(server.key(), None);
    for key in [None, Some("none"), Some("ollama")] {
        assert_eq!(server.get("/api/version", key).0, 200, "{key:?}");
        assert_eq!(server.get("/metrics", key).0, 401, "{key:?}");
    }
    assert_eq!(server.get("/api/version", Some("sk-ossia-mistyped")).0, 401);
}

#[test]
fn what_would_be_unsafe_or_cannot_be_is_refused() {
    let data = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for (args, part) in [
        (&["serve", "--port", &port][..], "is taken"),
        (&["serve", "--host", "0.0.0.0", "--port", "0"], "--tls-cert and --tls-key, or say --insecure"),
        (&["serve", "--host", "0.0.0.0", "--port", "0", "--insecure", "--no-key"], "--no-key on 0.0.0.0"),
        (&["serve", "--port", "0", "--tls-cert", "none.pem", "--tls-key", "none.pem"], "none.pem"),
        (&["serve", "--port", "0", "-m", "no-such-model"], "no-such-model"),
        (&["keys", "revoke", "nobody"], "no key \"nobody\""),
        (&["keys", "add", "--expires", "soon"], "wanted a time such as"),
    ] {
        let refused = output(data.path(), args);
        assert!(!refused.status.success(), "{args:?}");
        let line = said(&refused.stderr);
        assert!(line.contains(part), "{args:?}: {line}");
        assert!(!line.contains("panicked"), "{line}");
    }
}

#[test]
fn keys_that_others_can_read_are_not_used() {
    use std::os::unix::fs::PermissionsExt;
    let data = tempfile::tempdir().unwrap();
    assert!(output(data.path(), &["keys", "add"]).status.success());
    let file = data.path().join("keys.json");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let refused = output(data.path(), &["serve", "--port", "0"]);
    assert!(!refused.status.success() && said(&refused.stderr).contains("chmod 600"), "{}", said(&refused.stderr));
}
