//! The engine without its thread: requests in, one step after the other, events out.
//!
//! A step, in this order: requests whose clients went away end; waiting requests are admitted; tokens are shared out;
//! pages are found for them, from the cache and, if need be, from the sequence that can best wait; the model computes;
//! tokens are chosen and told. Whatever breaks ends the request that it belongs to and no other.

mod admission;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ossia_model::{Logits, Paged};

use crate::adapter::Errand;
use crate::pages::Pages;
use crate::prefix_cache::PrefixCache;
use crate::queue::{Pace, Queue, weight};
use crate::request::{Finish, Request, Sink, TokenMask};
use crate::runner::{Rows, Runner, Shape, StepError};
use crate::scheduler::{OUTPUT_WEIGHT, PROMPT_WEIGHT, Room, Scheduler, Share, plan, tokens_of};
use crate::sequence::{Sequence, tell_end};
use crate::stats::{Stats, page_stats};
use crate::timing::Timing;

/// How the engine shares the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineOptions {
    /// Requests that may wait.
    pub queue: usize,
    /// Requests of one client that may wait.
    pub queue_per_client: usize,
    /// Who would have to wait longer than this is not taken.
    pub longest_wait: Duration,
    /// Prompt tokens of a step while other sequences decode, at most; fewer where such steps take long.
    pub prompt_tokens: usize,
    /// Keep prefixes for later requests.
    pub cache: bool,
    /// Tokens between points of the prefix cache in a long prompt.
    pub point_every: usize,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            queue: 256,
            queue_per_client: 192,
            longest_wait: Duration::from_secs(60),
            prompt_tokens: 128,
            cache: true,
            point_every: 512,
        }
    }
}

/// A request on its way in.
pub struct Arrival {
    /// Its number; later requests have higher ones.
    pub id: u64,
    /// What is asked for; it was checked.
    pub request: Request,
    /// Who is told.
    pub sink: Sink,
    /// Set when the client goes away.
    pub cancelled: Arc<AtomicBool>,
}

/// A request that waits.
struct Waiting {
    who: Who,
    /// Requests that came later and began before it.
    passed: usize,
}

enum Who {
    New(Box<Arrival>),
    Preempted(Box<Sequence>),
}

impl From<Who> for Waiting {
    fn from(who: Who) -> Self {
        Self { who, passed: 0 }
    }
}

impl Who {
    fn client(&self) -> u64 {
        match self {
            Who::New(arrival) => arrival.request.client,
            Who::Preempted(sequence) => sequence.client,
        }
    }

    fn finish(self, finish: Finish) {
        match self {
            Who::New(arrival) => tell_end(arrival.sink, finish),
            Who::Preempted(sequence) => sequence.finish(finish),
        }
    }

    fn cancelled(&self) -> bool {
        match self {
            Who::New(arrival) => arrival.cancelled.load(Ordering::Relaxed),
            Who::Preempted(sequence) => sequence.cancelled(),
        }
    }
}

/// Requests, pages and the model.
pub struct Core<R: Runner> {
    runner: R,
    shape: Shape,
    options: EngineOptions,
    pages: Pages,
    cache: PrefixCache,
    scheduler: Scheduler,
    waiting: BTreeMap<u64, Waiting>,
    running: BTreeMap<u64, Sequence>,
    mask: TokenMask,
    stats: Stats,
    pace: Pace,
    timing: Timing,
    /// Tokens of this step: of those who decode, and of prompts.
    tokens: (usize, usize),
    /// Tokens that were charged in this step, and whether somebody had to wait in it.
    charged: u64,
    crowded: bool,
    /// Who ended and is still to be told, in order: the counters are published first, so nobody who knows of an end can
    /// read counters from before it.
    ended: Vec<(Who, Finish)>,
}

/// How sequences came out of a step: those that end.
type Ends = Vec<(u64, Finish)>;

impl<R: Runner> Core<R> {
    /// Nothing runs yet.
    pub fn new(runner: R, options: EngineOptions) -> Self {
        let shape = runner.shape();
        Self {
            runner,
            shape,
            options,
            pages: Pages::new(shape.pages),
            cache: PrefixCache::new(shape.window),
            scheduler: Scheduler::default(),
            waiting: BTreeMap::new(),
            running: BTreeMap::new(),
            mask: TokenMask::new(shape.vocab),
            stats: Stats::default(),
            pace: Pace::default(),
            timing: Timing::new(options.prompt_tokens),
            tokens: (0, 0),
            charged: 0,
            crowded: false,
            ended: Vec::new(),
        }
    }

