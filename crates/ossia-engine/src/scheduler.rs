//! Who runs next, and what a step computes. Numbers in, numbers out: no model, no pages, no clock.
//!
//! Between clients service is fair by virtual counters (after Sheng et al., "Fairness in Serving Large Language Models",
//! OSDI 2024): a client's counter rises with each token that is computed for it, and the waiting request of the client
//! with the lowest counter goes first. Who comes back after a pause starts at the lowest counter of those who are there,
//! so nobody saves up service. Within a client requests go in the order in which they came.
//!
//! A step has room for so many tokens. Every sequence that decodes gets one; what is left goes to prompts, the least
//! served client's first, but while others decode only a part of it, so that a long prompt does not hold them up. Where
//! nobody decodes, a few prompts share the step: if one after the other were computed, the first to decode would wait at
//! every token for a part of the next prompt, and the last for its first token twice as long.
//!
//! A step with many sequences takes several times as long as one with few. So while a client who holds few places waits
//! for the beginning of an answer, those who hold many sit out a few steps: their owner, not their number, sets the pace.
//! And as long as such a client comes and goes, only half of those who belong to one that holds many decode in a step, since
//! whoever comes waits for the step that is just running.

use std::collections::{BTreeMap, VecDeque};

use ossia_model::Logits;

/// What a computed prompt token counts.
pub const PROMPT_WEIGHT: u64 = 1;
/// What a generated token counts: it takes a place in a step of its own.
pub const OUTPUT_WEIGHT: u64 = 2;
/// A sequence is at its beginning until so many tokens were generated: what is said first has a header before it.
const BEGINNING: usize = 6;
/// A client holds few places if another holds so many times as many.
const FEW: usize = 4;
/// Steps that others may sit out one after the other. Every step of all allows one more.
const MOST_SAT_OUT: usize = 8;
/// Steps for which a client who holds few places is still thought of after his last.
const THOUGHT_OF: usize = 64;
/// Prompt tokens that make a step worth its time: so many prompts share one in which nobody decodes that each has as many.
const WORTH_IT: usize = 128;
/// Clients without requests whose counters are remembered.
const MOST_ABSENT: usize = 4096;

/// Counters and waiting requests of all clients.
#[derive(Default)]
pub struct Scheduler {
    clients: BTreeMap<u64, Client>,
    /// No counter of a present client is below; never falls.
    floor: u64,
    /// Steps that those who hold many places may sit out.
    credit: usize,
    /// Steps for which those who hold few places are still thought of.
    thought_of: usize,
}

#[derive(Default)]
struct Client {
    served: u64,
    /// Requests by number, the next one first.
    waiting: VecDeque<u64>,
    running: usize,
}

impl Client {
    fn present(&self) -> bool {
        self.running > 0 || !self.waiting.is_empty()
    }
}

impl Scheduler {
    fn client(&mut self, client: u64) -> &mut Client {
        let floor = self.floor;
        let entry = self.clients.entry(client).or_default();
        if !entry.present() {
            entry.served = entry.served.max(floor);
        }
        entry
    }

    /// A request came: it waits behind its client's others.
    pub fn enqueue(&mut self, client: u64, id: u64) {
        self.update();
        self.client(client).waiting.push_back(id);
    }

    /// A running request must wait again: before its client's others.
    pub fn requeue(&mut self, client: u64, id: u64) {
        let entry = self.client(client);
        entry.waiting.push_front(id);
        entry.running -= 1;
    }

    /// The request of each client that is to run next, with its client; the least served client's first, among equals
    /// that of the one of whom fewest run: who has just come starts at another's counter.
    pub fn heads(&self) -> Vec<(u64, u64)> {
        let head = |(&client, c): (&u64, &Client)| c.waiting.front().map(|&id| (c.served, c.running, id, client));
        let mut heads: Vec<_> = self.clients.iter().filter_map(head).collect();
        heads.sort_unstable();
        heads.into_iter().map(|(_, _, id, client)| (client, id)).collect()
    }

