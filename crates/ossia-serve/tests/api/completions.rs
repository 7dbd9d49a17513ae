//! POST /v1/completions over a real connection: text, token ids, echo with log probabilities, streams.

use crate::common::{Answer, TestServer};
use serde_json::{Value, json};

async fn complete(server: &TestServer, body: Value) -> Answer {
    server.send("POST", "/v1/completions", Some(&body)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn text_and_token_ids_are_the_same() {
    let server = TestServer::start().await;
    let ids = crate::common::harmony().tokenizer().encode_text("Hello, my name").unwrap();
    let by_text = complete(&server, json!({ "prompt": "Hello, my name", "max_tokens": 8 })).await.json();
    let by_ids = complete(&server, json!({ "prompt": ids, "max_tokens": 8 })).await.json();
    assert_eq!(by_text["choices"], by_ids["choices"]);
    assert_eq!(by_text["usage"]["prompt_tokens"], ids.len());
    assert_eq!(by_text["object"], "text_completion");
    let both =
        complete(&server, json!({ "prompt": ["Hello, my name", "One two"], "max_tokens": 8, "n": 2 })).await.json();
    let choices = both["choices"].as_array().unwrap();
    assert_eq!(choices.len(), 4);
    assert_eq!(choices[0]["text"], by_text["choices"][0]["text"]);
    assert!(choices.iter().enumerate().all(|(index, choice)| choice["index"] == index));
    assert!(both["usage"]["prompt_tokens"].as_u64().unwrap() < 2 * ids.len() as u64 + 8, "each prompt counts once");
}

#[tokio::test(flavor = "multi_thread")]
async fn echo_with_log_probabilities() {
    let server = TestServer::start().await;
    let body = json!({ "prompt": "What is 2 plus 3?", "max_tokens": 6, "echo": true, "logprobs": 3 });
    let answer = complete(&server, body.clone()).await.json();
    let (choice, usage) = (&answer["choices"][0], &answer["usage"]);
    let (logprobs, text) = (&choice["logprobs"], choice["text"].as_str().unwrap());
    let tokens: Vec<&str> = logprobs["tokens"].as_array().unwrap().iter().map(|t| t.as_str().unwrap()).collect();
    assert!(text.starts_with("What is 2 plus 3?"), "{text}");
    assert!(text.starts_with(&tokens.concat()[..17]) && tokens.concat().len() >= text.len());
    assert!(tokens.len() as u64 >= usage["prompt_tokens"].as_u64().unwrap());
    let own = logprobs["token_logprobs"].as_array().unwrap();
    assert!(own[0].is_null() && own[1..].iter().all(|p| p.as_f64().unwrap() <= 1e-6), "{own:?}");
    let top = logprobs["top_logprobs"].as_array().unwrap();
    assert!(top[0].is_null() && top[1].as_object().unwrap().len() == 3);
    let offsets = logprobs["text_offset"].as_array().unwrap();
    assert!(offsets[0] == 0 && offsets[1] == tokens[0].chars().count());

    // Only the prompt, as programs that grade a text ask for it.
    let mut graded = body;
    graded["max_tokens"] = json!(0);
    let graded = complete(&server, graded).await.json();
    assert_eq!(graded["choices"][0]["text"], "What is 2 plus 3?");
    assert_eq!(graded["usage"]["completion_tokens"], 0);
    let len = graded["choices"][0]["logprobs"]["tokens"].as_array().unwrap().len();
    assert_eq!(graded["usage"]["prompt_tokens"], len);
    assert_eq!(graded["choices"][0]["logprobs"]["token_logprobs"].as_array().unwrap()[..], own[..len]);
}

#[tokio::test(flavor = "multi_thread")]
async fn streamed_and_whole_are_the_same() {
    let server = TestServer::start().await;
    for fields in [
        json!({}),
        json!({ "echo": true }),
        json!({ "echo": true, "logprobs": 2 }),
        json!({ "n": 2, "temperature": 1, "seed": 4, "logprobs": 0 }),
        json!({ "stop": "e" }),
    ] {
        let mut body = json!({ "prompt": ["Hello there", "How are"], "max_tokens": 9 });
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let whole = complete(&server, body.clone()).await.json();
        body["stream"] = json!(true);
        body["stream_options"] = json!({ "include_usage": true });
        let events = complete(&server, body).await.events();
        assert_eq!(events.last().unwrap()["usage"]["total_tokens"], whole["usage"]["total_tokens"]);
        for choice in whole["choices"].as_array().unwrap() {
            let parts = events.iter().flat_map(|event| event["choices"].as_array().unwrap());
            let parts: Vec<&Value> = parts.filter(|part| part["index"] == choice["index"]).collect();
            let text: String = parts.iter().map(|part| part["text"].as_str().unwrap()).collect();
            assert_eq!(text, choice["text"].as_str().unwrap(), "{fields}");
            assert_eq!(parts.last().unwrap()["finish_reason"], choice["finish_reason"]);
            for list in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
                let all = parts.iter().flat_map(|part| part["logprobs"][list].as_array().into_iter().flatten());
                let all: Vec<&Value> = all.collect();
                let wanted: Vec<&Value> = choice["logprobs"][list].as_array().into_iter().flatten().collect();
                assert_eq!(all, wanted, "{fields} {list}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_requests_name_the_field() {
    let server = TestServer::start().await;
    for (fields, param) in [
        (json!({ "prompt": [] }), "prompt"),
        (json!({ "prompt": [1, "a"] }), "prompt"),
        (json!({ "prompt": [1_000_000] }), "prompt"),
        (json!({ "prompt": [[]] }), "prompt"),
        (json!({ "prompt": vec!["a"; 65] }), "prompt"),
        (json!({ "prompt": vec!["a"; 5], "n": 16 }), "prompt"),
        (json!({ "suffix": "x" }), "suffix"),
        (json!({ "best_of": 4 }), "best_of"),
        (json!({ "max_tokens": 0 }), "max_tokens"),
        (json!({ "logprobs": 21 }), "top_logprobs"),
        (json!({ "logprobs": -1 }), "top_logprobs"),
    ] {
        let mut body = json!({ "prompt": "a" });
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let answer = complete(&server, body).await;
        assert_eq!((answer.status, &answer.json()["error"]["param"]), (400, &json!(param)), "{fields} {}", answer.text);
    }
    let missing = complete(&server, json!({})).await;
    assert_eq!((missing.status, &missing.json()["error"]["param"]), (400, &json!("prompt")));
    let long = complete(&server, json!({ "prompt": vec![1; 4000] })).await.json();
    assert_eq!(long["error"]["code"], "context_length_exceeded");
}
