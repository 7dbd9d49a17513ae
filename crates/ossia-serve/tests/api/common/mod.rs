//! A server over the nano model on a loopback port, and a small HTTP client that shows what is on the wire.

pub mod scripted;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ossia_engine::{Engine, EngineOptions};
use ossia_model::checkpoint::Checkpoint;
use ossia_model::gpt_oss::config::Config;
use ossia_model::{Model, Options};
use ossia_serve::adapters::Adapters;
use ossia_serve::app::{App, Shared, router};
use ossia_serve::audit::{Audit, AuditOptions};
use ossia_serve::auth::{Auth, Scope};
use ossia_serve::guard::{Accounts, Doors};
use ossia_serve::keeping::Keeping;
use ossia_serve::keys::{self, KeyFile, NewKey};
use ossia_serve::models::ServedModel;
use ossia_serve::reasoning::{MemoryLimits, ReasoningMemory};
use ossia_serve::turn::Turns;
use ossia_text::{Harmony, Tokenizer};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Positions of the test server.
pub const CONTEXT: usize = 2048;

/// The carried model's folder.
pub fn nano() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/nano")
}

/// The carried model's shape.
pub fn nano_config() -> Config {
    Config::from_checkpoint(&Checkpoint::open(&nano()).unwrap()).unwrap()
}

/// The model's text.
pub fn harmony() -> Harmony {
    let tokenizer = Tokenizer::from_json_file(&nano().join("tokenizer.json")).unwrap();
    Harmony::new(Arc::new(tokenizer)).unwrap()
}

/// An engine over the model in this folder, with so many positions.
pub fn engine(folder: &Path, context: usize, options: EngineOptions) -> Engine {
    engine_with(folder, context, options, 1 << 26)
}

/// The same with so many bytes for adapters.
pub fn engine_with(folder: &Path, context: usize, options: EngineOptions, adapter_bytes: u64) -> Engine {
    let checkpoint = Checkpoint::open(folder).unwrap();
    let (rows, adapter_rank) = (32, 16);
    let size = Options {
        context,
        sequences: rows,
        logits_rows: rows,
        threads: 2,
        adapter_rank,
        adapter_bytes,
        ..Options::default()
    };
    let model = Model::load(&checkpoint, size, None, &mut |_, _| {}).unwrap();
    Engine::start(model, options)
}

/// A running server.
pub struct TestServer {
    /// Where.
    pub at: SocketAddr,
    /// A key that may do everything.
    pub key: String,
    /// That key's id, to which everything belongs.
    pub owner: String,
    /// Its state.
    pub app: Shared,
    /// Its data folder.
    pub folder: tempfile::TempDir,
    stop: watch::Sender<bool>,
}

