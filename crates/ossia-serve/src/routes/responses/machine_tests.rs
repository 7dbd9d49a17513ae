//! The machine over recorded sequences of a turn's events. Every test also checks what must hold for all streams: numbers
//! from 0 in steps of 1, each item added once and done once, deltas that add up, and an object that repeats it all.

use std::sync::{Arc, Mutex};

use ossia_text::ParsedMessage;
use ossia_text::Role;
use ossia_text::harmony::{Header, MessageEnd};
use serde_json::{Value, json};

use super::machine::{Keeper, Machine, WireTool, WireTools};
use crate::reasoning::{Called, Said, Thought};
use crate::turn::{FinishReason, TokenLogprob, TopLogprob, TurnEvent, Usage};
use crate::types::responses::response::ResponseError;
use crate::types::responses::{CreateResponse, NumberedEvent, Response};

/// Seals as "sealed:TEXT" and lists what is remembered.
#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Vec<(String, Thought)>>>);

impl Keeper for Notes {
    fn seal(&self, text: &str, _: &[u32]) -> Option<String> {
        Some(format!("sealed:{text}"))
    }

    fn remember(&self, call_id: &str, thought: &Thought) {
        self.0.lock().unwrap().push((call_id.to_owned(), thought.clone()));
    }
}

fn tools() -> WireTools {
    let tool = |name: &str, namespace: Option<&str>, custom| WireTool {
        name: name.to_owned(),
        namespace: namespace.map(str::to_owned),
        custom,
    };
    [
        ("weather", tool("weather", None, false)),
        ("agents__spawn", tool("spawn", Some("agents"), false)),
        ("patch", tool("patch", None, true)),
    ]
    .map(|(name, tool)| (name.to_owned(), tool))
    .into()
}

fn machine(request: Value) -> (Machine, Notes) {
    let request: CreateResponse = serde_json::from_value(request).unwrap();
    let notes = Notes::default();
    let response = Response::begin(format!("resp_{}", "ab".repeat(24)), &request, 1000, 1.0);
    (Machine::new(response, tools(), Box::new(notes.clone())), notes)
}

fn header(channel: &str, recipient: Option<&str>) -> Header {
    let recipient = recipient.map(str::to_owned);
    Header { role: Role::Assistant, name: None, channel: Some(channel.into()), recipient, content_type: None }
}

/// A message in pieces.
fn message(channel: &str, recipient: Option<&str>, pieces: &[&str], end: MessageEnd) -> Vec<TurnEvent> {
    let header = header(channel, recipient);
    let delta = |text: &&str| TurnEvent::Delta { text: (*text).to_owned(), logprobs: Vec::new() };
    let parsed = ParsedMessage {
        header: header.clone(),
        text: pieces.concat(),
        end,
        anomalies: Vec::new(),
        raw_header: String::new(),
        ids: vec![1, 2],
    };
    let whole = std::iter::once(TurnEvent::Start(header)).chain(pieces.iter().map(delta));
    whole.chain([TurnEvent::End(parsed)]).collect()
}

fn done(finish: FinishReason) -> TurnEvent {
    let usage = Usage { prompt_tokens: 50, cached_tokens: 32, completion_tokens: 9, reasoning_tokens: 4 };
    TurnEvent::Done { finish, usage }
}

fn started() -> TurnEvent {
    TurnEvent::Started { prompt_tokens: 50, cached_tokens: 32 }
}

/// Runs events and checks what must always hold; gives the events as JSON.
fn run(machine: &mut Machine, events: Vec<TurnEvent>) -> Vec<Value> {
    let mut out = machine.begin();
    events.into_iter().for_each(|event| out.extend(machine.take(event)));
    checked(machine, out)
}

fn checked(machine: &Machine, out: Vec<NumberedEvent>) -> Vec<Value> {
    let last = out.iter().filter(|event| event.event.is_last()).count();
    assert!(last == 1 && out.last().unwrap().event.is_last(), "one last event, at the end");
    let json: Vec<Value> = out.iter().map(|event| serde_json::to_value(event).unwrap()).collect();
    for (number, (event, json)) in out.iter().zip(&json).enumerate() {
        assert_eq!(json["sequence_number"], number);
        assert_eq!(json["type"], event.event.name());
    }
    let response = serde_json::to_value(machine.response()).unwrap();
    assert_eq!(json.last().unwrap()["response"], response);
    let output = response["output"].as_array().unwrap();
    for (index, item) in output.iter().enumerate() {
        let of_item = |event: &&Value| event["output_index"] == index;
        let events: Vec<&Value> = json.iter().filter(of_item).collect();
        assert_eq!(events.first().unwrap()["type"], "response.output_item.added");
        assert_eq!(events.first().unwrap()["item"]["id"], item["id"]);
        assert_eq!(events.last().unwrap()["type"], "response.output_item.done");
        assert_eq!(events.last().unwrap()["item"], *item);
        assert!(events.iter().all(|event| event["item_id"].is_null() || event["item_id"] == item["id"]));
        let of_text = events.iter().filter(|event| event["summary_index"].is_null());
        let deltas: String = of_text.filter_map(|event| event["delta"].as_str()).collect();
        let text = ["arguments", "input"].iter().find_map(|name| item[*name].as_str());
        assert_eq!(deltas, text.unwrap_or_else(|| item["content"][0]["text"].as_str().unwrap()));
    }
    assert_eq!(output.len(), json.iter().filter(|event| event["type"] == "response.output_item.added").count());
    json
}

