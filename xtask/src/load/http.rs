//! One client: a connection that is kept, requests whose bytes are made beforehand, and answers of which no more is read
//! than what must be known. It must cost as little as it can: it takes its time from the server that it measures.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// No answer takes as long.
const PATIENCE: Duration = Duration::from_secs(120);
/// How an event begins.
const EVENT: &[u8] = b"data: ";
/// How a chunked body ends.
const END: &[u8] = b"\r\n0\r\n\r\n";

/// What came of a request.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The status; 0 where there was none.
    pub status: u16,
    /// When it was to be sent, counted from the beginning of the run.
    pub at: Duration,
    /// From sending to the first token; an event that names only the role comes before.
    pub first: Option<Duration>,
    /// From sending to the end.
    pub all: Duration,
    /// The stream came to its `[DONE]`, or the body to its end.
    pub done: bool,
    /// We went away on purpose.
    pub dropped: bool,
    /// `Retry-After` was there.
    pub retry_after: bool,
    /// The server closed the connection after a whole answer.
    pub closed: bool,
    /// What broke.
    pub error: Option<String>,
}

/// A connection to the server, opened when it is needed.
pub struct Client {
    at: SocketAddr,
    stream: Option<TcpStream>,
    buffer: Vec<u8>,
}

impl Client {
    /// Nothing is opened yet.
    pub fn new(at: SocketAddr) -> Self {
        Self { at, stream: None, buffer: Vec::with_capacity(64 << 10) }
    }

    /// Sends a request and reads its answer; goes away after `leave_after` events, where that is said. A connection that
    /// was kept and turns out to be closed is opened again, once.
    pub fn ask(&mut self, request: &[u8], leave_after: Option<usize>) -> Outcome {
        let kept = self.stream.is_some();
        let outcome = self.once(request, leave_after);
        match outcome.status == 0 && kept && self.buffer.is_empty() {
            true => self.once(request, leave_after),
            false => outcome,
        }
    }

    /// The body of the last answer, as it was on the wire.
    pub fn body(&self) -> &[u8] {
        head_len(&self.buffer).map_or(&[], |head| &self.buffer[head..])
    }

    fn once(&mut self, request: &[u8], leave_after: Option<usize>) -> Outcome {
        let begun = Instant::now();
        let mut outcome = Outcome::default();
        let read = self.send(request).and_then(|()| self.read(begun, leave_after, &mut outcome));
        outcome.all = begun.elapsed();
        match read {
            Ok(keep) if keep && !outcome.dropped => {}
            Ok(keep) => {
                outcome.closed = !keep;
                self.stream = None;
            }
            Err(error) => {
                outcome.error = Some(error.to_string());
                self.stream = None;
            }
        }
        outcome
    }

    fn send(&mut self, request: &[u8]) -> io::Result<()> {
        self.buffer.clear();
        let stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(self.at)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream
            }
        };
        self.stream.insert(stream).write_all(request)
    }

    /// True where the connection can be used again.
    fn read(&mut self, begun: Instant, leave_after: Option<usize>, outcome: &mut Outcome) -> io::Result<bool> {
        let head = loop {
            self.more()?;
            if let Some(head) = head_len(&self.buffer) {
                break head;
            }
        };
        let text = String::from_utf8_lossy(&self.buffer[..head]).to_ascii_lowercase();
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        outcome.status = text.get(9..12).and_then(|status| status.parse().ok()).unwrap_or(0);
        outcome.retry_after = field("retry-after:").is_some();
        let keep = field("connection:") != Some("close");
        match field("content-length:").and_then(|len| len.parse::<usize>().ok()) {
            Some(len) => {
                while self.buffer.len() < head + len {
                    self.more()?;
                }
                outcome.done = true;
            }
            None => self.events(head, begun, leave_after, outcome)?,
        }
        Ok(keep)
    }

    /// Reads a stream of events to its end.
    fn events(&mut self, head: usize, begun: Instant, leave: Option<usize>, outcome: &mut Outcome) -> io::Result<()> {
        let (mut seen, mut events) = (head, 0);
        loop {
            events += count(&self.buffer[seen..]);
            // An event that is only half there is counted with its other half.
            seen = self.buffer.len().saturating_sub(EVENT.len() - 1).max(head);
            if events >= 2 && outcome.first.is_none() {
                outcome.first = Some(begun.elapsed());
            }
            if leave.is_some_and(|leave| events >= leave) {
                outcome.dropped = true;
                return Ok(());
            }
            if self.buffer.ends_with(END) {
                let last = self.buffer.len().saturating_sub(64).max(head);
                outcome.done = self.buffer[last..].windows(12).any(|part| part == b"data: [DONE]");
                return Ok(());
            }
            self.more()?;
        }
    }

    fn more(&mut self) -> io::Result<()> {
        let Some(stream) = &mut self.stream else { return Err(io::ErrorKind::NotConnected.into()) };
        let mut piece = [0; 16 << 10];
        match stream.read(&mut piece)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            len => {
                self.buffer.extend_from_slice(&piece[..len]);
                Ok(())
            }
        }
    }
}