    /// A request joins the queue.
    pub fn enqueue(&mut self, arrival: Arrival) {
        self.stats.requests += 1;
        self.scheduler.enqueue(arrival.request.client, arrival.id);
        self.waiting.insert(arrival.id, Who::New(Box::new(arrival)).into());
    }

    /// True where nobody waits or runs.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }

    /// What was counted.
    pub fn stats(&self) -> Stats {
        let (full_pages, sliding_pages) = page_stats(self.pages.free(), self.pages.used(), self.pages.cached());
        Stats {
            waiting: self.waiting.len(),
            running: self.running.len(),
            full_pages,
            sliding_pages,
            cache_points: self.cache.points(),
            evictions: self.cache.evictions(),
            ..self.stats
        }
    }

    /// Counts the time of a step.
    pub fn took(&mut self, time: Duration) {
        self.stats.last_step_s = time.as_secs_f64();
        self.stats.step_s += self.stats.last_step_s;
        let (decoding, prompts) = self.tokens;
        self.timing.step(decoding, prompts, time);
        if self.crowded {
            self.pace.step(self.charged, time);
        }
    }

    /// Requests that wait and never ran.
    pub fn queued(&self) -> Queue {
        let mut queue = Queue::default();
        self.newcomers().for_each(|new| queue.add(new.request.client, weight(&new.request)));
        queue
    }

    /// How fast they begin.
    pub fn pace(&self) -> Pace {
        self.pace
    }

    /// How long an idle engine waits, now that requests of so many tokens have come, for others who come with them.
    pub fn wait_for_others(&self, tokens: usize) -> Duration {
        self.timing.wait(tokens.min(self.shape.tokens))
    }

    fn newcomers(&self) -> impl Iterator<Item = &Arrival> {
        self.waiting.values().filter_map(|waiting| match &waiting.who {
            Who::New(arrival) => Some(&**arrival),
            Who::Preempted(_) => None,
        })
    }

    /// Ends everything.
    pub fn end_all(&mut self, finish: &Finish) {
        let ids: Vec<u64> = self.waiting.keys().chain(self.running.keys()).copied().collect();
        ids.into_iter().for_each(|id| self.end(id, finish.clone()));
    }

    /// After a panic in the middle of a step: everybody is told, and pages and queues begin anew.
    pub fn reset(&mut self) {
        let finish = Finish::Failed("the engine failed in the middle of a step and began anew".into());
        let running = std::mem::take(&mut self.running).into_values();
        let waiting = std::mem::take(&mut self.waiting).into_values();
        self.stats.failed += (running.len() + waiting.len()) as u64;
        let running = running.map(|sequence| Who::Preempted(Box::new(sequence)));
        let everybody = running.chain(waiting.map(|waiting| waiting.who));
        self.ended.extend(everybody.map(|who| (who, finish.clone())));
        self.pages = Pages::new(self.shape.pages);
        self.cache = PrefixCache::new(self.shape.window);
        self.scheduler = Scheduler::default();
    }

    /// The first half of a step: who went away ends, who waits and has room begins.
    pub fn begin_step(&mut self) {
        self.sweep();
        self.admit();
        let crowded = self.newcomers().next().is_some();
        (self.charged, self.crowded) = (0, crowded);
    }

    /// The second half: tokens are computed and told. Returns how many were computed.
    pub fn end_step(&mut self) -> usize {
        let shares = self.share_out();
        let shares = self.find_pages(shares);
        self.tokens = tokens_of(&shares);
        let tokens = self.tokens.0 + self.tokens.1;
        self.stats.steps += u64::from(tokens > 0);
        self.compute(shares);
        tokens
    }

