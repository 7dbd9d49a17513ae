//! The parser against the vectors of OpenAI's library, and the outcome of every failure seen in the field (SPEC 9.9).

use crate::common::{
    check_invariants, encode_with_specials, feed, harmony, ids, messages, o200k, parse_completion, vectors,
};
use ossia_text::harmony::{
    Anomaly, Arguments, DeveloperContent, MessageEnd, MessageKind, ParsedMessage, Role, ToolDescription,
};
use ossia_text::{Event, Message, RenderOptions};
use serde_json::{Value, json};

fn m(role: &str, channel: Option<&str>, recipient: Option<&str>, content_type: Option<&str>, text: &str) -> Value {
    let mut value = json!({"role": role, "name": null, "content": [{"type": "text", "text": text}]});
    for (key, part) in [("channel", channel), ("recipient", recipient), ("content_type", content_type)] {
        if let Some(part) = part {
            value[key] = part.into();
        }
    }
    value
}

/// Where the library, with the role assistant given, returns something that no caller can want: a part of the header
/// with special tokens in it as recipient. Here it is what follows; the library's recipient is asserted too.
fn better_than_the_library() -> Vec<(&'static str, &'static str, Value)> {
    let tool = json!({"role": "tool", "name": "functions.f", "content": [{"type": "text", "text": "r"}], "channel": "commentary"});
    vec![
        (
            "content type only",
            "<|constrain|>json",
            json!([m("assistant", Some("final"), None, Some("<|constrain|>json"), "{}")]),
        ),
        ("tool message without recipient", "<|start|>functions.f", json!([tool])),
        ("user role", "<|start|>user", json!([m("user", None, None, None, "hi")])),
        ("doubled channel", "<|channel|>analysis", json!([m("assistant", Some("commentary"), None, None, "x")])),
        (
            "text before start",
            "junk<|start|>assistant",
            json!([m("assistant", None, None, None, "junk"), m("assistant", Some("final"), None, None, "x")]),
        ),
    ]
}

/// What becomes of the sequences for which the library fails in its lenient mode, role assistant given.
fn where_the_library_fails() -> Vec<(&'static str, Value)> {
    let call = m("assistant", Some("commentary"), Some("functions.f"), Some("<|constrain|>json"), "{}");
    let mut result = m("tool", Some("commentary"), Some("assistant"), None, "r");
    result["name"] = "functions.f".into();
    let final_y = m("assistant", Some("final"), None, None, "y");
    vec![
        ("recipient in role section", json!([call])),
        ("tool message", json!([result])),
        ("extra words", json!([call])),
        ("empty channel", json!([m("assistant", None, None, None, "x")])),
        ("text after end", json!([m("assistant", Some("analysis"), None, None, "x"), final_y])),
        ("truncated in header", json!([m("assistant", Some("fin"), None, None, "")])),
    ]
}

fn as_json(messages: &[ParsedMessage]) -> Value {
    serde_json::to_value(messages.iter().map(ParsedMessage::to_message).collect::<Vec<Message>>()).unwrap()
}

#[test]
fn vectors_are_equal_but_for_the_named_ones() {
    let (better, failing) = (better_than_the_library(), where_the_library_fails());
    let mut num_named = 0;
    for vector in vectors()["parse"].as_array().unwrap() {
        let name = vector["name"].as_str().unwrap();
        let ids = ids(&vector["ids"]);
        let found = as_json(&messages(feed(&mut harmony().completion_parser(), &ids)));
        let library = &vector["role=assistant,strict=False"];
        if let Some((_, recipient, wanted)) = better.iter().find(|(n, ..)| *n == name) {
            assert_eq!(library[0]["recipient"], *recipient, "{name}");
            assert_eq!(found, *wanted, "{name}");
        } else if let Some((_, wanted)) = failing.iter().find(|(n, _)| *n == name) {
            assert!(library.as_str().unwrap().starts_with("error: "), "{name}");
            assert_eq!(found, *wanted, "{name}");
        } else {
            assert_eq!(found, *library, "{name}");
            continue;
        }
        num_named += 1;
    }
    assert_eq!(num_named, better.len() + failing.len());
}

