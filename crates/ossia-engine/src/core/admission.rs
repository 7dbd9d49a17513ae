//! Who may begin: a place among the running, pages for all tokens that are known, and fairness where both are short.
//!
//! The least served client's request is next. Where it has no room, and has not begun yet, a client who has had no less
//! and holds more than his share makes room: his youngest sequences wait. So a client who floods the engine does not keep
//! another from his first token. A request that was made to wait does not do so to others, or two large ones would push
//! each other out for ever.
//!
//! Where there is still no room, other clients' requests may pass, but only so many: then all wait until it has begun.

use ossia_kernels::kv::PAGE;
use ossia_model::gpt_oss::config::LayerKind;

use super::{Arrival, Core, Who};
use crate::pages::Tables;
use crate::prefix_cache::Hit;
use crate::request::Event;
use crate::runner::Runner;
use crate::sequence::Sequence;

/// Requests that may pass one that finds no room.
const MOST_PASSED: usize = 16;
/// Clients whose requests are tried in a step.
const MOST_TRIED: usize = 8;

/// A waiting request that is to run.
struct Candidate {
    client: u64,
    id: u64,
    /// Tokens that are known.
    tokens: usize,
    /// Never ran.
    new: bool,
}

impl<R: Runner> Core<R> {
    /// Lets waiting requests run while there is room for them.
    pub(super) fn admit(&mut self) {
        while self.admit_one() {}
    }

    /// True where it is to be called again.
    fn admit_one(&mut self) -> bool {
        let mut heads = self.scheduler.heads();
        heads.truncate(MOST_TRIED);
        for (at, &(client, id)) in heads.iter().enumerate() {
            let Some(candidate) = self.candidate(client, id) else { continue };
            if self.try_one(&candidate) {
                for (_, earlier) in &heads[..at] {
                    self.waiting.entry(*earlier).and_modify(|waiting| waiting.passed += 1);
                }
                return true;
            }
            if self.waiting.get(&id).is_some_and(|waiting| waiting.passed >= MOST_PASSED) {
                return false;
            }
        }
        false
    }

    /// True where it runs now. The room that others make is its own: nobody else is asked in between.
    fn try_one(&mut self, candidate: &Candidate) -> bool {
        loop {
            let place = self.running.len() < self.shape.sequences;
            let hit = if place { self.look_up(candidate.id) } else { None };
            let lacking = self.lacking(candidate.tokens, hit.as_ref());
            if place && lacking == 0 {
                self.start(candidate, hit);
                return true;
            }
            if let Some(hit) = hit {
                self.give_back(hit);
            }
            // Alone it must run, if need be without the prefix whose partial pages it cannot copy.
            if self.running.is_empty() {
                self.start(candidate, None);
                return true;
            }
            let victims = self.fair_victims(candidate, place, lacking);
            if victims.is_empty() {
                return false;
            }
            victims.into_iter().for_each(|victim| self.preempt(victim));
        }
    }

    fn candidate(&self, client: u64, id: u64) -> Option<Candidate> {
        let (tokens, new) = match &self.waiting.get(&id)?.who {
            Who::New(arrival) => (arrival.request.prompt.len(), true),
            Who::Preempted(sequence) => (sequence.tokens.len(), false),
        };
        Some(Candidate { client, id, tokens, new })
    }

    /// The longest cached prefix that the request can use; its pages are held.
    fn look_up(&mut self, id: u64) -> Option<Hit> {
        let Self { cache, pages, options, waiting, .. } = self;
        let (salt, tokens, most) = match &waiting.get(&id)?.who {
            Who::New(arrival) => {
                let request = &arrival.request;
                let most = if request.prompt_logprobs.is_some() { 0 } else { request.prompt.len() - 1 };
                (request.salt, &request.prompt, most)
            }
            Who::Preempted(sequence) => (sequence.salt, &sequence.tokens, sequence.reusable()),
        };
        if options.cache { cache.lookup(pages, salt, tokens, most) } else { None }
    }

    fn give_back(&mut self, mut hit: Hit) {
        self.pages.release(&mut hit.tables);
    }

    /// Pages of full layers that are lacking for `tokens` more, behind what `hit` has, besides the others: what these
    /// will need for the tokens that they have is theirs, and one page more for each, so that they do not fall out at
    /// the next step.
    fn lacking(&self, tokens: usize, hit: Option<&Hit>) -> usize {
        let promised: usize = self.running.values().map(|s| s.tables.missing(s.tokens.len()).full + 1).sum();
        let shared = hit.map_or(0, |hit| hit.len / PAGE);
        (tokens.div_ceil(PAGE) - shared + promised).saturating_sub(self.pages.available().full)
    }

