//! Requests that mean harm: whatever is wrong with them is said in the API's own form, and the server goes on.

use crate::common::TestServer;
use serde_json::{Value, json};

/// Words of what the server is made of.
const INNARDS: [&str; 9] =
    ["deserialize", "Invalid URL", "UTF-8 in", "boundary`", "expected u64", "digit found", "multer", "axum", ".rs"];

async fn refused(server: &TestServer, request: &str, wanted: &[u16]) -> Value {
    let answer = server.raw(request.as_bytes()).await.rest().await;
    assert!(wanted.contains(&answer.status), "{request}: {} {}", answer.status, answer.text);
    let error = answer.json()["error"].clone();
    let message = error["message"].as_str().unwrap_or_else(|| panic!("{request}: {}", answer.text)).to_owned();
    assert!(error["type"].is_string() && error.get("param").is_some(), "{request}: {error}");
    assert!(!INNARDS.iter().any(|word| message.contains(word)), "{request}: {message}");
    error
}

fn head(server: &TestServer, first: &str) -> String {
    format!("{first} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\n", server.at, server.key)
}

#[tokio::test]
async fn odd_paths_and_queries_are_refused_in_the_apis_form() {
    let server = TestServer::start().await;
    for path in [
        "/v1/responses/%ff",
        "/v1/responses/%00",
        "/v1/responses/a%00b/input_items",
        "/v1/conversations/%c0%af/items/x",
        "/v1/conversations/x/items/%00",
        "/v1/files/%ed%a0%80/content",
        "/v1/files/%2e%2e%2fkeys.json",
        "/v1/batches/%0d%0a",
        "/v1/models/%ff%fe",
        "/ui/%ff",
        "/ui/%2e%2e%2fmod.rs",
    ] {
        refused(&server, &format!("{}\r\n", head(&server, &format!("GET {path}"))), &[404]).await;
    }
    for (query, param) in [
        ("limit=x", Some("limit")),
        ("limit=9223372036854775808", Some("limit")),
        ("limit=1.5", Some("limit")),
        ("limit=", Some("limit")),
        ("order=ASC", Some("order")),
        ("after=%00", Some("after")),
        ("purpose=%ff", Some("purpose")),
        ("limit=1&limit=2", None),
        ("after=file-1", Some("after")),
    ] {
        for list in ["files", "batches", "fine_tuning/jobs"] {
            if list != "files" && query.starts_with("purpose") {
                continue;
            }
            let first = head(&server, &format!("GET /v1/{list}?{query}"));
            let error = refused(&server, &format!("{first}\r\n"), &[400]).await;
            assert_eq!(error["param"], json!(param), "{list}?{query}");
        }
    }
    let kept = json!({ "model": "nano", "input": "x", "max_output_tokens": 1, "background": true });
    let id = server.send("POST", "/v1/responses", Some(&kept)).await.json()["id"].as_str().unwrap().to_owned();
    for (query, param) in [("stream=yes", "stream"), ("stream=true&starting_after=-1", "starting_after")] {
        let first = head(&server, &format!("GET /v1/responses/{id}?{query}"));
        assert_eq!(refused(&server, &format!("{first}\r\n"), &[400]).await["param"], param);
    }
    for (path, query, param) in [
        ("", "include=x", "include[0]"),
        ("", "include[]=reasoning.encrypted_content&include[]=reasoning", "include[1]"),
        ("/input_items", "include%5B0%5D=", "include[0]"),
        ("/input_items", "after=msg_1", "after"),
    ] {
        let first = head(&server, &format!("GET /v1/responses/{id}{path}?{query}"));
        assert_eq!(refused(&server, &format!("{first}\r\n"), &[400]).await["param"], param, "{query}");
    }
    for query in ["include=message.output_text.logprobs", "include[]=code_interpreter_call.outputs&includes=x"] {
        assert_eq!(server.send("GET", &format!("/v1/responses/{id}?{query}"), None).await.status, 200, "{query}");
    }
}

#[tokio::test]
async fn ids_in_bodies_that_are_none() {
    let server = TestServer::start().await;
    let create = |id: &str| json!({ "input_file_id": id, "endpoint": "/v1/responses", "completion_window": "24h" });
    for id in ["", "a\0b", "../../keys.json", &"x".repeat(100_000)] {
        assert_eq!(server.send("POST", "/v1/batches", Some(&create(id))).await.status, 404, "{id:?}");
        for field in ["previous_response_id", "conversation"] {
            let mut body = json!({ "model": "nano", "input": "x", "max_output_tokens": 1 });
            body[field] = id.into();
            let answer = server.send("POST", "/v1/responses", Some(&body)).await;
            assert!([400, 404].contains(&answer.status), "{field} {id:?}: {}", answer.text);
        }
    }
}

#[tokio::test]
async fn uploads_that_are_no_forms() {
    let server = TestServer::start().await;
    let head = head(&server, "POST /v1/files");
    let part = "--x\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\nabc\r\n";
    let purpose = "--x\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n";
    let good = format!("{part}{purpose}--x--\r\n");
    for (kind, body, status) in [
        ("multipart/form-data", good.clone(), 400),
        ("multipart/form-data; boundary=", good.clone(), 400),
        ("application/json", "{}".to_owned(), 400),
        ("multipart/form-data; boundary=y", good.clone(), 400),
        ("multipart/form-data; boundary=x", part.to_owned(), 400),
        ("multipart/form-data; boundary=x", format!("{part}--x--\r\n"), 400),
        ("multipart/form-data; boundary=x", format!("--x\r\n{}\r\n\r\n", "a: b\r\n".repeat(5000)), 400),
        ("multipart/form-data; boundary=x\r\ncontent-encoding: gzip", good.clone(), 415),
        ("multipart/form-data; boundary=x\r\ncontent-encoding: identity\r\ncontent-encoding: br", good.clone(), 415),
    ] {
        let request = format!("{head}content-type: {kind}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        refused(&server, &request, &[status]).await;
    }
    let files = server.send("GET", "/v1/files", None).await.json();
    assert_eq!(files["data"], json!([]), "nothing is left of them");
}

/// What is kept is read whole by the next request: it cannot grow without end.
#[tokio::test]
async fn a_conversation_has_an_end() {
    let server = TestServer::start().await;
    let id = server.send("POST", "/v1/conversations", Some(&json!({}))).await.json()["id"].as_str().unwrap().to_owned();
    let items = json!({ "items": [{ "role": "user", "content": "ä".repeat(3 << 20) }] });
    let path = format!("/v1/conversations/{id}/items");
    for status in [200, 200, 400, 400] {
        let answer = server.send("POST", &path, Some(&items)).await;
        assert_eq!(answer.status, status, "{}", &answer.text[..answer.text.len().min(300)]);
    }
    let small = json!({ "items": [{ "role": "user", "content": "x" }] });
    assert_eq!(server.send("POST", &path, Some(&small)).await.status, 200, "there is room for less");
}

#[tokio::test]
async fn a_body_of_too_many_values_is_not_made() {
    let server = TestServer::start().await;
    let metadata = format!("[{}0]", "[],".repeat(1 << 20));
    let body = format!(r#"{{"messages":[{{"role":"user","content":"x"}}],"metadata":{metadata}}}"#);
    let first = head(&server, "POST /v1/chat/completions");
    let request = format!("{first}content-length: {}\r\n\r\n{body}", body.len());
    let error = refused(&server, &request, &[400]).await;
    assert!(error["message"].as_str().unwrap().contains("too many values"), "{error}");
}
