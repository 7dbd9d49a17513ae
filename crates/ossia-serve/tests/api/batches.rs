//! Files and batches, as raw clients see them.

use std::time::Duration;

use crate::common::{Answer, TestServer};
use ossia_serve::auth::Scope;
use ossia_serve::keys::NewKey;
use serde_json::{Value, json};

const BOUNDARY: &str = "------a boundary";

/// Uploads a file, the fields in this order.
async fn upload(server: &TestServer, fields: &[(&str, &[u8])]) -> Answer {
    let mut body = Vec::new();
    for (name, content) in fields {
        let filename = if *name == "file" { "; filename=\"../b.jsonl\"" } else { "" };
        let head = format!("--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"{name}\"{filename}\r\n\r\n");
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
    send_form(server, &body).await
}

async fn send_form(server: &TestServer, body: &[u8]) -> Answer {
    let head = format!(
        "POST /v1/files HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\ncontent-length: {}\r\n\
         content-type: multipart/form-data; boundary=\"{BOUNDARY}\"\r\n\r\n",
        server.at,
        server.key,
        body.len()
    );
    server.raw(&[head.as_bytes(), body].concat()).await.rest().await
}

async fn get(server: &TestServer, path: &str) -> Answer {
    server.send("GET", path, None).await
}

#[tokio::test]
async fn a_file_comes_back_as_it_was() {
    let server = TestServer::start().await;
    // Longer than a chunk of the database and than the limit of other bodies.
    let content: Vec<u8> = (0..9_000_001_u32).map(|number| (number % 251) as u8).collect();
    let answer = upload(&server, &[("file", &content), ("purpose", b"user_data")]).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let file = answer.json();
    assert_eq!((&file["bytes"], &file["filename"]), (&json!(content.len()), &json!("../b.jsonl")));
    let path = format!("/v1/files/{}", file["id"].as_str().unwrap());
    assert_eq!(get(&server, &path).await.json(), file);
    let text: String = "a line\n".repeat(300_000);
    let other = upload(&server, &[("purpose", b"batch"), ("file", text.as_bytes())]).await.json();
    let back = get(&server, &format!("/v1/files/{}/content", other["id"].as_str().unwrap())).await;
    assert!(back.text == text);
    let listed = get(&server, "/v1/files?purpose=batch").await.json();
    assert_eq!(listed["data"], json!([other]));
    assert_eq!(get(&server, "/v1/files?limit=1").await.json()["has_more"], true);
    for _ in 0..20 {
        upload(&server, &[("file", b"x"), ("purpose", b"vision")]).await;
    }
    let all = get(&server, "/v1/files").await.json();
    assert_eq!((all["data"].as_array().unwrap().len(), &all["has_more"]), (22, &json!(false)), "in one page");
    let last = get(&server, &format!("/v1/files?after={}", file["id"].as_str().unwrap())).await;
    assert_eq!((last.status, &last.json()["data"]), (200, &json!([])));

    let stranger = server.key(NewKey { name: "other".into(), scopes: vec![Scope::Files], ..NewKey::default() });
    for (method, path) in [("GET", path.clone()), ("GET", format!("{path}/content")), ("DELETE", path.clone())] {
        assert_eq!(server.send_as(Some(&stranger), method, &path, None).await.status, 404);
    }
    assert_eq!(server.send("DELETE", &path, None).await.json()["deleted"], true);
    assert_eq!(get(&server, &path).await.status, 404);
}

#[tokio::test]
async fn what_is_no_file_leaves_nothing_behind() {
    let server = TestServer::start().await;
    for (fields, param) in [
        (vec![("purpose", b"batch".as_slice())], "file"),
        (vec![("file", b"x".as_slice())], "purpose"),
        (vec![("file", b"x".as_slice()), ("purpose", b"world domination".as_slice())], "purpose"),
        (vec![("file", b"x".as_slice()), ("file", b"y".as_slice()), ("purpose", b"batch".as_slice())], "file"),
        (
            vec![
                ("file", b"x".as_slice()),
                ("purpose", b"batch".as_slice()),
                ("expires_after[seconds]", b"-1".as_slice()),
            ],
            "expires_after",
        ),
    ] {
        let answer = upload(&server, &fields).await;
        assert_eq!((answer.status, &answer.json()["error"]["param"]), (400, &json!(param)), "{}", answer.text);
    }
    assert_eq!(send_form(&server, b"nonsense").await.status, 400);
    assert_eq!(get(&server, "/v1/files").await.json()["data"], json!([]));
    let owner = ossia_serve::keys::KeyFile::of(server.folder.path()).read().unwrap()[0].id.clone();
    let used = async || server.app.keeping.store.num_file_bytes(&owner).await.unwrap();
    // What was begun is deleted soon after its answer.
    for _ in 0..500 {
        if used().await == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(used().await, 0);
}

fn line(id: &str, body: Value) -> String {
    json!({ "custom_id": id, "method": "POST", "url": "/v1/responses", "body": body }).to_string()
}

fn ask(text: &str) -> Value {
    json!({ "model": "nano", "input": text, "max_output_tokens": 24, "seed": 1 })
}

async fn begin(server: &TestServer, lines: &[String]) -> Value {
    let file = upload(server, &[("purpose", b"batch"), ("file", lines.join("\n").as_bytes())]).await.json();
    let body = json!({ "input_file_id": file["id"], "endpoint": "/v1/responses", "completion_window": "24h",
        "metadata": { "night": "1" } });
    let answer = server.send("POST", "/v1/batches", Some(&body)).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()
}

/// The batch when it has come to one of these.
async fn until(server: &TestServer, key: &str, id: &Value, wanted: &[&str]) -> Value {
    let path = format!("/v1/batches/{}", id.as_str().unwrap());
    for _ in 0..1000 {
        let batch = server.send_as(Some(key), "GET", &path, None).await.json();
        if wanted.contains(&batch["status"].as_str().unwrap()) {
            return batch;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{}", server.send_as(Some(key), "GET", &path, None).await.text);
}

async fn lines_of(server: &TestServer, key: &str, file: &Value) -> Vec<Value> {
    let path = format!("/v1/files/{}/content", file.as_str().unwrap());
    let answer = server.send_as(Some(key), "GET", &path, None).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn every_line_has_one_result() {
    let server = TestServer::start().await;
    let mut lines: Vec<String> = (0..20).map(|number| line(&format!("c{number}"), ask("What is 2 + 3?"))).collect();
    lines.insert(7, line("wrong", json!({ "model": "gpt-9", "input": "x" })));
    let batch = begin(&server, &lines).await;
    assert_eq!((&batch["status"], &batch["metadata"]), (&json!("validating"), &json!({ "night": "1" })));
    let batch = until(&server, &server.key, &batch["id"], &["completed", "failed"]).await;
    assert_eq!(batch["request_counts"], json!({ "total": 21, "completed": 20, "failed": 1 }));
    let output = lines_of(&server, &server.key, &batch["output_file_id"]).await;
    let ids: Vec<&str> = output.iter().map(|line| line["custom_id"].as_str().unwrap()).collect();
    assert_eq!(ids, (0..20).map(|number| format!("c{number}")).collect::<Vec<_>>());
    assert!(output.iter().all(|line| line["response"]["status_code"] == 200 && line["error"].is_null()));
    let spent = |line: &Value| line["response"]["body"]["usage"]["total_tokens"].as_u64().unwrap();
    assert_eq!(batch["usage"]["total_tokens"], output.iter().map(spent).sum::<u64>());
    let alone = server.send("POST", "/v1/responses", Some(&ask("What is 2 + 3?"))).await.json();
    let said = |response: &Value| -> Vec<Value> {
        response["output"].as_array().unwrap().iter().map(|item| item["content"].clone()).collect()
    };
    assert_eq!(said(&output[3]["response"]["body"]), said(&alone), "the same answer as over the network");
    let errors = lines_of(&server, &server.key, &batch["error_file_id"]).await;
    assert_eq!((errors.len(), &errors[0]["custom_id"]), (1, &json!("wrong")));
    assert_eq!(errors[0]["response"]["body"]["error"]["code"], "model_not_found");
    assert_eq!(get(&server, "/v1/batches").await.json()["data"], json!([batch]));
}

#[tokio::test]
async fn wrong_batches() {
    let server = TestServer::start().await;
    let batch = begin(&server, &["nonsense".to_owned(), line("a", ask("x")), line("a", ask("x"))]).await;
    let batch = until(&server, &server.key, &batch["id"], &["completed", "failed"]).await;
    assert_eq!(batch["status"], "failed");
    let lines: Vec<&Value> = batch["errors"]["data"].as_array().unwrap().iter().map(|error| &error["line"]).collect();
    assert_eq!(lines, [1, 3]);
    let good =
        json!({ "input_file_id": batch["input_file_id"], "endpoint": "/v1/responses", "completion_window": "24h" });
    for (field, value, status) in
        [("input_file_id", "file-1", 404), ("endpoint", "/v1/files", 400), ("completion_window", "1h", 400)]
    {
        let mut body = good.clone();
        body[field] = value.into();
        assert_eq!(server.send("POST", "/v1/batches", Some(&body)).await.status, status, "{field}");
    }
    let stranger = server.key(NewKey { name: "other".into(), scopes: Scope::ALL.to_vec(), ..NewKey::default() });
    assert_eq!(server.send_as(Some(&stranger), "POST", "/v1/batches", Some(&good)).await.status, 404);
    let path = format!("/v1/batches/{}", batch["id"].as_str().unwrap());
    assert_eq!(server.send_as(Some(&stranger), "GET", &path, None).await.status, 404);
    assert_eq!(server.send_as(Some(&stranger), "POST", &format!("{path}/cancel"), None).await.status, 404);
    let ended = server.send("POST", &format!("{path}/cancel"), None).await.json();
    assert_eq!(ended["status"], "failed", "what has ended stays as it is");
}

/// An answer that takes long.
fn long() -> Value {
    let schema = json!({ "type": "array", "minItems": 300, "items": { "type": "integer" } });
    json!({ "model": "nano", "input": "Count.", "max_output_tokens": 1500,
        "text": { "format": { "type": "json_schema", "name": "n", "schema": schema } } })
}

#[tokio::test]
async fn a_cancelled_batch_keeps_what_was_done() {
    let server = TestServer::start().await;
    let lines: Vec<String> = (0..200).map(|number| line(&format!("c{number}"), long())).collect();
    let batch = begin(&server, &lines).await;
    until(&server, &server.key, &batch["id"], &["in_progress"]).await;
    let path = format!("/v1/batches/{}/cancel", batch["id"].as_str().unwrap());
    let cancelled = server.send("POST", &path, None).await.json();
    assert!(["cancelling", "cancelled"].contains(&cancelled["status"].as_str().unwrap()));
    let batch = until(&server, &server.key, &batch["id"], &["cancelled"]).await;
    assert!(batch["cancelling_at"].is_u64() && batch["cancelled_at"].is_u64());
    let counts = &batch["request_counts"];
    assert!(counts["completed"].as_u64().unwrap() < 200);
    if counts["completed"].as_u64().unwrap() > 0 {
        let output = lines_of(&server, &server.key, &batch["output_file_id"]).await;
        assert_eq!(output.len() as u64, counts["completed"].as_u64().unwrap());
    }
    server.wait_idle().await;
}

/// The server stops in the middle and another takes its place: every line has one result all the same.
#[tokio::test]
async fn a_batch_goes_on_after_a_restart() {
    let server = TestServer::start().await;
    let lines: Vec<String> = (0..60).map(|number| line(&format!("c{number}"), ask("What is 7 + 5?"))).collect();
    let batch = begin(&server, &lines).await;
    until(&server, &server.key, &batch["id"], &["in_progress", "completed"]).await;
    server.app.drain();
    server.app.keeping.close().await;
    let TestServer { folder, key, .. } = server;
    let again = TestServer::start_in(folder).await;
    let batch = until(&again, &key, &batch["id"], &["completed"]).await;
    assert_eq!(batch["request_counts"], json!({ "total": 60, "completed": 60, "failed": 0 }));
    let output = lines_of(&again, &key, &batch["output_file_id"]).await;
    let ids: Vec<&str> = output.iter().map(|line| line["custom_id"].as_str().unwrap()).collect();
    assert_eq!(ids, (0..60).map(|number| format!("c{number}")).collect::<Vec<_>>());
}
