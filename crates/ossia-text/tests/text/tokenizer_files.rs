//! Tokenizers from small files: the byte-level tokenizer.json we write, GGUF metadata, and what is refused, how.

use crate::common::{Rng, mixed_text};
use ossia_text::{GgufVocab, TextError, Tokenizer, Utf8Stream, byte_level_tokenizer_json};
use serde_json::{Value, json};

#[test]
fn a_byte_level_vocabulary_holds_every_text() {
    for size in [265, 512, 4096] {
        let tokenizer = Tokenizer::from_json(&byte_level_tokenizer_json(size).unwrap()).unwrap();
        assert_eq!(tokenizer.vocab_size(), size);
        let text = mixed_text(&mut Rng(5), 20_000);
        let ids = tokenizer.encode_text(&text).unwrap();
        assert!(ids.iter().map(|&id| id as u8).eq(text.bytes()), "one token per byte, its id the byte");
        assert_eq!(tokenizer.decode(&ids), text.as_bytes());
        let s = tokenizer.specials();
        let last = size as u32 - 1;
        assert_eq!((s.start_of_text, s.call, s.channel), (Some(last - 8), Some(last), Some(last - 4)));
        let masked: Vec<u32> = (256..last - 8).chain([last + 1]).collect();
        assert_eq!(tokenizer.unsampleable_ids(size + 1), masked);
        assert_eq!(tokenizer.stop_ids(), [last - 6, last, last - 7]);
    }
}

#[test]
fn a_tiny_vocabulary_holds_printable_ascii_and_names_the_byte_it_lacks() {
    for size in [105, 128, 264] {
        let tokenizer = Tokenizer::from_json(&byte_level_tokenizer_json(size).unwrap()).unwrap();
        assert_eq!(tokenizer.vocab_size(), size);
        let text = "Hello, world!\n~ 0123 {}";
        assert_eq!(tokenizer.decode(&tokenizer.encode_text(text).unwrap()), text.as_bytes());
        let error = tokenizer.encode_text("ab\u{e6}").unwrap_err();
        assert!(matches!(error, TextError::NoTokenForByte { byte: 0xc3, at: 2 }), "{error}");
        assert!(tokenizer.specials().message.is_some());
    }
    for size in [0, 104, (1 << 20) + 1, usize::MAX] {
        assert!(matches!(byte_level_tokenizer_json(size), Err(TextError::VocabSize { least: 105, .. })), "{size}");
    }
}

#[test]
fn special_names_in_text_stay_text() {
    let tokenizer = Tokenizer::from_json(&byte_level_tokenizer_json(512).unwrap()).unwrap();
    let ids = tokenizer.encode_text("<|end|><|reserved_300|>").unwrap();
    assert_eq!(ids.len(), 23);
    assert!(!ids.iter().any(|&id| tokenizer.is_special(id)));
}

/// A small tokenizer.json with everything that is supported.
fn small() -> Value {
    json!({
        "added_tokens": [
            {"id": 8, "content": "<|end|>", "special": true},
            {"id": 9, "content": "ab c", "special": false},
            {"id": 10, "content": "<|odd|>", "special": false},
        ],
        "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},
        "decoder": {"type": "ByteLevel"},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "", "byte_fallback": false,
            "vocab": {"a": 0, "b": 1, "c": 2, "Ġ": 3, "ab": 4, "bc": 5, "abc": 6, "Ġabc": 7},
            "merges": ["a b", ["b", "c"], "ab c", "Ġ abc"],
        },
    })
}

fn ids(file: &Value, text: &str) -> Vec<u32> {
    Tokenizer::from_json(&file.to_string()).unwrap().encode_text(text).unwrap()
}

#[test]
fn merges_go_by_rank_then_from_the_left() {
    let file = small();
    assert_eq!(ids(&file, "abc"), [6]);
    assert_eq!(ids(&file, "bca abc"), [5, 0, 7]);
    assert_eq!(ids(&file, "bcab"), [5, 4]);
    assert_eq!(ids(&file, "abab  abc"), [4, 4, 3, 7]);
    let mut swapped = small();
    swapped["model"]["merges"] = json!(["b c", "a b"]);
    assert_eq!(ids(&swapped, "abc"), [0, 5]);
    swapped["model"]["ignore_merges"] = true.into();
    assert_eq!(ids(&swapped, "abc ab"), [6, 3, 4]);
}

