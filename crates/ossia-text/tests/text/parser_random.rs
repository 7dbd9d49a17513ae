//! The parser on random and on cut token sequences: no panic, text conserved, incremental equal to whole.

use std::sync::Arc;

use crate::common::{Rng, check_invariants, feed, harmony, mixed_text, o200k};
use ossia_text::harmony::{ANALYSIS, COMMENTARY, DeveloperContent, FINAL, SystemContent, ToolDescription};
use ossia_text::{Conversation, Event, Harmony, Message, RenderOptions, Tokenizer, byte_level_tokenizer_json};

const HEADER_WORDS: [&str; 16] = [
    "assistant",
    "user",
    "system",
    "developer",
    "tool",
    "final",
    "analysis",
    "comment",
    "commentary",
    " to",
    "=",
    "functions",
    ".f",
    " json",
    " code",
    " ",
];

/// A random id: special ones more often than not, words of headers, pieces of characters, ids that do not exist.
fn random_id(rng: &mut Rng, words: &[u32]) -> u32 {
    match rng.below(16) {
        0..=6 => rng.pick(&[200_006, 200_005, 200_008, 200_007, 200_003, 200_012, 200_002, 199_999]),
        7 => rng.pick(&[200_000, 199_998, 201_087, 201_088, u32::MAX]),
        8..=12 => rng.pick(words),
        13 => rng.below(256) as u32,
        _ => rng.below(199_998) as u32,
    }
}

#[test]
fn a_million_random_sequences() {
    let words: Vec<u32> = HEADER_WORDS.iter().flat_map(|word| o200k().encode_text(word).unwrap()).collect();
    let mut rng = Rng(7);
    for i in 0..1_000_000 {
        let len = rng.below(13);
        let ids: Vec<u32> = (0..len).map(|_| random_id(&mut rng, &words)).collect();
        let mut parser = if i % 2 == 0 { harmony().completion_parser() } else { harmony().parser() };
        let events = feed(&mut parser, &ids);
        check_invariants(o200k(), &ids, &events, parser.trailing());
    }
}

#[test]
fn long_random_sequences() {
    let words: Vec<u32> = HEADER_WORDS.iter().flat_map(|word| o200k().encode_text(word).unwrap()).collect();
    let mut rng = Rng(8);
    for _ in 0..200 {
        let ids: Vec<u32> = (0..2_000).map(|_| random_id(&mut rng, &words)).collect();
        let mut parser = harmony().completion_parser();
        let events = feed(&mut parser, &ids);
        check_invariants(o200k(), &ids, &events, parser.trailing());
    }
}

fn random_message(rng: &mut Rng) -> Message {
    let size = rng.below(60);
    let text = mixed_text(rng, size);
    let mut message = match rng.below(6) {
        0 => Message::user(text),
        1 => Message::assistant(FINAL, text),
        2 => Message::tool_result("functions.f", COMMENTARY, text),
        3 => Message::assistant(COMMENTARY, text),
        _ => Message::assistant(ANALYSIS, text),
    };
    if rng.below(4) == 0 && message.is_from_assistant() {
        message.recipient = Some("functions.f".into());
        message.content_type = [None, Some("<|constrain|>json".into()), Some("code".into())][rng.below(3)].clone();
    }
    message
}

trait FromAssistant {
    fn is_from_assistant(&self) -> bool;
}

impl FromAssistant for Message {
    fn is_from_assistant(&self) -> bool {
        self.author.role == ossia_text::Role::Assistant
    }
}

/// A conversation as an application renders it: a system message, perhaps tools, some turns.
fn random_conversation(rng: &mut Rng) -> Conversation {
    let mut messages = Vec::new();
    if rng.below(4) == 0 {
        messages.push(Message::system(SystemContent::default()));
        let tool = ToolDescription { name: "f".into(), description: "Does f.".into(), parameters: None };
        messages.push(Message::developer(DeveloperContent::new(Some("Be brief.".into()), vec![tool])));
    }
    messages.extend((0..1 + rng.below(6)).map(|_| random_message(rng)));
    messages.into()
}

fn keep_all() -> RenderOptions {
    RenderOptions { drop: ossia_text::harmony::DropRule::KeepAll }
}

#[test]
fn rendered_conversations_come_back() {
    let mut rng = Rng(9);
    for _ in 0..500 {
        let conversation = Conversation::from((0..4).map(|_| random_message(&mut rng)).collect::<Vec<_>>());
        let ids = harmony().render(&conversation, &keep_all()).unwrap();
        let found = crate::common::messages(feed(&mut harmony().parser(), &ids));
        let back: Vec<Message> = found.iter().map(|message| message.to_message()).collect();
        assert_eq!(back, conversation.messages);
        assert!(found.iter().all(|message| message.anomalies.is_empty()));
    }
}

#[test]
fn every_split_point_of_200_rendered_conversations() {
    let mut rng = Rng(10);
    let mut num_splits = 0;
    for _ in 0..200 {
        let ids = harmony().render(&random_conversation(&mut rng), &keep_all()).unwrap();
        let whole = feed(&mut harmony().parser(), &ids);
        let mut parser = harmony().parser();
        let mut before: Vec<Event> = Vec::new();
        for at in 0..=ids.len() {
            let (first, rest) = ids.split_at(at);
            let mut cut = parser.clone();
            let cut_events: Vec<Event> = before.iter().cloned().chain(cut.finish()).collect();
            check_invariants(o200k(), first, &cut_events, cut.trailing());
            let after = feed(&mut parser.clone(), rest);
            assert!(before.iter().chain(&after).eq(&whole), "split at {at} of {ids:?}");
            num_splits += 1;
            before.extend(rest.first().into_iter().flat_map(|&id| parser.push(id)));
        }
    }
    assert!(num_splits > 20_000, "{num_splits}");
}

#[test]
fn a_small_vocabulary_speaks_harmony_too() {
    let tokenizer = Arc::new(Tokenizer::from_json(&byte_level_tokenizer_json(512).unwrap()).unwrap());
    let harmony = Harmony::new(tokenizer.clone()).unwrap();
    let mut rng = Rng(11);
    for _ in 0..20_000 {
        let ids: Vec<u32> = (0..rng.below(40))
            .map(|_| if rng.below(3) == 0 { 503 + rng.below(10) as u32 } else { rng.below(512) as u32 })
            .collect();
        let mut parser = harmony.completion_parser();
        let events = feed(&mut parser, &ids);
        check_invariants(&tokenizer, &ids, &events, parser.trailing());
    }
    let conversation = Conversation::from(vec![Message::user("Hei på deg 🙂"), Message::assistant(FINAL, "中")]);
    let ids = harmony.render(&conversation, &keep_all()).unwrap();
    let found = crate::common::messages(feed(&mut harmony.parser(), &ids));
    assert_eq!(found.iter().map(|m| m.to_message()).collect::<Vec<_>>(), conversation.messages);
}