#[test]
fn vectors_without_a_role_in_the_prompt_are_equal() {
    let mut num_equal = 0;
    for vector in vectors()["parse"].as_array().unwrap() {
        let found = messages(feed(&mut harmony().parser(), &ids(&vector["ids"])));
        match &vector["role=None,strict=False"] {
            Value::String(_) => {
                assert!(!found.is_empty(), "{}: the library fails, nothing may be lost", vector["name"])
            }
            library => {
                assert_eq!(as_json(&found), *library, "{}", vector["name"]);
                num_equal += 1;
            }
        }
    }
    assert_eq!(num_equal, 3);
    let unnamed =
        vectors()["parse"].as_array().unwrap().iter().find(|v| v["name"] == "tool message without recipient").cloned();
    let found = messages(feed(&mut harmony().parser(), &ids(&unnamed.unwrap()["ids"])));
    assert_eq!((found[0].header.role, found[0].header.name.as_deref()), (Role::Tool, Some("functions.f")));
}

#[test]
fn deltas_of_the_stream_vector_are_equal() {
    let vector = &vectors()["stream"];
    let mut parser = harmony().completion_parser();
    let delta = |event| if let Event::Delta(text) = event { Some(text) } else { None };
    let deltas: Vec<Option<String>> =
        ids(&vector["ids"]).into_iter().map(|id| parser.push(id).into_iter().find_map(delta)).collect();
    assert_eq!(json!(deltas), vector["deltas"]);
}

#[test]
fn stop_tokens_are_the_librarys_for_assistant_actions_and_the_safety_stop() {
    let library = ids(&vectors()["stop_tokens_for_assistant_actions"]);
    let ours = harmony().stop_ids();
    assert!(library.iter().all(|id| ours.contains(id)));
    assert_eq!(ours.len(), library.len() + 1);
    assert!(ours.contains(&199_999));
}

fn one(text: &str) -> ParsedMessage {
    let mut all = parse_completion(text);
    assert_eq!(all.len(), 1, "{text}: {all:?}");
    all.remove(0)
}

#[test]
fn failure_1_text_without_header_is_the_answer() {
    let found = one("I can't help with that.<|return|>");
    assert_eq!((found.text.as_str(), found.header.kind()), ("I can't help with that.", MessageKind::Answer));
    assert_eq!((found.end, found.anomalies), (MessageEnd::Return, vec![Anomaly::MissingMessage]));
    let found = one("<|channel|>analysis I think so<|end|>");
    assert_eq!((found.text.as_str(), found.header.kind()), ("I think so", MessageKind::Thinking));
}

#[test]
fn failure_1_long_text_without_header_is_shown_while_it_arrives() {
    let mut parser = harmony().completion_parser();
    let ids = o200k().encode_text(&"No. ".repeat(200)).unwrap();
    let shown: usize = ids.iter().flat_map(|&id| parser.push(id)).filter(|e| matches!(e, Event::Delta(_))).count();
    assert!(shown > ids.len() / 2, "{shown} of {}", ids.len());
    assert_eq!(messages(parser.finish())[0].text, "No. ".repeat(200));
}

