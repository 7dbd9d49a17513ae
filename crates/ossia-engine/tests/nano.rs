//! The engine over the small model that the program carries: its thread, and answers that depend on nothing but the
//! request, to the bit.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use ossia_engine::{
    Adapter, AttachError, Engine, EngineOptions, Event, Finish, Limits, NewAdapter, Refused, Request, Ticket,
};
use ossia_kernels::ops::sample::Params;
use ossia_kernels::{Bytes, DType, Floats};
use ossia_model::checkpoint::{Checkpoint, Metadata, RawTensor};
use ossia_model::gpt_oss::adapter::{AdapterConfig, AdapterParameters, ExpertSharing, Targets};
use ossia_model::gpt_oss::config::Config;
use ossia_model::gpt_oss::synth;
use ossia_model::{Model, Options};

fn start(options: Options, engine: EngineOptions) -> Engine {
    let nano = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/nano");
    let model = Model::load(&Checkpoint::open(&nano).unwrap(), options, None, &mut |_, _| {}).unwrap();
    Engine::start(model, engine)
}

fn options(sequences: usize, tokens: usize, chunk: usize) -> Options {
    let kv_tokens = Some(tokens);
    Options { threads: 2, context: 1024, sequences, kv_tokens, chunk, logits_rows: sequences + 4, ..Options::default() }
}

fn engine() -> Engine {
    start(options(8, 8192, 128), EngineOptions::default())
}

fn submit(engine: &Engine, request: Request) -> (Ticket, Receiver<Event>) {
    let (send, events) = channel();
    let sink = Box::new(move |event| match send.send(event) {
        Ok(()) => ControlFlow::Continue(()),
        Err(_) => ControlFlow::Break(()),
    });
    (engine.submit(request, sink).unwrap(), events)
}

fn request(prompt: Vec<u32>, limit: usize) -> Request {
    Request {
        prompt,
        params: Params::default(),
        forbidden: Arc::new([]),
        stops: Arc::new([]),
        limit,
        constraint: None,
        client: 0,
        salt: 0,
        adapter: None,
        prompt_logprobs: None,
    }
}

/// Request number `i`: several begin alike.
fn varied(i: u32) -> Request {
    let common = (0..[0, 64, 200, 333][i as usize % 4]).map(|p: u32| p * 31 % 900);
    let own = (0..10 + i * 7 % 150).map(|p| (p * p * 3 + i * 41) % 900);
    let mut request = request(common.chain(own).collect(), 16 + i as usize % 30);
    request.params = Params {
        temperature: [0.0, 1.0, 0.7][i as usize % 3],
        seed: u64::from(i),
        top_p: 0.95,
        frequency_penalty: 0.2,
        // Bits of the logits, not only the tokens that come of them.
        top_logprobs: Some(3),
        ..Params::default()
    };
    request.client = u64::from(i % 5);
    request
}

/// Everything but how much was cached.
fn said(events: impl IntoIterator<Item = Event>) -> Vec<Event> {
    events.into_iter().filter(|e| !matches!(e, Event::Started { .. })).collect()
}

/// Sixty-four at once, twice, with prefixes, page pressure and odd chunks, against each alone without a cache.
#[test]
fn an_answer_depends_on_its_request_alone() {
    let engine_options = EngineOptions { cache: false, ..EngineOptions::default() };
    let alone = start(options(1, 1024, 512), engine_options);
    let wants: Vec<Vec<Event>> = (0..64)
        .map(|i| {
            let (_ticket, events) = submit(&alone, varied(i));
            said(events.iter())
        })
        .collect();
    let (mut preempted, mut cached) = (0, 0);
    for (sequences, tokens, chunk) in [(64, 65_536, 512), (64, 4096, 77), (16, 1536, 64)] {
        let engine = start(options(sequences, tokens, chunk), EngineOptions { point_every: 64, ..Default::default() });
        for _ in 0..2 {
            let all: Vec<_> = (0..64).map(|i| submit(&engine, varied(i))).collect();
            for (i, ((_ticket, events), want)) in all.iter().zip(&wants).enumerate() {
                assert_eq!(&said(events.iter()), want, "request {i}, {sequences} at once, chunks of {chunk}");
            }
        }
        let stats = engine.stats();
        (preempted, cached) = (preempted + stats.preemptions, cached + stats.cached_tokens);
    }
    assert!(preempted > 0 && cached > 10_000, "{preempted} preempted, {cached} cached");
}

