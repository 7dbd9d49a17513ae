//! A form with files, read part by part: what is not asked for is not kept, what the parser holds back has a bound, and who
//! sends too slowly is not waited for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::multipart::{Field, Multipart, MultipartError};
use axum::extract::{FromRequest, Request};
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use futures_util::{StreamExt, stream};
use tokio::time::{Instant, timeout_at};

use crate::error::ApiError;

/// The longest file, in bytes.
pub const MOST_FILE: usize = 512 << 20;
/// The parser may have read so much that no part was made of: it keeps the head of a part until it is whole, however
/// long that is, and looks through all of it again whenever more arrives.
const MOST_HELD: usize = 1 << 20;
/// It reads as long as something is there. So there is nothing once after so many bytes: it then makes parts of what it has.
const AT_ONCE: usize = 256 << 10;
/// A form may take this long, and a second more for each so many bytes that have arrived.
const PATIENCE: Duration = Duration::from_secs(60);
const SLOWEST: u64 = 16 << 10;

/// A form that is being read.
pub struct Form {
    parts: Multipart,
    pace: Pace,
    announced: Option<u64>,
}

/// A part of it.
pub struct Part<'f> {
    field: Field<'f>,
    pace: &'f Pace,
}

/// How much has arrived, how much of it was understood, and since when.
struct Pace {
    held: Arc<AtomicUsize>,
    arrived: Arc<AtomicU64>,
    begun: Instant,
    patience: Duration,
}

impl Pace {
    fn new(patience: Duration) -> Self {
        Self { held: Arc::default(), arrived: Arc::default(), begun: Instant::now(), patience }
    }

    /// What the parser gives, unless it takes too long.
    async fn wait<T>(&self, step: impl Future<Output = Result<T, MultipartError>>) -> Result<T, ApiError> {
        let earned = Duration::from_secs(self.arrived.load(Ordering::Relaxed) / SLOWEST);
        let step = timeout_at(self.begun + self.patience + earned, step).await.map_err(|_| ApiError::Timeout)?;
        self.held.store(0, Ordering::Relaxed);
        step.map_err(|error| match error.status().as_u16() {
            413 => ApiError::TooLarge(MOST_FILE),
            _ => ApiError::invalid("file", "the body is not complete multipart/form-data"),
        })
    }

    /// The body, counted; an error in it where too much is held back.
    fn count(&self, body: Body) -> Body {
        let (held, arrived) = (Arc::clone(&self.held), Arc::clone(&self.arrived));
        let (mut pieces, mut at_once) = (body.into_data_stream(), 0);
        Body::from_stream(stream::poll_fn(move |context| {
            if at_once >= AT_ONCE {
                at_once = 0;
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            let Some(piece) = ready!(pieces.poll_next_unpin(context)?) else { return Poll::Ready(None) };
            at_once += piece.len();
            arrived.fetch_add(piece.len() as u64, Ordering::Relaxed);
            let is_too_much = held.fetch_add(piece.len(), Ordering::Relaxed) + piece.len() > MOST_HELD;
            let too_much = || axum::Error::new("the head of a part is too long");
            Poll::Ready(Some(if is_too_much { Err(too_much()) } else { Ok(piece) }))
        }))
    }
}

impl<S: Send + Sync> FromRequest<S> for Form {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        if request.headers().get_all(CONTENT_ENCODING).iter().any(|value| value.as_bytes() != b"identity") {
            return Err(ApiError::MediaType(
                "Bodies with a Content-Encoding are not accepted. Send the form as it is.",
            ));
        }
        let announced = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        let pace = Pace::new(PATIENCE);
        let parts = Multipart::from_request(request.map(|body| pace.count(body)), state).await;
        let parts = parts.map_err(|_| ApiError::invalid("file", "file: wanted multipart/form-data with a boundary"))?;
        Ok(Self { parts, pace, announced })
    }
}

impl Form {
    /// Bytes of the whole form, where the client has said so.
    pub fn announced(&self) -> Option<u64> {
        self.announced
    }

    /// The next part; None after the last.
    pub async fn next(&mut self) -> Result<Option<Part<'_>>, ApiError> {
        let pace = &self.pace;
        let field = pace.wait(self.parts.next_field()).await?;
        Ok(field.map(|field| Part { field, pace }))
    }
}