/// The events' names without `response.`.
fn names(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["type"].as_str().unwrap().trim_start_matches("response.")).collect()
}

#[test]
fn thinking_and_an_answer() {
    let (mut machine, notes) = machine(json!({"model": "nano", "stream": true, "include": []}));
    let mut events = vec![started()];
    events.extend(message("analysis", None, &["They ", "greet."], MessageEnd::End));
    events.extend(message("final", None, &["Hel", "lo."], MessageEnd::Return));
    events.push(done(FinishReason::Stop));
    let events = run(&mut machine, events);
    assert_eq!(
        names(&events),
        [
            "created",
            "in_progress",
            "output_item.added",
            "content_part.added",
            "reasoning_text.delta",
            "reasoning_text.delta",
            "reasoning_text.done",
            "content_part.done",
            "output_item.done",
            "output_item.added",
            "content_part.added",
            "output_text.delta",
            "output_text.delta",
            "output_text.done",
            "content_part.done",
            "output_item.done",
            "completed",
        ]
    );
    assert_eq!(events[2]["item"]["content"], json!([]));
    assert_eq!(events[3]["part"], json!({"type": "reasoning_text", "text": ""}));
    assert_eq!(events[6]["text"], "They greet.");
    let response = &events.last().unwrap()["response"];
    assert_eq!(response["status"], "completed");
    assert!(response["completed_at"].is_i64() && response["error"].is_null());
    let reasoning = &response["output"][0];
    assert_eq!((&reasoning["type"], &reasoning["summary"]), (&json!("reasoning"), &json!([])));
    assert_eq!(reasoning["encrypted_content"], "sealed:They greet.");
    let answer = &response["output"][1];
    assert_eq!((&answer["phase"], &answer["status"]), (&json!("final_answer"), &json!("completed")));
    assert_eq!(
        answer["content"][0],
        json!({"type": "output_text", "text": "Hello.", "annotations": [], "logprobs": []})
    );
    assert_eq!(
        response["usage"],
        json!({"input_tokens": 50, "input_tokens_details": {"cached_tokens": 32, "cache_write_tokens": 0},
            "output_tokens": 9, "output_tokens_details": {"reasoning_tokens": 4}, "total_tokens": 59})
    );
    assert!(notes.0.lock().unwrap().is_empty());
}

#[test]
fn a_call_after_thinking_and_a_preamble_is_remembered_with_both() {
    let (mut machine, notes) = machine(json!({"model": "nano"}));
    let mut events = message("analysis", None, &["I need it."], MessageEnd::End);
    events.extend(message("commentary", None, &["Let me look."], MessageEnd::End));
    events.extend(message("commentary", Some("functions.agents__spawn"), &["{\"a\"", ":1}"], MessageEnd::Call));
    events.push(done(FinishReason::ToolCalls));
    let events = run(&mut machine, events);
    assert_eq!(
        names(&events)[14..],
        [
            "output_item.added",
            "function_call_arguments.delta",
            "function_call_arguments.delta",
            "function_call_arguments.done",
            "output_item.done",
            "completed"
        ]
    );
    let output = &events.last().unwrap()["response"]["output"];
    assert_eq!(output[1]["phase"], "commentary");
    let call = &output[2];
    assert_eq!((&call["name"], &call["namespace"]), (&json!("spawn"), &json!("agents")));
    assert_eq!((&call["arguments"], &call["status"]), (&json!("{\"a\":1}"), &json!("completed")));
    assert!(call["call_id"].as_str().unwrap().starts_with("call_") && call["call_id"].as_str().unwrap().len() <= 64);
    let written = || Some([1, 2].into());
    let said = |thinking, text: &str| Said { written: written(), ..Said::new(thinking, text) };
    let said = vec![said(true, "I need it."), said(false, "Let me look.")];
    let (recipient, input) = ("functions.agents__spawn".to_owned(), "{\"a\":1}".to_owned());
    let thought = Thought { said, date: None, called: Some(Called { recipient, input, written: written() }) };
    assert_eq!(*notes.0.lock().unwrap(), [(call["call_id"].as_str().unwrap().to_owned(), thought)]);
}

