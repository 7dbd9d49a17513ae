//! SIGTERM: nothing new is taken, what runs is finished, exit 0. A second one: at once.

use std::io::{BufRead, BufReader, Read};

use super::server::{Server, key};

/// An answer that takes a while.
const LONG: &str = r#"{"prompt":"one two three","max_tokens":1500,"stream":true,"temperature":1,"n":4,"seed":7}"#;

#[test]
fn what_runs_is_finished() {
    let data = tempfile::tempdir().unwrap();
    let mut server = Server::start(data.path(), &key(data.path(), "infer"), &[]);
    let mut stream = BufReader::new(server.send("POST", "/v1/completions", LONG).unwrap());
    let mut line = String::new();
    while !line.starts_with("data: ") {
        line.clear();
        assert_ne!(stream.read_line(&mut line).unwrap(), 0, "the stream has begun");
    }
    server.signal("TERM");
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("data: [DONE]"), "the stream ends as it should: {rest}");
    assert_eq!(rest.matches("\"finish_reason\":\"").count(), 4, "{rest}");
    assert!(server.child.wait().unwrap().success());
}
