//! `idle`: one client alone, and beside many connections that do next to nothing: heads and bodies of which a byte comes
//! now and then, connections that are kept and not used, answers that nobody reads. What the server closes is opened
//! again, so their number stays.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::Settings;
use super::crowd::{closed, uniform};
use super::http::{Client, chat, get, post_head};
use super::report::{Watch, check, first_ms, ms, percentile, spread};
use super::server::Server;

/// Between two bytes of a slow connection.
const BYTE_EVERY: Duration = Duration::from_secs(5);
/// Between two rounds over all connections.
const ROUND: Duration = Duration::from_millis(50);
/// Connections that are opened in a round, so that opening them is not what is measured.
const OPENED: usize = 20;
/// Tokens of the answers that nobody reads, and of the client's that is measured.
const ANSWER: usize = 8;

/// What a slow connection does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A head that comes a byte at a time.
    Head,
    /// A body that does.
    Body,
    /// One request, and then nothing.
    Kept,
    /// A stream that nobody reads.
    Unread,
}

const KINDS: [Kind; 4] = [Kind::Head, Kind::Body, Kind::Kept, Kind::Unread];

struct Slow {
    kind: Kind,
    stream: TcpStream,
    /// What is to be sent, and how much of it was.
    request: Vec<u8>,
    sent: usize,
    opened: Instant,
    next: Instant,
}

/// How long connections of each kind lived before the server closed them, in milliseconds.
type Lives = [Vec<f64>; 4];

/// Measures a client's times alone and beside so many slow connections.
pub fn run(server: &Server, settings: &Settings) -> Result<(), String> {
    let (crowd, time) = (settings.count("idle", 2000)?, settings.seconds("seconds", 45.0)?);
    let ask = |client: &mut Client, number: u64| client.ask(&chat(&server.key, number, ANSWER), None);
    let watch = Watch::new(server);
    let alone = closed(server.at, 1, time, &ask, &mut || {});
    println!("alone: first token {}", spread(first_ms(&alone)));
    println!("{watch}");
    let (stop, ready) = (AtomicBool::new(false), AtomicBool::new(false));
    let (beside, lives) = std::thread::scope(|scope| {
        let crowd = scope.spawn(|| hold(server, crowd, &ready, &stop));
        while !ready.load(Ordering::Relaxed) && !crowd.is_finished() {
            std::thread::sleep(ROUND);
        }
        println!("  {:.0} MB with all connections open", server.resident_mb());
        let watch = Watch::new(server);
        let fresh = |client: &mut Client, number: u64| ask(client, number + (1 << 32));
        let beside = closed(server.at, 1, time, &fresh, &mut || {});
        println!("beside {}: first token {}", settings.count("idle", 2000)?, spread(first_ms(&beside)));
        println!("{watch}");
        stop.store(true, Ordering::Relaxed);
        Ok::<_, String>((beside, crowd.join().expect("the crowd's thread panicked")))
    })?;
    for (kind, mut lives) in KINDS.iter().zip(lives?) {
        let (first, last) = (percentile(&mut lives, 0.0) / 1e3, percentile(&mut lives, 1.0) / 1e3);
        let when = if *kind == Kind::Unread { "seen after" } else { "after" };
        println!("  {kind:?}: {} closed by the server, {when} {first:.1} to {last:.1} s", lives.len());
    }
    let whole = |outcomes: &[super::http::Outcome]| outcomes.iter().map(|outcome| ms(outcome.all)).collect::<Vec<_>>();
    let ratio = |share: f64| percentile(&mut whole(&beside), share) / percentile(&mut whole(&alone), share);
    println!("ratio of whole answers: 99 % {:.2}, median {:.2}", ratio(0.99), ratio(0.5));
    let ratio = |share: f64| percentile(&mut first_ms(&beside), share) / percentile(&mut first_ms(&alone), share);
    println!("ratio of first tokens: 99 % {:.2}, median {:.2}", ratio(0.99), ratio(0.5));
    check(&alone)?;
    check(&beside)
}

/// Holds `most` connections open until it is told to stop.
fn hold(server: &Server, most: usize, ready: &AtomicBool, stop: &AtomicBool) -> Result<Lives, String> {
    let (mut crowd, mut lives, mut number): (Vec<Slow>, Lives, u64) = (Vec::new(), Lives::default(), 0);
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..OPENED.min(most - crowd.len()) {
            let slow = Slow::open(server.at, &server.key, number);
            crowd.push(slow.map_err(|error| format!("{} connections are open, the next one: {error}", crowd.len()))?);
            number += 1;
        }
        if crowd.len() == most {
            ready.store(true, Ordering::Relaxed);
        }
        let now = Instant::now();
        crowd.retain_mut(|slow| {
            let lives_on = slow.turn(now);
            if !lives_on {
                lives[slow.kind as usize].push(ms(slow.opened.elapsed()));
            }
            lives_on
        });
        std::thread::sleep(ROUND);
    }
    let unread = crowd.iter_mut().filter(|slow| slow.kind == Kind::Unread);
    let closed = unread.filter_map(|slow| slow.is_over().then(|| ms(slow.opened.elapsed())));
    lives[Kind::Unread as usize].extend(closed);
    Ok(lives)
}

impl Slow {
    fn open(at: SocketAddr, key: &str, number: u64) -> std::io::Result<Self> {
        let kind = KINDS[(number % 4) as usize];
        let mut stream = TcpStream::connect(at)?;
        stream.set_nodelay(true)?;
        let body = vec![b' '; 1000];
        let (request, at_once) = match kind {
            Kind::Head => (get("/health", key), 0),
            Kind::Body => {
                let head = post_head("/v1/chat/completions", key, body.len()).into_bytes();
                let len = head.len();
                ([head, body].concat(), len)
            }
            Kind::Kept => (get("/health", key), usize::MAX),
            Kind::Unread => (chat(key, number, ANSWER), usize::MAX),
        };
        let at_once = at_once.min(request.len());
        stream.write_all(&request[..at_once])?;
        stream.set_nonblocking(true)?;
        // Spread over the time between two bytes, so that they do not all come at once.
        let now = Instant::now();
        let next = now + BYTE_EVERY.mul_f64(uniform(3, number));
        Ok(Self { kind, stream, request, sent: at_once, opened: now, next })
    }

    /// Sends the next byte if it is time, and looks whether the server has closed. False where it has.
    fn turn(&mut self, now: Instant) -> bool {
        if now < self.next {
            return true;
        }
        self.next = now + BYTE_EVERY;
        if self.sent < self.request.len() {
            match self.stream.write(&self.request[self.sent..=self.sent]) {
                Ok(len) => self.sent += len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return false,
            }
        }
        self.kind == Kind::Unread || !self.is_over()
    }

    /// Reads what is there, which of an answer that nobody reads is only done at the very end: whether the server has
    /// closed.
    fn is_over(&mut self) -> bool {
        loop {
            match self.stream.read(&mut [0; 4096]) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() != ErrorKind::WouldBlock,
            }
        }
    }
}
