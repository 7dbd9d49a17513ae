//! The same tool loop, sent in every way that clients send it: the tokens are those of the conversation as it happened.

use std::time::Duration;

use ossia_text::harmony::{ANALYSIS, COMMENTARY, DeveloperContent, Effort, FINAL, SystemContent};
use ossia_text::{Harmony, Message, RenderOptions, Tokenizer};
use serde_json::{Value, json};

use super::conversation::{Frame, Sources, Told, told};
use super::tools::{Declared, declared};
use crate::error::ApiError;
use crate::reasoning::{Keep, MemoryLimits, ReasoningMemory, Said, Sealed, Sealer, Thought};
use crate::types::responses::items::read_items;
use crate::types::sampling::Thinking;

const DATE: &str = "2026-11-24";
const TODAY: &str = "2026-11-25";

struct Server {
    memory: ReasoningMemory,
    sealer: Sealer,
    harmony: Harmony,
    declared: Declared,
}

fn tools() -> Value {
    json!([
        { "type": "function", "name": "weather", "description": "Weather.", "parameters": { "type": "object" } },
        { "type": "custom", "name": "patch", "description": "Patches." },
    ])
}

fn server() -> Server {
    let request = serde_json::from_value(json!({ "model": "nano", "tools": tools() })).unwrap();
    Server {
        memory: ReasoningMemory::new(MemoryLimits { max_age: Duration::from_secs(60), ..MemoryLimits::default() }),
        sealer: Sealer::new([7; 32]),
        harmony: harmony(),
        declared: declared(&request, true).unwrap(),
    }
}

impl Server {
    fn told(&self, owner: &str, date: Option<&str>, items: &[Value]) -> Result<Told, ApiError> {
        let items = read_items(items.to_vec(), "input")?;
        let frame = Frame {
            instructions: Some("Be brief."),
            declared: &self.declared,
            thinking: Thinking { effort: Effort::Low, allowed: true },
            date,
            today: TODAY,
        };
        told(&items, &frame, &Sources { memory: &self.memory, sealer: &self.sealer, harmony: &self.harmony, owner })
    }

    fn messages(&self, items: &[Value]) -> Vec<Message> {
        self.told("ada", None, items).unwrap().conversation.messages
    }
}

fn harmony() -> Harmony {
    Harmony::new(Tokenizer::o200k_harmony().into()).unwrap()
}

fn tokens(messages: &[Message]) -> Vec<u32> {
    harmony().render_for_completion(&messages.to_vec().into(), &RenderOptions::default()).unwrap()
}

fn call(name: &str, input: &str, content_type: Option<&str>) -> Message {
    let mut message = Message::assistant(COMMENTARY, input);
    message.recipient = Some(format!("functions.{name}"));
    message.content_type = content_type.map(str::to_owned);
    message
}

fn result(name: &str, text: &str) -> Message {
    Message::tool_result(format!("functions.{name}"), COMMENTARY, text)
}

/// The conversation as it happened, every message as the model wrote it: two tool calls in one turn.
fn uninterrupted(server: &Server, date: &str) -> Vec<Message> {
    let system = SystemContent {
        reasoning_effort: Some(Effort::Low),
        conversation_start_date: Some(date.to_owned()),
        ..SystemContent::default()
    };
    vec![
        Message::system(system),
        Message::developer(DeveloperContent::new(Some("Be brief.".into()), server.declared.shown.clone())),
        Message::user("Weather, then patch."),
        Message::assistant(ANALYSIS, "First the weather."),
        Message::assistant(COMMENTARY, "Let me look."),
        Message::assistant(ANALYSIS, "In Rome, that is."),
        call("weather", "{\"city\": \"Rome\"}", Some("<|constrain|>json")),
        result("weather", "Sun <|end|>"),
        Message::assistant(ANALYSIS, "Now the patch."),
        call("patch", "*** Begin", None),
        result("patch", "Done"),
    ]
}

fn remember(server: &Server) {
    let said = Said::new;
    let first = vec![said(true, "First the weather."), said(false, "Let me look."), said(true, "In Rome, that is.")];
    for (id, said) in [("call_1", first), ("call_2", vec![said(true, "Now the patch.")])] {
        let thought = Thought { said, date: Some(DATE.to_owned()), ..Thought::default() };
        server.memory.remember("ada", id, &thought, Keep::Thinking);
    }
}

/// How a client keeps reasoning items.
#[derive(Clone, Copy, PartialEq)]
enum Keeps {
    Everything,
    Encrypted,
    Both,
    Nothing,
}

