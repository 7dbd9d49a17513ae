//! What an answer must be, whatever was asked: no fault of the server, one of the forms that clients know, and nothing in
//! it that tells of the machine or of what the program is made of.

use std::path::Path;

use crate::client::Answer;
use crate::json::Json;

/// Words of libraries, languages and sources, which no error may have.
const INNARDS: [&str; 32] = [
    ".rs:",
    ".rs\"",
    "src/",
    ".cargo",
    "rustc",
    "panicked",
    "thread '",
    "sqlx",
    "sqlite",
    "postgres",
    "SELECT ",
    "hyper::",
    "axum",
    "serde",
    "tokio",
    "httparse",
    "multer",
    "llguidance",
    "derivre",
    "toktrie",
    "unwrap",
    "Option<",
    "Result<",
    "Some(",
    "Err(",
    "usize",
    "expected u64",
    "expected i64",
    "expected f64",
    "os error",
    "errno",
    "0x7f",
];

/// Answers that clients of the API know.
const STATUSES: [u16; 16] = [200, 204, 304, 400, 401, 403, 404, 405, 408, 411, 413, 414, 415, 417, 429, 431];

/// What must not be told.
pub struct Judge {
    secrets: Vec<String>,
}

impl Judge {
    /// For a server with this data folder and this key.
    pub fn new(data: &Path, key: &str) -> Self {
        let mut secrets = vec![data.display().to_string(), key.to_owned()];
        secrets.push(std::env::temp_dir().display().to_string() + "/");
        let variables =
            ["HOME", "USER", "CARGO_MANIFEST_DIR", "CARGO_HOME"].map(std::env::var_os).into_iter().flatten();
        secrets.extend(variables.map(|value| value.to_string_lossy().into_owned()).filter(|value| value.len() > 4));
        Self { secrets }
    }

    /// What is wrong with an answer to this request, if anything.
    pub fn fault(&self, request: &[u8], answer: &Answer) -> Option<String> {
        let status = answer.status;
        if status >= 500 {
            return Some(format!("{status}: {}", start(answer)));
        }
        if !STATUSES.contains(&status) {
            return Some(format!("{status} is no answer of this API"));
        }
        let kind = answer.header("content-type").unwrap_or_default();
        let form = match kind {
            _ if answer.body.is_empty() => None,
            "application/json" => Json::read(&answer.body).is_none().then(|| "the body is not JSON".to_owned()),
            "text/event-stream" => events(&answer.text()),
            "application/x-ndjson" => lines(&answer.text()),
            _ => None,
        };
        form.or_else(|| self.told(request, answer)).map(|fault| format!("{status}: {fault}: {}", start(answer)))
    }

    /// An error's form, and what it tells.
    fn told(&self, request: &[u8], answer: &Answer) -> Option<String> {
        let is_error = answer.status >= 400;
        let is_ours = answer.header("x-request-id").is_some();
        if is_error && !answer.body.is_empty() {
            let error = Json::read(&answer.body);
            let message = error.as_ref().and_then(|error| match error.get("error")? {
                Json::Text(_) => Some(()),
                inner => matches!(inner.get("message")?, Json::Text(_)).then_some(()),
            });
            if message.is_none() {
                return Some("an error without a message".to_owned());
            }
        }
        if is_error && is_ours && answer.body.is_empty() && !request.starts_with(b"HEAD ") {
            return Some("an error without a body".to_owned());
        }
        let heads = answer.headers.iter().map(|(name, value)| format!("{name}: {value}\n")).collect::<String>();
        let told = if is_error { heads + &answer.text() } else { heads };
        let asked = String::from_utf8_lossy(request);
        let innards = INNARDS.iter().find(|word| told.contains(**word) && !asked.contains(**word));
        let innards = innards.map(|word| format!("it says {word:?}"));
        let whole = answer.text();
        let secret = self.secrets.iter().find(|secret| whole.contains(secret.as_str()));
        innards.or_else(|| secret.map(|secret| format!("it tells {secret:?}")))
    }
}

fn start(answer: &Answer) -> String {
    answer.text().chars().take(300).collect()
}

