//! The reader on what models write, well and badly: tokens of o200k_harmony in, events out.

use std::sync::OnceLock;

use ossia_kernels::ops::sample::Sampled;
use ossia_text::harmony::MessageKind;
use ossia_text::{Harmony, Tokenizer};

use super::reader::Reader;
use super::{FinishReason, TurnEvent, Usage};

fn harmony() -> &'static Harmony {
    static HARMONY: OnceLock<Harmony> = OnceLock::new();
    HARMONY.get_or_init(|| Harmony::new(Tokenizer::o200k_harmony().into()).unwrap())
}

/// The ids of a text in which the names of special tokens stand for themselves.
fn ids(text: &str) -> Vec<u32> {
    let tokenizer = harmony().tokenizer();
    let mut ids = Vec::new();
    for (n, part) in text.split("<|").enumerate() {
        let plain = match part.split_once("|>").filter(|_| n > 0) {
            Some((name, rest)) => {
                ids.push(tokenizer.special_id(&format!("<|{name}|>")).unwrap());
                rest
            }
            None => part,
        };
        ids.extend(tokenizer.encode_text(plain).unwrap());
    }
    ids
}

struct Read {
    events: Vec<TurnEvent>,
    num_read: usize,
}

fn read(text: &str, stop: &[&str], finish: FinishReason) -> Read {
    let stop = stop.iter().map(|text| (*text).to_owned()).collect();
    let mut reader = Reader::new(harmony(), vec!["functions.get_weather".into(), "browser.search".into()], stop);
    let (mut events, mut num_read) = (Vec::new(), 0);
    for token in ids(text) {
        let sampled = Sampled { token, logprob: Some(-(num_read as f32)), top: vec![(token, -0.5)] };
        num_read += 1;
        reader.token(&sampled, &mut events);
        if reader.is_stopped() {
            break;
        }
    }
    reader.finish(if reader.is_stopped() { FinishReason::Stop } else { finish }, &mut events);
    Read { events, num_read }
}

/// Kind, recipient and text of each message, after checking that deltas add up and events are in order.
fn messages(events: &[TurnEvent]) -> Vec<(MessageKind, Option<String>, String)> {
    let (mut found, mut open): (_, Option<String>) = (Vec::new(), None);
    for event in events {
        match event {
            TurnEvent::Started { .. } => {}
            TurnEvent::Start(_) => assert_eq!(open.replace(String::new()), None),
            TurnEvent::Delta { text, .. } => open.as_mut().unwrap().push_str(text),
            TurnEvent::End(message) => {
                assert_eq!(open.take().unwrap(), message.text);
                found.push((message.header.kind(), message.header.recipient.clone(), message.text.clone()));
            }
            TurnEvent::Done { .. } => assert_eq!(open, None),
        }
    }
    assert!(matches!(events.last(), Some(TurnEvent::Done { .. })));
    found
}

fn done(events: &[TurnEvent]) -> (FinishReason, Usage) {
    match events.last() {
        Some(TurnEvent::Done { finish, usage }) => (finish.clone(), *usage),
        other => panic!("{other:?}"),
    }
}

const THOUGHT: &str = "<|channel|>analysis<|message|>They greet.<|end|><|start|>assistant";

#[test]
fn thought_and_answer() {
    let read = read(&format!("{THOUGHT}<|channel|>final<|message|>Hello there<|return|>"), &[], FinishReason::Stop);
    let wanted =
        [(MessageKind::Thinking, None, "They greet.".into()), (MessageKind::Answer, None, "Hello there".into())];
    assert_eq!(messages(&read.events), wanted);
    let (finish, usage) = done(&read.events);
    assert_eq!(finish, FinishReason::Stop);
    assert_eq!(usage.completion_tokens, read.num_read);
    assert_eq!(usage.reasoning_tokens, ids("They greet.").len());
}

#[test]
fn calls_have_full_names() {
    for (recipient, full) in [
        ("functions.get_weather", "functions.get_weather"),
        ("get_weather", "functions.get_weather"),
        ("browser.search", "browser.search"),
    ] {
        let text =
            format!("{THOUGHT}<|channel|>commentary to={recipient} <|constrain|>json<|message|>{{\"a\":1}}<|call|>");
        let read = read(&text, &["a"], FinishReason::Stop);
        let wanted = (MessageKind::ToolCall, Some(full.to_owned()), "{\"a\":1}".to_owned());
        assert_eq!(messages(&read.events)[1], wanted);
        assert_eq!(done(&read.events).0, FinishReason::ToolCalls);
    }
}

