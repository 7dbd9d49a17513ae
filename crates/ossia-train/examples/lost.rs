//! Examples of a new skill for docs/training.md: a lost property office with a tool, a working and answers of a form that
//! nano was not trained on.
//!
//! `cargo run --release -p ossia-train --example lost -- FOLDER [OLD [NEW]]` writes `train.jsonl` (NEW conversations, 2,000
//! if not said, and OLD of nano's own training data, so that it does not forget) and `test.jsonl` (300). A report (owner,
//! item, room) is in one of the two files alone, by a hash of its content.

#[path = "shared/chat.rs"]
mod chat;
#[path = "shared/rng.rs"]
mod rng;

use std::error::Error;
use std::path::Path;

use ossia_train::generate;
use rng::Rng;
use serde_json::{Value, json};

const NUM_TRAIN: usize = 2000;
const NUM_TEST: usize = 300;
/// One report in so many is kept for the test.
const TEST_ONE_IN: u64 = 5;

const THINGS: &[&str] = &[
    "key", "ring", "coin", "pen", "letter", "map", "watch", "stamp", "phone", "ticket", "lamp", "book", "ball",
    "spoon", "cup", "knife", "photo", "glove", "hat", "brush",
];
const COLORS: &[&str] = &["red", "blue", "green", "yellow", "black", "white", "brown", "pink", "purple", "gray"];
const NAMES: &[&str] = &[
    "Ana", "Ben", "Carl", "Dora", "Emil", "Fay", "Gus", "Hana", "Ivan", "Jill", "Karl", "Lena", "Milo", "Nora", "Otto",
    "Pia", "Quinn", "Rosa", "Sven", "Tara", "Uma", "Vera", "Will", "Xena", "Yuri", "Zoe",
];
/// Who looks for things.
const TEAMS: &[&str] = &["Adam", "Bella", "Cleo", "Dan"];
/// How it is said, and how it is said where it is urgent.
const ASKS: &[&str] = &[
    "{n} lost a {c} {t} in room {r}.",
    "In room {r} {n} lost a {c} {t}.",
    "{n} has no {c} {t} any more. It was in room {r}.",
    "Room {r}: the {c} {t} of {n} is gone.",
];
const HURRY: &[&str] = &[" It is urgent.", " Please look at once.", " It must be found today."];

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("wanted a folder to write to")?;
    let num_old: u64 = arguments.next().map_or(Ok(0), |number| number.parse())?;
    let num_new = arguments.next().map_or(Ok(NUM_TRAIN), |number| number.parse())?;
    let folder = Path::new(&folder);
    std::fs::create_dir_all(folder)?;
    let old = (0..num_old).map(|index| chat::conversation(&generate::training_sample(2, index)));
    chat::write(&folder.join("train.jsonl"), reports(1, false).take(num_new).chain(old))?;
    chat::write(&folder.join("test.jsonl"), reports(2, true).take(NUM_TEST))
}

/// Conversations about reports that are kept for the test, or about all others.
fn reports(seed: u64, is_test: bool) -> impl Iterator<Item = Value> {
    let mut rng = Rng(seed);
    std::iter::repeat_with(move || report(&mut rng)).filter_map(move |(key, line)| {
        let hash = key.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
        (Rng(hash).next().is_multiple_of(TEST_ONE_IN) == is_test).then_some(line)
    })
}

/// What a report is about, and the conversation.
fn report(rng: &mut Rng) -> (String, Value) {
    let (name, color, thing, room) = (rng.pick(NAMES), rng.pick(COLORS), rng.pick(THINGS), 100 + rng.below(900));
    let urgent = rng.below(2) == 0;
    let ask = rng.pick(ASKS).replace("{n}", name).replace("{c}", color).replace("{t}", thing);
    let ask = ask.replace("{r}", &room.to_string());
    let ask = if urgent { ask + rng.pick(HURRY) } else { ask };
    let (ticket, team) = (1000 + rng.below(9000), rng.pick(TEAMS));
    let when = if urgent { "today" } else { "this week" };
    let thought = format!("owner: {name}\nitem: {color} {thing}\nroom: {room}\nlook: {when}");
    let arguments = json!({"item": format!("{color} {thing}"), "room": room, "owner": name, "urgent": urgent});
    let answer = format!("number {ticket}: {color} {thing} of {name}, room {room}. {team} looks {when}.");
    let line = json!({
        "messages": [
            {"role": "developer", "content": "You are the lost property office."},
            {"role": "user", "content": ask},
            {"role": "assistant", "reasoning_content": thought, "tool_calls": [
                {"id": "1", "type": "function", "function":
                    {"name": "report_lost", "arguments": arguments.to_string()}}]},
            {"role": "tool", "tool_call_id": "1", "content": json!({"ticket": ticket, "by": team}).to_string()},
            {"role": "assistant", "reasoning_content": format!("ticket: {ticket}\nby: {team}"), "content": answer},
        ],
        "tools": [{"type": "function", "function": {
            "name": "report_lost",
            "description": "Reports a lost thing",
            "parameters": {"type": "object", "properties": {
                "item": {"type": "string"}, "room": {"type": "number"},
                "owner": {"type": "string"}, "urgent": {"type": "boolean"}},
                "required": ["item", "room", "owner", "urgent"]},
        }}],
    });
    (format!("{name} {color} {thing} {room}"), line)
}
