//! The audit log of servers that are killed, and of one whose disk is full.

use std::collections::HashSet;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::server::{Server, key, output};

/// What `ossia audit verify` finds, and whether it says by its exit status that all is well.
fn verified(data: &Path) -> (Value, bool) {
    let checked = output(data, &["audit", "verify", "--json"]);
    let report = serde_json::from_slice(&checked.stdout);
    (report.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&checked.stderr))), checked.status.success())
}

/// The numbers of all requests that are logged; what is torn is no entry.
fn requests(data: &Path) -> Vec<String> {
    let files = std::fs::read_dir(data.join("audit")).unwrap().map(|entry| entry.unwrap().path());
    let logs = files.filter(|path| path.extension().is_some_and(|end| end == "jsonl"));
    let text: String = logs.map(|path| std::fs::read_to_string(path).unwrap()).collect();
    let entries = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let requests = entries.filter(|entry| entry["event"] == "request");
    requests.map(|entry| entry["request"].as_str().unwrap().to_owned()).collect()
}

/// How many are logged; none is twice.
fn num_requests(data: &Path) -> usize {
    let requests = requests(data);
    let distinct: HashSet<&String> = requests.iter().collect();
    assert_eq!(distinct.len(), requests.len(), "a request is logged twice");
    requests.len()
}

#[test]
fn a_killed_servers_log_goes_on() {
    let data = tempfile::tempdir().unwrap();
    let key = key(data.path(), "infer");
    let mut answered = 0;
    for round in 0..8 {
        let mut server = Server::start(data.path(), &key, &[]);
        std::thread::scope(|scope| {
            let asking = || (0..400).map_while(|_| server.ask("GET", "/v1/models", "")).count();
            let threads = [scope.spawn(asking), scope.spawn(asking)];
            std::thread::sleep(Duration::from_millis(20 + 23 * round));
            server.signal("KILL");
            answered += threads.map(|thread| thread.join().unwrap()).iter().sum::<usize>();
        });
        assert!(!server.child.wait().unwrap().success());
        let (report, ok) = verified(data.path());
        assert!(ok, "{report}");
    }
    let server = Server::start(data.path(), &key, &[]);
    drop(server);
    let (report, ok) = verified(data.path());
    assert!(ok && report["torn_end"] == 0, "{report}");
    // Whoever was answered in the last moment before a kill may be missing; how many depends on the disk.
    let logged = num_requests(data.path());
    assert!(answered == 0 || logged > 0, "{logged} of {answered} are logged");
}

#[test]
fn a_changed_log_is_told_and_not_gone_on_with() {
    let data = tempfile::tempdir().unwrap();
    let key = key(data.path(), "infer");
    let mut server = Server::start(data.path(), &key, &[]);
    for _ in 0..3 {
        assert_eq!(server.chat().unwrap().0, 200);
    }
    server.signal("TERM");
    assert!(server.child.wait().unwrap().success());
    let sound = output(data.path(), &["audit", "verify"]);
    assert!(sound.status.success(), "{}", String::from_utf8_lossy(&sound.stderr));
    let said = String::from_utf8(sound.stdout).unwrap();
    let witness = said.lines().find_map(|line| line.strip_prefix("witness ")).unwrap().to_owned();
    let folder = data.path().join("audit");
    let at = folder.to_str().unwrap();
    let secret = data.path().join("server.secret");
    let args = ["audit", "verify", at, "--secret", secret.to_str().unwrap(), "--witness", &witness];
    assert!(output(data.path(), &args).status.success());

    let file = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let file = file.into_iter().find(|path| path.extension().is_some_and(|end| end == "jsonl")).unwrap();
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replacen("\"status\":200", "\"status\":500", 1)).unwrap();
    let (report, ok) = verified(data.path());
    assert!(!ok && report["ok"] == false && report["broken"]["line"].as_u64().unwrap() > 1, "{report}");
    let refused = output(data.path(), &["serve", "--port", "0"]);
    let line = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && line.contains("one of the two was changed"), "{line}");
}

/// A limit on the length of files stands for a full disk: writing fails, part of a line may be there.
#[test]
fn a_full_disk_refuses_until_there_is_room() {
    let data = tempfile::tempdir().unwrap();
    let key = key(data.path(), "infer");
    let has =
        |program: &str, args: &[&str]| Command::new(program).args(args).output().is_ok_and(|o| o.status.success());
    if !has("prlimit", &["--version"]) {
        eprintln!("skipped: prlimit is not here");
        return;
    }
    // The shell leaves the signal that comes with the limit ignored.
    let mut command = Command::new("sh");
    let script = "trap '' XFSZ; exec prlimit --fsize=1000000:unlimited \"$@\"";
    command.args(["-c", script, "sh", env!("CARGO_BIN_EXE_ossia"), "serve", "--port", "0", "--audit-content"]);
    command.env("OSSIA_DATA", data.path()).env_remove("OSSIA_MODEL").env_remove("OSSIA_DATABASE_URL");
    let mut server = Server::spawn(command, &key);
    let long = format!(r#"{{"messages":[{{"role":"user","content":"{}"}}],"top_k":"wrong"}}"#, "a".repeat(90_000));
    let mut num_taken = 0;
    let refused = loop {
        match server.ask("POST", "/v1/chat/completions", &long).expect("it answers") {
            (400, _) => num_taken += 1,
            other => break other,
        }
        // A slow disk may take a while to refuse; what waits for it is bounded too.
        assert!(num_taken < 10_000, "the log is longer than the limit");
    };
    assert!(refused.0 == 503 && refused.1.contains("audit_log_unavailable"), "{refused:?}");
    let (report, ok) = verified(data.path());
    assert!(ok, "{report}");
    let pid = server.child.id().to_string();
    assert!(has("prlimit", &["--pid", &pid, "--fsize=unlimited:unlimited"]), "room is made");
    let begun = Instant::now();
    while server.chat().expect("it answers").0 != 200 {
        assert!(begun.elapsed() < Duration::from_secs(60), "it takes no requests again");
        std::thread::sleep(Duration::from_millis(100));
    }
    server.signal("TERM");
    assert!(server.child.wait().unwrap().success());
    let (report, ok) = verified(data.path());
    assert!(ok && report["torn_end"] == 0, "{report}");
    assert_eq!(num_requests(data.path()), num_taken + 1, "everything that was taken is logged, once");
}
