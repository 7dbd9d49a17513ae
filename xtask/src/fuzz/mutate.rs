//! From a good body to a bad one: one field after the other at each of its extremes, then anything anywhere.

use super::values::{self, NUMBERS, OTHERS};
use crate::json::Json;
use crate::rng::Rng;

/// How many values each place of a body is given in turn.
pub const NUM_SYSTEMATIC: usize = NUMBERS.len() + OTHERS.len() + 2;

/// The body with the value number `place` replaced by the extreme number `extreme`, left out, or there twice.
pub fn systematic(base: &Json, place: usize, extreme: usize) -> Vec<u8> {
    let mut body = base.clone();
    let literal = NUMBERS.iter().chain(&OTHERS).nth(extreme);
    match literal {
        Some(literal) => {
            if let Some(value) = body.nth(place) {
                *value = Json::Raw(literal.as_bytes().to_vec());
            }
        }
        None => twist_holder(&mut body, place, extreme == NUM_SYSTEMATIC - 1),
    }
    let mut bytes = Vec::new();
    body.write(&mut bytes);
    bytes
}

/// Leaves the value out of the object that holds it, or has it there twice.
fn twist_holder(body: &mut Json, place: usize, twice: bool) {
    let mut left = place;
    twist(body, &mut left, twice);
}

fn twist(value: &mut Json, left: &mut usize, twice: bool) -> bool {
    let mut found = None;
    match value {
        Json::Raw(_) | Json::Text(_) => return false,
        Json::List(list) => return list.iter_mut().any(|value| step(value, left, twice).unwrap_or(false)),
        Json::Map(fields) => {
            for (index, (_, value)) in fields.iter_mut().enumerate() {
                match step(value, left, twice) {
                    None => {
                        found = Some(index);
                        break;
                    }
                    Some(true) => return true,
                    Some(false) => {}
                }
            }
            let Some(index) = found else { return false };
            let field = fields[index].clone();
            match twice {
                true => fields.push(field),
                false => drop(fields.remove(index)),
            }
        }
    }
    true
}

/// None where this very value is meant; else whether the deed was done within it.
fn step(value: &mut Json, left: &mut usize, twice: bool) -> Option<bool> {
    if *left == 1 {
        return None;
    }
    *left = left.saturating_sub(1);
    Some(twist(value, left, twice))
}

/// The body changed in one to four places, perhaps in its bytes too.
pub fn random(base: &Json, rng: &mut Rng) -> Vec<u8> {
    let mut body = base.clone();
    for _ in 0..1 + rng.below(4) {
        change(&mut body, rng);
    }
    let mut bytes = Vec::new();
    body.write(&mut bytes);
    if rng.once_in(6) {
        change_bytes(&mut bytes, rng);
    }
    bytes
}

fn change(body: &mut Json, rng: &mut Rng) {
    let count = body.count();
    let Some(value) = body.nth(rng.below(count)) else { return };
    match (rng.below(8), value) {
        (0, Json::Map(fields)) if !fields.is_empty() => drop(fields.remove(rng.below(fields.len()))),
        (1, Json::Map(fields)) if !fields.is_empty() => {
            let (key, _) = fields[rng.below(fields.len())].clone();
            fields.push((key, values::any(rng)));
        }
        (2..=3, Json::Map(fields)) => {
            let name = rng.pick(&values::FIELDS).as_bytes().to_vec();
            let value = values::any(rng);
            match fields.iter_mut().find(|(key, _)| *key == name) {
                Some((_, old)) => *old = value,
                None => fields.insert(rng.below(fields.len() + 1), (name, value)),
            }
        }
        (4, Json::Map(fields)) => fields.push((values::text(rng), values::any(rng))),
        (5, Json::Map(fields)) if !fields.is_empty() => {
            let at = rng.below(fields.len());
            fields[at].0.make_ascii_uppercase();
        }
        (0, Json::List(list)) if !list.is_empty() => drop(list.remove(rng.below(list.len()))),
        (1..=2, Json::List(list)) if !list.is_empty() => {
            let item = list[rng.below(list.len())].clone();
            let times = rng.pick(&[1, 2, 17, 130, 1030]);
            list.extend(std::iter::repeat_n(item, times));
        }
        (3, Json::List(list)) => list.insert(rng.below(list.len() + 1), values::any(rng)),
        (4, Json::List(list)) => list.reverse(),
        (0..=1, Json::Text(text)) => {
            let at = rng.below(text.len() + 1);
            let piece = values::text(rng);
            text.splice(at..at, piece);
        }
        (2, value) => {
            let inner = std::mem::replace(value, Json::Raw(Vec::new()));
            *value = if rng.once_in(2) { Json::List(vec![inner]) } else { Json::Map(vec![(b"type".into(), inner)]) };
        }
        (_, value) => *value = values::any(rng),
    }
}

