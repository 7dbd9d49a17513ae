//! A client who floods the engine does not keep another from his first token, and nobody starves.

use std::time::Duration;

use super::fake::{Fake, Heard, request, shape};
use crate::core::{Core, EngineOptions};
use crate::queue::weight;
use crate::request::{Event, Request};

fn from(client: u64, salt: u32, prompt: usize, limit: usize) -> Request {
    let tokens = (0..prompt as u32).map(|i| (i * i + i * salt + salt) % 47).collect();
    Request { client, ..request(tokens, limit) }
}

/// Tokens computed until `heard` has its first one.
fn first_token(core: &mut Core<Fake>, heard: &Heard) -> u64 {
    let before = core.stats().computed_tokens;
    for _ in 0..10_000 {
        core.step();
        if heard.events().iter().any(|e| matches!(e, Event::Token(_))) {
            return core.stats().computed_tokens - before;
        }
    }
    panic!("it never comes");
}

/// One client sends a hundred requests; another's first token costs at most about twice what it costs alone.
#[test]
fn a_flood_does_not_hold_up_another() {
    // Places are short, then pages.
    for (sequences, tokens) in [(8, 16_384), (32, 4096)] {
        for prompt in [400, 900] {
            let new = || Core::new(Fake::new(shape(sequences, 1024, tokens, 256)), EngineOptions::default());
            let mut alone = new();
            let heard = alone.add(0, from(1, 1000, prompt, 4));
            let solo = first_token(&mut alone, &heard);
            let mut core = new();
            let flood: Vec<Heard> = (0..100).map(|id| core.add(id, from(0, id as u32, 300, 200))).collect();
            core.steps(60);
            let heard = core.add(100, from(1, 1000, prompt, 4));
            let crowded = first_token(&mut core, &heard);
            assert!(crowded <= 2 * solo, "{sequences} places, prompt of {prompt}: {crowded} tokens, alone {solo}");
            core.run_out();
            assert!(flood.iter().all(|h| h.tokens().len() == 200));
            core.assert_whole();
        }
    }
}

/// Who comes while another's requests have all places is computed in the very next step.
#[test]
fn who_is_new_does_not_wait_a_step() {
    let mut core = Core::new(Fake::new(shape(8, 1024, 16_384, 256)), EngineOptions::default());
    (0..50).for_each(|id| drop(core.add(id, from(0, id as u32, 60, 200))));
    core.steps(40);
    for id in 50..60 {
        let heard = core.add(id, from(id, 1000 + id as u32, 80, 4));
        core.step();
        assert_eq!(heard.tokens().len(), 1, "request {id}");
        core.steps(7);
    }
    core.run_out();
    core.assert_whole();
}

/// The beginning of a small client's answer costs little more than alone, and the flood goes on all the same.
#[test]
fn an_answer_begins_beside_a_flood() {
    let new = || Core::new(Fake::new(shape(16, 1024, 16_384, 256)), EngineOptions::default());
    let sixth = |core: &mut Core<Fake>, id: u64| {
        let before = core.stats().computed_tokens;
        let heard = core.add(id, from(1, id as u32, 60, 12));
        while heard.tokens().len() < 6 {
            core.step();
        }
        core.stats().computed_tokens - before
    };
    let alone = sixth(&mut new(), 1000);
    let mut core = new();
    let flood: Vec<Heard> = (0..100).map(|id| core.add(id, from(0, id as u32, 30, 150))).collect();
    core.steps(40);
    let told = || flood.iter().map(|heard| heard.tokens().len() as u64).sum::<u64>();
    let (steps, before) = (core.stats().steps, told());
    for id in 1000..1020 {
        // The step that is just being made is everybody's.
        core.step();
        let crowded = sixth(&mut core, id);
        assert!(crowded <= alone + 16, "request {id}: {crowded} tokens, alone {alone}");
        while core.running.values().any(|s| s.client == 1) {
            core.step();
        }
    }
    let (steps, told) = (core.stats().steps - steps, told() - before);
    // Half of fifteen in a step, and half of the steps sat out at most.
    assert!(told > steps * 15 / 4, "{told} tokens of the flood in {steps} steps of 15 sequences");
    core.run_out();
    core.assert_whole();
}