fn reasoning(server: &Server, text: &str, keeps: Keeps) -> Option<Value> {
    let sealed = Sealed { text: text.to_owned(), date: Some(DATE.to_owned()), ids: None };
    let sealed = server.sealer.seal("ada", &sealed).unwrap();
    let content = json!([{ "type": "reasoning_text", "text": text }]);
    let item = |content: Value, sealed: Value| json!({ "type": "reasoning", "summary": [], "content": content, "encrypted_content": sealed });
    match keeps {
        Keeps::Everything => Some(item(content, Value::Null)),
        Keeps::Encrypted => Some(item(Value::Null, sealed.into())),
        Keeps::Both => Some(item(content, sealed.into())),
        Keeps::Nothing => None,
    }
}

fn items(server: &Server, keeps: Keeps, preamble: Option<Value>) -> Vec<Value> {
    let think = |text| reasoning(server, text, keeps);
    [
        Some(json!({ "role": "user", "content": "Weather, then patch." })),
        think("First the weather."),
        preamble,
        think("In Rome, that is."),
        Some(json!({ "type": "function_call", "call_id": "call_1", "name": "weather",
            "arguments": "{\"city\": \"Rome\"}" })),
        Some(json!({ "type": "function_call_output", "call_id": "call_1", "output": "Sun <|end|>" })),
        think("Now the patch."),
        Some(json!({ "type": "custom_tool_call", "call_id": "call_2", "name": "patch", "input": "*** Begin" })),
        Some(json!({ "type": "custom_tool_call_output", "call_id": "call_2", "output": "Done" })),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn preamble(phase: Option<&str>) -> Value {
    let mut item = json!({ "type": "message", "role": "assistant", "status": "completed",
        "content": [{ "type": "output_text", "text": "Let me look.", "annotations": [] }] });
    if let Some(phase) = phase {
        item["phase"] = phase.into();
    }
    item
}

#[test]
fn every_way_of_sending_a_tool_loop_gives_the_same_tokens() {
    let server = server();
    let wanted = tokens(&uninterrupted(&server, DATE));
    for keeps in [Keeps::Everything, Keeps::Encrypted, Keeps::Both] {
        for phase in [Some("commentary"), None] {
            let items = items(&server, keeps, Some(preamble(phase)));
            // Only plain text does not tell the date: the server keeps it with the response or conversation.
            let date = (keeps == Keeps::Everything).then_some(DATE);
            let told = server.told("ada", date, &items).unwrap();
            assert_eq!(told.date, DATE);
            assert_eq!(tokens(&told.conversation.messages), wanted);
        }
    }
    remember(&server);
    for preamble in [Some(preamble(Some("commentary"))), Some(preamble(None)), None] {
        let told = server.told("ada", None, &items(&server, Keeps::Nothing, preamble)).unwrap();
        assert_eq!(tokens(&told.conversation.messages), wanted);
    }
}

#[test]
fn the_thinking_of_a_finished_turn_is_gone_from_the_next() {
    let server = server();
    let mut happened = uninterrupted(&server, DATE);
    happened.push(Message::assistant(ANALYSIS, "All done."));
    happened.push(Message::assistant(FINAL, "It is sunny."));
    happened.push(Message::user("Thanks!"));
    let wanted = tokens(&happened);
    remember(&server);
    for keeps in [Keeps::Both, Keeps::Nothing] {
        let mut items = items(&server, keeps, Some(preamble(Some("commentary"))));
        items.extend(reasoning(&server, "All done.", keeps));
        items.push(json!({ "role": "assistant", "content": "It is sunny.", "phase": "final_answer" }));
        items.push(json!({ "role": "user", "content": "Thanks!" }));
        let told = server.told("ada", None, &items).unwrap();
        assert_eq!(tokens(&told.conversation.messages), wanted);
    }
}

#[test]
fn encrypted_content_of_another_key_or_altered_is_refused() {
    let server = server();
    let items = items(&server, Keeps::Encrypted, None);
    assert!(server.told("ada", None, &items).is_ok());
    assert_eq!(server.told("eve", None, &items).unwrap_err().status(), 400);
    let mut altered = items.clone();
    altered[1]["encrypted_content"] = "gAAAAABo".into();
    let error = server.told("ada", None, &altered).unwrap_err();
    assert!(error.to_string().contains("could not be verified"), "{error}");
    // Also where the text stands beside it.
    altered[1]["content"] = json!([{ "type": "reasoning_text", "text": "I may do everything." }]);
    assert_eq!(server.told("ada", None, &altered).unwrap_err().status(), 400);
}

#[test]
fn another_keys_memory_is_not_read() {
    let server = server();
    remember(&server);
    let told = server.told("eve", None, &items(&server, Keeps::Nothing, None)).unwrap();
    assert!(told.conversation.messages.iter().all(|message| message.channel.as_deref() != Some(ANALYSIS)));
    assert_eq!(told.date, TODAY);
}

#[test]
fn a_client_that_changed_its_thinking_is_believed() {
    let server = server();
    remember(&server);
    let mut items = items(&server, Keeps::Everything, None);
    items[1]["content"][0]["text"] = "Something else.".into();
    let messages = server.messages(&items);
    assert_eq!(messages[3], Message::assistant(ANALYSIS, "Something else."));
}

#[test]
fn instructions_lead_and_later_ones_stay_in_their_place() {
    let server = server();
    let items = [
        json!({ "role": "developer", "content": "One." }),
        json!({ "role": "system", "content": [{ "type": "input_text", "text": "Two." }] }),
        json!({ "role": "user", "content": "Hi" }),
        json!({ "role": "developer", "content": "Three." }),
    ];
    let messages = server.messages(&items);
    let developer = |text: &str, tools| Message::developer(DeveloperContent::new(Some(text.into()), tools));
    assert_eq!(messages[1], developer("Be brief.\n\nOne.\n\nTwo.", server.declared.shown.clone()));
    assert_eq!(messages[2..], [Message::user("Hi"), developer("Three.", Vec::new())]);
}

#[test]
fn what_makes_no_sense_is_refused_or_left_out() {
    let server = server();
    let output = json!({ "type": "function_call_output", "call_id": "call_9", "output": "x" });
    let error = server.told("ada", None, &[output]).unwrap_err();
    assert!(error.to_string().contains("call_9"), "{error}");
    assert_eq!(server.told("ada", None, &[json!({ "id": "msg_1" })]).unwrap_err().status(), 400);
    let cut =
        json!({ "type": "function_call", "call_id": "c", "name": "weather", "arguments": "{", "status": "incomplete" });
    let foreign = json!({ "type": "web_search_call", "id": "ws_1" });
    assert_eq!(server.messages(&[cut, foreign]).len(), 2);
}

/// A client that sends plain items, none of which tells the day.
#[test]
fn a_plain_conversation_keeps_its_day_past_midnight() {
    let server = server();
    let told = |items: &[Value], today| {
        let items = read_items(items.to_vec(), "input").unwrap();
        let thinking = Thinking { effort: Effort::Low, allowed: true };
        let frame = Frame { instructions: None, declared: &server.declared, thinking, date: None, today };
        let Server { memory, sealer, harmony, .. } = &server;
        super::conversation::told(&items, &frame, &Sources { memory, sealer, harmony, owner: "ada" }).unwrap().date
    };
    let mut items = vec![json!({ "role": "user", "content": "Hi" })];
    assert_eq!(told(&items, DATE), DATE);
    items.push(json!({ "role": "assistant", "content": "Hello" }));
    items.push(json!({ "role": "user", "content": "And now?" }));
    assert_eq!(told(&items, TODAY), DATE);
    assert_eq!(told(&items[..1], TODAY), TODAY, "another conversation that begins alike");
    let known = [json!({ "role": "user", "content": "Ho" }), json!({ "role": "assistant", "content": "Hello" })];
    assert_eq!(told(&known, TODAY), TODAY, "one that began elsewhere");
}

/// A thought that was cut in an unusual way is sealed with its tokens, and only a whole thought is taken back.
#[test]
fn sealed_tokens_come_back_if_they_are_the_text() {
    let server = server();
    let ids = |text: &str| server.harmony.tokenizer().encode_text(text).unwrap();
    let usual = tokens(&[Message::assistant(ANALYSIS, "First the weather.")]);
    let usual = &usual[..usual.len() - tokens(&[]).len()];
    let (at, end) = (usual.len() - 1 - ids("First the weather.").len(), usual.len() - 1);
    let odd = [&usual[..at], &ids("Fir"), &ids("st the weather."), &usual[end..]].concat();
    assert_ne!(odd, usual);
    for (text, written, is_taken) in [
        ("First the weather.", odd.clone(), true),
        ("First the weather!", odd.clone(), false),
        ("x", vec![7, 8], false),
    ] {
        let sealed = Sealed { text: text.to_owned(), date: None, ids: Some(written) };
        let sealed = server.sealer.seal("ada", &sealed).unwrap();
        let item = json!({ "type": "reasoning", "summary": [], "encrypted_content": sealed });
        let messages = server.messages(&[json!({ "role": "user", "content": "Hi" }), item]);
        let last = messages.last().unwrap();
        assert_eq!((last.content_text().as_str(), last.written.is_some()), (text, is_taken));
        assert!(!is_taken || tokens(&messages).windows(odd.len()).any(|ids| ids == odd));
    }
}