#[test]
fn a_custom_tools_call() {
    let (mut machine, _) = machine(json!({"model": "nano"}));
    let mut events = message("commentary", Some("functions.patch"), &["*** Begin", " Patch"], MessageEnd::Call);
    events.push(done(FinishReason::ToolCalls));
    let events = run(&mut machine, events);
    assert_eq!(
        names(&events)[2..],
        [
            "output_item.added",
            "custom_tool_call_input.delta",
            "custom_tool_call_input.delta",
            "custom_tool_call_input.done",
            "output_item.done",
            "completed"
        ]
    );
    let call = &events.last().unwrap()["response"]["output"][0];
    assert_eq!((&call["type"], &call["input"]), (&json!("custom_tool_call"), &json!("*** Begin Patch")));
}

#[test]
fn a_limit_in_the_middle_of_arguments() {
    let (mut machine, notes) = machine(json!({"model": "nano", "max_output_tokens": 9}));
    let mut events = message("commentary", Some("functions.weather"), &["{\"ci", "ty\":"], MessageEnd::Truncated);
    events.push(done(FinishReason::Length));
    let events = run(&mut machine, events);
    let response = &events.last().unwrap()["response"];
    assert_eq!(events.last().unwrap()["type"], "response.incomplete");
    assert_eq!(response["incomplete_details"], json!({"reason": "max_output_tokens"}));
    assert_eq!(response["output"][0]["status"], "incomplete");
    assert_eq!(response["output"][0]["arguments"], "{\"city\":");
    assert!(notes.0.lock().unwrap().is_empty(), "half a call is not remembered");
}

#[test]
fn a_cancel_in_thinking_still_ends_every_item() {
    let (mut machine, _) = machine(json!({"model": "nano"}));
    let mut out = machine.begin();
    let mut thinking = message("analysis", None, &["Hm"], MessageEnd::End);
    thinking.pop();
    thinking.into_iter().for_each(|event| out.extend(machine.take(event)));
    out.extend(machine.cancel());
    assert!(machine.cancel().is_empty() && machine.take(done(FinishReason::Stop)).is_empty());
    let events = checked(&machine, out);
    assert_eq!(
        names(&events)[4..],
        ["reasoning_text.delta", "reasoning_text.done", "content_part.done", "output_item.done", "cancelled"]
    );
    let response = &events.last().unwrap()["response"];
    assert_eq!((&response["status"], &response["output"][0]["status"]), (&json!("cancelled"), &json!("incomplete")));
}

#[test]
fn a_failure_names_no_cause_and_loses_nothing() {
    let (mut machine, _) = machine(json!({"model": "nano"}));
    let mut events = message("final", None, &["Half an ans"], MessageEnd::Truncated);
    events.push(done(FinishReason::Failed("logit 7 of layer 3 is NaN".into())));
    let events = run(&mut machine, events);
    let response = &events.last().unwrap()["response"];
    assert_eq!((&response["status"], &response["error"]["code"]), (&json!("failed"), &json!("server_error")));
    assert!(!response["error"]["message"].as_str().unwrap().contains("NaN"));
    assert_eq!(response["output"][0]["content"][0]["text"], "Half an ans");
}

#[test]
fn in_the_background_it_is_queued_first() {
    let (mut machine, _) = machine(json!({"model": "nano", "background": true}));
    let mut events = vec![started()];
    events.extend(message("final", None, &["Hi"], MessageEnd::Return));
    events.push(done(FinishReason::Stop));
    let events = run(&mut machine, events);
    assert_eq!(names(&events)[..3], ["created", "queued", "in_progress"]);
    assert_eq!(events[1]["response"]["status"], "queued");
    assert_eq!(events[2]["response"]["status"], "in_progress");
}

#[test]
fn a_turn_that_could_not_begin() {
    let (mut machine, _) = machine(json!({"model": "nano", "background": true}));
    let mut out = machine.begin();
    out.extend(machine.fail(ResponseError { code: "server_error".into(), message: "The server is busy.".into() }));
    let events = checked(&machine, out);
    assert_eq!(names(&events), ["created", "queued", "failed"]);
    assert_eq!(events[2]["response"]["error"]["message"], "The server is busy.");
}

#[test]
fn an_unknown_tool_and_a_foreign_role_become_answers() {
    let (mut machine, _) = machine(json!({"model": "nano"}));
    let mut events = message("commentary", Some("functions.nothing"), &["{}"], MessageEnd::Call);
    let mut foreign = message("final", None, &["I am the user."], MessageEnd::End);
    if let TurnEvent::Start(header) = &mut foreign[0] {
        header.role = Role::User;
    }
    events.extend(foreign);
    events.push(done(FinishReason::Stop));
    let events = run(&mut machine, events);
    let output = &events.last().unwrap()["response"]["output"];
    assert_eq!(output[0]["content"][0]["text"], "{}");
    assert_eq!(output[1]["content"][0]["text"], "I am the user.");
}

