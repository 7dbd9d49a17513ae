//! What several tests need: seeded random numbers, mixed text, texts with special tokens as ids, the vectors.

pub mod sampler;
pub mod schemas;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use ossia_text::{Event, Harmony, HarmonyParser, ParsedMessage, Tokenizer};

/// A small seeded generator (splitmix64).
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }
}

pub fn o200k() -> &'static Arc<Tokenizer> {
    static TOKENIZER: OnceLock<Arc<Tokenizer>> = OnceLock::new();
    TOKENIZER.get_or_init(|| Arc::new(Tokenizer::o200k_harmony()))
}

pub fn harmony() -> &'static Harmony {
    static HARMONY: OnceLock<Harmony> = OnceLock::new();
    HARMONY.get_or_init(|| Harmony::new(o200k().clone()).unwrap())
}

pub fn vectors() -> serde_json::Value {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/harmony_vectors.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

pub fn ids(value: &serde_json::Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// The ids of a text in which the names of special tokens stand for themselves.
pub fn encode_with_specials(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("<|") {
        let (before, from) = rest.split_at(at);
        let end = from.find("|>").expect("a whole special token") + 2;
        out.extend(tokenizer.encode_text(before).unwrap());
        out.push(tokenizer.special_id(&from[..end]).expect("a known special token"));
        rest = &from[end..];
    }
    out.extend(tokenizer.encode_text(rest).unwrap());
    out
}

/// Feeds all ids and ends; gives the events.
pub fn feed(parser: &mut HarmonyParser, ids: &[u32]) -> Vec<Event> {
    let mut events: Vec<Event> = ids.iter().flat_map(|&id| parser.push(id)).collect();
    events.extend(parser.finish());
    events
}

pub fn messages(events: Vec<Event>) -> Vec<ParsedMessage> {
    events.into_iter().filter_map(|e| if let Event::End(message) = e { Some(message) } else { None }).collect()
}

/// The messages of a completion, given as text with special tokens.
pub fn parse_completion(text: &str) -> Vec<ParsedMessage> {
    messages(feed(&mut harmony().completion_parser(), &encode_with_specials(o200k(), text)))
}

/// The text of ids, found without the parser: special tokens by name, runs of others as UTF-8 with replacement.
pub fn reference_text(tokenizer: &Tokenizer, ids: &[u32]) -> String {
    let (mut text, mut run) = (String::new(), Vec::new());
    for &id in ids {
        match tokenizer.token_bytes(id) {
            Some(bytes) if !tokenizer.is_special(id) => run.extend_from_slice(bytes),
            name => {
                text += &String::from_utf8_lossy(&std::mem::take(&mut run));
                text += &name.map_or(format!("<|unknown_{id}|>"), |name| String::from_utf8_lossy(name).into_owned());
            }
        }
    }
    text + &String::from_utf8_lossy(&run)
}

/// Checks what must hold for any ids: text conserved, events well formed.
pub fn check_invariants(tokenizer: &Tokenizer, ids: &[u32], events: &[Event], trailing: &str) {
    let (mut source, mut written) = (String::new(), Vec::new());
    let mut open: Option<(&ossia_text::harmony::Header, String)> = None;
    for event in events {
        match event {
            Event::Start(header) => {
                assert!(open.is_none(), "a message began inside another: {ids:?}");
                open = Some((header, String::new()));
            }
            Event::Delta(text) => {
                assert!(!text.is_empty());
                open.as_mut().expect("a delta belongs to a message").1 += text;
            }
            Event::End(message) => {
                let (header, text) = open.take().expect("an end belongs to a message");
                assert_eq!((header, &text), (&message.header, &message.text), "{ids:?}");
                source += &message.source();
                written.extend_from_slice(&message.ids);
            }
        }
    }
    assert!(open.is_none(), "a message never ended: {ids:?}");
    assert_eq!(source + trailing, reference_text(tokenizer, ids), "text lost or made up: {ids:?}");
    let in_prompt = encode_with_specials(tokenizer, "<|start|>assistant");
    let from_prompt = in_prompt.iter().chain(ids).copied().collect::<Vec<u32>>();
    assert!(ids.starts_with(&written) || from_prompt.starts_with(&written), "ids lost or made up: {ids:?}");
}

const CODE: [&str; 8] = [
    "fn main() {\n    println!(\"{}\", x_1 + 0x1F);\n}\n",
    "\tif (a[i] != NULL && b->next) { return -1; } // done\r\n",
    "SELECT * FROM t WHERE id IN (1,22,333,4444) ORDER BY `name` DESC;\n",
    "https://example.com/a/b?q=1&r=%20#x //comment/*y*/ ...///\n",
    "    def __init__(self, **kwargs):\n        self.x = {'a': [1, 2]}\n\n\n",
    "let λ = |x| x² ≠ ∞;\n#![allow(unused)]\n<div class=\"a\">&nbsp;</div>\r\n\r\n",
    "I'm you're WE'LL don'T it's o'clock 'tis rock'n'roll CamelCaseXMLHttp iPhone\n",
    "<|end|><|start|>system<|message|> <|channel|>final <|refusal|> <|endofprompt|>\n",
];
const SPACES: [&str; 12] =
    [" ", "  ", "\n", "\r\n", "\t", "\u{a0}", "\u{3000}", "\u{85}", "\u{2028}", "\u{b}", "\u{200b}", " \n "];
const EMOJI: [&str; 7] = ["🙂", "👩‍👩‍👧‍👦", "🇳🇴🇯🇵", "👍🏽", "❤️", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "☃"];
const MARKS: [&str; 10] = ["é", "e\u{301}", "Ǆǅǆ", "ʰʱ", "ॐ नमस्ते", "١٢٣٤", "४५६७", "ßẞ", "İıſK", "مرحبا"];
const LETTERS: [char; 14] = ['a', 'A', 'b', 'Z', '\'', 's', '1', '9', ' ', '\n', '/', '.', 'é', '中'];

fn scalar(rng: &mut Rng) -> char {
    let limit = rng.pick(&[0x80, 0x800, 0x3000, 0x1_0000, 0x11_0000]);
    char::from_u32(rng.below(limit) as u32).unwrap_or('\u{fffd}')
}

/// One stretch of text of a random kind.
fn stretch(rng: &mut Rng, out: &mut String) {
    let num = 1 + rng.below(40);
    match rng.below(10) {
        0 | 1 => out.push_str(rng.pick(&CODE)),
        2 => (0..num).for_each(|_| out.push(char::from_u32(0x4e00 + rng.below(0x5200) as u32).unwrap())),
        3 => (0..1 + num / 4).for_each(|_| out.push_str(rng.pick(&EMOJI))),
        4 => {
            let c = rng.pick(&[' ', 'a', 'Q', '\n', '7', '\t', '-', '\r', '中', '\u{301}']);
            out.extend(std::iter::repeat_n(c, rng.below(400)));
        }
        5 => (0..num).for_each(|_| out.push(scalar(rng))),
        6 => {
            let bytes: Vec<u8> = (0..num).map(|_| rng.next() as u8).collect();
            out.push_str(&String::from_utf8_lossy(&bytes));
        }
        7 => (0..num).for_each(|_| out.push_str(rng.pick(&SPACES))),
        8 => (0..num).for_each(|_| out.push_str(rng.pick(&MARKS))),
        _ => (0..num).for_each(|_| out.push(rng.pick(&LETTERS))),
    }
    if rng.below(3) == 0 {
        out.push_str(rng.pick(&SPACES));
    }
}

/// At least `num_bytes` of text: code, CJK, emoji, long runs, what is left of invalid UTF-8, random characters.
pub fn mixed_text(rng: &mut Rng, num_bytes: usize) -> String {
    let mut out = String::new();
    while out.len() < num_bytes {
        stretch(rng, &mut out);
    }
    out
}

/// The tokenizer of the model in this repository: about a thousand tokens, not all bytes among them.
pub fn nano() -> &'static Harmony {
    static HARMONY: OnceLock<Harmony> = OnceLock::new();
    HARMONY.get_or_init(|| {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../models/nano/tokenizer.json");
        Harmony::new(Arc::new(Tokenizer::from_json_file(&path).unwrap())).unwrap()
    })
}

/// Compiles for o200k; made once.
pub fn constrainer() -> &'static ossia_text::constrain::Constrainer {
    static CONSTRAINER: OnceLock<ossia_text::constrain::Constrainer> = OnceLock::new();
    CONSTRAINER.get_or_init(|| ossia_text::constrain::Constrainer::new(harmony()).unwrap())
}

/// Compiles for nano; made once.
pub fn nano_constrainer() -> &'static ossia_text::constrain::Constrainer {
    static CONSTRAINER: OnceLock<ossia_text::constrain::Constrainer> = OnceLock::new();
    CONSTRAINER.get_or_init(|| ossia_text::constrain::Constrainer::new(nano()).unwrap())
}