#[test]
fn failure_2_junk_in_the_channel() {
    for (text, channel, kind) in [
        ("<|channel|>commentary?<|message|>x<|end|>", Some("commentary"), MessageKind::Preamble),
        ("<|channel|>final.<|message|>x<|return|>", Some("final"), MessageKind::Answer),
        ("<|channel|>??<|message|>x<|end|>", Some("??"), MessageKind::Answer),
        ("<|channel|>comment<|message|>x<|end|>", Some("comment"), MessageKind::Answer),
        ("<|channel|><|channel|>final<|message|>x<|end|>", Some("final"), MessageKind::Answer),
        ("<|channel|>??<|channel|>analysis<|message|>x<|end|>", Some("analysis"), MessageKind::Thinking),
        ("<|channel|>final I will now answer<|message|>x<|end|>", Some("final"), MessageKind::Answer),
        ("<|channel|>final answer<|message|>x<|end|>", Some("final"), MessageKind::Answer),
        ("<|channel|>analysis let me think first<|message|>x<|end|>", Some("analysis"), MessageKind::Thinking),
    ] {
        let found = one(text);
        assert_eq!((found.header.channel.as_deref(), found.header.kind()), (channel, kind), "{text}");
        assert_eq!(found.text, "x", "{text}");
        assert!(!found.anomalies.is_empty(), "{text}");
        assert_eq!(found.source(), text);
    }
    let found = one("<|channel|>analysis let me think first<|message|>x<|end|>");
    assert_eq!(found.anomalies, [Anomaly::HeaderText("let me think first".into())]);
    let found = one("<|channel|>commentary?<|message|>x<|end|>");
    assert_eq!(found.anomalies, [Anomaly::UnknownChannel("commentary?".into())]);
}

#[test]
fn failure_3_missing_start_is_resynchronised() {
    let text = "<|channel|>analysis<|message|>t<|end|>assistant<|channel|>final<|message|>f<|return|>";
    let found = parse_completion(text);
    assert_eq!(found.len(), 2);
    assert_eq!((found[1].header.channel.as_deref(), found[1].header.role), (Some("final"), Role::Assistant));
    assert_eq!(found[1].anomalies, [Anomaly::MissingStart]);
    let bare = "<|channel|>analysis<|message|>t<|end|><|channel|>final<|message|>f<|return|>";
    assert_eq!(parse_completion(bare)[1].header.channel.as_deref(), Some("final"));
    let restarted = "<|start|>assistant<|channel|>final<|message|>f<|return|>";
    assert_eq!(one(restarted).header.channel.as_deref(), Some("final"));
}

fn weather() -> DeveloperContent {
    let tool = ToolDescription { name: "weather".into(), description: "w".into(), parameters: None };
    DeveloperContent::new(None, vec![tool])
}

#[test]
fn failure_4_calls_in_odd_forms_are_calls() {
    for (text, recipient, exists) in [
        ("<|channel|>analysis to=functions.weather <|constrain|>json<|message|>{}<|call|>", "functions.weather", true),
        ("<|channel|>commentary to=weather json<|message|>{}<|call|>", "weather", true),
        (
            " to=functions.weather<|channel|>commentary<|channel|>commentary<|message|>{}<|call|>",
            "functions.weather",
            true,
        ),
        (
            "<|channel|>commentary to=functions.weather<|constrain|>json please now<|message|>{}<|call|>",
            "functions.weather",
            true,
        ),
        ("<|channel|>commentary to=functions.wether json<|message|>{}<|call|>", "functions.wether", false),
        ("<|channel|>commentary to=python code<|message|>{}<|call|>", "python", false),
    ] {
        let call = one(text).tool_call().expect(text);
        assert_eq!((call.recipient.as_str(), call.find(&weather()).is_some()), (recipient, exists), "{text}");
        assert_eq!(call.arguments, Arguments::Json(json!({})), "{text}");
    }
    let found = one("<|channel|>commentary to=functions.weather <|constrain|>json please now<|message|>{}<|call|>");
    assert_eq!(found.header.content_type.as_deref(), Some("<|constrain|>json"));
    assert_eq!(found.anomalies, [Anomaly::HeaderText("please now".into())]);
}

