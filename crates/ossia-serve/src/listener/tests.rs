//! Connections that do nothing are closed at their deadline and no earlier, and the others are not.

use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::routing::{get, post};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::{Patience, serve_with};

const SHORT: Duration = Duration::from_millis(150);
/// Longer than any test waits: a test that meets it fails.
const LONG: Duration = Duration::from_secs(60);

struct Port {
    at: std::net::SocketAddr,
    /// The server ends with it.
    _stop: watch::Sender<bool>,
}

/// A server with these deadlines: `/` answers at once, `/slow` after three times [`SHORT`], `/endless` without end.
async fn port(patience: Patience) -> Port {
    let slow = async || {
        tokio::time::sleep(3 * SHORT).await;
        "slow"
    };
    let endless = async || {
        let pieces = std::iter::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from(vec![b'a'; 1 << 16])));
        Body::from_stream(futures_util::stream::iter(pieces))
    };
    let whole = async |body: String| body;
    let router = Router::new()
        .route("/", get(async || "fine"))
        .route("/", post(whole))
        .route("/slow", get(slow))
        .route("/endless", get(endless));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let (stop, stopping) = watch::channel(false);
    tokio::spawn(serve_with(listener, router, None, patience, stopping));
    Port { at, _stop: stop }
}

fn patience() -> Patience {
    Patience { greeting: LONG, head: LONG, idle: LONG, unread: LONG }
}

/// Sends `bytes`, reads until the server closes; what came, and after how long.
async fn until_closed(stream: &mut TcpStream, bytes: &[u8]) -> (String, Duration) {
    let begun = Instant::now();
    stream.write_all(bytes).await.unwrap();
    let mut text = Vec::new();
    // A reset is an end, too.
    let _ = tokio::time::timeout(LONG, stream.read_to_end(&mut text)).await.expect("never closed");
    (String::from_utf8(text).unwrap(), begun.elapsed())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_must_come_soon_after_its_first_byte() {
    let port = port(Patience { head: SHORT, ..patience() }).await;
    let mut stream = TcpStream::connect(port.at).await.unwrap();
    tokio::time::sleep(2 * SHORT).await;
    let (text, after) = until_closed(&mut stream, b"GET / HTTP/1.1\r\nhost:").await;
    assert!(text.is_empty() && after >= SHORT, "{text} after {after:?}");
    // Bytes now and then do not help, after an answer neither.
    let mut stream = TcpStream::connect(port.at).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    tokio::time::sleep(2 * SHORT).await;
    let begun = Instant::now();
    while stream.write_all(b"G").await.is_ok() && begun.elapsed() < LONG {
        tokio::time::sleep(SHORT / 10).await;
    }
    assert!((SHORT..LONG / 2).contains(&begun.elapsed()), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_may_rest_for_a_while() {
    let port = port(Patience { idle: 2 * SHORT, ..patience() }).await;
    let mut stream = TcpStream::connect(port.at).await.unwrap();
    let (text, after) = until_closed(&mut stream, b"").await;
    assert!(text.is_empty() && after >= 2 * SHORT, "{text} after {after:?}");
    // From the end of each answer anew, and not while one is made.
    let mut stream = TcpStream::connect(port.at).await.unwrap();
    for path in ["/", "/slow", "/"] {
        tokio::time::sleep(SHORT / 2).await;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes()).await.unwrap();
        let len = stream.read(&mut [0; 1024]).await.unwrap();
        assert!(len > 0, "{path}");
    }
    let (text, after) = until_closed(&mut stream, b"").await;
    assert!(text.is_empty() && after >= SHORT, "{text} after {after:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_body_is_its_handlers_business() {
    let port = port(Patience { head: SHORT, idle: SHORT, unread: SHORT, ..patience() }).await;
    let mut stream = TcpStream::connect(port.at).await.unwrap();
    stream.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\n").await.unwrap();
    for byte in b"body" {
        tokio::time::sleep(SHORT).await;
        stream.write_all(&[*byte]).await.unwrap();
    }
    let (text, _) = until_closed(&mut stream, b"").await;
    assert!(text.ends_with("body"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_must_be_taken() {
    let port = port(Patience { unread: 2 * SHORT, ..patience() }).await;
    let request = b"GET /endless HTTP/1.1\r\nhost: a\r\n\r\n";
    let mut stream = TcpStream::connect(port.at).await.unwrap();
    stream.write_all(request).await.unwrap();
    // Whoever takes it is served for as long as he likes.
    let begun = Instant::now();
    let mut piece = vec![0; 1 << 20];
    while begun.elapsed() < 4 * SHORT {
        assert!(stream.read(&mut piece).await.unwrap() > 0);
    }
    // Then he stops: what is on its way can still be read, then comes the end.
    tokio::time::sleep(4 * SHORT).await;
    let rest = async { while stream.read(&mut piece).await.is_ok_and(|len| len > 0) {} };
    tokio::time::timeout(LONG, rest).await.expect("never closed");
}
