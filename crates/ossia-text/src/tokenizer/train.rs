//! Trains a small byte-level BPE vocabulary: the most frequent pair of adjacent tokens becomes a token, again and again.
//!
//! Merges stay inside a piece: a word, perhaps with a space before it, one digit, or a run of other signs. So numbers are
//! always spelled digit by digit. Equal texts in any order give the same file, since pieces are counted first and ties are settled by
//! ids. A pair that spells a token which exists already is passed over, so that every merge makes a new token and the
//! order of the merges is the order of their tokens' ids.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet};
use std::ops::RangeInclusive;

use serde_json::{Map, Value, json};

use super::byte_level::{ALL_BYTES, SPECIAL, byte_level, special_tokens, tokenizer_json};
use super::split::{SMALL, Split};
use super::{MAX_TOKENS, alphabet};
use crate::TextError;

/// How many tokens a trained vocabulary may have: one for each byte and harmony's own at least.
pub const TRAINED_SIZES: RangeInclusive<usize> = ALL_BYTES..=MAX_TOKENS;
/// A pair seen only once says nothing about other text.
const LEAST_COUNT: u64 = 2;

/// (left, right), by ids.
type Pair = (u32, u32);

/// Trains a vocabulary of exactly `vocab_size` tokens on `texts` and writes it as a tokenizer.json (Hugging Face's
/// format), which [`Tokenizer::from_json`](super::Tokenizer::from_json) reads.
///
/// Ids 0 to 255 are the 256 bytes, then come the merged tokens in the order in which they were found, and the last nine
/// are harmony's special tokens in the order of [`byte_level_tokenizer_json`](super::byte_level_tokenizer_json). None is
/// reserved. The distinct pieces of the texts (words, roughly) are held in memory, the texts are not.
///
/// Fails where `vocab_size` is below 265 or above 2^20, and where the texts have too few pairs that occur twice.
pub fn train_bpe<I>(texts: I, vocab_size: usize) -> Result<String, TextError>
where
    I: IntoIterator,
    I::Item: AsRef<str>,
{
    if !TRAINED_SIZES.contains(&vocab_size) {
        return Err(TextError::VocabSize { found: vocab_size, least: ALL_BYTES, most: MAX_TOKENS });
    }
    let split = Split::from_pattern(SMALL).map_err(error)?;
    let mut trainer = Trainer::new(count_pieces(texts, &split));
    let num_ordinary = vocab_size - SPECIAL.len();
    while trainer.tokens.len() < num_ordinary {
        let Some(pair) = trainer.next_pair() else {
            let most = trainer.tokens.len() + SPECIAL.len();
            let advice = "give more text or ask for a smaller vocabulary";
            return Err(error(format!("wanted {vocab_size} tokens, the texts have pairs for {most}: {advice}")));
        };
        trainer.merge(pair);
    }
    Ok(trainer.into_json())
}

fn error(problem: String) -> TextError {
    TextError::Tokenizer { origin: "training a tokenizer".to_owned(), problem }
}

/// How often each piece occurs, in the order of their bytes.
fn count_pieces<I>(texts: I, split: &Split) -> BTreeMap<Box<str>, u64>
where
    I: IntoIterator,
    I::Item: AsRef<str>,
{
    let mut counts: HashMap<Box<str>, u64> = HashMap::new();
    for text in texts {
        split.pieces(text.as_ref(), |piece| match counts.get_mut(piece) {
            Some(count) => *count += 1,
            None => _ = counts.insert(piece.into(), 1),
        });
    }
    counts.into_iter().collect()
}

/// The tokens found so far, and the pieces spelled with them.
struct Trainer {
    /// Bytes, by id.
    tokens: Vec<Vec<u8>>,
    known: HashSet<Vec<u8>>,
    /// Merge i made token 256 + i.
    merges: Vec<Pair>,
    pieces: Vec<Piece>,
    pairs: HashMap<Pair, Occurrences>,
    /// Most frequent first, of equal ones the smallest ids. An entry whose count is no longer the pair's is void: every
    /// change adds a new one.
    urgent: BinaryHeap<(u64, Reverse<Pair>)>,
}

struct Piece {
    ids: Vec<u32>,
    count: u64,
}