#[test]
fn failure_4_a_channel_marker_written_as_text_is_cut_off_the_name() {
    let mut ids = vec![200_005];
    ids.extend(o200k().encode_text("commentary to=functions.weather<|channel|>commentary").unwrap());
    ids.push(200_008);
    ids.extend(o200k().encode_text("{}").unwrap());
    ids.push(200_012);
    let found = messages(feed(&mut harmony().completion_parser(), &ids));
    assert_eq!(found[0].header.recipient.as_deref(), Some("functions.weather"));
    assert_eq!(found[0].anomalies, [Anomaly::HeaderText("<|channel|>commentary".into())]);
}

#[test]
fn failure_5_arguments_cut_by_the_length_limit_say_so() {
    let found = one("<|channel|>commentary to=functions.weather <|constrain|>json<|message|>{\"place\":\"Os");
    assert_eq!(found.end, MessageEnd::Truncated);
    assert_eq!(found.tool_call().unwrap().arguments, Arguments::Truncated("{\"place\":\"Os".into()));
    let cut_in_header = one("<|channel|>commentary to=functions.weather <|constrain|>js");
    assert_eq!(cut_in_header.end, MessageEnd::Truncated);
    assert_eq!(cut_in_header.tool_call().unwrap().arguments, Arguments::Truncated(String::new()));
    let no_end =
        parse_completion("<|channel|>analysis<|message|>t<|start|>assistant<|channel|>final<|message|>f<|return|>");
    assert_eq!((no_end[0].end, no_end[0].text.as_str()), (MessageEnd::Missing, "t"));
    assert_eq!((no_end[1].end, no_end[1].text.as_str()), (MessageEnd::Return, "f"));
}

#[test]
fn failure_6_arguments_that_are_not_json_are_text() {
    let found = one("<|channel|>commentary to=functions.weather<|message|>print(1)<|call|>");
    assert_eq!(found.tool_call().unwrap().arguments, Arguments::Text("print(1)".into()));
    let found = one("<|channel|>commentary to=functions.weather<|message|>[1]<|call|>");
    assert_eq!(found.tool_call().unwrap().arguments, Arguments::Text("[1]".into()));
}

#[test]
fn failure_7_commentary_to_nobody_is_shown() {
    let found = one("<|channel|>commentary<|message|>Let me look.<|end|>");
    assert_eq!((found.header.kind(), found.tool_call()), (MessageKind::Preamble, None));
    assert!(found.anomalies.is_empty());
}

#[test]
fn failure_8_end_and_reserved_tokens_inside_a_header() {
    let found = parse_completion("<|channel|>analysis<|end|><|start|>assistant<|channel|>final<|message|>f<|return|>");
    assert_eq!((found[0].header.kind(), found[0].text.as_str()), (MessageKind::Thinking, ""));
    assert_eq!((found[1].header.kind(), found[1].text.as_str()), (MessageKind::Answer, "f"));
    let found = one("<|channel|>final<|reserved_200000|><|message|>f<|return|>");
    assert_eq!((found.header.channel.as_deref(), found.text.as_str()), (Some("final"), "f"));
    assert_eq!(found.anomalies, [Anomaly::SpecialInHeader("<|reserved_200000|>".into())]);
    let events = feed(&mut harmony().completion_parser(), &[200_005, 17_196, 201_088, 200_008, 88, u32::MAX, 200_002]);
    let found = messages(events);
    assert_eq!(found[0].text, "y<|unknown_4294967295|>");
    assert_eq!(found[0].anomalies, [Anomaly::SpecialInHeader("<|unknown_201088|>".into())]);
}

#[test]
fn failure_9_end_does_not_end_the_turn() {
    assert!(!harmony().stop_ids().contains(&200_007));
    let found = parse_completion(
        "<|channel|>analysis<|message|>t<|end|><|start|>assistant<|channel|>final<|message|>f<|return|>",
    );
    assert_eq!(found.len(), 2);
}