#[test]
fn events_come_in_order() {
    let engine = engine();
    let asked = Request { prompt_logprobs: Some(1), ..request((0..300).collect(), 20) };
    let (_ticket, events) = submit(&engine, asked);
    let events: Vec<Event> = events.iter().collect();
    assert_eq!(events[0], Event::Started { cached: 0 });
    let Event::PromptLogprobs(logprobs) = &events[1] else { panic!("{events:?}") };
    assert_eq!(logprobs.iter().map(|l| l.token).collect::<Vec<_>>(), (0..300).collect::<Vec<_>>());
    assert!(events[2..22].iter().all(|e| matches!(e, Event::Token(_))));
    assert_eq!(events[22..], [Event::Finished(Finish::Length)]);
    assert!(engine.wait_idle(Duration::from_secs(60)));
    let stats = engine.stats();
    assert_eq!((stats.answered, stats.generated_tokens, stats.running), (1, 20, 0));
    assert_eq!((stats.full_pages.used, stats.sliding_pages.used), (0, 0));
    assert_eq!(stats.full_pages.free + stats.full_pages.cached, 8192 / 64);
}

/// A model of random weights; with `broken` the embedding of token [`BROKEN`] is not a number.
fn synthetic(broken: bool) -> Engine {
    let config = Config::preset("mini", None).unwrap();
    let mut tensors: Vec<RawTensor> = synth::checkpoint(&config, 3).unwrap().tensors().cloned().collect();
    let table = tensors.iter_mut().find(|t| t.name == "model.embed_tokens.weight").unwrap();
    assert_eq!(table.dtype, DType::BF16);
    if broken {
        let row = BROKEN as usize * config.hidden_size * 2;
        let mut bytes = table.bytes.to_vec();
        bytes[row..row + 2].copy_from_slice(&0x7FC0u16.to_le_bytes());
        table.bytes = Bytes::new(bytes);
    }
    let metadata = Metadata::Json { value: config.to_hf_json(), file: "memory".into() };
    let checkpoint = Checkpoint::from_parts("memory".into(), metadata, tensors).unwrap();
    let model = Model::load(&checkpoint, options(8, 8192, 128), None, &mut |_, _| {}).unwrap();
    Engine::start(model, EngineOptions::default())
}

const BROKEN: u32 = 77;

/// Whoever has a broken token fails, the others get the bits that they always got.
#[test]
fn broken_weights_end_only_those_who_meet_them() {
    let asked = |i: u32| Request {
        client: u64::from(i),
        forbidden: Arc::new([BROKEN]),
        params: Params { top_logprobs: Some(2), ..Params::default() },
        ..request((0..70 + i).map(|p| (p * p + i) % 70).collect(), 12)
    };
    let whole = synthetic(false);
    let wants: Vec<Vec<Event>> = (0..5)
        .map(|i| {
            let (_ticket, events) = submit(&whole, asked(i));
            said(events.iter())
        })
        .collect();
    assert!(wants.iter().all(|events| events.len() == 13));
    let engine = synthetic(true);
    let good: Vec<_> = (0..5).map(|i| submit(&engine, asked(i))).collect();
    let bad = [0, 3, 69, 200].into_iter().map(|at| {
        let mut prompt: Vec<u32> = (0..201).map(|p| p % 70).collect();
        prompt[at] = BROKEN;
        submit(&engine, request(prompt, 5))
    });
    for (_ticket, events) in &bad.collect::<Vec<_>>() {
        let end = events.iter().last();
        assert!(matches!(&end, Some(Event::Finished(Finish::Failed(m))) if m.contains("not finite")), "{end:?}");
    }
    for ((_ticket, events), want) in good.iter().zip(wants) {
        assert_eq!(said(events.iter()), want);
    }
}

#[test]
fn a_full_context_ends_an_answer() {
    let engine = engine();
    let (_ticket, events) = submit(&engine, request((0..1024).map(|i| i % 900).collect(), 20));
    assert_eq!(events.iter().last(), Some(Event::Finished(Finish::ContextFull)));
}