#[derive(Default)]
struct Occurrences {
    count: u64,
    /// Indices of all pieces with this pair, and perhaps of some that had it.
    pieces: Vec<usize>,
}

/// What a merge changes: by how much each pair's count, and which pieces have a pair that they had not.
#[derive(Default)]
struct Changes {
    counts: HashMap<Pair, i64>,
    places: Vec<(Pair, usize)>,
}

impl Trainer {
    fn new(counts: BTreeMap<Box<str>, u64>) -> Self {
        let tokens: Vec<Vec<u8>> = (0..=255u8).map(|byte| vec![byte]).collect();
        let spell = |(piece, count): (Box<str>, u64)| Piece { ids: piece.bytes().map(u32::from).collect(), count };
        let pieces: Vec<Piece> = counts.into_iter().map(spell).collect();
        let mut changes = Changes::default();
        for (index, piece) in pieces.iter().enumerate() {
            piece.count_pairs(1, &mut changes.counts);
            changes.places.extend(piece.pairs().map(|pair| (pair, index)));
        }
        let known = tokens.iter().cloned().collect();
        let (merges, pairs, urgent) = (Vec::new(), HashMap::new(), BinaryHeap::new());
        let mut trainer = Self { tokens, known, merges, pieces, pairs, urgent };
        trainer.apply(changes);
        trainer
    }

    /// The most frequent pair that makes a new token.
    fn next_pair(&mut self) -> Option<Pair> {
        while let Some((count, Reverse(pair))) = self.urgent.pop() {
            let now = self.pairs.get(&pair).map_or(0, |found| found.count);
            if now == count && count >= LEAST_COUNT && !self.known.contains(&self.spelled(pair)) {
                return Some(pair);
            }
        }
        None
    }

    fn spelled(&self, (left, right): Pair) -> Vec<u8> {
        [left, right].iter().filter_map(|&id| self.tokens.get(id as usize)).flatten().copied().collect()
    }

    /// Makes a token of `pair` and spells every piece with it.
    fn merge(&mut self, pair: Pair) {
        let (id, bytes) = (self.tokens.len() as u32, self.spelled(pair));
        self.known.insert(bytes.clone());
        self.tokens.push(bytes);
        self.merges.push(pair);
        let mut places = self.pairs.get_mut(&pair).map(|found| std::mem::take(&mut found.pieces)).unwrap_or_default();
        places.sort_unstable();
        places.dedup();
        let mut changes = Changes::default();
        for index in places {
            let Some(piece) = self.pieces.get_mut(index) else { continue };
            piece.count_pairs(-1, &mut changes.counts);
            piece.join(pair, id);
            piece.count_pairs(1, &mut changes.counts);
            // The other pairs were neighbours before, and know this piece.
            let new = piece.pairs().filter(|&(left, right)| left == id || right == id);
            changes.places.extend(new.map(|pair| (pair, index)));
        }
        self.apply(changes);
    }

    fn apply(&mut self, changes: Changes) {
        for (pair, index) in changes.places {
            let pieces = &mut self.pairs.entry(pair).or_default().pieces;
            if pieces.last() != Some(&index) {
                pieces.push(index);
            }
        }
        for (pair, change) in changes.counts {
            let count = &mut self.pairs.entry(pair).or_default().count;
            *count = count.saturating_add_signed(change);
            match *count {
                0 => _ = self.pairs.remove(&pair),
                _ if change == 0 => {}
                now => self.urgent.push((now, Reverse(pair))),
            }
        }
    }

    fn into_json(self) -> String {
        let written: Vec<String> =
            self.tokens.iter().map(|bytes| bytes.iter().map(|&byte| alphabet::byte_to_char(byte)).collect()).collect();
        let name = |id: u32| written.get(id as usize).map_or("", String::as_str);
        let merges: Vec<String> =
            self.merges.iter().map(|&(left, right)| format!("{} {}", name(left), name(right))).collect();
        let added = special_tokens(written.len()).collect();
        let vocab: Map<String, Value> = written.iter().cloned().zip((0u32..).map(Value::from)).collect();
        let split = json!({"type": "Split", "pattern": {"Regex": SMALL}, "behavior": "Isolated",
                           "invert": false});
        let pre_tokenizer = json!({"type": "Sequence", "pretokenizers": [split, byte_level()]});
        tokenizer_json(vocab, &merges, pre_tokenizer, added).to_string()
    }
}

