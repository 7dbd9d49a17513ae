//! Random arrivals, cancellations and page pressure: everybody gets the answer that he would have got alone, everybody
//! gets it, and no page is lost.

use super::fake::{Fake, Heard, answer, mix, request, shape};
use crate::core::{Core, EngineOptions};
use crate::request::{Finish, Request};

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        (mix(self.0) % n as u64) as usize
    }

    fn tokens(&mut self, n: usize) -> Vec<u32> {
        (0..n).map(|_| self.below(47) as u32).collect()
    }
}

struct World {
    random: Random,
    context: usize,
    /// Conversations so far: prompts, and prompts with their answers.
    said: Vec<Vec<u32>>,
}

impl World {
    /// A new conversation, or one that goes on from an earlier one, cut anywhere.
    fn request(&mut self) -> Request {
        let r = &mut self.random;
        let mut prompt = Vec::new();
        if !self.said.is_empty() && r.below(4) > 0 {
            prompt = self.said[r.below(self.said.len())].clone();
            if r.below(3) == 0 {
                prompt.truncate(r.below(prompt.len() + 1));
            }
        }
        let more = if r.below(8) == 0 { 300 } else { 30 };
        let more = 1 + r.below(more);
        prompt.extend(r.tokens(more));
        if prompt.len() > self.context {
            prompt = r.tokens(20);
        }
        let most = if r.below(6) == 0 { 200 } else { 25 };
        let limit = 1 + r.below(most);
        let mut request = request(prompt, limit);
        request.params.temperature = r.below(3) as f32;
        request.params.seed = r.0;
        request.params.frequency_penalty = r.below(2) as f32;
        request.params.repetition_penalty = 1.0 + r.below(2) as f32;
        request.stops = r.tokens(2).into();
        request.client = r.below(4) as u64;
        request.salt = r.below(2) as u64;
        request
    }
}

struct Running {
    heard: Heard,
    want: (Vec<u32>, Finish),
    cancelled: bool,
}

impl Running {
    fn check(&self, seed: u64) {
        let (tokens, finish) = (self.heard.tokens(), self.heard.finish());
        if self.cancelled && finish == Some(Finish::Cancelled) {
            assert!(self.want.0.starts_with(&tokens), "seed {seed}: {tokens:?}, wanted {:?}", self.want.0);
        } else {
            assert_eq!((&tokens, finish.as_ref()), (&self.want.0, Some(&self.want.1)), "seed {seed}");
        }
    }
}

/// Requests come one by one with some steps between them; the engine is `tokens` positions large.
fn simulate(seed: u64, requests: usize, sequences: usize, tokens: usize, options: EngineOptions) -> Core<Fake> {
    let context = 600;
    let mut core = Core::new(Fake::new(shape(sequences, context, tokens, 96)), options);
    let mut world = World { random: Random(seed), context, said: Vec::new() };
    let mut all: Vec<Running> = Vec::new();
    for id in 0..requests as u64 {
        let request = world.request();
        let want = answer(&request, context);
        world.said.extend([request.prompt.clone(), [request.prompt.as_slice(), &want.0].concat()]);
        all.push(Running { heard: core.add(id, request), want, cancelled: false });
        for _ in 0..world.random.below(12) {
            core.step();
        }
        if world.random.below(5) == 0 {
            let at = world.random.below(all.len());
            all[at].heard.cancel();
            all[at].cancelled = true;
        }
    }
    core.run_out();
    all.iter().for_each(|running| running.check(seed));
    core
}

#[test]
fn nobodys_answer_depends_on_company_cuts_cache_or_pressure() {
    let (mut preempted, mut evicted, mut cached) = (0, 0, 0);
    for seed in 0..400 {
        let options =
            EngineOptions { point_every: 64, prompt_tokens: 20 + seed as usize % 80, ..EngineOptions::default() };
        // From hardly more than one context to room for all.
        let tokens = [640, 832, 1280, 5120][seed as usize % 4];
        let mut core = simulate(seed, 60, 1 + seed as usize % 7, tokens, options);
        let stats = core.stats();
        preempted += stats.preemptions;
        evicted += stats.evictions;
        cached += stats.cached_tokens;
        core.assert_whole();
    }
    assert!(preempted > 300 && evicted > 3000 && cached > 100_000, "{preempted} {evicted} {cached}");
}

#[test]
fn without_a_cache_nothing_is_kept() {
    let options = EngineOptions { cache: false, ..EngineOptions::default() };
    let core = simulate(1, 40, 4, 2560, options);
    assert_eq!((core.stats().cached_tokens, core.pages.free()), (0, core.shape.pages));
}
