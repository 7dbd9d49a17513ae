//! What the model wrote comes back to it as it wrote it: a scripted model writes calls in every form that the grammar
//! allows, with text cut as a tokenizer would not cut it, clients send them back in their own shapes, and the prefix
//! cache, which knows tokens by themselves, finds everything.

use crate::common::scripted::{Scripted, Scripts};
use crate::common::{TestServer, harmony};
use ossia_engine::{Engine, EngineOptions};
use ossia_text::Harmony;
use serde_json::{Value, json};

/// A server whose model is scripted.
struct Stage {
    server: TestServer,
    scripts: Scripts,
    harmony: Harmony,
}

impl Stage {
    async fn open() -> Self {
        let (scripts, harmony) = (Scripts::default(), harmony());
        let model = Scripted::new(scripts.clone(), harmony.tokenizer().vocab_size());
        let engine = Engine::start_runner(model, EngineOptions::default());
        Self { server: TestServer::start_over(tempfile::tempdir().unwrap(), engine).await, scripts, harmony }
    }

    /// The ids of a text in which special tokens stand by name; between `«` and `»` every character is a token.
    fn ids(&self, text: &str) -> Vec<u32> {
        let tokenizer = self.harmony.tokenizer();
        let (mut ids, mut rest) = (Vec::new(), text);
        while !rest.is_empty() {
            let end = rest.find(['<', '«']).map_or(rest.len(), |at| if at == 0 { 1.min(rest.len()) } else { at });
            if let Some((name, after)) = rest.strip_prefix("<|").and_then(|rest| rest.split_once("|>")) {
                ids.push(tokenizer.special_id(&format!("<|{name}|>")).unwrap());
                rest = after;
            } else if let Some((letters, after)) = rest.strip_prefix('«').and_then(|rest| rest.split_once('»')) {
                ids.extend(letters.chars().flat_map(|c| tokenizer.encode_text(&c.to_string()).unwrap()));
                rest = after;
            } else {
                ids.extend(tokenizer.encode_text(&rest[..end]).unwrap());
                rest = &rest[end..];
            }
        }
        ids
    }

    /// What the model is to say next.
    fn script(&self, text: &str) {
        self.scripts.add(self.ids(text));
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        let answer = self.server.send("POST", path, Some(&body)).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json()
    }
}

const THOUGHT: &str = "<|channel|>analysis<|message|>«I need» the weather.<|end|><|start|>assistant";
const ANSWER: &str = "<|channel|>final<|message|>Sunny.<|return|>";

/// Every header of a call that the grammar lets through, with arguments cut in an unusual way.
fn calls() -> Vec<String> {
    let arguments = "<|message|>{\"city\":«\"Paris\"»}<|call|>";
    let kinds = [" <|constrain|>json", " json", ""];
    let orders = ["<|channel|>commentary to=functions.get_weather", " to=functions.get_weather<|channel|>commentary"];
    let each = orders.iter().flat_map(|order| kinds.iter().map(move |kind| format!("{order}{kind}{arguments}")));
    each.collect()
}

fn parameters() -> Value {
    json!({ "type": "object", "properties": { "city": { "type": "string" } }, "required": ["city"],
        "additionalProperties": false })
}

/// A chat client's way of giving back an assistant's message.
type Shape = fn(&mut Value);

const CHAT_SHAPES: [(&str, Shape); 6] = [
    ("as it came", |_| {}),
    ("reasoning by another name", |message| {
        let thought = message["reasoning"].take();
        message["reasoning_content"] = thought;
    }),
    ("without reasoning", |message| drop(message.as_object_mut().unwrap().remove("reasoning"))),
    ("arguments written anew", |message| {
        let arguments = &mut message["tool_calls"][0]["function"]["arguments"];
        let value: Value = serde_json::from_str(arguments.as_str().unwrap()).unwrap();
        *arguments = format!("{{ \"city\" : {} }}", value["city"]).into();
        message.as_object_mut().unwrap().remove("reasoning");
    }),
    ("in tags", |message| {
        let thought = message["reasoning"].take();
        if let Some(thought) = thought.as_str() {
            message["content"] = format!("<think>\n{thought}\n</think>\n").into();
        }
    }),
    ("as an element of a page", |message| {
        let thought = message["reasoning"].take();
        if let Some(thought) = thought.as_str() {
            let open = "<details type=\"reasoning\" done=\"true\" duration=\"1\">\n<summary>Thought</summary>\n";
            message["content"] = format!("{open}&gt; {thought}\n</details>\n").into();
        }
    }),
];