impl Piece {
    fn pairs(&self) -> impl Iterator<Item = Pair> {
        self.ids.iter().copied().zip(self.ids.iter().copied().skip(1))
    }

    /// Adds the piece's pairs to `counts`, `sign` times.
    fn count_pairs(&self, sign: i64, counts: &mut HashMap<Pair, i64>) {
        for pair in self.pairs() {
            *counts.entry(pair).or_default() += sign * self.count as i64;
        }
    }

    /// Replaces `pair` by `id`, leftmost first.
    fn join(&mut self, (left, right): Pair, id: u32) {
        let mut joined = Vec::with_capacity(self.ids.len());
        let mut rest = self.ids.as_slice();
        while let Some((&first, after)) = rest.split_first() {
            let meets = first == left && after.first() == Some(&right);
            joined.push(if meets { id } else { first });
            rest = if meets { after.get(1..).unwrap_or_default() } else { after };
        }
        self.ids = joined;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tokenizer;

    /// Sentences with numbers, JSON, code, other scripts: `num_lines` of them, each different.
    fn corpus(num_lines: u64) -> Vec<String> {
        const WORDS: [&str; 24] = [
            "adding",
            "added",
            "the number",
            "Löwen",
            "東京は",
            "don't",
            "{\"city\": ",
            "aaaaaaa",
            "== x;\n\n",
            "  \t",
            "½²",
            "🙂🙂",
            "remaining",
            "Weather",
            "multiply",
            "functions.get_weather",
            "which of these",
            "HTTPServer",
            "Привет",
            "tomorrow's",
            "https://example.org/",
            "sorted:",
            "reasoning",
            "interesting",
        ];
        let mut state = 7u64;
        let mut next = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >> 33
        };
        let mut line = |_| {
            let parts = (0..9).map(|_| format!("{} {}", WORDS[next() as usize % WORDS.len()], next() % 10_000));
            parts.collect::<Vec<_>>().join(" ")
        };
        (0..num_lines).map(&mut line).collect()
    }

    fn merges_of(json: &str) -> Vec<(String, String)> {
        let file: Value = serde_json::from_str(json).unwrap();
        let pair = |merge: &Value| {
            let (left, right) = merge.as_str().unwrap().split_once(' ').unwrap();
            (left.to_owned(), right.to_owned())
        };
        file["model"]["merges"].as_array().unwrap().iter().map(pair).collect()
    }

    /// A piece as one string of the byte alphabet for each byte.
    fn letters(piece: &str) -> Vec<String> {
        piece.bytes().map(|byte| alphabet::byte_to_char(byte).to_string()).collect()
    }

    fn join_all(parts: &mut Vec<String>, (left, right): &(String, String)) {
        let mut at = 0;
        while at + 1 < parts.len() {
            if &parts[at] == left && &parts[at + 1] == right {
                let right = parts.remove(at + 1);
                parts[at].push_str(&right);
            }
            at += 1;
        }
    }

    fn pieces(text: &str) -> Vec<Vec<String>> {
        let mut pieces = Vec::new();
        Split::from_pattern(SMALL).unwrap().pieces(text, |piece| pieces.push(letters(piece)));
        pieces
    }

    /// The slow truth: counts everything again before each merge.
    fn naive(texts: &[String], num_merges: usize) -> Vec<(String, String)> {
        let mut pieces: Vec<Vec<String>> = texts.iter().flat_map(|text| pieces(text)).collect();
        let mut ids: Vec<String> = (0..=255u8).map(|byte| alphabet::byte_to_char(byte).to_string()).collect();
        let mut merges = Vec::new();
        for _ in 0..num_merges {
            let mut counts: HashMap<(usize, usize), usize> = HashMap::new();
            let id = |part: &String| ids.iter().position(|token| token == part).unwrap();
            for pair in pieces.iter().flat_map(|piece| piece.windows(2)) {
                *counts.entry((id(&pair[0]), id(&pair[1]))).or_default() += 1;
            }
            counts.retain(|&(left, right), _| !ids.contains(&format!("{}{}", ids[left], ids[right])));
            let (&(left, right), _) = counts.iter().max_by_key(|&(&pair, &count)| (count, Reverse(pair))).unwrap();
            let merge = (ids[left].clone(), ids[right].clone());
            pieces.iter_mut().for_each(|piece| join_all(piece, &merge));
            ids.push(format!("{}{}", merge.0, merge.1));
            merges.push(merge);
        }
        merges
    }