/// Bytes up to the end of the head, if it is all there.
fn head_len(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|part| part == b"\r\n\r\n").map(|at| at + 4)
}

fn count(bytes: &[u8]) -> usize {
    bytes.windows(EVENT.len()).filter(|part| *part == EVENT).count()
}

/// A request without a body.
pub fn get(path: &str, key: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {key}\r\n\r\n").into_bytes()
}

/// The head of a request with a JSON body of `len` bytes.
pub fn post_head(path: &str, key: &str, len: usize) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {key}\r\n\
         content-type: application/json\r\ncontent-length: {len}\r\n\r\n"
    )
}

/// A chat request that is streamed, different for each `seed`.
pub fn chat(key: &str, seed: u64, max_tokens: usize) -> Vec<u8> {
    let (a, b) = (seed.wrapping_mul(7919) % 9973 + 10, seed.wrapping_mul(104_729) % 8999 + 10);
    let text = match seed % 5 {
        0 => format!("What is {a} + {b}?"),
        1 => format!("Repeat: {a} {b} {a}"),
        2 => format!("Sort: {a}, {b}, 17, 4"),
        3 => format!("Hello, I am number {a}."),
        _ => format!("What is {a} - {b}?"),
    };
    let body = format!(
        r#"{{"messages":[{{"role":"user","content":"{text}"}}],"stream":true,"max_tokens":{max_tokens},"temperature":1,"seed":{seed}}}"#
    );
    let mut request = post_head("/v1/chat/completions", key, body.len()).into_bytes();
    request.extend_from_slice(body.as_bytes());
    request
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::{Client, chat};

    /// Answers requests with these bytes, one after the other, each on a new connection or on the one before.
    fn played(answers: Vec<&'static str>, close: bool) -> std::net::SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let mut answers = answers.into_iter().peekable();
            while answers.peek().is_some() {
                let (mut stream, _) = listener.accept().unwrap();
                while let Some(answer) = answers.peek() {
                    if !matches!(stream.read(&mut [0; 4096]), Ok(1..)) {
                        break;
                    }
                    // Two pieces: nothing may depend on where they are cut.
                    for half in [&answer[..answer.len() / 2], &answer[answer.len() / 2..]] {
                        stream.write_all(half.as_bytes()).unwrap();
                        std::thread::sleep(std::time::Duration::from_millis(5));
                    }
                    answers.next();
                    if close {
                        break;
                    }
                }
            }
        });
        at
    }

    const STREAM: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\ndata: {}\n\r\n9\r\ndata: {}\n\r\nd\r\ndata: [DONE]\n\r\n0\r\n\r\n";
    const BUSY: &str = "HTTP/1.1 429 Too Many Requests\r\nretry-after: 3\r\ncontent-length: 2\r\n\r\n{}";

    #[test]
    fn answers_are_read_to_their_end() {
        let mut client = Client::new(played(vec![STREAM, BUSY, STREAM], false));
        let request = chat("key", 3, 10);
        let outcome = client.ask(&request, None);
        assert!(outcome.done && outcome.status == 200 && outcome.first.is_some(), "{outcome:?}");
        let outcome = client.ask(&request, None);
        assert!(outcome.done && outcome.status == 429 && outcome.retry_after, "{outcome:?}");
        let outcome = client.ask(&request, Some(1));
        assert!(outcome.dropped && !outcome.done, "{outcome:?}");
    }

    #[test]
    fn a_closed_connection_is_opened_again() {
        let mut client = Client::new(played(vec![BUSY, BUSY], true));
        for _ in 0..2 {
            let outcome = client.ask(&chat("key", 4, 10), None);
            assert!(outcome.status == 429 && outcome.error.is_none(), "{outcome:?}");
        }
        let outcome = client.ask(&chat("key", 5, 10), None);
        assert!(outcome.status == 0 && outcome.error.is_some(), "{outcome:?}");
    }
}