    /// `id` waits no longer; it runs now where `runs`.
    pub fn dequeue(&mut self, client: u64, id: u64, runs: bool) {
        let entry = self.client(client);
        entry.waiting.retain(|&waiting| waiting != id);
        entry.running += usize::from(runs);
        self.update();
    }

    /// A running request of `client` is over.
    pub fn ended(&mut self, client: u64) {
        self.client(client).running -= 1;
        self.update();
    }

    /// Counts tokens that were computed for `client`.
    pub fn charge(&mut self, client: u64, tokens: u64) {
        self.client(client).served += tokens;
    }

    /// What `client` has had.
    pub fn served(&self, client: u64) -> u64 {
        self.clients.get(&client).map_or(self.floor, |c| c.served)
    }

    /// Who takes part in the next step: all, or only those of clients who hold few places, where one of these is at its
    /// beginning. At least half of all steps are everybody's.
    pub fn taking_part(&mut self, mut sequences: Vec<Runnable>, most_prompt: usize) -> Vec<Runnable> {
        let places = |client: u64| self.clients.get(&client).map_or(0, |c| c.running);
        let most = sequences.iter().map(|s| places(s.client)).max().unwrap_or(0);
        let few = |s: &Runnable| places(s.client) * FEW <= most;
        self.thought_of = if sequences.iter().any(few) { THOUGHT_OF } else { self.thought_of.saturating_sub(1) };
        if self.thought_of > 0 {
            halve(&mut sequences, |s| s.decodes && !few(s) && places(s.client) >= FEW);
        }
        // A long prompt is a long step whoever sits it out.
        let short = |s: &Runnable| few(s) && s.pending <= most_prompt;
        if self.credit > 0 && sequences.iter().any(|s| short(s) && s.made < BEGINNING) {
            self.credit -= 1;
            return sequences.into_iter().filter(short).collect();
        }
        self.credit = (self.credit + 1).min(MOST_SAT_OUT);
        sequences
    }

    /// Raises the floor and forgets absent clients who would start at it anyway.
    fn update(&mut self) {
        let lowest = self.clients.values().filter(|c| c.present()).map(|c| c.served).min();
        self.floor = self.floor.max(lowest.unwrap_or(0));
        let floor = self.floor;
        self.clients.retain(|_, c| c.present() || c.served > floor);
        let absent = self.clients.values().filter(|c| !c.present()).count();
        if absent > MOST_ABSENT {
            self.clients.retain(|_, c| c.present());
        }
    }
}

/// A running sequence, as the plan of a step sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Runnable {
    /// Its number.
    pub id: u64,
    /// Its client.
    pub client: u64,
    /// What its client has had.
    pub served: u64,
    /// Tokens that were generated.
    pub made: usize,
    /// Tokens that are known and not computed, at least one.
    pub pending: usize,
    /// True where the one pending token was generated just now.
    pub decodes: bool,
    /// True where every position wants logits.
    pub all_logits: bool,
    /// The step in which it last took part.
    pub last_step: u64,
}

/// What a step has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Tokens.
    pub tokens: usize,
    /// Rows of logits.
    pub rows: usize,
    /// Prompt tokens while others decode.
    pub prompt_tokens: usize,
}

/// A sequence's part in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Its number.
    pub id: u64,
    /// Its next tokens.
    pub tokens: usize,
    /// Which of them want logits.
    pub logits: Logits,
    /// True where the one token was generated just now.
    pub decodes: bool,
}

/// What a step's shares come to: tokens of those who decode, and of prompts.
pub fn tokens_of(shares: &[Share]) -> (usize, usize) {
    let decoding = shares.iter().filter(|share| share.decodes).count();
    (decoding, shares.iter().map(|share| share.tokens).sum::<usize>() - decoding)
}

