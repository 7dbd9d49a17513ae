//! o200k_harmony, built in and read from files, against tiktoken-rs: not one token may differ.

use std::collections::HashMap;
use std::sync::OnceLock;

use crate::common::{Rng, mixed_text, o200k};
use ossia_text::{GgufVocab, Tokenizer};
use tiktoken_rs::o200k_harmony_singleton;

const NUM_ORDINARY: u32 = 199_998;

#[test]
fn vectors_of_the_python_library_are_equal() {
    for entry in crate::common::vectors()["tokenizer"].as_array().unwrap() {
        let text = entry[0].as_str().unwrap();
        let ids = crate::common::ids(&entry[1]);
        assert_eq!(o200k().encode_text(text).unwrap(), ids, "{text:?}");
        assert_eq!(o200k().decode(&ids), text.as_bytes());
    }
}

#[test]
fn five_megabytes_of_mixed_text_are_equal() {
    let (oracle, mut rng) = (o200k_harmony_singleton(), Rng(1));
    let mut num_bytes = 0;
    while num_bytes < 5_300_000 {
        let size = rng.pick(&[1, 50, 2_000, 20_000, 100_000]);
        let text = mixed_text(&mut rng, size);
        let ids = o200k().encode_text(&text).unwrap();
        assert!(ids == oracle.encode_ordinary(&text), "differs: {:?}", text.chars().take(2_000).collect::<String>());
        assert!(o200k().decode(&ids) == text.as_bytes(), "does not decode to itself");
        num_bytes += text.len();
    }
}

#[test]
fn special_ids_are_those_of_the_specification() {
    let named = [
        (199_998, "<|startoftext|>"),
        (199_999, "<|endoftext|>"),
        (200_002, "<|return|>"),
        (200_003, "<|constrain|>"),
        (200_005, "<|channel|>"),
        (200_006, "<|start|>"),
        (200_007, "<|end|>"),
        (200_008, "<|message|>"),
        (200_012, "<|call|>"),
        (200_018, "<|reserved_200018|>"),
        (201_087, "<|reserved_201087|>"),
    ];
    for (id, name) in named {
        assert_eq!(o200k().token_bytes(id), Some(name.as_bytes()));
        assert_eq!(o200k().special_id(name), Some(id));
        assert!(o200k().is_special(id));
    }
    assert_eq!(o200k().vocab_size(), 201_088);
    assert_eq!(o200k().token_bytes(201_088), None);
    assert_eq!(o200k().special_id("<|reserved_201088|>"), None);
    assert_eq!(o200k().token_bytes(u32::MAX), None);
    assert!(!o200k().is_special(199_997));
}

#[test]
fn reserved_and_missing_ids_are_masked_and_named_ones_are_not() {
    let masked = o200k().unsampleable_ids(201_090);
    assert_eq!(masked.len(), 1_090 - 9 + 2);
    assert!(masked.contains(&200_000) && masked.contains(&201_087) && masked.contains(&201_089));
    assert!(!masked.iter().any(|&id| id < 200_000 || [200_002, 200_003, 200_005, 200_012].contains(&id)));
    assert_eq!(o200k().stop_ids(), [200_002, 200_012, 199_999]);
}

#[test]
fn unknown_ids_decode_to_a_replacement_character() {
    assert_eq!(o200k().decode(&[13225, 201_088, 2375]), "Hello\u{fffd} world".as_bytes());
}

/// A printable form of every byte, made here by GPT-2's rule and not by the code under test.
fn byte_alphabet() -> Vec<char> {
    let shown = |b: &u32| (33..127).contains(b) || (161..173).contains(b) || (174..256).contains(b);
    let mut spare = 256..;
    (0..256u32).map(|b| char::from_u32(if shown(&b) { b } else { spare.next().unwrap() }).unwrap()).collect()
}

/// Tokens and merges as a file has them.
type Written = (Vec<String>, Vec<(String, String)>);

/// o200k as a file has it: tokens in the byte alphabet, every pair that makes a token as a merge.
fn written_o200k() -> &'static Written {
    static WRITTEN: OnceLock<Written> = OnceLock::new();
    WRITTEN.get_or_init(|| {
        let alphabet = byte_alphabet();
        let write = |bytes: &[u8]| -> String { bytes.iter().map(|&b| alphabet[usize::from(b)]).collect() };
        let oracle = o200k_harmony_singleton();
        let tokens: Vec<Vec<u8>> = (0..NUM_ORDINARY).map(|id| oracle.decode_bytes(&[id]).unwrap()).collect();
        let ranks: HashMap<&[u8], usize> = tokens.iter().enumerate().map(|(id, t)| (t.as_slice(), id)).collect();
        let mut merges = Vec::new();
        for token in &tokens {
            let splits = (1..token.len()).map(|at| token.split_at(at));
            let mut pairs: Vec<_> = splits.filter_map(|(l, r)| Some((*ranks.get(l)?, *ranks.get(r)?))).collect();
            pairs.sort_unstable();
            merges.extend(pairs.into_iter().map(|(l, r)| (write(&tokens[l]), write(&tokens[r]))));
        }
        (tokens.iter().map(|token| write(token)).collect(), merges)
    })
}

fn gguf_o200k() -> GgufVocab {
    let (tokens, merges) = written_o200k();
    let special =
        (NUM_ORDINARY..201_088).map(|id| String::from_utf8(o200k().token_bytes(id).unwrap().to_vec()).unwrap());
    GgufVocab {
        model: "gpt2".into(),
        pre: "gpt-4o".into(),
        types: tokens.iter().map(|_| 1).chain((NUM_ORDINARY..201_088).map(|_| 3)).collect(),
        tokens: tokens.iter().cloned().chain(special).collect(),
        merges: merges.iter().map(|(l, r)| format!("{l} {r}")).collect(),
    }
}