/// What happens to bytes on a bad way.
pub fn change_bytes(bytes: &mut Vec<u8>, rng: &mut Rng) {
    for _ in 0..1 + rng.below(3) {
        let at = rng.below(bytes.len());
        match rng.below(10) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << rng.below(8),
            1 => bytes.truncate(at),
            2 => bytes.insert(at, rng.below(256) as u8),
            3 if !bytes.is_empty() => drop(bytes.remove(at)),
            4 => {
                let piece = bytes[at..(at + 1 + rng.below(40)).min(bytes.len())].to_vec();
                bytes.splice(at..at, piece);
            }
            5 => {
                let space = rng
                    .pick(&[b" ".as_slice(), b"\n", b"\t", b"\r\n", b"\x0b", b"\xc2\xa0"])
                    .repeat(1 + rng.below(3000));
                bytes.splice(at..at, space);
            }
            6 => bytes.splice(0..0, *b"\xef\xbb\xbf").for_each(drop),
            7 => bytes.extend_from_slice(rng.pick(&[b"x".as_slice(), b"{}", b"\0", b"]", b"//", b"\n\n{\"a\":1}"])),
            8 => *bytes = bytes.iter().flat_map(|byte| [*byte, 0]).collect(),
            _ => bytes.extend_from_within(..at),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{NUM_SYSTEMATIC, random, systematic};
    use crate::json::Json;
    use crate::rng::Rng;

    #[test]
    fn each_place_gets_each_extreme() {
        let base = Json::read(br#"{"a":[1,{"b":2}],"c":"x"}"#).unwrap();
        let all: HashSet<String> = (0..base.count())
            .flat_map(|place| (0..NUM_SYSTEMATIC).map(move |extreme| (place, extreme)))
            .map(|(place, extreme)| String::from_utf8(systematic(&base, place, extreme)).unwrap())
            .collect();
        for wanted in [
            r#"{"a":[1e309,{"b":2}],"c":"x"}"#,
            r#"{"a":[1,{"b":-9223372036854775809}],"c":"x"}"#,
            r#"{"a":[1,{"b":2}],"c":null}"#,
            r#"{"a":[1,{}],"c":"x"}"#,
            r#"{"a":[1,{"b":2,"b":2}],"c":"x"}"#,
            r#"{"c":"x"}"#,
            r#"{"a":[1,{"b":2}]}"#,
            r#"{"a":[1,{"b":2}],"c":"x","a":[1,{"b":2}]}"#,
            "NaN",
        ] {
            assert!(all.contains(wanted), "{wanted}");
        }
    }

    #[test]
    fn the_same_seed_makes_the_same_body() {
        let base = Json::read(br#"{"messages":[{"role":"user","content":"x"}],"n":1}"#).unwrap();
        let body = |seed| random(&base, &mut Rng(seed));
        let different: HashSet<Vec<u8>> = (0..500).map(body).collect();
        assert!(different.len() > 350, "{}", different.len());
        assert!((0..500).all(|seed| body(seed) == body(seed)));
    }
}
