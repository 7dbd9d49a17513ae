//! What a client is told when a request fails: OpenAI's `{"error": {message, type, param, code}}`, from a closed list.
//!
//! Texts are made here or from what the client itself has sent; nothing that describes the machine (paths, addresses,
//! `Debug` output, messages of panics) can get in, because no variant carries it.

use std::fmt;

use axum::Json;
use axum::http::header::{HeaderName, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// The most bytes of a client's own text that an error repeats.
const MOST_SHOWN: usize = 400;

/// Why a request is refused or fails.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// A field is missing, of the wrong type or out of range.
    #[error("{problem}")]
    Invalid {
        /// The field, such as `messages[2].content`; None where no field is to blame.
        param: Option<String>,
        /// What was wanted and what was found.
        problem: Shown,
    },
    /// The prompt does not fit. LiteLLM and LangChain know this error by phrases of others: "maximum context length
    /// is", "exceeds the context window", "prompt is too long".
    #[error(
        "This model's maximum context length is {context} tokens, one at least for the answer. Your prompt has {prompt}, \
         which exceeds the context window: the prompt is too long. Shorten it."
    )]
    ContextLength {
        /// The field that the prompt came in.
        param: &'static str,
        /// Tokens of the prompt.
        prompt: usize,
        /// Positions that there are.
        context: usize,
    },
    /// A model that is not served here.
    #[error("The model `{0}` does not exist here. GET /v1/models lists what does.")]
    ModelNotFound(Shown),
    /// An object that does not exist, or is another key's.
    #[error("No {what} found with id '{id}'.")]
    NotFound {
        /// Response, conversation, file, batch.
        what: &'static str,
        /// What the client asked for.
        id: Shown,
    },
    /// Two responses at once in one conversation. OpenAI's Agents SDK knows the code and asks again.
    #[error("Another response is being made in this conversation: wait for its end.")]
    ConversationLocked,
    /// No such route. What clients get wrong most often is where the API begins.
    #[error(
        "Unknown request URL. OpenAI's API is under /v1 (a base URL ends in it, once), Ollama's under /api; see \
         /openapi.json for the routes of this server."
    )]
    NoRoute,
    /// The route is there, the method is not.
    #[error("This URL does not take that method.")]
    Method,
    /// No key was sent.
    #[error("You didn't provide an API key. Send it as `Authorization: Bearer KEY`; `ossia keys add` makes one.")]
    NoKey,
    /// The key is unknown, revoked or expired; which of them is not said.
    #[error("Incorrect API key provided. `ossia keys list` shows the keys of this server, `ossia keys add` makes one.")]
    WrongKey,
    /// The key may not do this.
    #[error("This key lacks the scope `{0}`. `ossia keys add --scope {0}` makes one that has it.")]
    Forbidden(&'static str),
    /// A browser page from elsewhere, or a name that is not this server's.
    #[error(
        "Requests for this host or from this origin are not accepted. Name it with --allow-host or --allow-origin."
    )]
    Origin,
    /// The key's quota is used up for now.
    #[error("Rate limit reached for {what}: {limit} per minute. Try again in {retry_after_s} s.")]
    RateLimit {
        /// `requests` or `tokens`.
        what: &'static str,
        /// What the key has.
        limit: u64,
        /// When to try again.
        retry_after_s: u64,
    },
    /// More is waiting than will be served soon.
    #[error("The server is busy: {waiting} requests are waiting. Try again in {retry_after_s} s.")]
    Busy {
        /// Requests before this one.
        waiting: usize,
        /// When to try again.
        retry_after_s: u64,
    },
    /// The bodies that are being read take all the room that there is for them.
    #[error("The server has no room for the request's body now. Try again in 1 s.")]
    NoRoom,
    /// The adapters that running requests use take all the memory that was planned for adapters.
    #[error("The server has no room for this model's adapter while others are in use. Try again in 5 s.")]
    NoAdapterRoom,
    /// The body is too long.
    #[error("The request's body is longer than {0} bytes.")]
    TooLarge(usize),
    /// The body took too long to arrive.
    #[error("The request's body did not arrive in time.")]
    Timeout,
    /// A body that is not plain JSON.
    #[error("{0}")]
    MediaType(&'static str),
    /// The server is going down.
    #[error("The server is shutting down. Try again in a moment.")]
    Draining,
    /// The audit log cannot be written, and nothing is done unlogged.
    #[error("The server cannot write its audit log, and takes no requests without it. Try again in 5 s.")]
    NotLogged,
    /// Something that OpenAI's API has and this server does not.
    #[error("{problem}")]
    Unsupported {
        /// The field.
        param: String,
        /// What is not there, and what to do instead.
        problem: Shown,
    },
    /// The model's numbers were broken; the generation could not go on.
    #[error("The model failed to generate: {0}")]
    Generation(&'static str),
    /// A fault of ours. The log has the cause.
    #[error("The server had an error while processing your request.")]
    Internal,
}

/// Text of an error that may repeat what the client sent: cut to a length, control characters taken out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown(String);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<T: AsRef<str>> From<T> for Shown {
    fn from(text: T) -> Self {
        let plain = |c: char| if c.is_control() { ' ' } else { c };
        let mut shown: String = text.as_ref().chars().take(MOST_SHOWN + 1).map(plain).collect();
        if shown.chars().count() > MOST_SHOWN {
            shown.pop();
            shown.push_str("...");
        }
        Self(shown)
    }
}

