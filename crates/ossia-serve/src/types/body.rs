//! A request's body as a type: read whole, up to a length, within a time, and without any encoding; then as JSON, where
//! an error names the field.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use futures_util::StreamExt;
use serde::de::DeserializeOwned;

use tokio::sync::{Semaphore, SemaphorePermit};

use super::strict::Strict;
use crate::error::ApiError;

/// The longest body, in bytes.
pub const MOST_BYTES: usize = 8 << 20;
/// All bodies together that are being read, in pieces of a KiB: clients that send much at once must not fill the memory.
const MOST_KIB_OF_ALL: usize = 256 << 10;
static ROOM: Semaphore = Semaphore::const_new(MOST_KIB_OF_ALL);
/// A body takes room in such pieces, from such a length on.
const ROOM_KIB: usize = 512;
const FREE_KIB: usize = 16;
/// The most values in a body's JSON. One takes more room than its two bytes there.
const MOST_VALUES: usize = 500_000;
/// A body must have arrived after this.
const PATIENCE: Duration = Duration::from_secs(60);

/// The body, read as JSON.
pub struct JsonBody<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let body = read(request, MOST_BYTES).await?;
        read_json(&body.bytes).map(JsonBody)
    }
}

/// A body that has arrived, and the room that it takes.
pub struct Arrived {
    /// It.
    pub bytes: Vec<u8>,
    _room: Vec<SemaphorePermit<'static>>,
}

/// The bytes of a request's body, at most `most`.
pub async fn read(request: Request<Body>, most: usize) -> Result<Arrived, ApiError> {
    let encoded = request.headers().get(CONTENT_ENCODING).is_some_and(|value| value.as_bytes() != b"identity");
    if encoded {
        // A small body could unfold to a very long one.
        return Err(ApiError::MediaType("Bodies with a Content-Encoding are not accepted. Send plain JSON."));
    }
    let told = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if told.is_some_and(|told| told > most as u64) {
        return Err(ApiError::TooLarge(most));
    }
    tokio::time::timeout(PATIENCE, collect(request.into_body(), most)).await.map_err(|_| ApiError::Timeout)?
}

async fn collect(body: Body, most: usize) -> Result<Arrived, ApiError> {
    let (mut pieces, mut bytes, mut room) = (body.into_data_stream(), Vec::new(), Vec::new());
    while let Some(piece) = pieces.next().await {
        let broken = |_| ApiError::Invalid { param: None, problem: "The body's encoding is broken.".into() };
        let piece = piece.map_err(broken)?;
        if bytes.len() + piece.len() > most {
            return Err(ApiError::TooLarge(most));
        }
        // Small bodies are free: they are bounded by the number of connections.
        let wanted = (bytes.len() + piece.len()) >> 10;
        while wanted >= FREE_KIB && wanted > room.len() * ROOM_KIB {
            let more = ROOM.try_acquire_many(ROOM_KIB as u32).map_err(|_| ApiError::NoRoom)?;
            room.push(more);
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(Arrived { bytes, _room: room })
}

/// Reads JSON of at most 128 levels (what is not read may have more) and not too many values; wrong types are errors that name the field, unknown fields are passed over.
pub fn read_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    if num_values(bytes) > MOST_VALUES {
        let problem = format!("The body has too many values: wanted at most {MOST_VALUES}.");
        return Err(ApiError::Invalid { param: None, problem: problem.into() });
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(Strict(&mut json)).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        match inner.classify() {
            serde_json::error::Category::Data => {
                let problem = inner.to_string();
                let param = Some(blamed(&path, &problem)).filter(|param| !param.is_empty());
                ApiError::Invalid { param, problem: plain(&problem).into() }
            }
            _ => not_json(&inner),
        }
    })?;
    json.end().map_err(|error| not_json(&error))?;
    Ok(value)
}

/// An upper bound of the values in a text of JSON: each but the first follows a comma, a colon or an opening bracket. What
/// stands in strings counts too, unless the bound would be passed.
fn num_values(text: &[u8]) -> usize {
    let marks = |byte: &&u8| matches!(byte, b',' | b'[' | b'{' | b':');
    let bound = text.iter().filter(marks).count();
    if bound <= MOST_VALUES {
        return bound;
    }
    let (mut num, mut in_string, mut escaped) = (0, false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b',' | b'[' | b'{' | b':' if !in_string => num += 1,
            _ => {}
        }
    }
    num
}

fn not_json(error: &serde_json::Error) -> ApiError {
    let problem = format!("The body is not valid JSON (line {}, column {}): {error}", error.line(), error.column());
    ApiError::Invalid { param: None, problem: plain(&problem).into() }
}

