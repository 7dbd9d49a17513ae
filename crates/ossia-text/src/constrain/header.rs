//! Which headers a message may have, as a graph of bytes and special tokens, and which tokens go on in it.
//!
//! A header is one of a few dozen strings. They are inserted into a prefix tree; the allowed tokens are found by
//! walking the tree and the vocabulary's trie together, so that any way of cutting a header's words into tokens is
//! right and the cost is that of the few tokens that fit.

use llguidance::toktrie::TrieNode;

use super::rules::{Choice, Format, ToolRule};
use super::vocab::{Vocab, allow};
use crate::harmony::Marks;

/// What a header's message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// Chain of thought.
    Thinking,
    /// Commentary for the user.
    Preamble,
    /// A call of the tool with this index.
    Call(usize),
    /// The final message.
    Final,
}

/// A step in a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Symbol {
    Byte(u8),
    Special(u32),
}

#[derive(Debug, Default)]
struct Node {
    next: Vec<(Symbol, u32)>,
    target: Option<Target>,
}

/// All headers that a message may have at one point of a turn.
#[derive(Debug)]
pub(super) struct Headers {
    nodes: Vec<Node>,
}

/// Where the first message of a turn begins: `<|start|>assistant` is in the prompt.
pub(super) const FIRST: u32 = 0;
/// Where any later message begins, at its `<|start|>`.
pub(super) const LATER: u32 = 1;

/// Which messages the headers are for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kinds {
    pub thinking: bool,
    pub preamble: bool,
    pub answer: bool,
}

impl Kinds {
    /// Of messages that a turn may have at its beginning.
    pub fn of(choice: Choice, num_tools: usize, thinking: bool) -> Self {
        let calls = choice != Choice::None && num_tools > 0;
        Self { thinking, preamble: calls, answer: choice != Choice::Required }
    }

    /// Only those that may end a turn.
    pub fn last(self) -> Self {
        Self { thinking: false, preamble: false, ..self }
    }
}

impl Headers {
    /// `tools` are those that may be called.
    pub fn new(marks: Marks, kinds: Kinds, tools: &[ToolRule], format: &Format) -> Self {
        let mut headers = Self { nodes: vec![Node::default(), Node::default()] };
        headers.join_later(marks);
        for (wanted, channel, target) in [
            (kinds.thinking, "analysis", Target::Thinking),
            (kinds.preamble, "commentary", Target::Preamble),
            (kinds.answer, "final", Target::Final),
        ] {
            if wanted {
                headers.insert(&[mark(marks.channel), bytes(channel), mark(marks.message)], target);
            }
        }
        if kinds.answer && *format != Format::Text {
            let kind =
                [mark(marks.channel), bytes("final "), mark(marks.constrain), bytes("json"), mark(marks.message)];
            headers.insert(&kind, Target::Final);
        }
        for (index, tool) in tools.iter().enumerate() {
            headers.insert_calls(marks, tool, Target::Call(index));
        }
        headers
    }

    /// `<|start|>assistant` leads from the later message's beginning to the first's.
    fn join_later(&mut self, marks: Marks) {
        let word: Vec<Symbol> =
            [vec![Symbol::Special(marks.start)], "assistant".bytes().map(Symbol::Byte).collect()].concat();
        let mut at = LATER;
        for (i, &symbol) in word.iter().enumerate() {
            let next = if i + 1 == word.len() { FIRST } else { self.add_node() };
            self.nodes[at as usize].next.push((symbol, next));
            at = next;
        }
    }

    /// The recipient after the channel, as the models write it, and before it, as harmony renders it; the type of the
    /// content with its special token, as a plain word, or left out.
    fn insert_calls(&mut self, marks: Marks, tool: &ToolRule, target: Target) {
        let to = format!(" to={}", tool.recipient());
        let (to, channel) = (bytes(&to), [mark(marks.channel), bytes("commentary")]);
        let end = mark(marks.message);
        let json = [vec![bytes(" "), mark(marks.constrain), bytes("json")], vec![bytes(" json")]];
        let types = if tool.takes_json() { json.to_vec() } else { vec![vec![bytes(" code")]] };
        for kind in types.iter().chain([&Vec::new()]) {
            self.insert(&[&channel[..], &[to], kind, &[end]].concat(), target);
            self.insert(&[&[to], &channel[..], kind, &[end]].concat(), target);
        }
    }

    fn insert(&mut self, parts: &[Part<'_>], target: Target) {
        let mut at = FIRST;
        for part in parts {
            match *part {
                Part::Mark(id) => at = self.step_or_add(at, Symbol::Special(id)),
                Part::Bytes(text) => text.bytes().for_each(|byte| at = self.step_or_add(at, Symbol::Byte(byte))),
            }
        }
        self.nodes[at as usize].target = Some(target);
    }

    fn add_node(&mut self) -> u32 {
        self.nodes.push(Node::default());
        self.nodes.len() as u32 - 1
    }

    fn step(&self, at: u32, symbol: Symbol) -> Option<u32> {
        self.nodes[at as usize].next.iter().find(|(found, _)| *found == symbol).map(|&(_, next)| next)
    }

    fn step_or_add(&mut self, at: u32, symbol: Symbol) -> u32 {
        self.step(at, symbol).unwrap_or_else(|| {
            let next = self.add_node();
            self.nodes[at as usize].next.push((symbol, next));
            next
        })
    }

    /// The message that begins where a token has led.
    pub fn target(&self, at: u32) -> Option<Target> {
        self.nodes[at as usize].target
    }

    /// Where a token leads; None if it may not come here.
    pub fn accept(&self, vocab: &Vocab, at: u32, token: u32) -> Option<u32> {
        match vocab.text_of(token) {
            Some([]) => None,
            Some(text) => text.iter().try_fold(at, |at, &byte| self.step(at, Symbol::Byte(byte))),
            None => self.step(at, Symbol::Special(token)),
        }
    }

    /// The tokens that may come here.
    pub fn allowed(&self, vocab: &Vocab, at: u32) -> Vec<u32> {
        let mut words = vec![0; vocab.text.len()];
        for &(symbol, _) in &self.nodes[at as usize].next {
            if let Symbol::Special(id) = symbol {
                allow(&mut words, id);
            }
        }
        let mut open: Vec<(u32, &TrieNode)> = vec![(at, vocab.trie().root())];
        while let Some((at, trie_at)) = open.pop() {
            for &(symbol, next) in &self.nodes[at as usize].next {
                let Symbol::Byte(byte) = symbol else { continue };
                let Some(below) = vocab.trie().child_at_byte(trie_at, byte) else { continue };
                if let Some(id) = below.token_id() {
                    allow(&mut words, id);
                }
                open.push((next, below));
            }
        }
        words
    }
}

/// A part of a header to insert.
#[derive(Debug, Clone, Copy)]
enum Part<'t> {
    Mark(u32),
    Bytes(&'t str),
}

fn mark(id: u32) -> Part<'static> {
    Part::Mark(id)
}

fn bytes(text: &str) -> Part<'_> {
    Part::Bytes(text)
}
