//! HTTP/1.1 from the client's side, over plain sockets: it sends any bytes, and reads answers strictly, so that what a
//! server frames wrongly is seen. Every read has an end in time.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// An answer takes no longer than this, or the server hangs.
pub const DEADLINE: Duration = Duration::from_secs(10);
/// No answer here is longer.
const MOST_BYTES: usize = 256 << 20;

/// An answer, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Names in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// The body, without the marks of its chunks.
    pub body: Vec<u8>,
    /// True where the connection ends with it.
    pub closes: bool,
}

impl Answer {
    /// A header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Why there is no answer.
#[derive(Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// The other side has closed before the first byte of one, or the connection was reset.
    Closed,
    /// The connection ended within one.
    Cut(String),
    /// It did not come, or did not end, in time.
    Late(String),
    /// It is not HTTP.
    Wrong(String),
}

impl std::fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            NoAnswer::Closed => f.write_str("the connection was closed without an answer"),
            NoAnswer::Cut(so_far) => write!(f, "the answer ends too early: {so_far}"),
            NoAnswer::Late(so_far) => write!(f, "no whole answer after {} s: {so_far:?}", DEADLINE.as_secs()),
            NoAnswer::Wrong(what) => write!(f, "the answer is not HTTP: {what}"),
        }
    }
}

/// A connection, and what of the next answer has been read.
pub struct Connection {
    stream: TcpStream,
    read: Vec<u8>,
    at: usize,
    end: Instant,
}