impl Part<'_> {
    /// What it is called; empty where it has no name.
    pub fn name(&self) -> &str {
        self.field.name().unwrap_or_default()
    }

    /// What the client calls the file.
    pub fn file_name(&self) -> Option<&str> {
        self.field.file_name()
    }

    /// More of it; None at its end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, ApiError> {
        self.pace.wait(self.field.chunk()).await
    }

    /// All of it, where it is a few words.
    pub async fn short(mut self) -> Result<String, ApiError> {
        let mut bytes = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > 1024 {
                return Err(ApiError::invalid(self.name(), "wanted at most 1024 bytes"));
            }
        }
        String::from_utf8(bytes).map_err(|_| ApiError::invalid("file", "the form's fields are not UTF-8"))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use axum::Router;
    use axum::body::{Body, Bytes, to_bytes};
    use axum::extract::DefaultBodyLimit;
    use axum::http::Request;
    use axum::routing::post;
    use futures_util::{StreamExt, stream};
    use tower::ServiceExt;

    use super::{Form, MOST_HELD, Pace};
    use crate::error::ApiError;

    /// The names and lengths of a form's parts.
    async fn lengths(mut form: Form) -> Result<String, ApiError> {
        let mut told = String::new();
        while let Some(mut part) = form.next().await? {
            let mut len = 0;
            told.push_str(&format!("{} {:?} ", part.name(), part.file_name()));
            while let Some(chunk) = part.chunk().await? {
                len += chunk.len();
            }
            told.push_str(&len.to_string());
        }
        Ok(told)
    }

    /// The status and the body that this form gets, and how many of its bytes were taken.
    async fn send(head: &'static str, num_pieces: usize, tail: &'static str) -> (u16, String, usize) {
        const PIECE: usize = 1 << 16;
        let taken = Arc::new(AtomicUsize::new(0));
        let counts = Arc::clone(&taken);
        let middle = std::iter::repeat_n(Bytes::from(vec![b'a'; PIECE]), num_pieces);
        let pieces = [Bytes::from(head)].into_iter().chain(middle).chain([Bytes::from(tail)]);
        let pieces = stream::iter(pieces).map(move |piece| {
            counts.fetch_add(piece.len(), Ordering::Relaxed);
            Ok::<_, std::io::Error>(piece)
        });
        let router = Router::new().route("/", post(lengths)).layer(DefaultBodyLimit::disable());
        let request = Request::post("/").header("content-type", "multipart/form-data; boundary=x");
        let answer = router.oneshot(request.body(Body::from_stream(pieces)).unwrap()).await.unwrap();
        let status = answer.status().as_u16();
        let body = to_bytes(answer.into_body(), 10_000).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap(), taken.load(Ordering::Relaxed))
    }

    #[tokio::test]
    async fn a_head_without_end_is_not_kept() {
        let (status, _, taken) = send("--x\r\n", 4096, "").await;
        assert_eq!(status, 400);
        assert!(taken <= MOST_HELD + (1 << 17), "{taken}");
        let (status, _, taken) = send("no boundary", 4096, "").await;
        assert_eq!(status, 400);
        assert!(taken <= MOST_HELD + (1 << 17), "{taken}");
    }

    #[tokio::test]
    async fn a_long_part_is_given_in_pieces_however_fast_it_comes() {
        let head = "--x\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n";
        let (status, told, _) = send(head, 512, "\r\n--x--\r\n").await;
        assert_eq!((status, told), (200, format!("file Some(\"a\") {}", 512 << 16)));
    }

    #[tokio::test]
    async fn who_sends_nothing_is_not_waited_for() {
        let pace = Pace::new(Duration::from_millis(20));
        let told = pace.wait(std::future::pending::<Result<(), _>>()).await;
        assert_eq!(told, Err(ApiError::Timeout));
        let mut counted = pace.count(Body::from("abc")).into_data_stream();
        while counted.next().await.is_some() {}
        assert_eq!((pace.arrived.load(Ordering::Relaxed), pace.held.load(Ordering::Relaxed)), (3, 3));
    }
}