impl TestServer {
    /// On any free port.
    pub async fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap()).await
    }

    /// On any free port, with what is in this data folder.
    pub async fn start_in(folder: tempfile::TempDir) -> Self {
        // However slow the machine is, requests are only refused where there are too many.
        let options = EngineOptions { longest_wait: Duration::from_secs(3600), ..EngineOptions::default() };
        Self::start_over(folder, engine(&nano(), CONTEXT, options)).await
    }

    /// The same over another model, which has nano's vocabulary.
    pub async fn start_over(folder: tempfile::TempDir, engine: Engine) -> Self {
        Self::start_with(folder, engine, &[]).await
    }

    /// The same with these adapters, by name and PEFT folder.
    pub async fn start_with(folder: tempfile::TempDir, engine: Engine, registered: &[(&str, &Path)]) -> Self {
        ossia_serve::clock::fix_today("2026-11-28");
        let new = NewKey { name: "test".into(), scopes: Scope::ALL.to_vec(), ..NewKey::default() };
        let (record, key) = KeyFile::of(folder.path()).add(new).unwrap();
        let secret = keys::secret(folder.path(), keys::SERVER_SECRET).unwrap();
        let accounts = Arc::new(Accounts::default());
        let mut adapters = Adapters::new(nano_config(), folder.path().join("fine-tuning"));
        for (name, folder) in registered {
            adapters.register(&engine, name, folder).unwrap();
        }
        let app = Arc::new(App {
            turns: Arc::new(Turns::new(engine, harmony(), accounts.clone()).unwrap()),
            model: ServedModel {
                id: "nano".into(),
                aliases: vec!["gpt-oss:20b".into()],
                created: 1_700_000_000,
                temperature: 0.0,
                context: CONTEXT,
                num_parameters: 3_000_000,
                num_bytes: 3_000_000,
                quantization: "MXFP4".into(),
            },
            adapters: Arc::new(adapters),
            grading: Some(Arc::new(scripted::Equal)),
            fingerprint: "fp_test".into(),
            memory: ReasoningMemory::new(MemoryLimits::default()),
            keeping: Keeping::open(folder.path(), None).await.unwrap(),
            auth: Auth::open(folder.path(), Vec::new()).unwrap(),
            // A test that plays a restart may leave the log to the server before.
            audit: Audit::open(folder.path(), &secret, "nano", &AuditOptions::default()).ok(),
            counters: accounts.counters.clone(),
            accounts,
            doors: Doors::loopback(Vec::new(), Vec::new()),
            draining: false.into(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let (stop, stopping) = watch::channel(false);
        ossia_serve::routes::batches::resume(&app).await.unwrap();
        tokio::spawn(ossia_serve::listener::serve(listener, router(app.clone()), None, stopping));
        Self { at, key, owner: record.id, app, folder, stop }
    }

    /// Lets running requests finish and takes no new connections.
    pub fn stop(&self) {
        self.stop.send(true).unwrap();
    }

    /// A key with these scopes and quotas.
    pub fn key(&self, new: NewKey) -> String {
        KeyFile::of(self.folder.path()).add(new).unwrap().1
    }

    /// Sends a request with the server's own key.
    pub async fn send(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        self.send_as(Some(&self.key), method, path, body).await
    }

    /// Sends a request with a key or without one.
    pub async fn send_as(&self, key: Option<&str>, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let mut open = self.open(key, method, path, body).await;
        open.rest().await
    }

    /// Sends a request and reads the head of the answer.
    pub async fn open(&self, key: Option<&str>, method: &str, path: &str, body: Option<&Value>) -> Open {
        let body = body.map(Value::to_string).unwrap_or_default();
        let key = key.map(|key| format!("authorization: Bearer {key}\r\n")).unwrap_or_default();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\n{key}content-type: application/json\r\ncontent-length: {}\r\n\r\n",
            self.at,
            body.len()
        );
        self.raw(format!("{head}{body}").as_bytes()).await
    }

    /// Sends these bytes and reads the head of the answer.
    pub async fn raw(&self, bytes: &[u8]) -> Open {
        let mut stream = TcpStream::connect(self.at).await.unwrap();
        // The server may answer, and close, before it has read everything.
        let _ = stream.write_all(bytes).await;
        Open::read(stream).await
    }

    /// A chat request.
    pub async fn chat(&self, body: Value) -> Answer {
        self.send("POST", "/v1/chat/completions", Some(&body)).await
    }

    /// Waits until nothing runs and no page is held but by the prefix cache.
    pub async fn wait_idle(&self) {
        for _ in 0..500 {
            let stats = self.app.turns.engine().stats();
            if stats.running + stats.waiting + stats.full_pages.used + stats.sliding_pages.used == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{:?}", self.app.turns.engine().stats());
    }
}

/// An answer, whole.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Header names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub text: String,
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// The data of server-sent events; the last must be `[DONE]`.
    pub fn events(&self) -> Vec<Value> {
        let data: Vec<&str> = self.text.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        let (last, rest) = data.split_last().unwrap_or_else(|| panic!("{}", self.text));
        assert_eq!(*last, "[DONE]");
        rest.iter().map(|data| serde_json::from_str(data).unwrap()).collect()
    }
}

/// An answer whose head has been read.
pub struct Open {
    /// The status; 0 where the server closed without one.
    pub status: u16,
    /// Header names in lower case.
    pub headers: BTreeMap<String, String>,
    stream: BufReader<TcpStream>,
}

impl Open {
    async fn read(stream: TcpStream) -> Self {
        let mut stream = BufReader::new(stream);
        let (mut status, mut headers, mut line) = (0, BTreeMap::new(), String::new());
        loop {
            line.clear();
            if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
                break;
            }
            let text = line.trim_end();
            if text.is_empty() {
                break;
            }
            match text.split_once(": ") {
                Some((name, value)) => drop(headers.insert(name.to_lowercase(), value.to_owned())),
                None => status = text.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0),
            }
        }
        Self { status, headers, stream }
    }

    /// Sends a request on the same connection, once the answer before has been read to its end.
    pub async fn again(self, bytes: &[u8]) -> Self {
        let mut stream = self.stream.into_inner();
        stream.write_all(bytes).await.unwrap();
        Self::read(stream).await
    }

    /// The next line of the body, chunk sizes left in.
    pub async fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).await.unwrap();
        line
    }

    /// The rest of the body.
    pub async fn rest(&mut self) -> Answer {
        let mut body = Vec::new();
        match self.headers.get("content-length").map(|len| len.parse::<usize>().unwrap()) {
            Some(len) => {
                body.resize(len, 0);
                self.stream.read_exact(&mut body).await.unwrap();
            }
            None if self.headers.contains_key("transfer-encoding") => loop {
                let len = usize::from_str_radix(self.line().await.trim(), 16).unwrap();
                let mut chunk = vec![0; len + 2];
                self.stream.read_exact(&mut chunk).await.unwrap();
                if len == 0 {
                    break;
                }
                body.extend_from_slice(&chunk[..len]);
            },
            None => {}
        }
        let text = String::from_utf8(body).unwrap();
        Answer { status: self.status, headers: self.headers.clone(), text }
    }
}