#[test]
fn added_tokens_are_found_in_text_and_special_ones_are_not() {
    let file = small();
    assert_eq!(ids(&file, "cab cab"), [2, 9, 4]);
    let mut longer = small();
    longer["added_tokens"][2] = json!({"id": 11, "content": "ab ca", "special": false});
    assert_eq!(ids(&longer, "ab cab c"), [11, 1, 3, 2], "the leftmost, of those the longest");
    let tokenizer = Tokenizer::from_json(&file.to_string()).unwrap();
    assert!(!tokenizer.is_special(9) && tokenizer.is_special(8) && tokenizer.is_special(10));
    assert!(matches!(tokenizer.encode_text("<|end|>"), Err(TextError::NoTokenForByte { byte: b'<', at: 0 })));
    assert_eq!(tokenizer.decode(&[8, 9, 0, 77]), "<|end|>ab ca\u{fffd}".as_bytes());
}

#[test]
fn merges_never_make_a_special_token() {
    let mut file = small();
    file["model"]["vocab"]["<|abc|>"] = 11.into();
    for (i, token) in ["<", "|", ">", "<|", "<|abc", "<|abc|"].into_iter().enumerate() {
        file["model"]["vocab"][token] = (12 + i).into();
    }
    file["added_tokens"][0] = json!({"id": 11, "content": "<|abc|>", "special": true});
    file["model"]["merges"] = json!(["a b", "ab c", "< |", "<| abc", "<|abc |", "<|abc| >"]);
    file["pre_tokenizer"]["use_regex"] = false.into();
    assert_eq!(ids(&file, "<|abc|>a"), [17, 14, 0], "all merges apply but the last");
}