#[test]
fn what_can_never_run_is_refused() {
    let engine = engine();
    let limits = engine.limits();
    assert_eq!((limits.context, limits.sequences), (1024, 8));
    let Limits { vocab, .. } = limits;
    let refused = |request| engine.submit(request, Box::new(|_| ControlFlow::Continue(()))).err().unwrap();
    assert_eq!(refused(request(vec![], 1)), Refused::EmptyPrompt);
    assert_eq!(refused(request(vec![1], 0)), Refused::NoTokens);
    assert_eq!(refused(request(vec![1; 1025], 5)), Refused::TooLong { prompt: 1025, limit: 5, context: 1024 });
    assert_eq!(refused(request(vec![1, vocab as u32], 5)), Refused::BadToken { id: vocab as u32, vocab });
    let bad = Request { params: Params { top_p: 2.0, ..Params::default() }, ..request(vec![1], 1) };
    assert!(matches!(refused(bad), Refused::BadParam(bad) if bad.parameter == "top_p"));
}

/// A sink that does not return holds the engine up, so that what is sent meanwhile waits.
#[test]
fn a_full_queue_refuses_and_draining_finishes() {
    let engine = start(options(2, 2048, 128), EngineOptions { queue: 5, queue_per_client: 3, ..Default::default() });
    let ((held, is_held), (go, wait)) = (channel::<()>(), channel::<()>());
    let sink = Box::new(move |event| {
        if matches!(event, Event::Token(_)) {
            held.send(()).unwrap();
            // Until nobody holds the other end.
            let _ = wait.recv();
        }
        ControlFlow::Continue(())
    });
    let _held = engine.submit(request(vec![1; 20], 3), sink).unwrap();
    is_held.recv().unwrap();
    let one = |client| Request { client, ..request(vec![2; 30], 3) };
    let mut taken: Vec<_> = (0..3).map(|_| submit(&engine, one(7))).collect();
    let full = |client| engine.submit(one(client), Box::new(|_| ControlFlow::Continue(()))).err();
    assert!(matches!(full(7), Some(Refused::QueueFull { waiting: 3, retry_after_s: 1.. })));
    taken.extend((0..2).map(|_| submit(&engine, one(8))));
    assert!(matches!(full(9), Some(Refused::QueueFull { waiting: 5, .. })));
    assert_eq!((engine.stats().waiting, engine.stats().running), (5, 1));
    engine.drain();
    assert_eq!(full(9), Some(Refused::Draining));
    drop(go);
    assert!(engine.wait_idle(Duration::from_secs(60)));
    for (_ticket, events) in &taken {
        assert_eq!(events.iter().last(), Some(Event::Finished(Finish::Length)));
    }
    assert_eq!(engine.stats().refused, 2);
}

#[test]
fn a_ticket_that_is_dropped_cancels() {
    let engine = engine();
    let (ticket, events) = submit(&engine, request(vec![1; 100], 900));
    let (other, others) = submit(&engine, request(vec![2; 100], 900));
    assert_eq!(events.recv(), Ok(Event::Started { cached: 0 }));
    drop(ticket);
    assert_eq!(events.iter().last(), Some(Event::Finished(Finish::Cancelled)));
    // The client is gone without a word.
    drop(others);
    assert!(engine.wait_idle(Duration::from_secs(60)));
    assert_eq!((engine.stats().cancelled, engine.stats().full_pages.used), (2, 0));
    drop(other);
}

#[test]
fn an_engine_that_is_dropped_tells_everybody() {
    let engine = start(options(2, 2048, 128), EngineOptions::default());
    let all: Vec<_> = (0..6).map(|i| submit(&engine, request(vec![i; 100], 900))).collect();
    assert_eq!(all[0].1.recv(), Ok(Event::Started { cached: 0 }));
    drop(engine);
    for (_ticket, events) in &all {
        assert_eq!(events.iter().last(), Some(Event::Finished(Finish::Cancelled)));
    }
}

fn nano_config() -> Config {
    let nano = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/nano");
    Config::from_checkpoint(&Checkpoint::open(&nano).unwrap()).unwrap()
}

/// An adapter of random numbers, large enough to change every answer.
fn random_adapter(config: &Config, rank: usize, seed: u64) -> NewAdapter {
    let experts = Some(ExpertSharing::SharedOuter);
    let targets = Targets { attention: true, experts, ..Targets::default() };
    let parameters = AdapterParameters::of(config, &AdapterConfig { rank, alpha: 8.0, targets });
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 / (1 << 24) as f32 - 0.5) * 0.3
    };
    let values = Floats::new((0..parameters.len()).map(|_| next()).collect());
    NewAdapter { parameters, values }
}

fn through(adapter: Option<&Arc<Adapter>>, i: u32) -> Request {
    Request { adapter: adapter.cloned(), ..varied(i) }
}