/// All but the last token of the first turn, which is not computed before it is read, are found again.
fn goes_on(first: [&Value; 2], cached: &Value, what: &str) {
    let made: u64 = first.iter().map(|count| count.as_u64().unwrap()).sum();
    assert_eq!(cached.as_u64(), Some(made - 1), "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn chat_gives_every_form_of_a_call_back_as_it_was_written() {
    let stage = Stage::open().await;
    let tools = json!([{ "type": "function", "function": { "name": "get_weather", "parameters": parameters() } }]);
    for thought in [THOUGHT, ""] {
        for call in calls() {
            for (shape, edit) in CHAT_SHAPES {
                let what = format!("{shape}: {thought}{call}");
                // Each conversation is another, or the cache would know it from the last.
                let user = json!({ "role": "user", "content": what });
                stage.script(&format!("{thought}{call}"));
                let ask = |messages: Value| json!({ "model": "nano", "tools": tools, "messages": messages });
                let first = stage.post("/v1/chat/completions", ask(json!([user]))).await;
                let mut message = first["choices"][0]["message"].clone();
                assert_eq!(message["tool_calls"][0]["function"]["arguments"], "{\"city\":\"Paris\"}");
                assert_eq!(message["reasoning"].is_string(), !thought.is_empty());
                edit(&mut message);
                let id = &message["tool_calls"][0]["id"];
                let result = json!({ "role": "tool", "tool_call_id": id, "content": "21 degrees" });
                stage.script(ANSWER);
                let second = stage.post("/v1/chat/completions", ask(json!([user, message, result]))).await;
                assert_eq!(second["choices"][0]["message"]["content"], "Sunny.");
                let (before, after) = (&first["usage"], &second["usage"]["prompt_tokens_details"]);
                goes_on([&before["prompt_tokens"], &before["completion_tokens"]], &after["cached_tokens"], &what);
            }
        }
    }
}

/// A client's way of giving back the items of a response; an empty list is `previous_response_id`.
type Items = fn(Vec<Value>) -> Vec<Value>;

const RESPONSES_SHAPES: [(&str, Items); 6] = [
    ("by the response's id", |_| Vec::new()),
    ("as they came", |items| items),
    ("encrypted only", |mut items| {
        items.iter_mut().filter(|item| item["type"] == "reasoning").for_each(|item| item["content"] = Value::Null);
        items
    }),
    ("without reasoning", |items| items.into_iter().filter(|item| item["type"] != "reasoning").collect()),
    ("in tags", |items| in_front(items, |thought| format!("<think>{thought}</think>"))),
    ("as an element of a page", |items| {
        in_front(items, |thought| {
            format!(
                "<details type=\"reasoning\" done=\"true\" duration=\"1\">\n<summary>T</summary>\n&gt; {thought}\n</details>"
            )
        })
    }),
];

/// Reasoning items as messages of the assistant that hold it.
fn in_front(mut items: Vec<Value>, wrap: fn(&str) -> String) -> Vec<Value> {
    for item in items.iter_mut().filter(|item| item["type"] == "reasoning") {
        let text = wrap(item["content"][0]["text"].as_str().unwrap());
        *item = json!({ "type": "message", "role": "assistant", "content": [{ "type": "output_text", "text": text }] });
    }
    items
}

#[tokio::test(flavor = "multi_thread")]
async fn responses_give_every_form_of_a_call_back_as_it_was_written() {
    let stage = Stage::open().await;
    let tools = json!([{ "type": "function", "name": "get_weather", "parameters": parameters() }]);
    for thought in [THOUGHT, ""] {
        for call in calls() {
            for (shape, edit) in RESPONSES_SHAPES {
                for store in [true, false] {
                    let by_id = edit(vec![json!({})]).is_empty();
                    // Who lets nothing be kept and has the thinking encrypted in its hands gives it back or has lost it.
                    let is_lost = !store && shape == "without reasoning";
                    if by_id && !store || is_lost && !thought.is_empty() {
                        continue;
                    }
                    let what = format!("{shape}, store {store}: {thought}{call}");
                    let user = json!({ "role": "user", "content": what });
                    let ask = |input: Vec<Value>| {
                        json!({ "model": "nano", "tools": tools, "store": store, "input": input,
                            "include": ["reasoning.encrypted_content"] })
                    };
                    stage.script(&format!("{thought}{call}"));
                    let first = stage.post("/v1/responses", ask(vec![user.clone()])).await;
                    let output = first["output"].as_array().unwrap().clone();
                    let id = &output.last().unwrap()["call_id"];
                    let result = json!({ "type": "function_call_output", "call_id": id, "output": "21 degrees" });
                    let before = if by_id { Vec::new() } else { vec![user] };
                    let mut next = ask([before, edit(output.clone()), vec![result]].concat());
                    if by_id {
                        next["previous_response_id"] = first["id"].clone();
                    }
                    stage.script(ANSWER);
                    let second = stage.post("/v1/responses", next).await;
                    let (before, after) = (&first["usage"], &second["usage"]["input_tokens_details"]);
                    // In tags a thought comes back as text alone, and is cut as rendering cuts it, unless it is kept here.
                    let is_text = ["in tags", "as an element of a page"].contains(&shape);
                    if is_text && !store && !thought.is_empty() {
                        assert!(after["cached_tokens"].as_u64() >= before["input_tokens"].as_u64(), "{what}");
                    } else {
                        goes_on([&before["input_tokens"], &before["output_tokens"]], &after["cached_tokens"], &what);
                    }
                }
            }
        }
    }
}

/// What is kept where a client holds its thinking encrypted and lets nothing be stored.
#[tokio::test(flavor = "multi_thread")]
async fn thinking_that_the_client_holds_is_held_nowhere_else() {
    let stage = Stage::open().await;
    let tools = json!([{ "type": "function", "name": "get_weather", "parameters": parameters() }]);
    for (store, include, is_kept) in [
        (false, json!(["reasoning.encrypted_content"]), false),
        (false, json!([]), true),
        (true, json!(["reasoning.encrypted_content"]), true),
    ] {
        stage.script(&format!("{THOUGHT}{}", calls()[0]));
        let body = json!({ "model": "nano", "tools": tools, "store": store, "include": include, "input": "Hi" });
        let first = stage.post("/v1/responses", body).await;
        let id = first["output"].as_array().unwrap().last().unwrap()["call_id"].as_str().unwrap().to_owned();
        let kept = stage.server.app.memory.recall(&stage.server.owner, &id).unwrap();
        assert_eq!((!kept.said.is_empty(), kept.called.is_some()), (is_kept, true), "{store} {include}");
    }
}

/// A conversation made short: the user's words as they were, the rest as the model's summary, which goes into the prompt.
#[tokio::test(flavor = "multi_thread")]
async fn a_compacted_conversation_goes_on() {
    let stage = Stage::open().await;
    let tools = json!([{ "type": "function", "name": "get_weather", "parameters": parameters() }]);
    stage.script(&format!("{THOUGHT}{}", calls()[0]));
    let user = json!({ "type": "message", "role": "user", "content": [{ "type": "input_text", "text": "Weather?" }] });
    let first = stage.post("/v1/responses", json!({ "model": "nano", "tools": tools, "input": [user] })).await;
    let call_id = &first["output"][1]["call_id"];
    let result = json!({ "type": "function_call_output", "call_id": call_id, "output": "21 degrees" });
    stage.script(
        "<|channel|>analysis<|message|>Short.<|end|><|start|>assistant<|channel|>final<|message|>It was 21.<|return|>",
    );
    let body = json!({ "model": "nano", "tools": tools, "input": [result], "previous_response_id": first["id"] });
    let compacted = stage.post("/v1/responses/compact", body).await;
    assert_eq!(compacted["object"], "response.compaction");
    assert!(compacted["usage"]["output_tokens"].as_u64() > Some(0));
    // The prompt begins as the conversation did, so most of it is there already.
    goes_on(
        [&first["usage"]["input_tokens"], &first["usage"]["output_tokens"]],
        &compacted["usage"]["input_tokens_details"]["cached_tokens"],
        "compaction",
    );
    let output = compacted["output"].as_array().unwrap();
    assert_eq!((output[0]["content"].clone(), output.len()), (user["content"].clone(), 2));
    assert_eq!(output[1]["type"], "compaction");
    assert!(!output[1].to_string().contains("It was"), "a client cannot read it");
    let more = json!({ "role": "user", "content": "And?" });
    stage.script(ANSWER);
    let input = [output.clone(), vec![more.clone()]].concat();
    let next = stage.post("/v1/responses", json!({ "model": "nano", "input": input })).await;
    let told = "Summary of the conversation up to here, as you wrote it before the rest was cut off:\n\nIt was 21.";
    let developer = json!({ "role": "developer", "content": told });
    let plain = json!({ "model": "nano", "input": [user, developer, more] });
    let tokens = stage.post("/v1/responses/input_tokens", plain).await;
    assert_eq!(next["usage"]["input_tokens"], tokens["input_tokens"]);
    let mut altered = input;
    altered[1]["encrypted_content"] = "ossia1.AAAA".into();
    let body = json!({ "model": "nano", "input": altered });
    assert_eq!(stage.server.send("POST", "/v1/responses", Some(&body)).await.status, 400);
}
