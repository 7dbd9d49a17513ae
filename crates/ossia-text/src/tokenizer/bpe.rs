//! Byte-pair encoding over bytes: a piece starts as the tokens of its bytes, then the adjacent pair of the most urgent
//! merge is joined, leftmost first, until none is left.
//!
//! O(n log n) for a piece of n bytes, also for a piece as long as the text (a user may send a million equal letters).

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use aho_corasick::{AhoCorasick, MatchKind};

use super::split::Split;
use super::vocabulary::Vocabulary;
use crate::TextError;

/// Marks the end of the list of symbols.
const NONE: usize = usize::MAX;

/// A byte-level BPE tokenizer.
pub(super) struct Bpe {
    tokens: Vec<Option<Box<[u8]>>>,
    byte_ids: Vec<Option<u32>>,
    /// (left, right) to (rank, result).
    merges: HashMap<(u32, u32), (u32, u32)>,
    /// Only filled where a piece that is a token as a whole is taken as it is.
    whole: HashMap<Box<[u8]>, u32>,
    splits: Vec<Split>,
    added: Option<Added>,
}

/// Added tokens that are looked for in text, leftmost first, of those the longest.
struct Added {
    search: AhoCorasick,
    ids: Vec<u32>,
}

/// A token of the piece being merged, in a doubly linked list.
struct Symbol {
    id: u32,
    prev: usize,
    next: usize,
}

/// A pair that could be merged: most urgent rank first, then leftmost.
type Candidate = Reverse<(u32, usize, u32, u32)>;

impl Bpe {
    pub fn new(vocabulary: Vocabulary) -> Result<Self, TextError> {
        let by_bytes = vocabulary.by_bytes();
        let byte_ids = (0..=255u8).map(|b| by_bytes.get([b].as_slice()).copied()).collect();
        let whole = match vocabulary.whole_pieces_first {
            true => by_bytes.iter().map(|(bytes, &id)| (Box::from(*bytes), id)).collect(),
            false => HashMap::new(),
        };
        let ranked = (0u32..).zip(&vocabulary.merges);
        let merges = ranked.map(|(rank, &(left, right, result))| ((left, right), (rank, result))).collect();
        let added =
            Added::new(&vocabulary.added).map_err(|error| vocabulary.error(format!("added tokens: {error}")))?;
        Ok(Self { tokens: vocabulary.ordinary, byte_ids, merges, whole, splits: vocabulary.splits, added })
    }

    pub fn token_bytes(&self, id: u32) -> Option<&[u8]> {
        self.tokens.get(id as usize)?.as_deref()
    }

    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TextError> {
        let mut ids = Vec::with_capacity(text.len() / 3);
        let mut outcome = Ok(());
        let mut done = 0;
        for (start, end, id) in self.added.iter().flat_map(|added| added.find_all(text)) {
            self.encode_between(text, done..start, &mut ids, &mut outcome);
            ids.push(id);
            done = end;
        }
        self.encode_between(text, done..text.len(), &mut ids, &mut outcome);
        outcome.map(|()| ids)
    }

    fn encode_between(
        &self,
        text: &str,
        range: std::ops::Range<usize>,
        ids: &mut Vec<u32>,
        outcome: &mut Result<(), TextError>,
    ) {
        let mut at = range.start;
        self.each_piece(&self.splits, text.get(range).unwrap_or_default(), &mut |piece| {
            if outcome.is_ok() {
                *outcome = self.encode_piece(piece.as_bytes(), at, ids);
            }
            at += piece.len();
        });
    }

    fn each_piece(&self, splits: &[Split], text: &str, each: &mut dyn FnMut(&str)) {
        match splits {
            [] => each(text),
            [split, rest @ ..] => split.pieces(text, |piece| self.each_piece(rest, piece, each)),
        }
    }

    /// Appends the tokens of one piece; `at` is its offset in the text, for the error.
    fn encode_piece(&self, piece: &[u8], at: usize, ids: &mut Vec<u32>) -> Result<(), TextError> {
        if let Some(&id) = self.whole.get(piece) {
            ids.push(id);
            return Ok(());
        }
        let mut symbols = Vec::with_capacity(piece.len());
        for (i, &byte) in piece.iter().enumerate() {
            let id = self.byte_ids.get(usize::from(byte)).copied().flatten();
            let id = id.ok_or(TextError::NoTokenForByte { byte, at: at + i })?;
            let next = if i + 1 < piece.len() { i + 1 } else { NONE };
            symbols.push(Symbol { id, prev: i.wrapping_sub(1), next });
        }
        self.merge(&mut symbols);
        let mut here = 0;
        while let Some(symbol) = symbols.get(here) {
            ids.push(symbol.id);
            here = symbol.next;
        }
        Ok(())
    }

    fn merge(&self, symbols: &mut [Symbol]) {
        if self.merges.is_empty() {
            return;
        }
        let mut heap: BinaryHeap<Candidate> = (0..symbols.len()).filter_map(|i| self.candidate(symbols, i)).collect();
        while let Some(Reverse((_, here, left, right))) = heap.pop() {
            let Some(before) = self.join(symbols, here, left, right) else { continue };
            heap.extend(self.candidate(symbols, before));
            heap.extend(self.candidate(symbols, here));
        }
    }

    /// The merge of the symbol at `here` with the one after it, if the two have one.
    fn candidate(&self, symbols: &[Symbol], here: usize) -> Option<Candidate> {
        let left = symbols.get(here)?;
        let right = symbols.get(left.next)?;
        let &(rank, _) = self.merges.get(&(left.id, right.id))?;
        Some(Reverse((rank, here, left.id, right.id)))
    }

    /// Joins the symbol at `here` with the next one if they still are `left` and `right`; gives the place before it.
    fn join(&self, symbols: &mut [Symbol], here: usize, left: u32, right: u32) -> Option<usize> {
        let next = symbols.get(here).filter(|s| s.id == left)?.next;
        let after = symbols.get_mut(next).filter(|s| s.id == right)?;
        let &(_, result) = self.merges.get(&(left, right))?;
        let next_but_one = after.next;
        after.id = u32::MAX;
        if let Some(symbol) = symbols.get_mut(next_but_one) {
            symbol.prev = here;
        }
        let joined = symbols.get_mut(here)?;
        (joined.id, joined.next) = (result, next_but_one);
        Some(joined.prev)
    }
}

impl Added {
    /// None where there is nothing to look for.
    fn new(tokens: &[(String, u32)]) -> Result<Option<Self>, aho_corasick::BuildError> {
        if tokens.is_empty() {
            return Ok(None);
        }
        let names = tokens.iter().map(|(name, _)| name);
        let search = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(names)?;
        Ok(Some(Self { search, ids: tokens.iter().map(|&(_, id)| id).collect() }))
    }

    /// (start, end, id) of each added token in `text`.
    fn find_all<'a>(&'a self, text: &'a str) -> impl Iterator<Item = (usize, usize, u32)> + 'a {
        let found = self.search.find_iter(text);
        found.filter_map(|m| Some((m.start(), m.end(), *self.ids.get(m.pattern().as_usize())?)))
    }
}