impl ApiError {
    /// A wrong value of the field `param`.
    pub fn invalid(param: impl Into<String>, problem: impl AsRef<str>) -> Self {
        Self::Invalid { param: Some(param.into()), problem: problem.into() }
    }

    /// A field that this server does not have.
    pub fn unsupported(param: impl Into<String>, problem: impl AsRef<str>) -> Self {
        Self::Unsupported { param: param.into(), problem: problem.into() }
    }

    /// The status, and the words for `type` and `code` (empty: null).
    fn class(&self) -> (StatusCode, &'static str, &'static str) {
        const REQUEST: &str = "invalid_request_error";
        match self {
            Self::Invalid { .. } => (StatusCode::BAD_REQUEST, REQUEST, "invalid_value"),
            Self::ContextLength { .. } => (StatusCode::BAD_REQUEST, REQUEST, "context_length_exceeded"),
            Self::Unsupported { .. } => (StatusCode::BAD_REQUEST, REQUEST, "unsupported_value"),
            Self::ModelNotFound(_) => (StatusCode::NOT_FOUND, REQUEST, "model_not_found"),
            Self::ConversationLocked => (StatusCode::BAD_REQUEST, REQUEST, "conversation_locked"),
            Self::NotFound { .. } | Self::NoRoute => (StatusCode::NOT_FOUND, REQUEST, "not_found"),
            Self::Method => (StatusCode::METHOD_NOT_ALLOWED, REQUEST, "method_not_allowed"),
            Self::NoKey => (StatusCode::UNAUTHORIZED, REQUEST, "missing_api_key"),
            Self::WrongKey => (StatusCode::UNAUTHORIZED, REQUEST, "invalid_api_key"),
            Self::Forbidden(_) => (StatusCode::FORBIDDEN, REQUEST, "insufficient_permissions"),
            Self::Origin => (StatusCode::FORBIDDEN, REQUEST, "origin_not_allowed"),
            Self::RateLimit { what, .. } => (StatusCode::TOO_MANY_REQUESTS, what, "rate_limit_exceeded"),
            Self::Busy { .. } => (StatusCode::TOO_MANY_REQUESTS, "requests", "slow_down"),
            Self::NoRoom | Self::NoAdapterRoom => (StatusCode::TOO_MANY_REQUESTS, "requests", "slow_down"),
            Self::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, REQUEST, "request_too_large"),
            Self::Timeout => (StatusCode::REQUEST_TIMEOUT, REQUEST, "timeout"),
            Self::MediaType(_) => (StatusCode::UNSUPPORTED_MEDIA_TYPE, REQUEST, "unsupported_media_type"),
            Self::Draining => (StatusCode::SERVICE_UNAVAILABLE, "server_error", "server_is_overloaded"),
            Self::NotLogged => (StatusCode::SERVICE_UNAVAILABLE, "server_error", "audit_log_unavailable"),
            Self::Generation(_) | Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "server_error", ""),
        }
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.class().0
    }

    /// The field that is to blame.
    pub fn param(&self) -> Option<&str> {
        match self {
            Self::Invalid { param, .. } => param.as_deref(),
            Self::Unsupported { param, .. } => Some(param),
            Self::ContextLength { param, .. } => Some(param),
            Self::ModelNotFound(_) => Some("model"),
            Self::ConversationLocked => Some("conversation"),
            _ => None,
        }
    }

    /// OpenAI's word for it, where there is one.
    pub fn code(&self) -> Option<&'static str> {
        Some(self.class().2).filter(|code| !code.is_empty())
    }

    /// The body: `{"error": {...}}`.
    pub fn body(&self) -> Value {
        let (_, kind, _) = self.class();
        json!({ "error": {
            "message": self.to_string(), "type": kind, "param": self.param(), "code": self.code(),
        } })
    }

    /// Seconds after which the client may try again.
    pub fn retry_after_s(&self) -> Option<u64> {
        match self {
            Self::RateLimit { retry_after_s, .. } | Self::Busy { retry_after_s, .. } => Some(*retry_after_s),
            Self::NoRoom => Some(1),
            Self::NoAdapterRoom | Self::Draining | Self::NotLogged => Some(5),
            _ => None,
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status(), Json(self.body())).into_response();
        let mut set = |name: HeaderName, value: HeaderValue| response.headers_mut().insert(name, value);
        if let Some(seconds) = self.retry_after_s() {
            set(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status() == StatusCode::UNAUTHORIZED {
            set(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        // For who tells it in another form.
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::{ApiError, Shown};

    #[test]
    fn bodies_have_the_four_fields() {
        let body = ApiError::invalid("n", "wanted 1 to 16, found 17").body();
        let wanted = serde_json::json!({"error": {
            "message": "wanted 1 to 16, found 17", "type": "invalid_request_error", "param": "n", "code": "invalid_value",
        }});
        assert_eq!(body, wanted);
        let body = ApiError::Internal.body();
        assert!(body["error"]["param"].is_null() && body["error"]["code"].is_null(), "{body}");
    }

    #[test]
    fn what_a_client_sent_is_cut_and_cleaned() {
        assert_eq!(Shown::from("a\r\nb\u{1b}[0m").to_string(), "a  b [0m");
        assert_eq!(Shown::from("ä".repeat(500)).to_string(), format!("{}...", "ä".repeat(400)));
        assert_eq!(Shown::from("ä".repeat(400)).to_string(), "ä".repeat(400));
    }
}