/// Each change to the small file is refused, with these words.
#[test]
fn what_is_not_supported_is_named() {
    let steps = vec![json!({"type": "ByteLevel", "add_prefix_space": false}); 5];
    let many: Vec<Value> = (8..5_000).map(|id| json!({"id": id, "content": format!("t{id}")})).collect();
    let cases: [(&str, Value, &str); 27] = [
        ("/model/type", json!("WordPiece"), "model.type is Some(\"WordPiece\"), wanted \"BPE\""),
        ("/normalizer", json!({"type": "NFC"}), "normalizer \"NFC\" is not supported"),
        ("/decoder", json!({"type": "Metaspace"}), "decoder \"Metaspace\" is not supported"),
        ("/pre_tokenizer", json!(null), "pre_tokenizer is missing"),
        ("/pre_tokenizer", json!({"type": "Whitespace"}), "does not end in ByteLevel"),
        ("/pre_tokenizer", json!({"type": "Sequence", "pretokenizers": []}), "does not end in ByteLevel"),
        (
            "/pre_tokenizer",
            json!({"type": "Sequence", "pretokenizers": steps[..2]}),
            "\"ByteLevel\" is not supported, wanted Split",
        ),
        ("/pre_tokenizer", json!({"type": "Sequence", "pretokenizers": steps}), "expected a list of at most 4 entries"),
        ("/pre_tokenizer/add_prefix_space", json!(true), "add_prefix_space is not supported"),
        ("/model/dropout", json!(0.1), "model.dropout is set"),
        ("/model/byte_fallback", json!(true), "byte_fallback is not supported"),
        ("/model/continuing_subword_prefix", json!("##"), "continuing_subword_prefix is not supported"),
        ("/model/vocab/a", json!(1), "id 1 is given to two tokens"),
        ("/model/vocab/a", json!(1_048_576), "a token's id is 1048576, more than the limit of 1048575"),
        ("/model/vocab/a", json!(-1), "not a tokenizer: invalid value"),
        ("/model/vocab", json!({"a b": 0}), "is not written in the byte-level alphabet"),
        ("/model/vocab", json!({"": 0}), "is not written in the byte-level alphabet"),
        ("/model/merges/0", json!("a x"), "a merge names \"x\", which is no token"),
        ("/model/merges/0", json!("a c"), "a merge names \"ac\", which is no token"),
        ("/model/merges/0", json!("b c"), "is listed twice"),
        ("/model/merges/0", json!(["a", "b", "c"]), "a merge must have two parts"),
        ("/added_tokens/0/id", json!(3), "takes the id 3 of another"),
        ("/added_tokens/0/id", json!(10), "id 10 is given to two special tokens"),
        ("/added_tokens/1/content", json!(""), "added token 9 has 0 bytes"),
        ("/added_tokens/1/content", json!("x".repeat(257)), "added token 9 has 257 bytes, wanted 1 to 256"),
        ("/added_tokens", many.into(), "more than 4096 added tokens that are not special"),
        ("/added_tokens/1/lstrip", json!(true), "single_word, lstrip, rstrip are not supported"),
    ];
    for (place, value, wanted) in cases {
        let mut file = small();
        let (parent, key) = place.rsplit_once('/').unwrap();
        match file.pointer_mut(parent).unwrap() {
            Value::Array(list) => list[key.parse::<usize>().unwrap()] = value,
            object => object[key] = value,
        }
        let error = Tokenizer::from_json(&file.to_string()).unwrap_err().to_string();
        assert!(error.contains(wanted) && error.starts_with("tokenizer.json: "), "{place}: {error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

fn with_split(pattern: &str) -> String {
    let mut file = small();
    file["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false},
        {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}]});
    file.to_string()
}

#[test]
fn hostile_patterns_are_refused_or_harmless() {
    for pattern in ["(", r"a(?=b)", r"\1", r"(?!\S)|a", r"\p{Nonsense}", &"(".repeat(1_000), &"a".repeat(5_000)] {
        let error = Tokenizer::from_json(&with_split(pattern)).unwrap_err().to_string();
        assert!(error.contains("the split pattern") && !error.contains('\n'), "{pattern}: {error}");
    }
    let error = Tokenizer::from_json(&with_split(r"((\w{500}){500}){500}")).unwrap_err().to_string();
    assert!(error.contains("the split pattern cannot be used"), "{error}");
    let text = "ab".repeat(20_000);
    for pattern in ["", "a*", r"\b", "(a*)*b*", r"(a|aa)+$", "x", r"$|^"] {
        let tokenizer = Tokenizer::from_json(&with_split(pattern)).unwrap();
        assert_eq!(tokenizer.decode(&tokenizer.encode_text(&text).unwrap()), text.as_bytes(), "{pattern}");
    }
}

#[test]
fn look_ahead_gives_back_the_last_white_space() {
    let file: Value = serde_json::from_str(&with_split(r"\w+|\s+(?!\S)|\s+")).unwrap();
    assert_eq!(ids(&file, "a   abc"), [0, 3, 3, 3, 6]);
    let mut joined = file;
    joined["model"]["vocab"]["ĠĠ"] = 11.into();
    joined["model"]["merges"] = json!([["Ġ", "Ġ"]]);
    assert_eq!(ids(&joined, "a   a  "), [0, 11, 3, 0, 11], "two, one given back, then two at the end");
    assert_eq!(ids(&joined, "  a"), [3, 3, 0], "one given back, so that the two are never joined");
}

#[test]
fn deep_huge_and_broken_json_is_one_line() {
    let deep = "[".repeat(100_000);
    let nested = r#"{"model":"#.repeat(10_000);
    let huge = " ".repeat((32 << 20) + 1);
    for text in ["", "null", "{}", "[1,2]", "{\"model\":{}}", &deep, &nested, &huge, "\u{feff}{}"] {
        let error = Tokenizer::from_json(text).unwrap_err().to_string();
        assert!(error.starts_with("tokenizer.json: ") && !error.contains('\n'), "{error}");
    }
    let error = Tokenizer::from_json_file("/nonexistent/tokenizer.json".as_ref()).unwrap_err().to_string();
    assert!(error.starts_with("/nonexistent/tokenizer.json: cannot be read"), "{error}");
    let path = std::env::temp_dir().join(format!("ossia-text-{}.json", std::process::id()));
    for (bytes, wanted) in [(b"{\xff}".to_vec(), "not text"), (vec![0xe4; (32 << 20) + 1], "its size in bytes is")] {
        std::fs::write(&path, bytes).unwrap();
        let error = Tokenizer::from_json_file(&path).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{}: {wanted}", path.display())), "{error}");
    }
    std::fs::write(&path, small().to_string()).unwrap();
    assert_eq!(Tokenizer::from_json_file(&path).unwrap().vocab_size(), 11);
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn every_truncation_of_a_file_is_an_error() {
    let text = small().to_string();
    for at in (0..text.len()).filter(|&at| text.is_char_boundary(at)) {
        assert!(Tokenizer::from_json(&text[..at]).is_err(), "{at}");
    }
}

fn gguf(tokens: &[&str], types: &[i32], merges: &[&str]) -> GgufVocab {
    let own = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
    GgufVocab {
        model: "gpt2".into(),
        pre: "gpt-4o".into(),
        tokens: own(tokens),
        types: types.to_vec(),
        merges: own(merges),
    }
}

#[test]
fn a_gguf_vocabulary_with_types_and_useless_merges() {
    let tokens = ["a", "b", "ab", "<|end|>", "<|reserved_4|>", "[PAD5]", "a b", ""];
    let vocab = gguf(&tokens, &[1, 1, 1, 3, 3, 5, 4, 3], &["z q", "a b", "nonsense", "", "a b", "b a"]);
    let tokenizer = Tokenizer::from_gguf(vocab).unwrap();
    assert_eq!(tokenizer.encode_text("abba").unwrap(), [2, 1, 0]);
    assert_eq!(tokenizer.encode_text("aa bb").unwrap(), [0, 6, 1]);
    assert_eq!(tokenizer.specials().end, Some(3));
    assert_eq!(tokenizer.unsampleable_ids(9), [4, 5, 7, 8]);
    assert_eq!(tokenizer.token_bytes(7), Some(b"<|reserved_7|>".as_slice()));
    assert!(!tokenizer.is_o200k_harmony());
}

#[test]
fn a_gguf_without_types_knows_special_tokens_by_their_form() {
    let tokenizer = Tokenizer::from_gguf(gguf(&["a", "<|channel|>"], &[], &["a <|channel|>"])).unwrap();
    assert_eq!(tokenizer.specials().channel, Some(1));
    assert_eq!(tokenizer.encode_text("aa").unwrap(), [0, 0]);
}

#[test]
fn a_gguf_vocabulary_as_a_tokenizer_json() {
    let tokens = ["a", "b", "ab", "<|end|>", "<|reserved_4|>", "[PAD5]", "a b", "", "[PAD8]"];
    let vocab = gguf(&tokens, &[1, 1, 1, 3, 3, 5, 4, 3, 5], &["z q", "a b", "nonsense", "", "a b", "b a"]);
    for pre in ["gpt-4o", "gpt-2"] {
        let vocab = GgufVocab { pre: pre.into(), ..vocab.clone() };
        let text = Tokenizer::json_from_gguf(vocab.clone()).unwrap();
        let (wanted, found) = (Tokenizer::from_gguf(vocab).unwrap(), Tokenizer::from_json(&text).unwrap());
        for said in ["abba", "aa bb", "a bab", "aaa's", "<|end|>"] {
            assert_eq!(found.encode_text(said).ok(), wanted.encode_text(said).ok(), "{said}");
        }
        assert_eq!((found.specials(), found.vocab_size()), (wanted.specials(), 8), "rows without a token are none");
        let json: Value = serde_json::from_str(&text).unwrap();
        let added: Vec<_> =
            json["added_tokens"].as_array().unwrap().iter().map(|t| (&t["id"], &t["special"])).collect();
        let wanted = [(3, true), (4, true), (6, false), (7, true)].map(|(id, special)| (json!(id), json!(special)));
        assert_eq!(added, wanted.iter().map(|(id, special)| (id, special)).collect::<Vec<_>>());
        // There is a hole before them: others would count them on from 3.
        assert_eq!((&json["model"]["vocab"]["a b"], &json["model"]["vocab"]["<|end|>"]), (&json!(6), &json!(3)));
        let is_gpt2 = json["pre_tokenizer"]["type"] == "ByteLevel";
        assert_eq!(is_gpt2, pre == "gpt-2", "{}", json["pre_tokenizer"]);
    }
    let error = Tokenizer::json_from_gguf(gguf(&["a", "a"], &[], &[])).unwrap_err().to_string();
    assert!(error.contains("token 1 has the bytes of another"), "{error}");
    assert!(Tokenizer::json_from_gguf(gguf(&["中"], &[], &[])).is_err());
}

#[test]
fn bad_gguf_vocabularies_are_one_line() {
    let bad = |change: fn(&mut GgufVocab)| {
        let mut vocab = gguf(&["a", "b"], &[1, 1], &[]);
        change(&mut vocab);
        Tokenizer::from_gguf(vocab).unwrap_err().to_string()
    };
    let cases: [(String, &str); 6] = [
        (bad(|v| v.model = "llama".into()), "tokenizer.ggml.model is \"llama\", wanted \"gpt2\""),
        (bad(|v| v.pre = "qwen2".into()), "tokenizer.ggml.pre is \"qwen2\""),
        (bad(|v| v.types = vec![1]), "token_type has 1 entries for 2 tokens"),
        (bad(|v| v.tokens[0] = "中".into()), "token 0 \"中\" is not written in the byte-level alphabet"),
        (bad(|v| v.tokens[1] = String::new()), "token 1 \"\" is not written"),
        (bad(|v| v.merges = vec![String::new(); (1 << 20) + 1]), "the number of merges is 1048577"),
    ];
    for (error, wanted) in cases {
        assert!(error.starts_with("GGUF tokenizer: ") && error.contains(wanted), "{error}");
    }
}

#[test]
fn an_empty_vocabulary_encodes_nothing_and_masks_everything() {
    let tokenizer = Tokenizer::from_gguf(gguf(&[], &[], &[])).unwrap();
    assert_eq!((tokenizer.vocab_size(), tokenizer.encode_text("").unwrap()), (0, vec![]));
    assert_eq!(tokenizer.unsampleable_ids(3), [0, 1, 2]);
    let error = ossia_text::Harmony::new(tokenizer.into()).unwrap_err().to_string();
    assert!(error.starts_with("this tokenizer has no <|start|>"), "{error}");
}

#[test]
fn a_stream_equals_the_lossy_whole_at_every_split() {
    let mut rng = Rng(6);
    for _ in 0..3_000 {
        let len = rng.below(12);
        let bytes: Vec<u8> = match rng.below(2) {
            0 => (0..len)
                .map(|_| rng.pick(&[0xf0, 0x9f, 0x99, 0x82, 0xe4, 0xb8, 0xad, 0xc3, 0xa9, b'a', 0xff, 0xed]))
                .collect(),
            _ => mixed_text(&mut rng, len).into_bytes(),
        };
        let (mut stream, mut text) = (Utf8Stream::new(), String::new());
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let (now, later) = rest.split_at(1 + rng.below(rest.len().min(4)));
            text += &stream.push(now);
            rest = later;
        }
        text += &stream.flush();
        assert_eq!(text, String::from_utf8_lossy(&bytes), "{bytes:?}");
    }
    let mut stream = Utf8Stream::new();
    assert_eq!([stream.push(b"a\xf0\x9f"), stream.push(b"\x99"), stream.push(b"\x82b")], ["a", "", "🙂b"]);
    assert_eq!([stream.push(b"\xe4"), stream.flush(), stream.flush()], ["", "\u{fffd}", ""]);
}