#[test]
fn log_probabilities_of_the_answer_alone() {
    let (mut machine, _) = machine(json!({"model": "nano", "top_logprobs": 1}));
    let top = vec![TopLogprob { token: 7, bytes: vec![72, 105], logprob: -0.25 }];
    let logprob = TokenLogprob { token: 7, bytes: vec![72, 105], logprob: -0.25, top };
    let mut events = Vec::new();
    for channel in ["analysis", "final"] {
        events.push(TurnEvent::Start(header(channel, None)));
        events.push(TurnEvent::Delta { text: "Hi".into(), logprobs: vec![logprob.clone()] });
    }
    events.push(done(FinishReason::Stop));
    let events = run(&mut machine, events);
    let wanted = json!([{"token": "Hi", "bytes": [72, 105], "logprob": -0.25,
        "top_logprobs": [{"token": "Hi", "bytes": [72, 105], "logprob": -0.25}]}]);
    let of = |name: &str| events.iter().find(|event| event["type"] == name).unwrap()["logprobs"].clone();
    assert_eq!(of("response.output_text.delta"), wanted);
    assert_eq!(of("response.output_text.done"), wanted);
    assert!(of("response.reasoning_text.delta").is_null());
    let output = &events.last().unwrap()["response"]["output"];
    assert_eq!(output[1]["content"][0]["logprobs"], wanted);
}

#[test]
fn the_request_is_echoed_whole() {
    let schema = json!({"type": "object"});
    let (machine, _) = machine(json!({
        "model": "nano", "instructions": "Be brief.", "max_output_tokens": 5, "max_tool_calls": 2,
        "parallel_tool_calls": false, "previous_response_id": "resp_1", "prompt_cache_key": "k",
        "reasoning": {"effort": "high", "summary": "auto"}, "store": false, "temperature": 0.5, "top_p": 0.9,
        "text": {"format": {"type": "json_schema", "name": "n", "schema": schema}, "verbosity": "low"},
        "tool_choice": {"type": "function", "name": "weather"}, "tools": [{"type": "web_search", "x": 1}],
        "top_logprobs": 3, "user": "u", "safety_identifier": "s", "metadata": {"a": "b"}, "service_tier": "flex",
        "conversation": "conv_1", "client_metadata": {"ignored": true},
    }));
    let wanted = json!({
        "id": machine.response().id, "object": "response", "created_at": 1000, "completed_at": null,
        "status": "in_progress", "background": false, "error": null, "incomplete_details": null,
        "instructions": "Be brief.", "max_output_tokens": 5, "max_tool_calls": 2, "model": "nano", "output": [],
        "parallel_tool_calls": false, "previous_response_id": "resp_1", "conversation": {"id": "conv_1"},
        "prompt_cache_key": "k", "prompt_cache_retention": null, "reasoning": {"effort": "high", "summary": "auto"},
        "safety_identifier": "s", "service_tier": "default", "store": false, "temperature": 0.5,
        "text": {"format": {"type": "json_schema", "name": "n", "description": null, "schema": schema, "strict": true},
            "verbosity": "low"},
        "tool_choice": {"type": "function", "name": "weather"}, "tools": [{"type": "web_search", "x": 1}],
        "top_logprobs": 3, "top_p": 0.9, "truncation": "disabled", "usage": null, "user": "u", "metadata": {"a": "b"},
    });
    assert_eq!(serde_json::to_value(machine.response()).unwrap(), wanted);
}

#[test]
fn a_summary_is_told_before_its_thought_is_done() {
    let (mut machine, _) = machine(json!({"model": "nano", "reasoning": {"summary": "detailed"}}));
    let mut events = message("analysis", None, &["They greet. So", " what?\n\nI", " greet"], MessageEnd::End);
    events.extend(message("final", None, &["Hello"], MessageEnd::Return));
    events.push(done(FinishReason::Stop));
    let events = run(&mut machine, events);
    let part = [
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
    ];
    let at = names(&events).iter().position(|name| *name == part[0]).unwrap();
    assert_eq!(names(&events)[at..at + 9], [&part[..], &part[..], &["output_item.done"]].concat());
    assert_eq!((&events[at + 5]["summary_index"], &events[at + 5]["delta"]), (&json!(1), &json!("I greet")));
    let parts = json!([{"type": "summary_text", "text": "They greet."}, {"type": "summary_text", "text": "I greet"}]);
    assert_eq!(events.last().unwrap()["response"]["output"][0]["summary"], parts);
    assert_eq!(events[at + 8]["item"]["summary"], parts);
}
