//! Seeded mutations of what comes from outside: tokenizer.json, a model's tokens, saved conversations. 0 panics.

use std::sync::Arc;

use crate::common::{Rng, check_invariants, feed};
use ossia_text::{Conversation, Harmony, RenderOptions, Tokenizer, byte_level_tokenizer_json};

const NUM_INPUTS: usize = 200_000;

/// Pieces that mean something in the files.
const PIECES: [&str; 40] = [
    "null",
    "true",
    "false",
    "-1",
    "0",
    "4294967296",
    "1e999",
    "1048575",
    "\"\"",
    "[]",
    "{}",
    "[[[[[[[[",
    "{\"a\":",
    ",",
    ":",
    "\"",
    "\\",
    "\\u0000",
    "\\ud800",
    "\u{fffd}",
    "\"Ġ\"",
    "\"a b\"",
    "[\"a\",\"b\"]",
    "\"type\":\"Split\"",
    "\"type\":\"Sequence\"",
    "\"pattern\":{\"Regex\":\"\\\\s+(?!\\\\S)|\\\\s+\"}",
    "\"behavior\":\"Isolated\"",
    "\"Regex\":\"(a*)*\"",
    "\"special\":false",
    "\"ignore_merges\":true",
    "\"merges\":[\"a b\"]",
    "\"oneOf\":[{}]",
    "\"type\":\"object\"",
    "\"enum\":[\"a\"]",
    "\"nullable\":true",
    "\"recipient\":\"all\"",
    "<|constrain|>",
    "to=",
    "final",
    "\"content\":[]",
];

/// Changes a text in one to four places; what is no longer UTF-8 is replaced.
fn mutate(rng: &mut Rng, base: &str) -> String {
    let mut bytes = base.as_bytes().to_vec();
    for _ in 0..1 + rng.below(4) {
        let at = rng.below(bytes.len() + 1);
        let to = (at + rng.below(40)).min(bytes.len());
        match rng.below(8) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..to)),
            2 => {
                let copy = bytes[at..to].to_vec();
                let place = rng.below(bytes.len() + 1);
                bytes.splice(place..place, copy);
            }
            3 => bytes.insert(at, rng.next() as u8),
            4 if at < bytes.len() => bytes[at] ^= 1 << rng.below(8),
            5 if at < bytes.len() => bytes[at] = rng.pick(b"\"0123456789{}[],:abc -"),
            6 => drop(bytes.splice(at..at, rng.pick(&PIECES).bytes())),
            _ => drop(bytes.splice(at..to, rng.pick(&PIECES).bytes())),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

const SMALL: &str = concat!(
    r#"{"added_tokens":[{"id":8,"content":"<|end|>","special":true},{"id":9,"content":"ab c","special":false}],"#,
    r#""normalizer":null,"pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"\\w+|\\s"},"#,
    r#""behavior":"Isolated","invert":false},{"type":"ByteLevel","add_prefix_space":false,"use_regex":false}]},"#,
    r#""decoder":{"type":"ByteLevel"},"model":{"type":"BPE","vocab":{"a":0,"b":1,"c":2,"Ġ":3,"ab":4,"bc":5,"abc":6,"Ġabc":7},"#,
    r#""merges":["a b",["b","c"],"ab c","Ġ abc"]}}"#,
);

#[test]
fn tokenizer_json() {
    let byte_level = byte_level_tokenizer_json(110).unwrap();
    let mut rng = Rng(21);
    let mut num_accepted = 0;
    for i in 0..NUM_INPUTS {
        let base = if i % 4 == 0 { byte_level.as_str() } else { SMALL };
        let Ok(tokenizer) = Tokenizer::from_json(&mutate(&mut rng, base)) else { continue };
        num_accepted += 1;
        for text in ["ab c abcabc  <|end|>\n", "中 a\u{301}", ""] {
            if let Ok(ids) = tokenizer.encode_text(text) {
                assert_eq!(tokenizer.decode(&ids), text.as_bytes());
                assert!(!ids.iter().any(|&id| tokenizer.is_special(id)));
            }
        }
        tokenizer.decode(&[0, 9, u32::MAX]);
        tokenizer.unsampleable_ids(12);
    }
    assert!(
        (NUM_INPUTS / 50..NUM_INPUTS / 2).contains(&num_accepted),
        "{num_accepted} accepted: mutations too wild or too tame"
    );
}

const COMPLETIONS: [&str; 6] = [
    "<|channel|>analysis<|message|>We need {\"a\":1}.<|end|><|start|>assistant<|channel|>final<|message|>Hi 🙂<|return|>",
    "<|channel|>commentary to=functions.f <|constrain|>json<|message|>{\"place\":\"Oslo\",\"n\":[1,2.5e3,null]}<|call|>",
    "<|start|>functions.f to=assistant<|channel|>commentary<|message|>[{}]<|end|><|start|>assistant to=python code<|message|>1",
    "I can't help with that.<|end|>assistant<|channel|>final<|message|>no<|endoftext|>",
    "<|channel|>commentary?<|channel|>final json<|message|><|channel|>x<|message|><|return|><|return|>",
    "assistant<|constrain|><|start|><|start|>user:bob<|message|>æøå<|start|>developer<|message|>",
];

/// The ids of a text in which special tokens' names are special tokens, but for one in ten.
fn tokens(rng: &mut Rng, tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    let mut ids = Vec::new();
    for part in text.split_inclusive("|>") {
        let (text, name) = part.split_at(part.rfind("<|").unwrap_or(part.len()));
        ids.extend(tokenizer.encode_text(text).unwrap());
        match tokenizer.special_id(name) {
            Some(id) if rng.below(10) > 0 => ids.push(id),
            _ => ids.extend(tokenizer.encode_text(name).unwrap()),
        }
    }
    ids
}

#[test]
fn harmony_parser() {
    let tokenizer = Arc::new(Tokenizer::from_json(&byte_level_tokenizer_json(512).unwrap()).unwrap());
    let harmony = Harmony::new(tokenizer.clone()).unwrap();
    let mut rng = Rng(22);
    for _ in 0..NUM_INPUTS {
        let base = rng.pick(&COMPLETIONS);
        let text = mutate(&mut rng, base);
        let mut ids = tokens(&mut rng, &tokenizer, &text);
        if let Some(at) = rng.below(4).checked_sub(2).map(|_| rng.below(ids.len() + 1)) {
            ids.insert(at, rng.below(520) as u32);
        }
        let mut parser = if rng.below(2) == 0 { harmony.completion_parser() } else { harmony.parser() };
        let events = feed(&mut parser, &ids);
        check_invariants(&tokenizer, &ids, &events, parser.trailing());
        for message in crate::common::messages(events) {
            let again: ossia_text::Message =
                serde_json::from_value(serde_json::to_value(message.to_message()).unwrap()).unwrap();
            assert_eq!(again, message.to_message());
            message.tool_call();
        }
    }
}

#[test]
fn saved_conversations() {
    let vectors = crate::common::vectors();
    let bases: Vec<String> =
        vectors["render"].as_array().unwrap().iter().map(|v| format!("{{\"messages\":{}}}", v["messages"])).collect();
    let mut rng = Rng(23);
    let mut num_rendered = 0;
    for _ in 0..50_000 {
        let at = rng.below(bases.len());
        let Ok(conversation) = serde_json::from_str::<Conversation>(&mutate(&mut rng, &bases[at])) else { continue };
        let rendered = crate::common::harmony().render_for_completion(&conversation, &RenderOptions::default());
        num_rendered += usize::from(rendered.is_ok());
    }
    assert!(num_rendered > 1_000, "{num_rendered}");
}