/// A tokenizer.json as the published one is: 21 special tokens, of which 200018 has o200k's name.
fn json_o200k(pattern: &str, skip: u32) -> String {
    let (tokens, merges) = written_o200k();
    let vocab: serde_json::Map<_, _> = tokens.iter().enumerate().map(|(id, t)| (t.clone(), id.into())).collect();
    let name = |id: u32| match id {
        200_018 => "<|endofprompt|>".to_owned(),
        _ => String::from_utf8(o200k().token_bytes(id).unwrap().to_vec()).unwrap(),
    };
    let added: Vec<_> = (NUM_ORDINARY..200_019)
        .filter(|&id| id != skip)
        .map(|id| serde_json::json!({"id": id, "content": name(id), "special": true}))
        .collect();
    serde_json::json!({
        "version": "1.0", "added_tokens": added, "normalizer": null,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}]},
        "decoder": {"type": "ByteLevel"},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "vocab": vocab, "merges": merges},
    })
    .to_string()
}

const PATTERN: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

fn assert_equal_to_tiktoken(tokenizer: &Tokenizer, seed: u64) {
    let (oracle, mut rng) = (o200k_harmony_singleton(), Rng(seed));
    for _ in 0..150 {
        let size = rng.pick(&[1, 50, 2_000, 20_000]);
        let text = mixed_text(&mut rng, size);
        let ids = tokenizer.encode_text(&text).unwrap();
        assert!(ids == oracle.encode_ordinary(&text), "differs: {:?}", text.chars().take(2_000).collect::<String>());
        assert!(tokenizer.decode(&ids) == text.as_bytes(), "does not decode to itself");
    }
}

#[test]
fn a_whole_o200k_in_a_gguf_is_recognised() {
    let vocab = gguf_o200k();
    assert_eq!(vocab.merges.len(), 446_189, "SPEC 2.3");
    assert!(Tokenizer::from_gguf(vocab).unwrap().is_o200k_harmony());
}

#[test]
fn a_whole_o200k_in_a_gguf_becomes_a_tokenizer_json_of_it() {
    let mut vocab = gguf_o200k();
    for id in 200_019..201_088 {
        (vocab.tokens[id], vocab.types[id]) = (format!("[PAD{id}]"), 5);
    }
    let text = Tokenizer::json_from_gguf(vocab).unwrap();
    assert!(Tokenizer::from_json(&text).unwrap().is_o200k_harmony());
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let (vocab, added) = (json["model"]["vocab"].as_object().unwrap(), json["added_tokens"].as_array().unwrap());
    assert_eq!((vocab.len(), added.len()), (199_998, 21), "as in the published file");
    assert_eq!(added[14]["content"], "<|call|>");
}

#[test]
fn o200k_in_a_gguf_encodes_the_same_through_our_own_merging() {
    let mut vocab = gguf_o200k();
    vocab.tokens[200_012] = "<|renamed|>".into();
    let tokenizer = Tokenizer::from_gguf(vocab).unwrap();
    assert!(!tokenizer.is_o200k_harmony() && tokenizer.specials().call.is_none());
    assert_equal_to_tiktoken(&tokenizer, 2);
}

#[test]
fn a_gguf_whose_merges_are_not_o200ks_is_not_taken_for_it() {
    let mut vocab = gguf_o200k();
    vocab.merges.pop();
    assert!(!Tokenizer::from_gguf(vocab).unwrap().is_o200k_harmony());
    let mut vocab = gguf_o200k();
    vocab.merges.swap(0, 1_000);
    assert!(!Tokenizer::from_gguf(vocab).unwrap().is_o200k_harmony());
}

#[test]
fn a_whole_o200k_in_a_tokenizer_json_is_recognised() {
    let tokenizer = Tokenizer::from_json(&json_o200k(PATTERN, 0)).unwrap();
    assert!(tokenizer.is_o200k_harmony());
    assert_eq!(tokenizer.vocab_size(), 201_088);
}

#[test]
fn o200k_in_a_tokenizer_json_encodes_the_same_through_our_own_merging() {
    let tokenizer = Tokenizer::from_json(&json_o200k(PATTERN, 200_012)).unwrap();
    assert!(!tokenizer.is_o200k_harmony());
    assert_eq!(tokenizer.vocab_size(), 200_019);
    assert_equal_to_tiktoken(&tokenizer, 3);
}

#[test]
fn another_split_pattern_is_not_taken_for_o200k() {
    let tokenizer = Tokenizer::from_json(&json_o200k(r"\p{N}{1,3}|\s+(?!\S)|\s+", 0)).unwrap();
    assert!(!tokenizer.is_o200k_harmony());
}

#[test]
fn a_million_equal_letters_take_no_quadratic_time() {
    let mut vocab = gguf_o200k();
    vocab.tokens[200_012] = "<|renamed|>".into();
    let ours = Tokenizer::from_gguf(vocab).unwrap();
    for c in ["a", " ", "\n", "é", "中"] {
        let text = c.repeat(1_000_000);
        let ids = o200k().encode_text(&text).unwrap();
        assert!(ours.encode_text(&text).unwrap() == ids, "{c:?}");
        assert!(o200k().decode(&ids) == text.as_bytes(), "{c:?}");
    }
}
