//! What the log learns of one request. It travels with the request's identity, through handlers, generations and bodies;
//! when the last copy is gone the request is over, and its entry is handed to the writer.

use std::fmt;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::sync::mpsc::OwnedPermit;

use super::State;
use super::entry::{Content, Event, RequestEntry};
use crate::clock;
use crate::turn::Usage;

/// Of each body so much is logged.
const MOST_BODY: usize = 1 << 20;

/// What a request's entry begins with.
pub struct Started<'r> {
    /// The request's number.
    pub id: &'r str,
    /// Method and pattern.
    pub route: &'r str,
    /// The key's id.
    pub key: &'r str,
    /// The key's name.
    pub name: &'r str,
    /// The model, in case something is generated.
    pub model: &'r Arc<str>,
}

/// A request that is to be logged; or none, where there is no log.
#[derive(Clone, Default)]
pub struct Trail(Option<Arc<Record>>);

struct Record {
    begun: Instant,
    model: Arc<str>,
    state: Arc<State>,
    inner: Mutex<Inner>,
}

struct Inner {
    /// Taken when it is over.
    permit: Option<OwnedPermit<Event>>,
    entry: RequestEntry,
    /// What the request goes through, if it generates.
    adapter: Option<String>,
    content: Option<Bodies>,
}

#[derive(Default)]
struct Bodies {
    request: Vec<u8>,
    answer: Vec<u8>,
    cut: bool,
}

/// Which body.
#[derive(Clone, Copy)]
enum Side {
    Request,
    Answer,
}

impl Trail {
    pub(super) fn new(permit: OwnedPermit<Event>, state: Arc<State>, started: Started, content: bool) -> Self {
        let entry = RequestEntry {
            request: started.id.to_owned(),
            key: started.key.to_owned(),
            name: started.name.to_owned(),
            route: started.route.to_owned(),
            began: clock::rfc3339(clock::now_s()),
            ..RequestEntry::default()
        };
        let inner = Inner { permit: Some(permit), entry, adapter: None, content: content.then(Bodies::default) };
        let model = Arc::clone(started.model);
        Self(Some(Arc::new(Record { begun: Instant::now(), model, state, inner: Mutex::new(inner) })))
    }

    /// The head of the answer was made.
    pub fn answered(&self, status: u16) {
        if let Some(record) = &self.0 {
            record.lock().entry.status = Some(status);
        }
    }

    /// What is generated from now on goes through this adapter; nothing is the model as it is.
    pub fn goes_through(&self, adapter: Option<&str>) {
        if let Some(record) = &self.0 {
            record.lock().adapter = adapter.map(str::to_owned);
        }
    }

    /// A generation has ended.
    pub fn spent(&self, usage: &Usage, ended: &str) {
        let Some(record) = &self.0 else { return };
        let Inner { entry, adapter, .. } = &mut *record.lock();
        entry.adapter.clone_from(adapter);
        entry.model = Some(record.model.to_string());
        entry.prompt_tokens += usage.prompt_tokens as u64;
        entry.cached_tokens += usage.cached_tokens as u64;
        entry.completion_tokens += usage.completion_tokens as u64;
        entry.reasoning_tokens += usage.reasoning_tokens as u64;
        entry.ended.push(ended.to_owned());
    }

    /// A request's body that is logged as it is read, if contents are.
    pub fn hear_request(&self, body: Body) -> Body {
        self.hear(body, Side::Request)
    }

    /// An answer's body that is logged as it is sent, if contents are.
    pub fn hear_answer(&self, body: Body) -> Body {
        self.hear(body, Side::Answer)
    }

    fn hear(&self, body: Body, side: Side) -> Body {
        let has_content = self.0.as_ref().is_some_and(|record| record.lock().content.is_some());
        if has_content { Body::new(Heard { body, trail: self.clone(), side }) } else { body }
    }

    fn add(&self, side: Side, bytes: &[u8]) {
        let Some(record) = &self.0 else { return };
        let mut inner = record.lock();
        let Some(bodies) = &mut inner.content else { return };
        let kept = match side {
            Side::Request => &mut bodies.request,
            Side::Answer => &mut bodies.answer,
        };
        let room = MOST_BODY - kept.len();
        kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
        bodies.cut |= bytes.len() > room;
    }
}

/// Two trails are the same where they are one request's.
impl PartialEq for Trail {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (None, None) => true,
            _ => false,
        }
    }
}

impl Eq for Trail {}

impl fmt::Debug for Trail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Trail" } else { "no trail" })
    }
}

impl Record {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change is whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let inner = self.inner.get_mut().unwrap_or_else(PoisonError::into_inner);
        let Some(permit) = inner.permit.take() else { return };
        let mut entry = std::mem::take(&mut inner.entry);
        entry.ms = self.begun.elapsed().as_millis().try_into().unwrap_or(u64::MAX);
        if entry.status.is_none() && std::thread::panicking() {
            entry.status = Some(500);
        }
        if let Some(Bodies { request, answer, cut }) = inner.content.take() {
            let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
            let content = Content { request: text(request), answer: text(answer), cut };
            self.state.waiting_bytes.fetch_add(content.request.len() + content.answer.len(), Ordering::Relaxed);
            entry.content = Some(content);
        }
        permit.send(Event::Request(Box::new(entry)));
    }
}

/// A body that is listened to.
struct Heard {
    body: Body,
    trail: Trail,
    side: Side,
}

impl HttpBody for Heard {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(data) = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()) {
            self.trail.add(self.side, data);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
