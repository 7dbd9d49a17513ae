//! SIGTERM: nothing new is taken, what runs is finished, exit 0. A second one: at once.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;

use super::server::{Server, key};

/// An answer that takes a while.
const LONG: &str = r#"{"prompt":"one two three","max_tokens":1500,"stream":true,"temperature":1,"n":4,"seed":7}"#;

fn long(server: &Server) -> BufReader<TcpStream> {
    let mut stream = BufReader::new(server.send("POST", "/v1/completions", LONG).unwrap());
    let mut line = String::new();
    while !line.starts_with("data: ") {
        line.clear();
        assert_ne!(stream.read_line(&mut line).unwrap(), 0, "the stream has begun");
    }
    stream
}

#[test]
fn what_runs_is_finished_and_nothing_new_is_taken() {
    let data = tempfile::tempdir().unwrap();
    let mut server = Server::start(data.path(), &key(data.path(), "infer"), &[]);
    let streams = [long(&server), long(&server)];
    server.signal("TERM");
    loop {
        match server.ask("GET", "/ready", "").expect("the port answers while something runs").0 {
            200 => {}
            status => break assert_eq!(status, 503),
        }
    }
    assert_eq!(server.chat().map_or(503, |answer| answer.0), 503);
    for mut stream in streams {
        let mut rest = String::new();
        stream.read_to_string(&mut rest).unwrap();
        assert!(rest.contains("data: [DONE]"), "the stream ends as it should: {rest}");
        assert_eq!(rest.matches("\"finish_reason\":\"").count(), 4, "{rest}");
    }
    assert!(server.child.wait().unwrap().success());
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let data = tempfile::tempdir().unwrap();
    let mut server = Server::start(data.path(), &key(data.path(), "infer"), &[]);
    let mut streams: Vec<_> = (0..3).map(|_| long(&server)).collect();
    server.signal("TERM");
    while server.ask("GET", "/ready", "").expect("the port answers while something runs").0 == 200 {}
    server.signal("TERM");
    assert!(server.child.wait().unwrap().success());
    let mut rest = String::new();
    // The connection may be reset.
    let _ = streams.remove(2).read_to_string(&mut rest);
    assert!(!rest.contains("data: [DONE]"), "it was waited for: {rest}");
}
