//! The engine over the small model that the program carries.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use ossia_engine::{Engine, EngineOptions, Event, Finish, Request, Ticket};
use ossia_kernels::ops::sample::Params;
use ossia_model::checkpoint::Checkpoint;
use ossia_model::{Model, Options};

fn engine() -> Engine {
    let nano = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/nano");
    let options = Options {
        threads: 1,
        context: 1024,
        sequences: 8,
        kv_tokens: Some(4096),
        chunk: 128,
        logits_rows: 16,
        ..Options::default()
    };
    let model = Model::load(&Checkpoint::open(&nano).unwrap(), options, None, &mut |_, _| {}).unwrap();
    Engine::start(model, EngineOptions::default())
}

fn submit(engine: &Engine, request: Request) -> (Ticket, Receiver<Event>) {
    let (send, events) = channel();
    let sink = Box::new(move |event| match send.send(event) {
        Ok(()) => ControlFlow::Continue(()),
        Err(_) => ControlFlow::Break(()),
    });
    (engine.submit(request, sink).unwrap(), events)
}

fn request(prompt: Vec<u32>, params: Params, limit: usize) -> Request {
    Request {
        prompt,
        params,
        forbidden: Arc::new([]),
        stops: Arc::new([]),
        limit,
        constraint: None,
        client: 0,
        salt: 0,
        prompt_logprobs: None,
    }
}

#[test]
fn a_request_comes_back_token_by_token() {
    let engine = engine();
    let (_ticket, events) = submit(&engine, request((0..300).collect(), Params::default(), 20));
    let events: Vec<Event> = events.iter().collect();
    assert_eq!(events[0], Event::Started { cached: 0 });
    assert_eq!(events.iter().filter(|e| matches!(e, Event::Token(_))).count(), 20);
    assert_eq!(events.last(), Some(&Event::Finished(Finish::Length)));
}