#[test]
fn what_nobody_declared_is_an_answer() {
    for text in [
        "<|channel|>commentary to=functions.rm<|message|>{}<|call|>",
        "<|channel|>commentary to=search<|message|>{}<|call|>",
        "<|channel|>analysis to=python<|message|>{}<|call|>",
        "<|channel|>final<|message|><|end|><|start|>user<|message|>{}<|end|>",
        "<|message|>{}<|return|>",
        "<|channel|>odd<|message|>{}<|return|>",
    ] {
        let read = read(text, &[], FinishReason::Stop);
        let found = messages(&read.events);
        assert_eq!(found.last(), Some(&(MessageKind::Answer, None, "{}".to_owned())), "{text}");
        assert_eq!(done(&read.events).0, FinishReason::Stop, "{text}");
    }
}

#[test]
fn cut_off_calls_are_no_calls() {
    let text = "<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{\"a\":";
    let read = read(text, &[], FinishReason::Length);
    assert_eq!(messages(&read.events)[0].2, "{\"a\":");
    assert_eq!(done(&read.events).0, FinishReason::Length);
}

#[test]
fn stop_texts_end_the_answer_only() {
    let text = format!("{THOUGHT}<|channel|>final<|message|>They greet. One, two, three, four.<|return|>");
    let cut = read(&text, &["three", "wo, th"], FinishReason::Stop);
    assert_eq!(messages(&cut.events)[0].2, "They greet.");
    assert_eq!(messages(&cut.events)[1].2, "They greet. One, t");
    assert_eq!(done(&cut.events).0, FinishReason::Stop);
    assert!(cut.num_read < ids(&text).len());
    let held = read(&text, &["four.x", ". One, x"], FinishReason::Stop);
    assert_eq!(messages(&held.events)[1].2, "They greet. One, two, three, four.");
    let at_the_end = read(&text, &["."], FinishReason::Length);
    assert_eq!(messages(&at_the_end.events)[1].2, "They greet");
}

/// No delta of an answer holds the beginning of a stop text that comes after all.
#[test]
fn stop_texts_are_never_shown_in_part() {
    let read = read("<|channel|>final<|message|>abc END<|return|>", &[" END"], FinishReason::Stop);
    let shown: Vec<&str> = read
        .events
        .iter()
        .filter_map(|event| match event {
            TurnEvent::Delta { text, .. } => Some(text.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(shown, ["abc"]);
}

#[test]
fn each_token_of_the_text_has_its_logprob() {
    let text = "Ümläut 👩‍👩‍👧 ok";
    let source = format!("{THOUGHT}<|channel|>final<|message|>{text}<|return|>");
    for stop in [&[][..], &["never there"], &["Ümläut 👩‍👩‍👧 ok!"]] {
        let read = read(&source, stop, FinishReason::Stop);
        let mut by_message: Vec<Vec<u8>> = Vec::new();
        let mut positions = Vec::new();
        for event in &read.events {
            match event {
                TurnEvent::Start(_) => by_message.push(Vec::new()),
                TurnEvent::Delta { logprobs, .. } => {
                    by_message.last_mut().unwrap().extend(logprobs.iter().flat_map(|l| l.bytes.clone()));
                    positions.extend(logprobs.iter().map(|l| -l.logprob));
                    assert!(logprobs.iter().all(|l| l.top[0].bytes == l.bytes));
                }
                _ => {}
            }
        }
        assert_eq!(by_message, [b"They greet.".to_vec(), text.as_bytes().to_vec()], "{stop:?}");
        assert!(positions.is_sorted(), "{positions:?}");
    }
}

#[test]
fn text_without_a_header_keeps_its_logprobs() {
    let text = "Hello, world, this is an answer that was begun without a header, and it goes on for quite a while, \
                longer than any header could be, so that the parser must give up waiting for one. It does so after \
                two hundred and fifty-six bytes, and everything that came before is text of the answer as well.";
    let read = read(text, &[], FinishReason::Length);
    assert_eq!(messages(&read.events), [(MessageKind::Answer, None, text.to_owned())]);
    let logprobs = read.events.iter().filter_map(|event| match event {
        TurnEvent::Delta { logprobs, .. } => Some(logprobs.iter().flat_map(|l| l.bytes.clone()).collect::<Vec<u8>>()),
        _ => None,
    });
    assert_eq!(logprobs.flatten().collect::<Vec<u8>>(), text.as_bytes());
}

/// Any tokens at all: events in order, one end, text kept.
#[test]
fn any_tokens_at_all() {
    let mut state = 7_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state >> 33
    };
    let specials = ids("<|start|><|channel|><|message|><|end|><|call|><|return|><|constrain|>assistant analysis final");
    for _ in 0..500 {
        let mut reader = Reader::new(harmony(), vec!["functions.get_weather".into()], vec!["e".into()]);
        let mut events = Vec::new();
        for _ in 0..next() % 60 {
            let token =
                if next() % 2 == 0 { specials[next() as usize % specials.len()] } else { next() as u32 % 201_500 };
            reader.token(&Sampled { token, logprob: Some(-1.0), top: Vec::new() }, &mut events);
        }
        reader.finish(FinishReason::Length, &mut events);
        messages(&events);
    }
}
