//! Tricks below JSON: heads, lengths, chunks, versions, pipelines, encodings.

use std::net::SocketAddr;

use super::bombs;
use super::values;
use super::{Case, End};
use crate::rng::Rng;

/// Answered on every connection that is still in order after a trick.
pub const LAST_WORD: &str = "last-word";

/// What a head begins with, and a body that is good.
pub struct Wire<'w> {
    /// Where the server listens.
    pub at: SocketAddr,
    /// A key for it.
    pub key: &'w str,
}

const BODY: &str = r#"{"messages":[{"role":"user","content":"Hi"}],"max_tokens":1}"#;

impl Wire<'_> {
    /// A trick.
    pub fn case(&self, rng: &mut Rng) -> Case {
        match rng.below(12) {
            0 => self.lengths(rng),
            1 | 2 => self.chunks(rng),
            3 => self.lines(rng),
            4 | 5 => self.headers(rng),
            6 => self.versions(rng),
            7 => self.pipeline(rng),
            8 => self.hosts(rng),
            9 => self.encodings(rng),
            10 => self.keys(rng),
            _ => self.cut(rng),
        }
    }

    fn head(&self, first: &str) -> String {
        format!("{first} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\n", self.at, self.key)
    }

    fn chat(&self) -> String {
        format!("{}content-type: application/json\r\n", self.head("POST /v1/chat/completions"))
    }

    /// The trick, and a good request after it that must be answered as such, or not at all.
    fn followed(&self, kind: &'static str, mut bytes: Vec<u8>) -> Case {
        let last = self.head(&format!("GET /v1/models/{LAST_WORD}"));
        bytes.extend_from_slice(format!("{last}connection: close\r\n\r\n").as_bytes());
        Case { kind, bytes, end: End::Last, may_close: true }
    }

    fn lengths(&self, rng: &mut Rng) -> Case {
        let len = BODY.len();
        let headers = match rng.below(14) {
            0 => format!("content-length: {len}\r\ncontent-length: {len}"),
            1 => format!("content-length: {len}\r\ncontent-length: {}", len + 1),
            2 => format!("content-length: {len}, {len}"),
            3 => format!("content-length: {len}\r\ntransfer-encoding: chunked"),
            4 => format!("transfer-encoding: chunked\r\ncontent-length: {len}"),
            5 => "content-length: -1".to_owned(),
            6 => format!("content-length: +{len}"),
            7 => format!("content-length: 0x{len:x}"),
            8 => format!("content-length: {len}.0"),
            9 => format!("content-length:  0{len} "),
            10 => "content-length: 18446744073709551616".to_owned(),
            11 => "content-length: ".to_owned(),
            12 => format!("content-length : {len}"),
            _ => format!("content_length: {len}\r\nContent-Length: {len}"),
        };
        self.followed("lengths", format!("{}{headers}\r\n\r\n{BODY}", self.chat()).into_bytes())
    }

    fn chunks(&self, rng: &mut Rng) -> Case {
        let encoding = match rng.below(12) {
            0 => "Transfer-Encoding: CHUNKED",
            1 => "transfer-encoding: chunked, identity",
            2 => "transfer-encoding: gzip, chunked",
            3 => "transfer-encoding: xchunked",
            4 => "transfer-encoding: chunked\r\ntransfer-encoding: chunked",
            5 => "transfer-encoding: identity",
            6 => "transfer-encoding:\tchunked",
            7 => "transfer-encoding: \"chunked\"",
            _ => "transfer-encoding: chunked",
        };
        let mut bytes = format!("{}{encoding}\r\n\r\n", self.chat()).into_bytes();
        let sizes = [
            "zz",
            "-1",
            "0x1",
            "FFFFFFFFFFFFFFFF",
            "10000000000000000",
            "7FFFFFFFFFFFFFFF",
            "",
            " 1",
            "1 ",
            "00000001",
        ];
        match rng.below(8) {
            0 => bytes.extend_from_slice(format!("{}\r\n{BODY}\r\n0\r\n\r\n", rng.pick(&sizes)).as_bytes()),
            1 => {
                let extension = format!(";{}", "a".repeat(1 << rng.below(18)));
                bytes.extend_from_slice(format!("{:x}{extension}\r\n{BODY}\r\n0\r\n\r\n", BODY.len()).as_bytes());
            }
            2 => {
                for byte in BODY.bytes() {
                    bytes.extend_from_slice(format!("1;a=\"b\"\r\n{}\r\n", char::from(byte)).as_bytes());
                }
                bytes.extend_from_slice(b"0\r\n\r\n");
            }
            3 => {
                let trailers = "x-a: b\r\n".repeat(rng.below(2000));
                bytes.extend_from_slice(format!("{:x}\r\n{BODY}\r\n0\r\n{trailers}\r\n", BODY.len()).as_bytes());
            }
            4 => {
                let trailers = "content-length: 5\r\nhost: evil.example\r\nauthorization: x\r\n";
                bytes.extend_from_slice(format!("{:X}\r\n{BODY}\r\n0\r\n{trailers}\r\n", BODY.len()).as_bytes());
            }
            5 => bytes.extend_from_slice(format!("{:x}\n{BODY}\n0\n\n", BODY.len()).as_bytes()),
            6 => bytes.extend_from_slice(format!("{:x}\r\n{BODY}XX0\r\n\r\n", BODY.len()).as_bytes()),
            _ => {
                bytes.extend_from_slice(&b"1\r\n \r\n".repeat(rng.below(20_000)));
                bytes.extend_from_slice(format!("{:x}\r\n{BODY}\r\n0\r\n\r\n", BODY.len()).as_bytes());
            }
        }
        let case = self.followed("chunks", bytes);
        // A chunk that says it is very long is waited for.
        let is_endless = |bytes: &[u8]| bytes.windows(8).any(|bytes| bytes == b"FFFFFFFF");
        if is_endless(&case.bytes) { Case { end: End::Cut, ..case } } else { case }
    }

    /// Line ends and names of headers that are not as they should be.
    fn lines(&self, rng: &mut Rng) -> Case {
        let good = self.head("GET /v1/models/nano");
        let bytes = match rng.below(15) {
            0 => good.replace("\r\n", "\n") + "\n",
            1 => good.replace("\r\n", "\r") + "\r",
            2 => format!("\r\n\r\n{good}\r\n"),
            3 => format!("{good}x-a: b\r\n c\r\n\r\n"),
            4 => format!("{good}x-a : b\r\n\r\n"),
            5 => format!("{good}: b\r\n\r\n"),
            6 => format!("{good}x-a\r\n\r\n"),
            7 => format!("{good}x-a: b\0c\r\n\r\n"),
            8 => format!("{good}x(a): b\r\n\r\n"),
            9 => format!("{good}x-a: ü\u{1f642}\r\n\r\n"),
            10 => format!("{good}x-a: b\rc\r\n\r\n"),
            11 => good.replacen(' ', "  ", 2) + "\r\n",
            12 => good.replacen(' ', "\t", 1) + "\r\n",
            13 => format!(" {good}\r\n"),
            _ => good.replacen("/v1", "/v1/\u{e9} x", 1) + "\r\n",
        };
        self.followed("lines", bytes.into_bytes())
    }

    fn headers(&self, rng: &mut Rng) -> Case {
        let get = self.head("GET /v1/models/nano");
        let more = match rng.below(20) {
            0 => format!("x: {}", "a".repeat(1 << (8 + rng.below(11)))),
            1 => vec!["x: y"; rng.below(400).max(1)].join("\r\n"),
            2 => format!("{}: y", "x".repeat(1 << rng.below(17))),
            3 => "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: x3JJHMbDL1EzLkh9GBhXDw=="
                .to_owned(),
            4 => "connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAoAAAAAIAAAAA".to_owned(),
            5 => "connection: close, keep-alive\r\nkeep-alive: timeout=-1, max=99999999999".to_owned(),
            6 => "expect: 100-continue".to_owned(),
            7 => "expect: 200-ok".to_owned(),
            8 => "range: bytes=0-0,-1,99999999999999999999-\r\nif-range: x".to_owned(),
            9 => format!("if-none-match: {}", "W/\"a\", ".repeat(rng.below(900))),
            10 => "accept: text/*;q=NaN\r\naccept-encoding: gzip;q=1e309, br, *\r\naccept-charset: utf-7".to_owned(),
            11 => "te: trailers, chunked\r\ntrailer: x".to_owned(),
            12 => "x-request-id: a\u{0}b\r\nlast-event-id: -1".to_owned(),
            13 => "x-request-id: req_chosen\r\nlast-event-id: 99999999999999999999".to_owned(),
            14 => format!("cookie: {}", "a=b; ".repeat(rng.below(13_000))),
            15 => "x-forwarded-for: 1.2.3.4\r\nx-forwarded-host: evil.example\r\nforwarded: host=evil.example\r\nx-original-url: /metrics"
                .to_owned(),
            16 => "x-http-method-override: DELETE\r\nx-method-override: DELETE".to_owned(),
            17 => "content-length: 5\r\n\r\nabcde\r\nx: y".to_owned(),
            18 => "proxy-connection: keep-alive\r\nproxy-authorization: Basic YTpi".to_owned(),
            _ => "content-type: text/plain; charset=utf-16\r\ncontent-type: application/json".to_owned(),
        };
        self.followed("headers", format!("{get}{more}\r\n\r\n").into_bytes())
    }

    fn versions(&self, rng: &mut Rng) -> Case {
        let post = format!("{}content-length: {}\r\n\r\n{BODY}", self.chat(), BODY.len());
        let get = self.head("GET /v1/models/nano");
        let bytes = match rng.below(12) {
            0 => get.replace("HTTP/1.1", "HTTP/1.0") + "\r\n",
            1 => get.replace("HTTP/1.1", "HTTP/1.0") + "connection: keep-alive\r\n\r\n",
            2 => post.replace("HTTP/1.1", "HTTP/1.0"),
            3 => {
                let body = BODY.replace("\"max_tokens\"", "\"stream\":true,\"max_tokens\"");
                let head = self.chat().replace("HTTP/1.1", "HTTP/1.0");
                format!("{head}content-length: {}\r\n\r\n{body}", body.len())
            }
            4 => get.replace("HTTP/1.1", "HTTP/2.0") + "\r\n",
            5 => get.replace("HTTP/1.1", "HTTP/3.7") + "\r\n",
            6 => get.replace("HTTP/1.1", "http/1.1") + "\r\n",
            7 => get.replace(" HTTP/1.1", "") + "\r\n",
            8 => "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_owned(),
            9 => "\x16\x03\x01\x02\0\x01\0\x01\u{1fc}\x03\x03abcdefgh".to_owned(),
            10 => String::from_utf8_lossy(&values::text(rng)).repeat(1 + rng.below(50)),
            _ => post.replace("HTTP/1.1", "HTTP/1.0").replace("content-length", "transfer-encoding: chunked\r\nx"),
        };
        let case = self.followed("versions", bytes.into_bytes());
        // What is not HTTP may leave the other side waiting for more of it.
        Case { end: End::Cut, ..case }
    }

    fn pipeline(&self, rng: &mut Rng) -> Case {
        let mut bytes = Vec::new();
        for _ in 0..1 + rng.below(30) {
            let request = match rng.below(5) {
                0 => format!("{}content-length: {}\r\n\r\n{BODY}", self.chat(), BODY.len()),
                1 => format!("{}\r\n", self.head("GET /v1/nothing")),
                2 => format!("{}content-length: 2\r\n\r\n{{}}", self.chat()),
                3 => format!("{}content-length: 4\r\n\r\nGET ", self.head("GET /health")),
                _ => format!("{}\r\n", self.head("GET /v1/models/nano")),
            };
            bytes.extend_from_slice(request.as_bytes());
        }
        let case = self.followed("pipeline", bytes);
        Case { may_close: false, ..case }
    }

    fn hosts(&self, rng: &mut Rng) -> Case {
        let (at, key) = (self.at, self.key);
        let port = at.port();
        let (target, host) = match rng.below(20) {
            0 => ("/health", String::new()),
            1 => ("/health", format!("host: {at}\r\nhost: evil.example\r\n")),
            2 => ("/health", "host: evil.example\r\n".to_owned()),
            3 => ("/health", "host: \r\n".to_owned()),
            4 => ("/health", format!("host: evil.example@127.0.0.1:{port}\r\n")),
            5 => ("/health", format!("host: 127.0.0.1:{port}/?x=\r\n")),
            6 => ("/health", format!("host: 127.0.0.1:{port}#a\r\n")),
            7 => ("/health", "host: [::1\r\n".to_owned()),
            8 => ("/health", "host: 127.0.0.1:99999999\r\n".to_owned()),
            9 => ("/health", format!("host: {}\r\n", "a".repeat(5000))),
            10 => ("http://evil.example/health", format!("host: {at}\r\n")),
            11 => ("http://evil.example@127.0.0.1/health", format!("host: {at}\r\n")),
            12 => ("file:///etc/hosts", format!("host: {at}\r\n")),
            13 => ("127.0.0.1:80", format!("host: {at}\r\n")),
            14 => ("*", format!("host: {at}\r\n")),
            15 => ("//evil.example/health", format!("host: {at}\r\n")),
            16 => ("/health", format!("host: {at}\r\norigin: null\r\n")),
            17 => ("/health", format!("host: {at}\r\norigin: http://{at}.evil.example\r\n")),
            18 => ("/health", format!("host: {at}\r\norigin: http://{at}\r\norigin: http://evil.example\r\n")),
            _ => ("/v1/models", format!("host: {at}\r\norigin: ü\r\naccess-control-request-method: POST\r\n")),
        };
        let method = rng.pick(&["GET", "GET", "OPTIONS", "CONNECT", "POST"]);
        let bytes = format!("{method} {target} HTTP/1.1\r\n{host}authorization: Bearer {key}\r\n\r\n");
        self.followed("hosts", bytes.into_bytes())
    }

    /// Bodies that say they are encoded, some of which would unpack to 10 GB.
    fn encodings(&self, rng: &mut Rng) -> Case {
        let encoding = rng.pick(&[
            "gzip",
            "x-gzip",
            "deflate",
            "br",
            "zstd",
            "gzip, gzip",
            "identity, gzip",
            "GZIP",
            "compress",
            "",
        ]);
        let body = match rng.below(4) {
            0 => bombs::gzip(1 << 20),
            1 => bombs::zstd(330_000),
            2 => bombs::gzip(64),
            _ => BODY.as_bytes().to_vec(),
        };
        let (path, kind) = rng.pick(&[
            ("/v1/chat/completions", "application/json"),
            ("/v1/responses", "application/json"),
            ("/api/chat", "application/json"),
            ("/v1/files", "multipart/form-data; boundary=x"),
        ]);
        let head = self.head(&format!("POST {path}"));
        let head = format!(
            "{head}content-type: {kind}\r\ncontent-encoding: {encoding}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        self.followed("encodings", [head.as_bytes(), &body].concat())
    }

    fn keys(&self, rng: &mut Rng) -> Case {
        let key = self.key;
        let authorization = match rng.below(14) {
            0 => String::new(),
            1 => "authorization: Bearer \r\n".to_owned(),
            2 => format!("authorization: {key}\r\n"),
            3 => format!("authorization: bearer {key}\r\n"),
            4 => format!("authorization: Bearer {}\r\n", &key[..key.len().saturating_sub(1)]),
            5 => format!("authorization: Bearer {key}\r\nauthorization: Bearer x\r\n"),
            6 => format!("authorization: Bearer {}\r\n", "k".repeat(50_000)),
            7 => format!("x-api-key: {key}\r\n"),
            8 => "authorization: Basic Og==\r\n".to_owned(),
            9 => format!("authorization: Bearer {key}\0\r\n"),
            10 => format!("authorization: Bearer\t{key}\r\n"),
            11 => "authorization: Bearer sk-ossia-ü\r\n".to_owned(),
            12 => format!("authorization: Bearer {}\r\n", key.to_uppercase()),
            _ => format!("cookie: key={key}\r\napi-key: {key}\r\n"),
        };
        let path = rng.pick(&["/v1/models", "/metrics", "/v1/files", "/openapi.json", "/v1/batches", "/api/tags"]);
        let bytes = format!("GET {path} HTTP/1.1\r\nhost: {}\r\n{authorization}\r\n", self.at);
        self.followed("keys", bytes.into_bytes())
    }

    /// A request that ends anywhere, and a client that sends no more.
    fn cut(&self, rng: &mut Rng) -> Case {
        let whole = match rng.below(3) {
            0 => format!("{}content-length: {}\r\n\r\n{BODY}", self.chat(), BODY.len()),
            1 => format!("{}transfer-encoding: chunked\r\n\r\n{:x}\r\n{BODY}\r\n0\r\n\r\n", self.chat(), BODY.len()),
            _ => {
                let head = self.head("POST /v1/files");
                let part =
                    "--x\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\nabc\r\n--x--\r\n";
                format!(
                    "{head}content-type: multipart/form-data; boundary=x\r\ncontent-length: {}\r\n\r\n{part}",
                    part.len()
                )
            }
        };
        let bytes = whole.as_bytes()[..rng.below(whole.len())].to_vec();
        Case { kind: "cut", bytes, end: End::Cut, may_close: true }
    }
}
