//! The chat page at `/`: its files are part of the program, and no other program builds them. They are served as they
//! stand in this folder, but for indentation and lines of comment, which are a fifth of them and say nothing to a browser.
//!
//! They are the same for everybody and tell nothing, so they need no key; the page asks for one and uses the public API
//! like any client. What the model writes is shown there, so the headers let nothing run or load that is not one of
//! these files, whatever a text may contain.

#[cfg(test)]
mod tests;

use std::sync::LazyLock;

use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use ring::digest::{SHA256, digest};

use crate::app::{Access, Route};
use crate::error::ApiError;
use crate::types::params::Path;

const POLICY: &str = "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// A file's name and its text.
type File = (&'static str, &'static str);

macro_rules! files {
    ($($name:literal)*) => { &[$(($name, include_str!($name))),*] };
}

const FILES: &[File] = files![
    "index.html" "icon.svg" "style.css" "controls.css" "thread.css" "prose.css"
    "theme.js" "app.js" "api.js" "sse.js" "store.js" "settings.js" "tree.js" "generation.js"
    "dom.js" "sidebar.js" "thread.js" "message.js" "call.js" "notice.js" "composer.js" "files.js" "panels.js"
    "shortcuts.js" "toast.js"
    "render.js" "markdown.js" "inline.js" "highlight.js" "languages.js" "tex.js" "tex-symbols.js"
];

/// The files as they are served.
static SERVED: LazyLock<Vec<(&str, String)>> =
    LazyLock::new(|| FILES.iter().map(|(name, text)| (*name, lean(text))).collect());

/// Changes with the files: a browser asks whether its copies are still right, and a new program is seen at once.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let all: String = SERVED.iter().flat_map(|(name, text)| [name, text.as_str()]).collect();
    let hash = digest(&SHA256, all.as_bytes());
    let hex: String = hash.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("\"{hex}\"")
});

/// This folder's part of the table.
pub fn routes() -> Vec<Route> {
    vec![
        Route::new("GET", "/", Access::Open, get(async |headers: HeaderMap| file("index.html", &headers))),
        Route::new(
            "GET",
            "/ui/{file}",
            Access::Open,
            get(async |Path(name): Path<String>, headers: HeaderMap| file(&name, &headers)),
        ),
    ]
}

/// Without indentation, empty lines and lines of comment. No string in the files goes over lines that these could be.
fn lean(text: &str) -> String {
    let kept = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//"));
    kept.flat_map(|line| [line, "\n"]).collect()
}

fn file(name: &str, headers: &HeaderMap) -> Response {
    let Some((name, text)) = SERVED.iter().find(|(known, _)| *known == name) else {
        return ApiError::NoRoute.into_response();
    };
    let known = headers.get(IF_NONE_MATCH).and_then(|given| given.to_str().ok());
    if known.is_some_and(|tags| tags.split(',').any(|tag| tag.trim().trim_start_matches("W/") == *VERSION)) {
        return (StatusCode::NOT_MODIFIED, [(ETAG, VERSION.as_str())]).into_response();
    }
    let headers = [
        (CONTENT_TYPE, media_type(name)),
        (ETAG, VERSION.as_str()),
        (CACHE_CONTROL, "no-cache"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    (headers, text.as_str()).into_response()
}

fn media_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, end)| end) {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    }
}