/// Server-sent events: each with JSON, the last one of all an end.
fn events(text: &str) -> Option<String> {
    let mut last = "";
    for data in text.lines().filter_map(|line| line.strip_prefix("data: ")) {
        if data != "[DONE]" {
            let Some(event) = Json::read(data.as_bytes()) else { return Some("an event is not JSON".to_owned()) };
            if is_fault(&event) {
                return Some("an event tells of a fault of the server".to_owned());
            }
        }
        last = data;
    }
    let ends = ["response.completed", "response.failed", "response.incomplete", "response.cancelled", "error"];
    let is_end = last == "[DONE]"
        || Json::read(last.as_bytes()).is_some_and(|event| event.text("type").is_some_and(|kind| ends.contains(&kind)));
    (!is_end).then(|| "the stream has no end".to_owned())
}

/// Lines of JSON, as Ollama's clients read them.
fn lines(text: &str) -> Option<String> {
    let mut last = None;
    for line in text.lines() {
        last = Json::read(line.as_bytes());
        match &last {
            None => return Some("a line is not JSON".to_owned()),
            Some(value) if is_fault(value) => return Some("a line tells of a fault of the server".to_owned()),
            Some(_) => {}
        }
    }
    let done = |value: &Json| value.get("done") == Some(&Json::Raw(b"true".to_vec())) || value.get("status").is_some();
    (!last.as_ref().is_some_and(done)).then(|| "the stream has no end".to_owned())
}

/// Whether an event's own error, or that of its response, is the server's.
fn is_fault(event: &Json) -> bool {
    let own = [event.get("error"), event.get("response").and_then(|response| response.get("error"))];
    let is_ours = |error: &Json| {
        error.text("type") == Some("server_error")
            || error.text("code") == Some("server_error")
            || matches!(error, Json::Text(_))
    };
    own.into_iter().flatten().any(is_ours)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::Judge;
    use crate::client::Answer;

    fn answer(status: u16, kind: &str, body: &str) -> Answer {
        let headers = [("content-type", kind), ("x-request-id", "req_1")];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        Answer { status, headers, body: body.as_bytes().to_vec(), closes: false }
    }

    #[test]
    fn what_is_wrong_is_found() {
        let judge = Judge::new(Path::new("/srv/fuzz-data"), "sk-ossia-secret");
        let (json, sse, lines) = ("application/json", "text/event-stream", "application/x-ndjson");
        let error = |message: &str| format!(r#"{{"error":{{"message":"{message}"}}}}"#);
        for (status, kind, body, is_good) in [
            (200, json, r#"{"a":1}"#.to_owned(), true),
            (400, json, error("wanted 1 to 2"), true),
            (404, json, r#"{"error":"no such model"}"#.to_owned(), true),
            (400, json, error("invalid type: string, expected u64"), false),
            (400, json, error("cannot open /srv/fuzz-data/ossia.db"), false),
            (200, json, r#"{"path":"/srv/fuzz-data/x"}"#.to_owned(), false),
            (400, json, "{}".to_owned(), false),
            (400, "text/plain", "Failed to deserialize".to_owned(), false),
            (400, json, String::new(), false),
            (200, json, "{".to_owned(), false),
            (500, json, error("sorry"), false),
            (302, json, String::new(), false),
            (200, sse, "data: {\"a\":1}\n\ndata: [DONE]\n\n".to_owned(), true),
            (200, sse, "data: {\"a\":1}\n\n".to_owned(), false),
            (200, sse, "event: x\ndata: {\"type\":\"response.completed\"}\n\n".to_owned(), true),
            (200, sse, "data: {\"error\":{\"type\":\"server_error\"}}\n\ndata: [DONE]\n\n".to_owned(), false),
            (200, lines, "{\"done\":false}\n{\"done\":true}\n".to_owned(), true),
            (200, lines, "{\"done\":false}\n".to_owned(), false),
            (200, "text/html", "<p>src/</p>".to_owned(), true),
        ] {
            let fault = judge.fault(b"GET / HTTP/1.1", &answer(status, kind, &body));
            assert_eq!(fault.is_none(), is_good, "{status} {kind} {body}: {fault:?}");
        }
        let echo = answer(400, json, &error("found sqlx"));
        assert_eq!(judge.fault(b"{\"model\":\"sqlx\"}", &echo), None, "a client's own words");
    }
}
