//! A server as a process of its own, and requests to it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

/// The program with a data folder.
pub fn ossia(data: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ossia"));
    command.args(args).env("OSSIA_DATA", data).env_remove("OSSIA_MODEL").env_remove("OSSIA_DATABASE_URL");
    command
}

/// Runs it to its end.
pub fn output(data: &Path, args: &[&str]) -> Output {
    ossia(data, args).output().expect("the program starts")
}

/// A new key.
pub fn key(data: &Path, scope: &str) -> String {
    let added = output(data, &["keys", "add", "--scope", scope]);
    String::from_utf8(added.stdout).expect("text").trim().to_owned()
}

/// A running server, ended when it is dropped.
pub struct Server {
    /// The process; with a wrapper, that one.
    pub child: Child,
    /// Where it listens.
    pub at: String,
    key: String,
}

impl Server {
    /// On any free port.
    pub fn start(data: &Path, key: &str, args: &[&str]) -> Self {
        let args = [&["serve", "--port", "0", "--parallel", "4", "--no-first-key"], args].concat();
        Self::spawn(ossia(data, &args), key)
    }

    /// From a command that becomes `ossia serve`.
    pub fn spawn(mut command: Command, key: &str) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the program starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let mut greeting = String::new();
        while !greeting.contains("env_key") {
            assert_ne!(stdout.read_line(&mut greeting).expect("stdout is text"), 0, "it ended early: {greeting}");
        }
        let at = greeting.split("http://").nth(1).expect("an address").split('/').next().expect("a part").to_owned();
        Self { child, at, key: key.to_owned() }
    }

    /// Sends a request; the answer is still to be read.
    pub fn send(&self, method: &str, path: &str, body: &str) -> std::io::Result<TcpStream> {
        self.send_as("application/json", method, path, body)
    }

    fn send_as(&self, kind: &str, method: &str, path: &str, body: &str) -> std::io::Result<TcpStream> {
        let mut stream = TcpStream::connect(&self.at)?;
        let (at, key, len) = (&self.at, &self.key, body.len());
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {at}\r\nAuthorization: Bearer {key}\r\n");
        let rest = format!("Content-Type: {kind}\r\nContent-Length: {len}\r\nConnection: close\r\n\r\n{body}");
        stream.write_all(format!("{head}{rest}").as_bytes())?;
        Ok(stream)
    }

    /// The status and everything that came; None where the server was not there, or ended before its answer did.
    pub fn ask(&self, method: &str, path: &str, body: &str) -> Option<(u16, String)> {
        read(self.send(method, path, body).ok()?)
    }

    /// The same for a file that is uploaded.
    pub fn upload(&self, name: &str, purpose: &str, text: &str) -> Option<(u16, String)> {
        let part =
            |head: &str, text: &str| format!("--cut\r\nContent-Disposition: form-data; {head}\r\n\r\n{text}\r\n");
        let file = part(&format!("name=\"file\"; filename=\"{name}\""), text);
        let body = format!("{}{file}--cut--\r\n", part("name=\"purpose\"", purpose));
        read(self.send_as("multipart/form-data; boundary=cut", "POST", "/v1/files", &body).ok()?)
    }

    /// A short chat.
    pub fn chat(&self) -> Option<(u16, String)> {
        let body = r#"{"messages":[{"role":"user","content":"Hello!"}],"max_tokens":20}"#;
        self.ask("POST", "/v1/chat/completions", body)
    }

    /// Sends a signal.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(sent.expect("kill is there").success());
    }
}

fn read(mut stream: TcpStream) -> Option<(u16, String)> {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some((answer.split(' ').nth(1)?.parse().ok()?, answer))
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
