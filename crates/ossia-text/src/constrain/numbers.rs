//! Keeps the numbers of a JSON text short: JSON allows digits without end, which small models write, and exponents that
//! no computer's number can hold.
//!
//! A soft limit on top of a grammar: where nothing else may come, a longer number may.

use super::vocab::{Vocab, is_allowed};

/// Most digits before an exponent: whole numbers of so many fit in 64 bits.
const MAX_DIGITS: u32 = 18;
/// Most digits of an exponent.
const MAX_EXPONENT_DIGITS: u32 = 2;

/// Where in a JSON text a generation is.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Numbers {
    at: At,
    num_digits: u32,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum At {
    #[default]
    Between,
    String,
    /// After a backslash in a string.
    Escape,
    Number,
    Exponent,
}

impl Numbers {
    /// Goes on by text.
    pub fn push(&mut self, text: &[u8]) {
        text.iter().for_each(|&byte| self.push_byte(byte));
    }

    fn push_byte(&mut self, byte: u8) {
        let next = match (self.at, byte) {
            (At::String, b'\\') => At::Escape,
            (At::String, b'"') => At::Between,
            (At::String | At::Escape, _) => At::String,
            (_, b'"') => At::String,
            (At::Number, b'e' | b'E') => At::Exponent,
            (At::Number, b'.' | b'0'..=b'9') => At::Number,
            (At::Exponent, b'0'..=b'9' | b'+' | b'-') => At::Exponent,
            (_, b'0'..=b'9' | b'-') => At::Number,
            _ => At::Between,
        };
        if next != self.at {
            self.num_digits = 0;
        }
        self.num_digits += u32::from(byte.is_ascii_digit());
        self.at = next;
    }

    /// True where the number that the text ends in is too long.
    fn is_too_long(&self) -> bool {
        match self.at {
            At::Number => self.num_digits > MAX_DIGITS,
            At::Exponent => self.num_digits > MAX_EXPONENT_DIGITS,
            _ => false,
        }
    }

    /// Clears the tokens of `allowed` that would make a number too long, unless none stays; `may_end` where the text
    /// may end here.
    pub fn limit(&self, vocab: &Vocab, allowed: &mut [u32], may_end: bool) {
        if matches!(self.at, At::String | At::Escape) {
            return;
        }
        let too_long: Vec<u32> = ids(allowed).filter(|&id| self.would_be_too_long(vocab, id)).collect();
        if too_long.is_empty() || !may_end && too_long.len() == ids(allowed).count() {
            return;
        }
        too_long.into_iter().for_each(|id| allowed[id as usize / 32] &= !(1 << (id % 32)));
    }

    fn would_be_too_long(&self, vocab: &Vocab, id: u32) -> bool {
        let mut numbers = *self;
        let grows = |&byte: &u8| {
            numbers.push_byte(byte);
            numbers.is_too_long()
        };
        vocab.text_of(id).is_some_and(|text| text.iter().any(grows))
    }
}

/// The ids whose bits are set.
fn ids(words: &[u32]) -> impl Iterator<Item = u32> + '_ {
    let set = |&id: &u32| is_allowed(words, id);
    let of_word = move |(i, &word): (usize, &u32)| if word == 0 { 0..0 } else { 32 * i as u32..32 * (i as u32 + 1) };
    words.iter().enumerate().flat_map(of_word).filter(set)
}