    /// Ends what was cancelled.
    fn sweep(&mut self) {
        let waiting = self.waiting.iter().filter(|(_, w)| w.who.cancelled()).map(|(&id, _)| id);
        let running = self.running.iter().filter(|(_, s)| s.cancelled()).map(|(&id, _)| id);
        let gone: Vec<u64> = waiting.chain(running).collect();
        gone.into_iter().for_each(|id| self.end(id, Finish::Cancelled));
    }

    /// Does something to the model between two steps.
    pub fn run_errand(&mut self, errand: Errand) {
        errand.run(&mut self.runner);
    }

    /// Tells everybody who ended. To be called after what [`Core::stats`] says was published.
    pub fn tell_ended(&mut self) {
        std::mem::take(&mut self.ended).into_iter().for_each(|(who, finish)| who.finish(finish));
    }

    /// Ends a request, wherever it is: its pages are back before its sink is told.
    fn end(&mut self, id: u64, finish: Finish) {
        match finish {
            Finish::Cancelled => self.stats.cancelled += 1,
            Finish::Failed(_) => self.stats.failed += 1,
            Finish::Stop | Finish::Length | Finish::ContextFull => self.stats.answered += 1,
        }
        if let Some(mut sequence) = self.running.remove(&id) {
            if matches!(finish, Finish::Stop | Finish::Length | Finish::ContextFull) {
                self.leave_point(&sequence, sequence.len);
            }
            self.pages.release(&mut sequence.tables);
            self.scheduler.ended(sequence.client);
            self.pace.ended(sequence.weight, sequence.paid);
            self.ended.push((Who::Preempted(Box::new(sequence)), finish));
        } else if let Some(waiting) = self.waiting.remove(&id) {
            self.scheduler.dequeue(waiting.who.client(), id, false);
            self.ended.push((waiting.who, finish));
        }
    }

    /// Remembers the first `len` computed tokens of a sequence.
    fn leave_point(&mut self, sequence: &Sequence, len: usize) {
        if self.options.cache {
            self.cache.insert(&mut self.pages, sequence.salt, &sequence.tokens[..len], &sequence.tables);
        }
    }

    fn share_out(&mut self) -> Vec<Share> {
        let sequences = self.running.values().map(|s| s.runnable(self.scheduler.served(s.client))).collect();
        let Shape { tokens, logits_rows, .. } = self.shape;
        let taking_part = self.scheduler.taking_part(sequences, self.options.prompt_tokens);
        plan(taking_part, Room { tokens, rows: logits_rows, prompt_tokens: self.timing.part() })
    }

    /// Pages for every share. Where there are too few, sequences give theirs up and their shares are dropped.
    fn find_pages(&mut self, mut shares: Vec<Share>) -> Vec<Share> {
        let mut at = 0;
        while at < shares.len() {
            let Share { id, tokens, .. } = shares[at];
            if self.extend(id, tokens) {
                at += 1;
                continue;
            }
            let Some(victim) = self.victim() else { break };
            if self.running.len() == 1 {
                let message = "the sequence needs more pages than there are: start with more KV tokens";
                self.end(victim, Finish::Failed(message.into()));
            } else {
                self.preempt(victim);
            }
            let before = shares[..at].iter().filter(|s| s.id == victim).count();
            shares.retain(|s| s.id != victim);
            at -= before;
        }
        shares.truncate(at);
        shares
    }

    /// Pages for a sequence's next tokens, from the cache where no others are free.
    fn extend(&mut self, id: u64, tokens: usize) -> bool {
        let Some(sequence) = self.running.get_mut(&id) else { return false };
        while !self.pages.extend(&mut sequence.tables, sequence.len + tokens) {
            if !self.cache.evict(&mut self.pages) {
                return false;
            }
        }
        true
    }

    /// The youngest sequence of the client that has had most.
    fn victim(&self) -> Option<u64> {
        self.running.values().map(|s| (self.scheduler.served(s.client), s.id)).max().map(|(_, id)| id)
    }

    /// A sequence gives up its pages and waits. The cache keeps them as long as nobody needs them; what is then gone is
    /// computed again.
    fn preempt(&mut self, id: u64) {
        let Some(mut sequence) = self.running.remove(&id) else { return };
        self.stats.preemptions += 1;
        self.leave_point(&sequence, sequence.len);
        self.pages.release(&mut sequence.tables);
        (sequence.len, sequence.last_point) = (0, 0);
        self.scheduler.requeue(sequence.client, id);
        self.waiting.insert(id, Who::Preempted(Box::new(sequence)).into());
    }

