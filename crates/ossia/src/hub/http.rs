//! The one door to the network: GET, with redirects followed by hand so that the access token goes to the endpoint only.
//! Certificates are checked against the system's store, so a house's own authority and mirror work.

use super::error::HubError;
use super::settings::Settings;
use std::time::Duration;
use ureq::http::Response;
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body};

const MAX_REDIRECTS: usize = 8;
const CONNECT: Duration = Duration::from_secs(30);
/// A transfer that brings nothing for so long is taken up again.
const STALL: Duration = Duration::from_secs(60);

/// Asks the endpoint, and whom it sends us to.
pub(super) struct Client<'s> {
    agent: Agent,
    settings: &'s Settings,
}

impl<'s> Client<'s> {
    pub fn new(settings: &'s Settings) -> Self {
        let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
        let mut config = Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(concat!("ossia/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(STALL))
            .timeout_per_read(Some(STALL));
        if is_loopback(&settings.endpoint) {
            config = config.proxy(None);
        }
        Client { agent: config.build().new_agent(), settings }
    }

    /// The endpoint's address of `path`.
    pub fn url(&self, path: &str) -> String {
        format!("{}/{path}", self.settings.endpoint)
    }

    /// What `url` answers, from byte `from` on, redirects followed.
    pub fn get(&self, url: &str, from: u64) -> Result<Response<Body>, HubError> {
        let mut url = url.to_owned();
        for _ in 0..=MAX_REDIRECTS {
            let answer = self.get_once(&url, from)?;
            match answer.status().as_u16() {
                301 | 302 | 303 | 307 | 308 => url = redirect(&url, &answer)?,
                _ => return Ok(answer),
            }
        }
        Err(HubError::Network { url: shown(&url), reason: format!("more than {MAX_REDIRECTS} redirects") })
    }

    fn get_once(&self, url: &str, from: u64) -> Result<Response<Body>, HubError> {
        let mut request = self.agent.get(url);
        if let Some(token) = &self.settings.token
            && origin(url) == origin(&self.settings.endpoint)
        {
            request = request.header("Authorization", token.header());
        }
        if from > 0 {
            request = request.header("Range", format!("bytes={from}-"));
        }
        request.call().map_err(|error| HubError::Network { url: shown(url), reason: error.to_string() })
    }
}

/// An address as messages show it: a query may hold a signature.
pub(super) fn shown(url: &str) -> String {
    url.split(['?', '#']).next().unwrap_or(url).to_owned()
}

/// A header's value, if it is text.
pub(super) fn header<'a>(answer: &'a Response<Body>, name: &str) -> Option<&'a str> {
    answer.headers().get(name)?.to_str().ok()
}

fn redirect(url: &str, answer: &Response<Body>) -> Result<String, HubError> {
    let problem = |reason: &str| HubError::Network { url: shown(url), reason: reason.to_owned() };
    let location = header(answer, "location").ok_or_else(|| problem("a redirect that does not say where to"))?;
    let target = absolute(url, location).ok_or_else(|| problem("a redirect to something that is not http"))?;
    if url.starts_with("https://") && !target.starts_with("https://") {
        return Err(problem("a redirect from https to plain http, which is not followed"));
    }
    Ok(target)
}

/// `location` as seen from `url`.
fn absolute(url: &str, location: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let is_http = |url: &str| url.starts_with("http://") || url.starts_with("https://");
    match location {
        _ if location.contains("://") && is_http(location) => Some(location.to_owned()),
        _ if location.starts_with("//") => Some(format!("{scheme}:{location}")),
        _ if location.starts_with('/') => Some(format!("{scheme}://{host}{location}")),
        _ if location.split(['/', '?']).next()?.contains(':') => None,
        _ => {
            let folder =
                path.split('?').next()?.rsplit_once('/').map_or(String::new(), |(folder, _)| format!("{folder}/"));
            Some(format!("{scheme}://{host}/{folder}{location}"))
        }
    }
}

/// Scheme, host and port, in one spelling.
fn origin(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?.to_ascii_lowercase();
    let host = authority.rsplit('@').next()?;
    let default = if scheme == "https" { ":443" } else { ":80" };
    Some(format!("{scheme}://{}", host.strip_suffix(default).unwrap_or(host)))
}

fn is_loopback(url: &str) -> bool {
    let host = origin(url).unwrap_or_default();
    ["http://127.0.0.1", "http://localhost", "http://[::1]"]
        .iter()
        .any(|loopback| host.strip_prefix(loopback).is_some_and(|port| port.is_empty() || port.starts_with(':')))
}

/// What a status means to somebody who wants a model.
pub(super) fn refused(url: &str, status: u16) -> HubError {
    let advice = match status {
        401 | 403 => "it is private, gated or not there: check the name, or set HF_TOKEN to a token that may read it",
        404 => "there is no such thing: check the name",
        429 => "too many requests: wait a while, or set HF_TOKEN",
        500.. => "the server has trouble: try again later",
        _ => "this was not expected: check HF_ENDPOINT",
    };
    HubError::Status { url: shown(url), status, advice: advice.to_owned() }
}

/// Whether trying again may help.
pub(super) fn is_transient(error: &HubError) -> bool {
    match error {
        HubError::Network { .. } => true,
        HubError::Status { status, .. } => *status == 429 || *status >= 500,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    //! Addresses, without a network.
    use super::*;

    #[test]
    fn locations_are_joined() {
        let from = "https://h.co/a/b/c?x=1";
        let cases = [
            ("https://cdn.co/x?y", Some("https://cdn.co/x?y")),
            ("//cdn.co/x", Some("https://cdn.co/x")),
            ("/x/y", Some("https://h.co/x/y")),
            ("d", Some("https://h.co/a/b/d")),
            ("file:///etc/passwd", None),
            ("javascript:x", None),
        ];
        for (location, want) in cases {
            assert_eq!(absolute(from, location).as_deref(), want, "{location}");
        }
        assert_eq!(absolute("http://h", "d").as_deref(), Some("http://h/d"));
    }

    #[test]
    fn origins_differ_by_scheme_host_and_port() {
        assert_eq!(origin("https://H.co:443/a"), origin("https://h.co"));
        for other in
            ["http://h.co", "https://h.co:444", "https://h.co.evil.co", "https://h.co@evil.co", "https://x.h.co"]
        {
            assert_ne!(origin(other), origin("https://h.co"), "{other}");
        }
        assert!(is_loopback("http://127.0.0.1:80") && is_loopback("http://localhost:1/x"));
        assert!(!is_loopback("http://127.0.0.1.evil.co") && !is_loopback("https://h.co"));
    }

    #[test]
    fn queries_are_not_shown() {
        assert_eq!(shown("https://h.co/a?signature=secret"), "https://h.co/a");
    }
}