/// Base and two adapters in the same steps, with a prefix cache: each request gets the bits that it gets alone.
#[test]
fn requests_through_different_adapters_share_steps_and_nothing_else() {
    let config = nano_config();
    let with_adapters =
        |sequences| Options { adapter_rank: 4, adapter_bytes: 1 << 24, ..options(sequences, 16_384, 128) };
    let alone = start(with_adapters(1), EngineOptions { cache: false, ..EngineOptions::default() });
    let attach = |engine: &Engine| [1, 2].map(|seed| engine.attach(random_adapter(&config, 4, seed)).unwrap());
    let pick = |adapters: &[Arc<Adapter>; 2], i: u32| adapters.get(i as usize % 3).cloned();
    let theirs = attach(&alone);
    let wants: Vec<Vec<Event>> = (0..24)
        .map(|i| {
            let (_ticket, events) = submit(&alone, through(pick(&theirs, i).as_ref(), i));
            said(events.iter())
        })
        .collect();
    let base = start(options(1, 1024, 512), EngineOptions::default());
    for i in [0_u32, 1, 2] {
        let (_ticket, events) = submit(&base, varied(i));
        assert_eq!(said(events.iter()) == wants[i as usize], i == 2, "only number 2 goes without an adapter");
    }
    let engine = start(with_adapters(16), EngineOptions { point_every: 64, ..EngineOptions::default() });
    let adapters = attach(&engine);
    for _ in 0..2 {
        let all: Vec<_> = (0..24).map(|i| submit(&engine, through(pick(&adapters, i).as_ref(), i))).collect();
        for (i, ((_ticket, events), want)) in all.iter().zip(&wants).enumerate() {
            assert_eq!(&said(events.iter()), want, "request {i}");
        }
    }
    assert!(engine.stats().cached_tokens > 1000, "{:?}", engine.stats());
}

/// An adapter that nobody holds any more is gone; who comes into its place finds nothing of it, in the cache either.
#[test]
fn an_adapter_goes_with_its_last_holder() {
    let config = nano_config();
    let room = 2 * random_adapter(&config, 4, 1).parameters.bytes();
    let with_two = Options { adapter_rank: 4, adapter_bytes: room, ..options(4, 8192, 128) };
    let engine = start(with_two, EngineOptions::default());
    let first = engine.attach(random_adapter(&config, 4, 1)).unwrap();
    let slot = first.slot();
    let beside = engine.attach(random_adapter(&config, 4, 2)).unwrap();
    let third = engine.attach(random_adapter(&config, 4, 3));
    assert!(matches!(third, Err(AttachError::NoRoom(_))), "two are what was planned for: {third:?}");
    drop(beside);
    let answer = |adapter: Option<&Arc<Adapter>>| {
        let (_ticket, events) =
            submit(&engine, Request { adapter: adapter.cloned(), ..request((0..200).collect(), 30) });
        events.iter().collect::<Vec<_>>()
    };
    let cached = |events: &[Event]| match events.first() {
        Some(Event::Started { cached }) => *cached,
        other => panic!("{other:?}"),
    };
    let base = answer(None);
    let one = answer(Some(&first));
    assert_eq!((cached(&base), cached(&one)), (0, 0), "the base's cache is not the adapter's");
    assert!(said(base) != said(one.clone()));
    assert!(cached(&answer(Some(&first))) > 100);
    // The request alone holds it from now on.
    let (_ticket, events) = submit(&engine, Request { adapter: Some(first), ..request((0..200).collect(), 30) });
    let second = engine.attach(random_adapter(&config, 4, 2)).unwrap();
    assert_eq!(said(events.iter()), said(one.clone()), "a request keeps its adapter to its end");
    assert!(engine.wait_idle(Duration::from_secs(60)));
    drop(second);
    let third = engine.attach(random_adapter(&config, 4, 3)).unwrap();
    assert_eq!(third.slot(), slot, "the place is free again");
    let other = answer(Some(&third));
    assert_eq!(cached(&other), 0);
    assert!(said(other) != said(one));
    let refused = engine.attach(random_adapter(&config, 5, 1)).unwrap_err();
    assert!(refused.to_string().contains("rank 5"), "{refused}");
    let mini = Config::preset("mini", None).unwrap();
    assert!(engine.attach(random_adapter(&mini, 4, 1)).is_err(), "another model's");
}
