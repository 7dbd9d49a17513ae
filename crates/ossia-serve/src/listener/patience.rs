//! How long a connection may do nothing. Each of its states has a deadline of its own: who sends a head must be through
//! soon after its first byte, who keeps a connection for later may do so for longer, and who does not take what he asked
//! for is not waited for. While a request is worked on there is none, besides those of its handler.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// Deadlines of a connection.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For TLS' greeting.
    pub greeting: Duration,
    /// From the first byte of a request's head to its last.
    pub head: Duration,
    /// Without a request, from the connection or from the end of the answer before.
    pub idle: Duration,
    /// In which nothing of an answer was taken.
    pub unread: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { greeting: seconds(10), head: seconds(10), idle: seconds(75), unread: seconds(60) }
    }
}

/// What a connection does, and since when. Shared by its stream, its requests and its timer.
#[derive(Clone)]
pub struct Watch {
    state: Arc<Mutex<State>>,
    patience: Patience,
}

struct State {
    phase: Phase,
    since: Instant,
    /// Since when nothing could be written.
    stuck: Option<Instant>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Idle,
    Head,
    Busy,
}

impl Watch {
    /// Of a connection that was just opened.
    pub fn new(patience: Patience) -> Self {
        let state = State { phase: Phase::Idle, since: Instant::now(), stuck: None };
        Self { state: Arc::new(Mutex::new(state)), patience }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is a store or two.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A head is there; the request ends when its answer's body is dropped.
    pub fn begin(&self) {
        self.lock().phase = Phase::Busy;
    }

    /// The body of an answer, which tells when it ends.
    pub fn body(&self, body: Body) -> Body {
        Body::new(Watched { body, watch: self.clone() })
    }

    fn end(&self) {
        let mut state = self.lock();
        (state.phase, state.since) = (Phase::Idle, Instant::now());
    }

    fn heard(&self) {
        let mut state = self.lock();
        if state.phase == Phase::Idle {
            (state.phase, state.since) = (Phase::Head, Instant::now());
        }
    }

    fn wrote(&self, written: bool) {
        let mut state = self.lock();
        match (written, state.stuck) {
            (false, None) => state.stuck = Some(Instant::now()),
            (false, Some(_)) | (true, None) => {}
            (true, Some(_)) => state.stuck = None,
        }
        // The end of an answer may still be on its way when its body is gone.
        if written && state.phase == Phase::Idle {
            state.since = Instant::now();
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let State { phase, since, stuck } = *self.lock();
        let own = match phase {
            Phase::Idle => Some(since + self.patience.idle),
            Phase::Head => Some(since + self.patience.head),
            Phase::Busy => None,
        };
        let stuck = stuck.map(|stuck| stuck + self.patience.unread);
        own.into_iter().chain(stuck).min()
    }

    /// Ready when a deadline has passed. To be asked after everything that may have changed the state.
    pub fn poll_late(&self, sleep: &mut Pin<Box<Sleep>>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.deadline() else { return Poll::Pending };
        if sleep.deadline() != deadline {
            sleep.as_mut().reset(deadline);
        }
        sleep.as_mut().poll(cx)
    }

    /// A stream that tells of what comes and goes.
    pub fn stream<S>(&self, stream: S) -> WatchedStream<S> {
        WatchedStream { stream, watch: self.clone() }
    }
}

/// See [`Watch::body`].
struct Watched {
    body: Body,
    watch: Watch,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.watch.end();
    }
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<hyper::body::Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.body.size_hint()
    }
}

/// See [`Watch::stream`].
pub struct WatchedStream<S> {
    stream: S,
    watch: Watch,
}

impl<S: AsyncRead + Unpin> AsyncRead for WatchedStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        if buffer.filled().len() > before {
            self.watch.heard();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WatchedStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watch.wrote(written.is_ready());
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.watch.wrote(written.is_ready());
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
