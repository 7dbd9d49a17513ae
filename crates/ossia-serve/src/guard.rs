//! What every request goes through before its handler: a number for the log, the host and origin it names, its key, its
//! quota; and afterwards: the log line, the counters, the headers, and a closed text if the handler panicked.

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::http::header::{HOST, HeaderName, ORIGIN, VARY};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;

use crate::app::{Access, Refusal, Shared};
use crate::auth::Identity;
use crate::error::ApiError;
use crate::ids;
use crate::routes::ollama;

/// The number of a request, for its handlers.
#[derive(Debug, Clone)]
pub struct RequestId(String);

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Which names the server goes by, and which pages of other servers may use it.
#[derive(Debug, Clone, Default)]
pub struct Doors {
    /// Only these hosts, without ports; None: any. On a loopback address another name means that a page elsewhere has had
    /// its own name point here.
    pub hosts: Option<Vec<String>>,
    /// Pages of these origins may use the server besides its own.
    pub origins: Vec<String>,
}

impl Doors {
    /// The names of a server that only this machine reaches, and some more.
    pub fn loopback(more: Vec<String>, origins: Vec<String>) -> Self {
        let own = ["localhost", "127.0.0.1", "[::1]"].map(str::to_owned).into_iter();
        Self { hosts: Some(own.chain(more).collect()), origins }
    }

    /// Whether a request with these headers may come in, and the origin to allow it to, if another than our own.
    fn admit(&self, headers: &HeaderMap, authority: Option<&Authority>) -> Result<Option<HeaderValue>, ApiError> {
        let hosts: Vec<_> = headers.get_all(HOST).iter().collect();
        let named = match (authority, hosts.as_slice()) {
            (Some(authority), _) => Some(authority.clone()),
            (None, [host]) => host.to_str().ok().and_then(|host| host.parse::<Authority>().ok()),
            (None, _) => None,
        };
        let named = named.filter(|named| !named.as_str().contains('@')).ok_or(ApiError::Origin)?;
        let known = |hosts: &Vec<String>| hosts.iter().any(|host| host.eq_ignore_ascii_case(named.host()));
        if !self.hosts.as_ref().is_none_or(known) {
            return Err(ApiError::Origin);
        }
        let Some(origin) = headers.get(ORIGIN) else { return Ok(None) };
        let text = origin.to_str().map_err(|_| ApiError::Origin)?;
        let own = text.split_once("://").is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(named.as_str()));
        match own {
            true => Ok(None),
            false if self.origins.iter().any(|allowed| allowed == text || allowed == "*") => Ok(Some(origin.clone())),
            false => Err(ApiError::Origin),
        }
    }
}

/// The layer around the whole router.
pub async fn outer(State(app): State<Shared>, mut request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let id = ids::new("req").unwrap_or_default();
    let (method, path, asked) = (request.method().clone(), route_of(&request), request.uri().path().to_owned());
    request.extensions_mut().insert(RequestId(id.clone()));
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0);
    let mut response = match app.doors.admit(request.headers(), request.uri().authority()) {
        Err(error) => error.into_response(),
        Ok(origin) => {
            let mut response = match (&origin, request.method()) {
                (Some(_), &Method::OPTIONS) => preflight(),
                _ => caught(next.run(request)).await,
            };
            if let Some(origin) = origin {
                let headers = response.headers_mut();
                headers.insert("access-control-allow-origin", origin);
                headers.insert("access-control-expose-headers", HeaderValue::from_static("x-request-id, retry-after"));
                headers.append(VARY, HeaderValue::from_static("origin"));
            }
            response
        }
    };
    response = ollama::told(&asked, response);
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response.headers_mut().insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    let (status, took) = (response.status().as_u16(), begun.elapsed());
    app.counters.request(method.as_str(), &path, status, took);
    let key = response.extensions().get::<Identity>().map(|identity| identity.key_id.to_string());
    let (key, peer) = (key.unwrap_or_default(), peer.map(|peer| peer.to_string()).unwrap_or_default());
    let ms = took.as_secs_f64() * 1e3;
    tracing::info!(request = id, %method, path, status, key, peer, ms, "request");
    response
}

/// The pattern of the route rather than the path: a path may hold ids, and whatever else a client likes to send.
fn route_of(request: &Request) -> String {
    request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned()
}

async fn caught(response: impl Future<Output = Response>) -> Response {
    match AssertUnwindSafe(response).catch_unwind().await {
        Ok(response) => response,
        Err(_) => ApiError::Internal.into_response(),
    }
}

