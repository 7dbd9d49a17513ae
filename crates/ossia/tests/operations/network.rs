//! The server needs no network and tries none: it runs in a network namespace that has loopback only, and its system calls
//! are watched.

use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use super::server::{Server, key, ossia, output};

/// A namespace of one's own, with loopback up; then the program and its arguments.
const NAMESPACE: [&str; 6] = ["--user", "--map-root-user", "--net", "sh", "-c", "ip link set lo up && exec \"$@\""];

#[test]
fn no_way_out_is_needed() {
    let namespace = |program: &str| {
        let mut command = Command::new("unshare");
        command.args(NAMESPACE).args(["sh", program]);
        command
    };
    if !namespace("true").output().is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: this system allows no network namespaces (unshare, ip)");
        return;
    }
    let own = std::env::current_exe().unwrap();
    let mut inside = namespace(own.to_str().unwrap());
    let ran = inside.args(["--exact", "network::inside", "--ignored", "--nocapture"]).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success() && said.contains("1 passed"), "{said}");
}

#[test]
#[ignore = "no_way_out_is_needed runs it, in a namespace of its own"]
fn inside() {
    let outside: SocketAddr = "192.0.2.1:443".parse().unwrap();
    assert!(TcpStream::connect_timeout(&outside, Duration::from_secs(5)).is_err(), "there is no way out");
    let data = tempfile::tempdir().unwrap();
    let key = key(data.path(), "infer");
    let calls = data.path().join("calls");
    let has_strace = Command::new("strace").arg("--version").output().is_ok();
    let program = ossia(data.path(), &["serve", "--port", "0", "--no-first-key"]);
    let mut server = match has_strace {
        false => Server::spawn(program, &key),
        true => {
            let mut watched = Command::new("strace");
            watched.args(["-f", "-qq", "-e", "trace=connect,sendto,sendmsg", "-o"]).arg(&calls);
            watched.arg(program.get_program()).args(program.get_args()).env("OSSIA_DATA", data.path());
            watched.env_remove("OSSIA_MODEL").env_remove("OSSIA_DATABASE_URL");
            Server::spawn(watched, &key)
        }
    };
    assert_eq!(server.chat().unwrap().0, 200);
    for path in ["/", "/v1/models", "/api/tags", "/openapi.json"] {
        assert_eq!(server.ask("GET", path, "").unwrap().0, 200, "{path}");
    }
    let answer = server.ask("POST", "/v1/responses", r#"{"model":"nano","input":"Hello!"}"#).unwrap();
    assert_eq!(answer.0, 200, "{answer:?}");
    // strace keeps signals for itself.
    let watcher = server.child.id();
    let children = std::fs::read_to_string(format!("/proc/{watcher}/task/{watcher}/children")).unwrap_or_default();
    let pid = if has_strace { children.trim().to_owned() } else { watcher.to_string() };
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success(), "{pid:?}");
    assert!(server.child.wait().unwrap().success());
    assert!(output(data.path(), &["audit", "verify"]).status.success());
    if !has_strace {
        eprintln!("strace is not here: system calls are not watched");
    } else {
        let calls = std::fs::read_to_string(&calls).unwrap();
        let away: Vec<&str> = calls.lines().filter(|line| line.contains("sa_family=AF_INET")).collect();
        assert!(away.is_empty(), "{away:?}");
    }
}