/// Keeps of the crowd the half that has waited longest, and everybody else.
fn halve(sequences: &mut Vec<Runnable>, crowds: impl Fn(&Runnable) -> bool) {
    let mut crowd: Vec<_> = sequences.extract_if(.., |s| crowds(s)).collect();
    crowd.sort_by_key(|s| (s.last_step, s.id));
    crowd.truncate(crowd.len().div_ceil(2));
    sequences.append(&mut crowd);
}

/// Fills a step. Something is computed whenever there is something to compute and room.
pub fn plan(sequences: Vec<Runnable>, mut room: Room) -> Vec<Share> {
    let (mut decoding, mut prompts): (Vec<_>, Vec<_>) = sequences.into_iter().partition(|s| s.decodes);
    // Where not all can decode, those who waited longest do.
    decoding.sort_by_key(|s| (s.last_step, s.id));
    prompts.sort_by_key(|s| (s.served, s.id));
    let mut shares = Vec::new();
    add(&mut shares, &decoding, &mut room);
    let mut rest = &prompts[..];
    if shares.is_empty() {
        let few;
        (few, rest) = prompts.split_at(prompts.len().min(room.tokens / WORTH_IT));
        side_by_side(&mut shares, few, &mut room);
    } else {
        room.tokens = room.tokens.min(room.prompt_tokens);
    }
    add(&mut shares, rest, &mut room);
    shares
}

/// The room is split evenly between the clients of a few prompts, and a client's part between his.
fn side_by_side(shares: &mut Vec<Share>, few: &[Runnable], room: &mut Room) {
    let mut clients: BTreeMap<(u64, u64), Vec<Runnable>> = BTreeMap::new();
    few.iter().for_each(|prompt| clients.entry((prompt.served, prompt.client)).or_default().push(*prompt));
    let wants: Vec<usize> = clients.values().map(|own| own.iter().map(|p| p.pending).sum()).collect();
    for (own, part) in clients.values().zip(evenly(&wants, room.tokens)) {
        let wants: Vec<usize> = own.iter().map(|prompt| prompt.pending).collect();
        for (prompt, tokens) in own.iter().zip(evenly(&wants, part)) {
            let mut part = Room { tokens, ..*room };
            add(shares, &[*prompt], &mut part);
            (room.tokens, room.rows) = (room.tokens - (tokens - part.tokens), part.rows);
        }
    }
}

/// Splits `room`: nobody gets more than he wants, and what is left over goes to the others.
fn evenly(wants: &[usize], mut room: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..wants.len()).collect();
    order.sort_by_key(|&i| wants[i]);
    let mut given = vec![0; wants.len()];
    for (left, i) in (1..=wants.len()).rev().zip(order) {
        given[i] = wants[i].min(room.div_ceil(left));
        room -= given[i];
    }
    given
}

fn add(shares: &mut Vec<Share>, sequences: &[Runnable], room: &mut Room) {
    for sequence in sequences {
        let share = share(sequence, *room);
        if share.tokens > 0 {
            room.tokens -= share.tokens;
            room.rows -= rows(&share);
            shares.push(share);
        }
    }
}

/// Rows of logits that a share takes.
fn rows(share: &Share) -> usize {
    match share.logits {
        Logits::None => 0,
        Logits::Last => 1,
        Logits::All => share.tokens,
    }
}

fn share(sequence: &Runnable, room: Room) -> Share {
    let Runnable { id, pending, decodes, .. } = *sequence;
    let most = pending.min(room.tokens);
    if sequence.all_logits {
        return Share { id, tokens: most.min(room.rows), logits: Logits::All, decodes };
    }
    match (most == pending, room.rows) {
        // The last token waits for a row; those before it need none.
        (true, 0) => Share { id, tokens: pending - 1, logits: Logits::None, decodes },
        (true, _) => Share { id, tokens: pending, logits: Logits::Last, decodes },
        (false, _) => Share { id, tokens: most, logits: Logits::None, decodes },
    }
}

#[cfg(test)]
mod tests;