/// Two clients who always have work get the same within a few parts in a hundred.
#[test]
fn busy_clients_get_equal_shares() {
    let mut core = Core::new(Fake::new(shape(6, 1024, 8192, 128)), EngineOptions::default());
    for id in 0..90 {
        // The third sends twice as many, and longer ones.
        let client = [0, 1, 2, 2][id as usize % 4];
        let prompt = if client == 2 { 200 } else { 60 };
        core.add(id, from(client, id as u32, prompt, 30));
    }
    let mut served = [0; 3];
    while core.stats().waiting > 0 {
        core.step();
        let all_busy = (0..3).all(|client| core.waiting.values().any(|w| w.who.client() == client));
        if all_busy {
            served = [0, 1, 2].map(|client| core.scheduler.served(client));
        }
    }
    let (least, most) = (served.iter().min().unwrap(), served.iter().max().unwrap());
    assert!(*least > 900 && (*most as f64) < 1.35 * *least as f64, "{served:?}");
}

/// A long prompt comes while others decode: they get a token in every step.
#[test]
fn a_long_prompt_does_not_stall_decoding() {
    let mut core = Core::new(Fake::new(shape(4, 1024, 8192, 512)), EngineOptions::default());
    let others: Vec<Heard> = (0..2).map(|id| core.add(id, from(id, id as u32, 20, 100))).collect();
    core.steps(3);
    let long = core.add(2, from(7, 7, 1000, 1));
    while long.finish().is_none() {
        let before: Vec<usize> = others.iter().map(|h| h.tokens().len()).collect();
        let computed = core.step();
        assert!(computed <= 130);
        let after: Vec<usize> = others.iter().map(|h| h.tokens().len()).collect();
        assert_eq!(after, before.iter().map(|n| n + 1).collect::<Vec<_>>());
    }
}

/// One client's request needs nearly all pages and waits for them. Others begin meanwhile, but not for ever.
#[test]
fn a_large_request_neither_blocks_nor_starves() {
    let mut core = Core::new(Fake::new(shape(4, 2048, 2560, 256)), EngineOptions::default());
    let first = core.add(0, from(0, 1, 900, 100));
    core.steps(6);
    let large = core.add(1, from(1, 2, 2000, 5));
    let small = core.add(2, from(2, 3, 100, 5));
    core.steps(6);
    assert!(small.cached() == 0 && small.tokens().len() >= 2, "{:?}", small.events());
    assert!(large.events().is_empty() && first.finish().is_none());
    // Small ones come without end.
    for id in 3..200 {
        core.add(id, from(2 + id % 3, id as u32, 100, 30));
        core.steps(3);
    }
    assert!(large.finish().is_some());
    core.run_out();
    core.assert_whole();
}

/// How long a request is expected to wait is about how long it does, whoever asks.
#[test]
fn the_expected_wait_is_the_wait() {
    const STEP: Duration = Duration::from_millis(10);
    let mut core = Core::new(Fake::new(shape(8, 1024, 16_384, 256)), EngineOptions::default());
    // Prompts of which half is known to the cache, and answers of half the limit that they are taken for at most.
    let like = |client: u64, id: u64| from(client, if client == 0 { 1 } else { id as u32 }, 100, 40 + id as usize % 50);
    let timed_step = |core: &mut Core<Fake>| {
        core.step();
        core.took(STEP);
    };
    (0..150).for_each(|id| drop(core.add(id, like(id % 3, id))));
    (0..150).for_each(|_| timed_step(&mut core));
    let mut measure = |client: u64, id: u64| {
        let request = like(client, id);
        let expected = core.pace().wait(core.queued().ahead(client, weight(&request))).unwrap();
        let heard = core.add(id, request);
        let mut waited = Duration::ZERO;
        while heard.events().is_empty() {
            timed_step(&mut core);
            waited += STEP;
        }
        (expected, waited)
    };
    let (expected, waited) = measure(0, 1000);
    assert!(expected < 2 * waited && waited < 2 * expected, "behind its own: expected {expected:?}, waited {waited:?}");
    // Who is new goes before the others' rest. That he comes at once, others making room, is more than he is told.
    let (soon, waited) = measure(7, 1001);
    assert!(waited < soon + STEP && 3 * soon < expected, "new: expected {soon:?}, waited {waited:?}");
    core.run_out();
    core.assert_whole();
}