    /// Who must wait so that `candidate` can run: sequences of the client who holds most, the youngest first. Nobody
    /// where that would leave the candidate's client with more than that one.
    fn fair_victims(&self, candidate: &Candidate, place: bool, lacking: usize) -> Vec<u64> {
        if !candidate.new {
            return Vec::new();
        }
        let served = self.scheduler.served(candidate.client);
        // Who has just come starts at the lowest counter: he has not had more than its owner.
        let more = |s: &&Sequence| s.client != candidate.client && self.scheduler.served(s.client) >= served;
        let weight = |client: u64| {
            let own = self.running.values().filter(|s| s.client == client);
            if place { own.map(|s| s.tables.full.pages.len()).sum() } else { own.count() }
        };
        let Some((held, client)) = self.running.values().filter(more).map(|s| (weight(s.client), s.client)).max()
        else {
            return Vec::new();
        };
        let wanted = if place { candidate.tokens.div_ceil(PAGE) } else { 1 };
        // Among equals nobody is to hold more than the other afterwards, or they would take turns.
        let margin = if place && self.scheduler.served(client) > served { 0 } else { wanted };
        if weight(candidate.client) + wanted + margin > held {
            return Vec::new();
        }
        let youngest = self.running.values().rev().filter(|s| s.client == client);
        if !place {
            return youngest.take(1).map(|s| s.id).collect();
        }
        let (mut victims, mut freed) = (Vec::new(), 0);
        for sequence in youngest {
            if freed >= lacking {
                break;
            }
            freed += sequence.tokens.len().div_ceil(PAGE) + 1;
            victims.push(sequence.id);
        }
        if freed >= lacking { victims } else { Vec::new() }
    }

    /// The candidate runs from now on, behind the prefix that was found.
    fn start(&mut self, candidate: &Candidate, hit: Option<Hit>) {
        let Candidate { client, id, .. } = *candidate;
        self.scheduler.dequeue(client, id, true);
        let sequence = match self.waiting.remove(&id).map(|waiting| waiting.who) {
            Some(Who::New(arrival)) => {
                let Arrival { request, sink, cancelled, .. } = *arrival;
                Sequence::new(id, request, self.shape.vocab, sink, cancelled)
            }
            Some(Who::Preempted(sequence)) => Some(*sequence),
            None => None,
        };
        let hit = hit.and_then(|hit| self.copy_partial(hit));
        let Some(mut sequence) = sequence else {
            hit.into_iter().for_each(|hit| self.give_back(hit));
            self.stats.failed += 1;
            return self.scheduler.ended(client);
        };
        if let Some(hit) = hit {
            (sequence.len, sequence.last_point, sequence.tables) = (hit.len, hit.len, hit.tables);
        }
        if self.options.cache {
            sequence.fork = self.cache.known(sequence.salt, &sequence.tokens);
        }
        let (len, first) = (sequence.len, !sequence.started);
        sequence.started = true;
        let told = if first { sequence.tell(Event::Started { cached: len }) } else { Ok(()) };
        if first {
            sequence.charged = len;
            self.stats.prompt_tokens += sequence.prompt as u64;
            self.stats.cached_tokens += len as u64;
        }
        self.running.insert(id, sequence);
        if let Err(finish) = told {
            self.end(id, finish);
        }
    }

    /// Copies the pages in whose middle a prefix ends. Nothing, and the prefix given back, where no page is free.
    fn copy_partial(&mut self, mut hit: Hit) -> Option<Hit> {
        if hit.len.is_multiple_of(PAGE) {
            return Some(hit);
        }
        for kind in [LayerKind::Full, LayerKind::Sliding] {
            if !self.copy_last(kind, &mut hit.tables) {
                self.give_back(hit);
                return None;
            }
        }
        Some(hit)
    }

    fn copy_last(&mut self, kind: LayerKind, tables: &mut Tables) -> bool {
        loop {
            if let Some((from, to)) = self.pages.replace_last(kind, tables) {
                self.runner.copy_page(kind, from, to);
                return true;
            }
            if !self.cache.evict(&mut self.pages) {
                return false;
            }
        }
    }
}