/// serde's message without its " at line 1 column 20", which says little about a body that a program wrote, and with
/// JSON's names of types.
fn plain(message: &str) -> String {
    let message = message.rfind(" at line ").map_or(message, |at| &message[..at]);
    let Some((found, expected)) = message.rsplit_once(", expected ") else { return message.to_owned() };
    let expected = match expected {
        "i64" | "u64" | "i32" | "u32" | "usize" => "an integer",
        "f64" | "f32" => "a number",
        "a sequence" => "an array",
        "a map" => "an object",
        other => other,
    };
    format!("{found}, expected {expected}")
}

/// The field that is to blame. Where one is missing, the path ends at the object that lacks it.
fn blamed(path: &str, problem: &str) -> String {
    let missing = problem.strip_prefix("missing field `").and_then(|rest| rest.split_once('`'));
    match (if path == "." { "" } else { path }, missing) {
        ("", Some((field, _))) => field.to_owned(),
        (path, Some((field, _))) => format!("{path}.{field}"),
        (path, None) => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::read_json;

    #[derive(Debug, Deserialize)]
    struct Outer {
        #[allow(dead_code)]
        list: Vec<Inner>,
        #[allow(dead_code)]
        any: Option<serde_json::Value>,
    }

    #[derive(Debug, Deserialize)]
    struct Inner {
        #[allow(dead_code)]
        number: f64,
    }

    #[test]
    fn values_are_counted_before_they_are_made() {
        for (text, most) in [("7", 0), ("[]", 1), (r#"{"a":[1,2]}"#, 4)] {
            assert_eq!(super::num_values(text.as_bytes()), most, "{text}");
        }
        let commas = ",".repeat(super::MOST_VALUES);
        let text = format!(r#"{{"list":[],"any":"{commas}\\\"{commas}"}}"#);
        assert_eq!(super::num_values(text.as_bytes()), 5, "those in texts do not count");
        assert!(read_json::<Outer>(text.as_bytes()).is_ok());
        for many in ["[],", "{},", "0,", "\"\","] {
            let text = format!(r#"{{"list":[],"any":[{}0]}}"#, many.repeat(super::MOST_VALUES));
            let error = read_json::<Outer>(text.as_bytes()).unwrap_err();
            assert!(error.status() == 400 && error.to_string().contains("too many values"), "{error}");
        }
    }

    #[tokio::test]
    async fn bodies_that_take_all_the_room_are_refused_until_it_is_given_back() {
        let body = || axum::http::Request::new(axum::body::Body::from(vec![b' '; 1 << 20]));
        // What other tests of this process hold meanwhile is far from all.
        let all = super::ROOM.try_acquire_many(super::ROOM.available_permits() as u32).unwrap();
        assert_eq!(super::read(body(), 8 << 20).await.err(), Some(crate::error::ApiError::NoRoom));
        drop(all);
        assert_eq!(super::read(body(), 8 << 20).await.unwrap().bytes.len(), 1 << 20);
    }

    #[test]
    fn errors_name_the_field() {
        for (text, param, part) in [
            (r#"{"list":[{"number":1},{"number":"x"}]}"#, Some("list[1].number"), "wanted"),
            (r#"{"list":[{}]}"#, Some("list[0].number"), "missing"),
            ("{}", Some("list"), "missing"),
            (r#"{"list":7}"#, Some("list"), "an array"),
            // The fields' values in order are no object.
            (r#"{"list":[[1]]}"#, Some("list[0]"), "sequence"),
            ("[[],null]", None, "sequence"),
            (r#"{"list":[],"list":[]}"#, None, "duplicate"),
            ("", None, "not valid JSON"),
            ("{", None, "not valid JSON"),
            (r#"{"list":[]} x"#, None, "not valid JSON"),
            (r#"{"list":[{"number":1e999}]}"#, None, "not valid JSON"),
        ] {
            let error = read_json::<Outer>(text.as_bytes()).unwrap_err();
            if let Some(param) = param {
                assert_eq!(error.param(), Some(param), "{text}");
            }
            assert_eq!(error.status(), 400, "{text}");
            assert!(!error.to_string().contains(" at line"), "{error}");
            if part != "wanted" {
                assert!(error.to_string().contains(part), "{error}");
            }
        }
        let deep = |field: &str, n: usize| format!(r#"{{"list":[],"{field}":{}{}}}"#, "[".repeat(n), "]".repeat(n));
        assert!(read_json::<Outer>(deep("any", 100).as_bytes()).is_ok());
        assert_eq!(read_json::<Outer>(deep("any", 200).as_bytes()).unwrap_err().status(), 400);
        assert_eq!(read_json::<Outer>(deep("any", 1_000_000).as_bytes()).unwrap_err().status(), 400);
        assert!(read_json::<Outer>(deep("unknown", 400_000).as_bytes()).is_ok(), "skipped without recursion");
        assert!(read_json::<Outer>(br#"{"list":[],"unknown":{"a":[1]}}"#).is_ok());
    }
}