#[test]
fn failure_10_constraints_apply_to_the_content_of_final_only() {
    let text = "<|channel|>analysis<|message|>t<|end|><|start|>assistant<|channel|>final<|message|>{}<|return|>";
    let ids = encode_with_specials(o200k(), text);
    let mut parser = harmony().completion_parser();
    let inside: Vec<bool> = ids.iter().map(|&id| (parser.push(id), parser.is_in_final()).1).collect();
    let at_message = ids.iter().rposition(|&id| id == 200_008).unwrap();
    let wanted: Vec<bool> = (0..ids.len()).map(|i| (at_message..ids.len() - 1).contains(&i)).collect();
    assert_eq!(inside, wanted);
}

#[test]
fn nothing_gives_nothing_and_an_immediate_stop_gives_an_empty_message() {
    assert!(parse_completion("").is_empty());
    assert!(messages(feed(&mut harmony().parser(), &[])).is_empty());
    let found = one("<|return|>");
    assert_eq!((found.text.as_str(), found.end), ("", MessageEnd::Return));
}

#[test]
fn strays_and_headers_that_say_nothing_are_kept_as_trailing_text() {
    let text = "<|channel|>final<|message|>f<|return|><|endoftext|><|start|>assistant";
    let ids = encode_with_specials(o200k(), text);
    let mut parser = harmony().completion_parser();
    let events = feed(&mut parser, &ids);
    assert_eq!(parser.trailing(), "<|endoftext|><|start|>assistant");
    check_invariants(o200k(), &ids, &events, parser.trailing());
    assert_eq!(messages(events).len(), 1);
}

#[test]
fn an_endless_header_ends_in_content() {
    for text in ["to=a".to_owned() + &"a".repeat(200_000), " ".repeat(100_000)] {
        let ids = o200k().encode_text(&text).unwrap();
        let mut parser = harmony().completion_parser();
        let events = feed(&mut parser, &ids);
        check_invariants(o200k(), &ids, &events, parser.trailing());
        assert!(messages(events)[0].text.len() > 90_000);
    }
}

/// Headers in an order and a cutting that rendering would not choose, and text cut otherwise: repeated to the letter.
#[test]
fn what_the_model_wrote_is_rendered_to_the_letter() {
    let piece = |text: &str| encode_with_specials(o200k(), text);
    let odd = [
        piece("<|channel|>analysis<|message|>"),
        // "Hello", letter by letter.
        "Hello".chars().flat_map(|letter| piece(&letter.to_string())).collect(),
        piece("<|end|><|start|>assistant<|channel|>commentary to=functions.f json<|message|>{}<|call|>"),
    ]
    .concat();
    let mut parser = harmony().completion_parser();
    let parsed = messages(feed(&mut parser, &odd));
    let as_written =
        |parsed: &ParsedMessage| Message { written: Some(parsed.ids.clone().into()), ..parsed.to_message() };
    let render = |messages: Vec<Message>| harmony().render(&messages.into(), &RenderOptions::default()).unwrap();
    let rendered = render(parsed.iter().map(as_written).collect());
    assert_eq!(rendered, [piece("<|start|>assistant"), odd].concat());
    let canonical = render(parsed.iter().map(ParsedMessage::to_message).collect());
    assert_eq!(
        canonical,
        piece(
            "<|start|>assistant<|channel|>analysis<|message|>Hello<|end|>\
             <|start|>assistant to=functions.f<|channel|>commentary json<|message|>{}<|call|>"
        )
    );
    // Nobody sends ids in JSON, and a saved conversation has none.
    let json = serde_json::to_value(as_written(&parsed[0])).unwrap();
    assert!(json.get("written").is_none());
}

/// The drop rule is of channels, whatever a message was written with.
#[test]
fn written_thinking_is_dropped_like_any() {
    let thought = Message { written: Some([1, 2, 3].into()), ..Message::assistant("analysis", "x") };
    let messages = vec![Message::user("a"), thought, Message::assistant("final", "b")];
    let ids = harmony().render(&messages.into(), &RenderOptions::default()).unwrap();
    assert!(!ids.starts_with(&[1]) && !ids.windows(3).any(|ids| ids == [1, 2, 3]));
}
