//! A Hugging Face server for tests: one repository's files on a loopback port, with faults on demand.
//! Speaks just enough HTTP/1.1, one request per connection, and writes down what it was asked.

use crate::hub::{Settings, Token};
use sha2::Digest as _;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub const COMMIT: &str = "0123456789012345678901234567890123456789";

/// A request as the server saw it.
#[derive(Debug, Clone, Default)]
pub struct Request {
    pub path: String,
    pub headers: HashMap<String, String>,
}

/// How the server misbehaves.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// Close the connection after so many bytes of a body, this many times.
    pub cut_after: usize,
    pub cuts: usize,
    /// Send files from another server: its address.
    pub redirect: Option<String>,
    /// Answer everything with this status.
    pub status: Option<u16>,
    /// Ignore `Range`.
    pub no_ranges: bool,
    /// Flip a bit of every file.
    pub corrupt: bool,
    /// Another name for the first file of the description.
    pub rename: Option<String>,
    /// A size that the description gives to every file.
    pub size: Option<u64>,
}

/// A running server; it ends with the test's process.
pub struct Server {
    pub address: String,
    state: Arc<State>,
}

struct State {
    files: Vec<(String, Vec<u8>)>,
    faults: Mutex<Faults>,
    requests: Mutex<Vec<Request>>,
}

impl Server {
    pub fn start(files: &[(&str, &[u8])], faults: Faults) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let files = files.iter().map(|(name, body)| ((*name).to_owned(), body.to_vec())).collect();
        let state = Arc::new(State { files, faults: Mutex::new(faults), requests: Mutex::default() });
        let shared = Arc::clone(&state);
        std::thread::spawn(move || listener.incoming().flatten().for_each(|stream| shared.serve(stream)));
        Server { address, state }
    }

    pub fn settings(&self, cache: &Path) -> Settings {
        Settings {
            cache: cache.to_owned(),
            endpoint: self.address.clone(),
            token: Token::new("hf_secret"),
            offline: false,
            retries: 2,
            pause: Duration::from_millis(1),
        }
    }

    pub fn requests(&self) -> Vec<Request> {
        self.state.requests.lock().unwrap().clone()
    }

    pub fn set(&self, faults: Faults) {
        *self.state.faults.lock().unwrap() = faults;
    }
}

impl State {
    fn serve(&self, mut stream: TcpStream) {
        let Some(request) = read_request(&stream) else { return };
        self.requests.lock().unwrap().push(request.clone());
        let faults = self.faults.lock().unwrap().clone();
        let file = request.path.split_once(&format!("/resolve/{COMMIT}/")).map(|(_, name)| name);
        let (status, extra, body) = match (faults.status, file, &faults.redirect) {
            (Some(status), _, _) => (status, String::new(), Vec::new()),
            (None, None, _) => (200, String::new(), self.describe(&faults)),
            (None, Some(_), Some(other)) => (302, format!("Location: {other}{}\r\n", request.path), Vec::new()),
            (None, Some(name), None) => self.file(name, &request, &faults),
        };
        let head = format!("HTTP/1.1 {status} X\r\nConnection: close\r\n{extra}Content-Length: {}\r\n\r\n", body.len());
        let cut = file.is_some() && faults.cuts > 0 && faults.redirect.is_none();
        let sent = if cut { &body[..faults.cut_after.min(body.len())] } else { &body[..] };
        self.faults.lock().unwrap().cuts -= usize::from(cut);
        let _ = stream.write_all(&[head.as_bytes(), sent].concat());
    }

    fn file(&self, name: &str, request: &Request, faults: &Faults) -> (u16, String, Vec<u8>) {
        let Some((_, body)) = self.files.iter().find(|(known, _)| known == name) else {
            return (404, String::new(), Vec::new());
        };
        let mut body = body.clone();
        if faults.corrupt {
            body[0] ^= 1;
        }
        let range = request.headers.get("range").filter(|_| !faults.no_ranges);
        let Some(range) = range else { return (200, String::new(), body) };
        let first: usize = range.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap();
        let header = format!("Content-Range: bytes {first}-{}/{}\r\n", body.len() - 1, body.len());
        (206, header, body[first..].to_vec())
    }

    /// What the models API says: safetensors files as LFS with SHA-256, the others as git blobs.
    fn describe(&self, faults: &Faults) -> Vec<u8> {
        let files = self.files.iter().enumerate().map(|(i, (name, body))| {
            let name = faults.rename.as_ref().filter(|_| i == 0).unwrap_or(name);
            let size = faults.size.unwrap_or(body.len() as u64);
            let blob =
                hex(&sha1::Sha1::new_with_prefix(format!("blob {}\0", body.len())).chain_update(body).finalize());
            let mut file = serde_json::json!({"rfilename": name, "size": size, "blobId": blob});
            if name.ends_with(".safetensors") {
                file["lfs"] =
                    serde_json::json!({"sha256": hex(&sha2::Sha256::digest(body)), "size": size, "pointerSize": 135});
            }
            file
        });
        let files: Vec<serde_json::Value> = files.collect();
        serde_json::json!({"id": "openai/gpt-oss-20b", "sha": COMMIT, "siblings": files}).to_string().into_bytes()
    }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn read_request(stream: &TcpStream) -> Option<Request> {
    let mut lines = BufReader::new(stream).lines();
    let path = lines.next()?.ok()?.split(' ').nth(1)?.to_owned();
    let mut request = Request { path, headers: HashMap::new() };
    for line in lines {
        let line = line.ok()?;
        let Some((name, value)) = line.split_once(": ") else { break };
        request.headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    Some(request)
}