    #[test]
    fn merges_equal_those_of_the_slow_trainer() {
        let texts = corpus(40);
        assert_eq!(merges_of(&train_bpe(&texts, 265 + 60).unwrap()), naive(&texts, 60));
        let runs = ["aaaaa aaaa aaa ababab".to_owned(), "aaaab baaab".to_owned()];
        assert_eq!(merges_of(&train_bpe(&runs, 265 + 4).unwrap()), naive(&runs, 4));
    }

    #[test]
    fn the_size_is_exact_and_every_special_is_found() {
        let texts = corpus(200);
        for size in [265, 266, 300, 340] {
            let tokenizer = Tokenizer::from_json(&train_bpe(&texts, size).unwrap()).unwrap();
            assert_eq!(tokenizer.vocab_size(), size);
            let s = tokenizer.specials();
            let found =
                [s.start_of_text, s.end_of_text, s.return_, s.constrain, s.channel, s.start, s.end, s.message, s.call];
            let last = size as u32 - 1;
            assert!(found.into_iter().eq((last - 8..=last).map(Some)), "{s:?}");
            assert!(tokenizer.unsampleable_ids(size).is_empty(), "no id is reserved");
        }
    }

    #[test]
    fn text_comes_back_and_is_cut_as_the_merges_say() {
        let texts = corpus(200);
        let json = train_bpe(&texts, 340).unwrap();
        let (tokenizer, merges) = (Tokenizer::from_json(&json).unwrap(), merges_of(&json));
        for text in
            corpus(400).iter().skip(150).map(String::as_str).chain(["", "\0 z\u{301}Ω<|end|>", "aaaaaaaaaaaaaa"])
        {
            let ids = tokenizer.encode_text(text).unwrap();
            assert_eq!(tokenizer.decode(&ids), text.as_bytes());
            let mut wanted = pieces(text);
            wanted.iter_mut().for_each(|piece| merges.iter().for_each(|merge| join_all(piece, merge)));
            let written = |&id: &u32| {
                let bytes = tokenizer.token_bytes(id).unwrap();
                bytes.iter().map(|&byte| alphabet::byte_to_char(byte)).collect::<String>()
            };
            assert_eq!(ids.iter().map(written).collect::<Vec<_>>(), wanted.concat());
        }
    }

    #[test]
    fn digits_stay_single_however_often_they_meet() {
        let texts = ["2024 2024 2024 1000000 a1b2 year year 12,000"; 20];
        let tokenizer = Tokenizer::from_json(&train_bpe(texts, 270).unwrap()).unwrap();
        for id in 0..270 {
            let bytes = tokenizer.token_bytes(id).unwrap();
            assert!(bytes.len() == 1 || !bytes.iter().any(u8::is_ascii_digit), "{bytes:?}");
        }
        assert_eq!(tokenizer.encode_text("2024").unwrap(), [0x32, 0x30, 0x32, 0x34]);
    }

    #[test]
    fn the_order_of_the_texts_does_not_matter() {
        let mut texts = corpus(100);
        let json = train_bpe(&texts, 330).unwrap();
        texts.reverse();
        assert_eq!(train_bpe(texts.iter().map(String::as_str), 330).unwrap(), json);
    }

    #[test]
    fn sizes_that_cannot_be_made_are_refused() {
        for size in [0, 264, MAX_TOKENS + 1, usize::MAX] {
            let error = train_bpe(["text"], size).unwrap_err();
            assert!(matches!(error, TextError::VocabSize { least: 265, .. }), "{error}");
        }
        let error = train_bpe(["abab"], 300).unwrap_err().to_string();
        assert!(error.contains("wanted 300 tokens, the texts have pairs for 266: give more text"), "{error}");
        assert!(train_bpe(Vec::<String>::new(), 265).is_ok());
    }
}
