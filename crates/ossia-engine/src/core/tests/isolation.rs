//! What breaks in one request does not touch the others.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc::channel;

use ossia_kernels::ops::sample::Sampler;

use super::fake::{BREAKS_ENGINE, BREAKS_ROW, BREAKS_STEP, Fake, Heard, VOCAB, answer, request, shape, truths};
use crate::core::{Arrival, Core, EngineOptions};
use crate::engine::Engine;
use crate::request::{Constraint, Event, Finish, Request, TokenMask};

fn core() -> Core<Fake> {
    Core::new(Fake::new(shape(8, 600, 4096, 96)), EngineOptions::default())
}

fn good(client: u64) -> Request {
    Request { client, ..request((0..40 + client as u32).map(|i| i * 7 % 47).collect(), 20) }
}

/// Runs `bad` between four good requests, which must not notice.
fn between_others(bad: Request) -> Heard {
    let mut core = core();
    let wants: Vec<_> = (0..4).map(|client| answer(&good(client), 600)).collect();
    let first: Vec<Heard> = (0..2).map(|client| core.add(client, good(client))).collect();
    core.steps(3);
    let bad = core.add(2, bad);
    let last: Vec<Heard> = (2..4).map(|client| core.add(client + 1, good(client))).collect();
    core.run_out();
    for (heard, want) in first.iter().chain(&last).zip(wants) {
        assert_eq!((heard.tokens(), heard.finish()), (want.0, Some(want.1)));
    }
    core.assert_whole();
    bad
}

fn failure(heard: &Heard) -> String {
    match heard.finish() {
        Some(Finish::Failed(message)) => message,
        other => panic!("{other:?}"),
    }
}

#[test]
fn broken_numbers_end_their_own_sequence() {
    let bad = between_others(request(vec![1, 2, BREAKS_ROW, 3], 5));
    assert_eq!(failure(&bad), "the row broke");
}

#[test]
fn a_broken_step_ends_the_sequence_that_breaks_it() {
    let bad = between_others(request([vec![3; 130], vec![BREAKS_STEP]].concat(), 5));
    assert_eq!(failure(&bad), "the step broke");
}

/// Allows what its function says; may fail or panic at the n-th token.
struct Rule {
    n: usize,
    allow: fn(usize, u32) -> bool,
    mask_breaks_at: usize,
    accept_breaks_at: usize,
    panics: bool,
}

const RULE: Rule =
    Rule { n: 0, allow: |_, _| true, mask_breaks_at: usize::MAX, accept_breaks_at: usize::MAX, panics: false };

impl Rule {
    fn step(&self, at: usize) -> Result<(), String> {
        match (self.n == at, self.panics) {
            (false, _) => Ok(()),
            (true, false) => Err("the rule broke".into()),
            (true, true) => panic!("the rule panicked"),
        }
    }
}

impl Constraint for Rule {
    fn mask(&mut self, allowed: &mut TokenMask) -> Result<(), String> {
        assert!(allowed.words().iter().all(|&word| word == u32::MAX) && allowed.len() == VOCAB);
        for id in (0..VOCAB as u32).filter(|&id| !(self.allow)(self.n, id)) {
            allowed.words()[id as usize / 32] &= !(1 << (id % 32));
        }
        self.step(self.mask_breaks_at)
    }

    fn accept(&mut self, token: u32) -> Result<(), String> {
        assert!((self.allow)(self.n, token));
        self.step(self.accept_breaks_at)?;
        self.n += 1;
        Ok(())
    }
}

fn ruled(rule: Rule) -> Request {
    Request { constraint: Some(Box::new(rule)), ..request(vec![5; 70], 12) }
}

#[test]
fn a_constraint_decides_what_comes() {
    let heard = between_others(ruled(Rule { allow: |n, id| id as usize % 5 == n % 5, ..RULE }));
    let tokens = heard.tokens();
    assert_eq!((tokens.len(), heard.finish()), (12, Some(Finish::Length)));
    assert!(tokens.iter().enumerate().all(|(n, id)| *id as usize % 5 == n % 5), "{tokens:?}");
}

#[test]
fn a_constraint_that_fails_or_panics_ends_its_own_request() {
    for panics in [false, true] {
        let mask = between_others(ruled(Rule { mask_breaks_at: 3, panics, ..RULE }));
        let accept = between_others(ruled(Rule { accept_breaks_at: 3, panics, ..RULE }));
        for heard in [mask, accept] {
            let message = failure(&heard);
            assert!(message.contains(if panics { "the rule panicked" } else { "the rule broke" }), "{message}");
            assert_eq!(heard.tokens().len(), 3);
        }
    }
    let nothing = between_others(ruled(Rule { allow: |n, _| n < 2, ..RULE }));
    assert!(failure(&nothing).contains("every token is forbidden"));
}