    /// Computes the shares. A step that breaks as a whole is taken apart, so that only those fail who break it.
    fn compute(&mut self, mut shares: Vec<Share>) {
        while !shares.is_empty() {
            match self.run(&shares) {
                Ok(logits) => return self.take_in(&shares, &logits),
                Err(StepError::Row { row, message }) => {
                    let mut rows = 0;
                    let hit = shares.iter().position(|s| {
                        rows += s.tokens;
                        row < rows
                    });
                    let id = shares.remove(hit.unwrap_or(0)).id;
                    self.end(id, Finish::Failed(message));
                }
                Err(StepError::Whole(message)) if shares.len() == 1 => {
                    return self.end(shares[0].id, Finish::Failed(message));
                }
                Err(StepError::Whole(_)) => return shares.into_iter().for_each(|share| self.compute(vec![share])),
            }
        }
    }

    fn run(&mut self, shares: &[Share]) -> Result<R::Logits, StepError> {
        let paged = |share: &Share| {
            self.running.get(&share.id).map(|s| Paged {
                full: &s.tables.full,
                sliding: &s.tables.sliding,
                adapter: s.adapter.as_ref().map(|adapter| adapter.slot()),
                start: s.len,
                tokens: &s.tokens[s.len..s.len + share.tokens],
                logits: share.logits,
            })
        };
        let work: Vec<Paged> = shares.iter().filter_map(paged).collect();
        self.runner.step(&work)
    }

    /// What came of a step.
    fn take_in(&mut self, shares: &[Share], logits: &R::Logits) {
        let (mut ends, mut row): (Ends, usize) = (Vec::new(), 0);
        for share in shares {
            let rows = match share.logits {
                Logits::None => row..row,
                Logits::Last => row..row + 1,
                Logits::All => row..row + share.tokens,
            };
            row = rows.end;
            if let Err(finish) = self.advance(*share, rows, logits) {
                ends.push((share.id, finish));
            }
        }
        ends.into_iter().for_each(|(id, finish)| self.end(id, finish));
    }

    /// Counts a share as computed and chooses the next token where the sequence has come to its end.
    fn advance(&mut self, share: Share, rows: Range<usize>, logits: &R::Logits) -> Result<(), Finish> {
        self.count(share);
        let Some(sequence) = self.running.get_mut(&share.id) else { return Ok(()) };
        if share.logits == Logits::All {
            let first = sequence.len - share.tokens;
            for (i, row) in rows.clone().enumerate() {
                sequence.score(first + i + 1, logits.row(row).map_err(Finish::Failed)?)?;
            }
        }
        if sequence.len < sequence.tokens.len() || rows.is_empty() {
            return Ok(());
        }
        let made = sequence.made();
        let result = sequence.next_token(logits, rows.end - 1, &mut self.mask, self.shape.context);
        let made = (sequence.made() - made) as u64;
        self.stats.generated_tokens += made;
        // Its own computation, one step later, is counted as a token of a prompt is.
        let cost = made * (OUTPUT_WEIGHT - PROMPT_WEIGHT);
        sequence.paid += cost;
        self.charged += cost;
        self.scheduler.charge(sequence.client, cost);
        result
    }

    /// A share is computed: its client pays, a point may be left, and window pages go back.
    fn count(&mut self, share: Share) {
        let Some(mut sequence) = self.running.remove(&share.id) else { return };
        sequence.len += share.tokens;
        sequence.last_step = self.stats.steps;
        self.stats.computed_tokens += share.tokens as u64;
        let cost = sequence.len.saturating_sub(sequence.charged) as u64 * PROMPT_WEIGHT;
        sequence.charged = sequence.charged.max(sequence.len);
        sequence.paid += cost;
        self.charged += cost;
        self.scheduler.charge(sequence.client, cost);
        for point in sequence.points_due(share.tokens, self.options.point_every) {
            sequence.last_point = point;
            self.leave_point(&sequence, point);
        }
        self.pages.trim(&mut sequence.tables, self.cache.first_kept(sequence.len));
        self.running.insert(share.id, sequence);
    }
}
