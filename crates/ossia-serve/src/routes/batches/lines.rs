//! A batch's input file: a request on each line. All lines are read and checked before the first is done.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::store::BatchItem;

/// The most lines of a file, as at OpenAI.
const MOST_LINES: usize = 50_000;
/// The longest custom id.
const LONGEST_ID: usize = 512;
/// The most errors that are told.
const MOST_ERRORS: usize = 100;

/// Reads all lines, or says what is wrong with them: OpenAI's list of `{code, line, message, param}`. A byte order mark
/// before the first, which editors on Windows write, is passed over.
pub fn read(file: &[u8], endpoint: &str) -> Result<Vec<BatchItem>, Vec<Value>> {
    let file = file.strip_prefix("\u{feff}".as_bytes()).unwrap_or(file);
    let lines = file.split(|byte| *byte == b'\n').enumerate();
    let lines: Vec<(usize, &[u8])> = lines.filter(|(_, line)| !line.trim_ascii().is_empty()).collect();
    if lines.is_empty() {
        return Err(vec![error("empty_file", None, "the file has no requests", None)]);
    }
    if lines.len() > MOST_LINES {
        let message = format!("wanted at most {MOST_LINES} requests, found {}", lines.len());
        return Err(vec![error("too_many_requests", None, &message, None)]);
    }
    let (mut items, mut errors, mut ids) = (Vec::with_capacity(lines.len()), Vec::new(), HashSet::new());
    for (index, line) in lines {
        match item(index, line, endpoint, &mut ids) {
            Ok(item) => items.push(item),
            Err(error) if errors.len() < MOST_ERRORS => errors.push(error),
            Err(_) => {}
        }
    }
    if errors.is_empty() { Ok(items) } else { Err(errors) }
}

fn error(code: &str, line: Option<usize>, message: &str, param: Option<&str>) -> Value {
    json!({ "code": code, "line": line, "message": message, "param": param })
}

fn item(index: usize, line: &[u8], endpoint: &str, ids: &mut HashSet<String>) -> Result<BatchItem, Value> {
    let number = Some(index + 1);
    let wrong = |param: &str, message: &str| error("invalid_request", number, message, Some(param));
    let Ok(mut request) = serde_json::from_slice::<Value>(line) else {
        return Err(error("invalid_json_line", number, "this line is not valid JSON", None));
    };
    let Some(custom_id) = request["custom_id"].as_str().filter(|id| is_name(id)) else {
        return Err(wrong("custom_id", "wanted a custom_id of 1 to 512 bytes without control characters"));
    };
    let custom_id = custom_id.to_owned();
    if !ids.insert(custom_id.clone()) {
        return Err(error("duplicate_custom_id", number, "this custom_id is on another line too", Some("custom_id")));
    }
    if request["method"] != "POST" {
        return Err(wrong("method", "wanted \"POST\""));
    }
    if request["url"] != endpoint {
        return Err(wrong("url", &format!("wanted {endpoint:?}, the batch's endpoint")));
    }
    let Some(body) = request["body"].as_object_mut() else { return Err(wrong("body", "wanted a request (an object)")) };
    // A result is one object.
    body.remove("stream");
    body.remove("stream_options");
    body.remove("background");
    Ok(BatchItem { line: index as i64, custom_id, text: request["body"].to_string() })
}

/// What a line may be called. PostgreSQL keeps no text with a zero byte.
fn is_name(id: &str) -> bool {
    (1..=LONGEST_ID).contains(&id.len()) && !id.contains(char::is_control)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::read;

    #[test]
    fn good_lines() {
        let line = |id: &str| {
            json!({ "custom_id": id, "method": "POST", "url": "/v1/responses",
                "body": { "model": "nano", "stream": true, "input": "x" } })
            .to_string()
        };
        let file = format!("{}\r\n\n{}", line("a"), line("b"));
        let items = read(file.as_bytes(), "/v1/responses").unwrap();
        assert_eq!(
            items.iter().map(|item| (item.line, item.custom_id.as_str())).collect::<Vec<_>>(),
            [(0, "a"), (2, "b")]
        );
        assert_eq!(items[0].text, json!({ "model": "nano", "input": "x" }).to_string());
        let marked = format!("\u{feff}{}", line("a"));
        assert_eq!(read(marked.as_bytes(), "/v1/responses").unwrap()[0].custom_id, "a");
        assert_eq!(read("\u{feff}\r\n".as_bytes(), "/v1/responses").unwrap_err()[0]["code"], "empty_file");
    }

    #[test]
    fn every_wrong_line_is_told() {
        let file = [
            "nonsense",
            "7",
            r#"{"custom_id":"a","method":"POST","url":"/v1/responses","body":{}}"#,
            r#"{"custom_id":"a","method":"POST","url":"/v1/responses","body":{}}"#,
            r#"{"custom_id":"b","method":"GET","url":"/v1/responses","body":{}}"#,
            r#"{"custom_id":"c","method":"POST","url":"/v1/files","body":{}}"#,
            r#"{"custom_id":"d","method":"POST","url":"/v1/responses","body":[]}"#,
            r#"{"custom_id":"e\u0000","method":"POST","url":"/v1/responses","body":{}}"#,
        ]
        .join("\n");
        let errors = read(file.as_bytes(), "/v1/responses").unwrap_err();
        let told: Vec<_> =
            errors.iter().map(|error| (error["line"].as_u64().unwrap(), error["param"].as_str())).collect();
        let wanted = [
            (1, None),
            (2, Some("custom_id")),
            (4, Some("custom_id")),
            (5, Some("method")),
            (6, Some("url")),
            (7, Some("body")),
            (8, Some("custom_id")),
        ];
        assert_eq!(told, wanted);
        assert_eq!(read(b" \n", "/v1/responses").unwrap_err()[0]["code"], "empty_file");
        assert_eq!(read(&b"{}\n".repeat(50_001), "/v1/responses").unwrap_err()[0]["code"], "too_many_requests");
    }
}