/// A sink that counts what it is told, and at the third token breaks off or panics.
fn add_odd(core: &mut Core<Fake>, panics: bool) -> (Heard, Arc<()>) {
    let (heard, held) = (Heard::default(), Arc::new(()));
    let (mut tokens, copy, alive) = (0, heard.clone(), held.clone());
    let sink = Box::new(move |event: Event| {
        let _ = &alive;
        tokens += usize::from(matches!(event, Event::Token(_)));
        copy.push(event);
        assert!(tokens < 3 || !panics, "the sink panicked");
        if tokens == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    core.enqueue(Arrival { id: 9, request: request(vec![4; 100], 50), sink, cancelled: Arc::default() });
    (heard, held)
}

#[test]
fn a_sink_may_break_off_or_panic() {
    for panics in [false, true] {
        let mut core = core();
        let other = core.add(0, good(1));
        let (heard, held) = add_odd(&mut core, panics);
        core.run_out();
        assert_eq!(heard.tokens().len(), 3);
        assert_eq!(heard.finish(), if panics { None } else { Some(Finish::Cancelled) });
        assert_eq!(other.tokens(), answer(&good(1), 600).0);
        assert_eq!(Arc::strong_count(&held), 1, "the sink is dropped");
        let failed = core.stats().failed;
        assert_eq!(failed, u64::from(panics));
        core.assert_whole();
    }
}

/// Waiting, in the middle of the prompt, while it answers: the next step begins without it, and its pages are back.
#[test]
fn who_is_cancelled_is_gone_within_a_step() {
    for steps in [0, 1, 2, 9, 15] {
        let options = EngineOptions { cache: false, ..EngineOptions::default() };
        let mut core = Core::new(Fake::new(shape(8, 600, 4096, 96)), options);
        let heard = core.add(0, request(vec![9; 500], 50));
        core.steps(steps);
        heard.cancel();
        let before = core.stats().computed_tokens;
        core.step();
        assert_eq!(heard.finish(), Some(Finish::Cancelled));
        assert_eq!(core.stats().computed_tokens, before);
        assert!(core.is_idle());
        core.assert_whole();
    }
}

#[test]
fn prompt_logprobs_are_the_models_own() {
    for rows in [1, 3, 100] {
        let mut shape = shape(4, 600, 4096, 96);
        shape.logits_rows = rows;
        let mut core = Core::new(Fake::new(shape), EngineOptions::default());
        let others: Vec<Heard> = (0..3).map(|client| core.add(client, good(client))).collect();
        let mut asked = good(3);
        asked.prompt_logprobs = Some(2);
        asked.params.frequency_penalty = 2.0;
        let (prompt, want) = (asked.prompt.clone(), answer(&asked, 600).0);
        let heard = core.add(3, asked);
        core.run_out();
        let events = heard.events();
        let Event::PromptLogprobs(logprobs) = &events[1] else { panic!("{events:?}") };
        assert_eq!((logprobs.len(), logprobs[0].logprob, heard.tokens()), (prompt.len(), None, want));
        let mut plain = Sampler::new(Default::default(), Arc::new([]), VOCAB).unwrap();
        for ((got, row), &token) in logprobs[1..].iter().zip(truths(&prompt)).zip(&prompt[1..]) {
            let want = plain.score(&row, token, 2).unwrap();
            assert_eq!((got.token, got.logprob, &got.top), (token, want.logprob, &want.top));
        }
        others.iter().zip(0..).for_each(|(h, client)| assert_eq!(h.tokens(), answer(&good(client), 600).0));
        core.assert_whole();
    }
}

/// A fault of the engine's own: everybody who runs is told, and it begins anew.
#[test]
fn the_engine_outlives_itself() {
    let engine = Engine::start_runner(Fake::new(shape(8, 600, 4096, 96)), EngineOptions::default());
    for round in 0..3 {
        let run = |request: Request| {
            let (send, events) = channel();
            let sink = Box::new(move |event| {
                let _ = send.send(event);
                ControlFlow::Continue(())
            });
            (engine.submit(request, sink).unwrap(), events)
        };
        let (_ticket, events) = run(request(vec![1, 2, BREAKS_ENGINE], 5));
        let end = events.iter().last();
        assert!(matches!(&end, Some(Event::Finished(Finish::Failed(m))) if m.contains("began anew")), "{end:?}");
        let (_ticket, events) = run(good(round));
        let tokens = events.iter().filter_map(|e| if let Event::Token(s) = e { Some(s.token) } else { None });
        assert_eq!(tokens.collect::<Vec<_>>(), answer(&good(round), 600).0);
    }
    let stats = engine.stats();
    assert_eq!((stats.failed, stats.answered), (3, 3));
}
