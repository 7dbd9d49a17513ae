//! The lines of the log. A line is a JSON object without its newline; its hash is SHA-256 over exactly these bytes.

use ring::digest;
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::keys::hex;

/// What the first entry's `prev` is.
pub const GENESIS: Hash = [0; 32];

/// SHA-256 of a line.
pub type Hash = [u8; 32];

/// The hash of a line.
pub fn hash(line: &[u8]) -> Hash {
    sized(digest::digest(&digest::SHA256, line))
}

/// A finished SHA-256.
pub fn sized(digest: digest::Digest) -> Hash {
    // SHA-256 has 32 bytes; all zeros would not pass for a hash of anything.
    digest.as_ref().try_into().unwrap_or_default()
}

/// 64 lower-case hexadecimal digits as a hash; None for anything else.
pub fn unhex(text: &str) -> Option<Hash> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut hash = GENESIS;
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != hash.len() || !rest.is_empty() {
        return None;
    }
    for (byte, [high, low]) in hash.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(hash)
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Event {
    /// A server began to write.
    Start {
        /// Of the program.
        version: String,
        /// That it serves.
        model: String,
    },
    /// A request is over.
    Request(Box<RequestEntry>),
    /// Under the server's secret: the chain up to the entry before this one.
    Anchor {
        /// See [`super::AnchorKey`].
        mac: String,
    },
    /// What a crash has left between the entry before and this one is no entry.
    Torn {
        /// How many bytes.
        bytes: u64,
        /// Their SHA-256.
        sha256: String,
    },
    /// A server ended as it should.
    Stop,
}

/// A request from its handler's beginning until nothing of it was left.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct RequestEntry {
    /// As in the answer's header and in the log.
    pub request: String,
    /// The key's id; `local` where none was needed.
    pub key: String,
    /// The key's name when it was used.
    pub name: String,
    /// Method and route; the route's pattern, not the path.
    pub route: String,
    /// None: the client had gone before there was one.
    pub status: Option<u16>,
    /// None: nothing was generated.
    pub model: Option<String>,
    /// What the model has learned besides: the adapter's registered name, or the name of a job's model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adapter: Option<String>,
    /// Of all its generations.
    pub prompt_tokens: u64,
    /// Of the prompt tokens, those from the prefix cache.
    pub cached_tokens: u64,
    /// Generated, chain of thought among them.
    pub completion_tokens: u64,
    /// Generated as chain of thought.
    pub reasoning_tokens: u64,
    /// How each generation ended.
    pub ended: Vec<String>,
    /// When it began, RFC 3339.
    pub began: String,
    /// How long it took.
    pub ms: u64,
    /// What was said, if that is switched on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<Content>,
}

/// What was said and answered, as it was on the wire.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Content {
    /// The request's body.
    pub request: String,
    /// The answer's.
    pub answer: String,
    /// One of them was longer than what is kept of it.
    pub cut: bool,
}

/// A line to write: its place in the chain, then what happened.
#[derive(Serialize)]
struct Line<'e> {
    seq: u64,
    prev: String,
    time: String,
    #[serde(flatten)]
    event: &'e Event,
}

/// The line of an event, without its newline.
pub fn encode(seq: u64, prev: &Hash, event: &Event) -> serde_json::Result<Vec<u8>> {
    serde_json::to_vec(&Line { seq, prev: hex(prev), time: clock::rfc3339(clock::now_s()), event })
}

/// What is read of a line to check it.
#[derive(Debug, Deserialize)]
pub struct Checked<'l> {
    /// Counted from 1 over all files.
    pub seq: u64,
    /// The hash of the line before.
    pub prev: &'l str,
    /// Which kind.
    pub event: &'l str,
    /// Of an anchor.
    pub mac: Option<&'l str>,
    /// Of a torn place.
    pub bytes: Option<u64>,
    /// Of a torn place.
    pub sha256: Option<&'l str>,
}