fn preflight() -> Response {
    let headers = [
        ("access-control-allow-methods", "GET, POST, DELETE, OPTIONS"),
        ("access-control-allow-headers", "authorization, content-type, x-api-key"),
        ("access-control-max-age", "600"),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}

/// The layer around each route: who may use it, and whether it can be served soon. That is decided before a byte of the
/// body is read: a server that has too much to do must not spend itself on saying so.
pub async fn keyed(
    State((app, access, refusal)): State<(Shared, Access, Option<Refusal>)>,
    request: Request,
    next: Next,
) -> Response {
    let scope = match access {
        Access::Open => return next.run(request).await,
        Access::AnyKey => None,
        Access::Key(scope) => Some(scope),
    };
    let identity = match app.auth.check(request.headers(), scope) {
        Ok(identity) => identity,
        Err(error) => return error.into_response(),
    };
    let mut response = match refused(&app, &identity, refusal) {
        Some(response) => response,
        None => handled(&app, &identity, request, next).await.unwrap_or_else(IntoResponse::into_response),
    };
    app.accounts.quotas.left(&identity).write(response.headers_mut());
    response.extensions_mut().insert(identity);
    response
}

/// What a request is told that is not taken: too much waits, or its key has had its share.
fn refused(app: &Shared, identity: &Identity, refusal: Option<Refusal>) -> Option<Response> {
    let busy = refusal.and_then(|refusal| Some(refusal(app.turns.expects(identity).err()?)));
    busy.or_else(|| app.accounts.quotas.request(identity).err().map(IntoResponse::into_response))
}

/// Hands a request to its handler, followed by the audit log.
async fn handled(app: &Shared, identity: &Identity, request: Request, next: Next) -> Result<Response, ApiError> {
    let id = request.extensions().get::<RequestId>().map_or(String::new(), |id| id.0.clone());
    let route = format!("{} {}", request.method(), route_of(&request));
    let identity = app.followed(identity.clone(), &id, &route)?;
    let trail = identity.trail.clone();
    let mut request = request.map(|body| trail.hear_request(body));
    request.extensions_mut().insert(identity);
    let response = next.run(request).await;
    trail.answered(response.status().as_u16());
    Ok(response.map(|body| trail.hear_answer(body)))
}

/// Quotas and counters, as the ledger of all generations.
#[derive(Default)]
pub struct Accounts {
    /// Of each key.
    pub quotas: crate::quota::Quotas,
    /// Of the whole server.
    pub counters: Arc<crate::counters::Counters>,
}

impl crate::turn::Ledger for Accounts {
    fn admit(&self, identity: &Identity, prompt_tokens: usize) -> Result<(), ApiError> {
        self.quotas.admit(identity, prompt_tokens)
    }

    fn spent(&self, identity: &Identity, usage: &crate::turn::Usage, finish: Option<&crate::turn::FinishReason>) {
        self.quotas.spend(identity, usage.prompt_tokens.saturating_add(usage.completion_tokens));
        let ended = match finish {
            None => "gone",
            Some(crate::turn::FinishReason::Failed(why)) => {
                tracing::error!(key = &*identity.key_id, why, "generation failed");
                "failed"
            }
            Some(finish) => crate::types::chat_answer::finish_word(finish).unwrap_or("cancelled"),
        };
        self.counters.generation(ended, usage);
        identity.trail.spent(usage, ended);
        tracing::info!(
            key = &*identity.key_id,
            ended,
            prompt = usage.prompt_tokens,
            cached = usage.cached_tokens,
            completion = usage.completion_tokens,
            reasoning = usage.reasoning_tokens,
            "generation"
        );
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, HeaderName, HeaderValue};

    use super::Doors;

    fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        };
        let mut map = HeaderMap::new();
        for (name, value) in list.iter().map(pair) {
            map.append(name, value);
        }
        map
    }

    #[test]
    fn other_names_and_other_pages_stay_out() {
        let doors = Doors::loopback(vec!["box.local".into()], vec!["https://app.example".into()]);
        for (list, comes_in) in [
            (vec![("host", "127.0.0.1:8000")], true),
            (vec![("host", "LOCALHOST:1")], true),
            (vec![("host", "[::1]:8000")], true),
            (vec![("host", "box.local")], true),
            (vec![("host", "evil.example")], false),
            (vec![("host", "127.0.0.1.evil.example")], false),
            (vec![("host", "a/?x=127.0.0.1")], false),
            (vec![("host", "evil.example#127.0.0.1")], false),
            (vec![("host", "localhost@evil.example")], false),
            (vec![("host", "evil.example@localhost")], false),
            (vec![("host", "localhost"), ("host", "evil.example")], false),
            (vec![], false),
            (vec![("host", "localhost:8000"), ("origin", "http://localhost:8000")], true),
            (vec![("host", "localhost:8000"), ("origin", "http://localhost:3000")], false),
            (vec![("host", "localhost:8000"), ("origin", "null")], false),
            (vec![("host", "localhost:8000"), ("origin", "https://app.example")], true),
            (vec![("host", "localhost:8000"), ("origin", "https://app.example.evil")], false),
        ] {
            assert_eq!(doors.admit(&headers(&list), None).is_ok(), comes_in, "{list:?}");
        }
        let open = Doors::default();
        assert!(open.admit(&headers(&[("host", "any.example")]), None).is_ok());
        assert!(open.admit(&headers(&[("host", "a.example"), ("origin", "https://b.example")]), None).is_err());
    }

    #[tokio::test]
    async fn a_panic_says_nothing() {
        let response = super::caught(async { panic!("what somebody wrote") }).await;
        assert_eq!(response.status(), 500);
        let body = axum::body::to_bytes(response.into_body(), 1000).await.unwrap();
        let text = String::from_utf8(body.to_vec()).unwrap();
        assert!(text.contains("server_error") && !text.contains("somebody"), "{text}");
    }
}