impl Connection {
    /// Opens one.
    pub fn open(at: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&at, DEADLINE)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(DEADLINE))?;
        Ok(Self { stream, read: Vec::new(), at: 0, end: Instant::now() + DEADLINE })
    }

    /// Sends bytes. That the other side has had enough before the end is no failure: its answer says why.
    pub fn send(&mut self, bytes: &[u8]) {
        self.end = Instant::now() + DEADLINE;
        let _ = self.stream.write_all(bytes);
    }

    /// Sends no more.
    pub fn end(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Sends a request and reads its answer.
    pub fn ask(&mut self, request: &[u8]) -> Result<Answer, NoAnswer> {
        self.send(request);
        self.answer(request.starts_with(b"HEAD "))
    }

    /// Reads the next answer; `is_bare`: its head has no body, whatever it says.
    pub fn answer(&mut self, is_bare: bool) -> Result<Answer, NoAnswer> {
        loop {
            let (status, headers) = self.head()?;
            if status == 100 {
                continue;
            }
            let mut answer = Answer { status, headers, body: Vec::new(), closes: false };
            let is_close = |value: &str| value.eq_ignore_ascii_case("close");
            answer.closes = answer.header("connection").is_some_and(is_close);
            if !is_bare && status != 204 && status != 304 {
                self.body(&mut answer)?;
            }
            return Ok(answer);
        }
    }

    fn head(&mut self) -> Result<(u16, Vec<(String, String)>), NoAnswer> {
        let first = match self.line() {
            Err(NoAnswer::Cut(so_far)) if so_far.is_empty() => return Err(NoAnswer::Closed),
            other => other?,
        };
        let status = first.strip_prefix("HTTP/1.1 ").or_else(|| first.strip_prefix("HTTP/1.0 "));
        let status = status.and_then(|rest| rest.get(..3)?.parse().ok()).filter(|status| (100..600).contains(status));
        let status = status.ok_or_else(|| NoAnswer::Wrong(first.clone()))?;
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok((status, headers));
            }
            let (name, value) = line.split_once(':').ok_or_else(|| NoAnswer::Wrong(line.clone()))?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    fn body(&mut self, answer: &mut Answer) -> Result<(), NoAnswer> {
        let wrong = |what: &str| NoAnswer::Wrong(what.to_owned());
        match (answer.header("content-length"), answer.header("transfer-encoding")) {
            (Some(_), Some(_)) => return Err(wrong("two lengths")),
            (Some(len), None) => {
                let len: usize = len.parse().map_err(|_| wrong(len))?;
                answer.body = self.take(len)?;
            }
            (None, Some("chunked")) => loop {
                let line = self.line()?;
                let len = usize::from_str_radix(&line, 16).map_err(|_| wrong(&line))?;
                let bytes = self.take(len)?;
                if !self.line()?.is_empty() {
                    return Err(wrong("a chunk is longer than it says"));
                }
                if len == 0 {
                    break;
                }
                answer.body.extend_from_slice(&bytes);
                if answer.body.len() > MOST_BYTES {
                    return Err(wrong("an endless answer"));
                }
            },
            (None, Some(other)) => return Err(wrong(other)),
            (None, None) => {
                answer.closes = true;
                while self.more()? > 0 {}
                answer.body = self.read.split_off(self.at);
            }
        }
        Ok(())
    }

    /// The next line of a streamed body or of a head, without its end.
    pub fn line(&mut self) -> Result<String, NoAnswer> {
        loop {
            let rest = &self.read[self.at..];
            if let Some(len) = rest.windows(2).position(|two| two == b"\r\n") {
                let line = String::from_utf8_lossy(&rest[..len]).into_owned();
                self.at += len + 2;
                return Ok(line);
            }
            if rest.len() > (1 << 20) {
                return Err(NoAnswer::Wrong("an endless line".to_owned()));
            }
            if self.more()? == 0 {
                return Err(NoAnswer::Cut(self.rest()));
            }
        }
    }

    fn take(&mut self, len: usize) -> Result<Vec<u8>, NoAnswer> {
        if len > MOST_BYTES {
            return Err(NoAnswer::Wrong(format!("{len} bytes")));
        }
        while self.read.len() - self.at < len {
            if self.more()? == 0 {
                return Err(NoAnswer::Cut(self.rest()));
            }
        }
        let bytes = self.read[self.at..self.at + len].to_vec();
        self.at += len;
        Ok(bytes)
    }

    /// Reads what there is; 0 at the end of the connection.
    fn more(&mut self) -> Result<usize, NoAnswer> {
        if self.at > (64 << 10) {
            self.read.drain(..self.at);
            self.at = 0;
        }
        let left = self.end.saturating_duration_since(Instant::now());
        if left.is_zero() || self.stream.set_read_timeout(Some(left)).is_err() {
            return Err(NoAnswer::Late(self.rest()));
        }
        let mut piece = [0; 16 << 10];
        match self.stream.read(&mut piece) {
            Ok(len) => {
                self.read.extend_from_slice(&piece[..len]);
                Ok(len)
            }
            Err(error) if [io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut].contains(&error.kind()) => {
                Err(NoAnswer::Late(self.rest()))
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.more(),
            // A reset: the server closed with bytes of ours unread.
            Err(_) => Ok(0),
        }
    }

    /// The beginning of what was read and not understood.
    fn rest(&self) -> String {
        let rest = &self.read[self.at.min(self.read.len())..];
        String::from_utf8_lossy(&rest[..rest.len().min(400)]).into_owned()
    }
}

/// A request with a body of JSON, or with none.
pub fn request(method: &str, target: &str, at: SocketAddr, key: &str, body: Option<&[u8]>) -> Vec<u8> {
    let mut bytes = format!("{method} {target} HTTP/1.1\r\nhost: {at}\r\nauthorization: Bearer {key}\r\n").into_bytes();
    if let Some(body) = body {
        let head = format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
        bytes.extend_from_slice(head.as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body.unwrap_or_default());
    bytes
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;

    use super::{Connection, NoAnswer};

    /// What is read of a server that says this and closes.
    fn read(said: &'static [u8], times: usize) -> Vec<Result<(u16, String), NoAnswer>> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || listener.accept().unwrap().0.write_all(said).unwrap());
        let mut connection = Connection::open(at).unwrap();
        let answer = |_| connection.answer(false).map(|answer| (answer.status, answer.text()));
        let answers = (0..times).map(answer).collect();
        server.join().unwrap();
        answers
    }

    #[test]
    fn answers_are_read_one_after_the_other() {
        let said = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab\
            HTTP/1.1 400 Bad\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n2\r\nyz\r\n0\r\n\r\n";
        let wanted = [Ok((200, "ab".to_owned())), Ok((400, "xyz".to_owned())), Err(NoAnswer::Closed)];
        assert_eq!(read(said, 3), wanted);
        assert_eq!(read(b"HTTP/1.1 200 OK\r\n\r\nto the end", 1), [Ok((200, "to the end".to_owned()))]);
    }

    #[test]
    fn what_is_framed_wrongly_is_seen() {
        for said in [
            b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nab".as_slice(),
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nxy\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
            b"HTTP/2 200\r\n\r\n",
            b"HTTP/1.1 2",
        ] {
            assert!(!matches!(read(said, 1)[0], Ok(_) | Err(NoAnswer::Closed)), "{:?}", String::from_utf8_lossy(said));
        }
    }
}
