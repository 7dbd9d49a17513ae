//! A model without weights: what it says next is a function of every token that it finds in the pages it is given, so a
//! page too few, too many or of somebody else changes its answer. And the answer it must give, from the tokens alone.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use ossia_kernels::kv::{PAGE, PageTable};
use ossia_kernels::ops::sample::{Params, Sampler, argmax};
use ossia_model::gpt_oss::config::{Config, LayerKind};
use ossia_model::kv_cache::PageCounts;
use ossia_model::{Logits, Paged};

use crate::adapter::{AttachError, NewAdapter};
use crate::core::{Arrival, Core};
use crate::request::{Event, Finish, Request};
use crate::runner::{Rows, Runner, Shape, StepError};

pub const VOCAB: usize = 50;
/// A token whose row breaks.
pub const BREAKS_ROW: u32 = 49;
/// A token that breaks the whole step.
pub const BREAKS_STEP: u32 = 48;
/// A token at whose step the engine itself breaks: rows of logits are missing.
pub const BREAKS_ENGINE: u32 = 47;
pub const WINDOW: usize = 100;

pub struct Fake {
    shape: Shape,
    full: Vec<[u64; PAGE]>,
    sliding: Vec<[u64; PAGE]>,
}

/// `tokens` positions of all sequences together.
pub fn shape(sequences: usize, context: usize, tokens: usize, chunk: usize) -> Shape {
    let config = Config { sliding_window: WINDOW, ..Config::preset("mini", None).unwrap() };
    let chunk = chunk.max(sequences);
    Shape {
        vocab: VOCAB,
        context,
        sequences,
        tokens: chunk,
        logits_rows: sequences + 8,
        window: WINDOW,
        pages: PageCounts::shared(&config, sequences, tokens, chunk),
    }
}

pub fn mix(state: u64) -> u64 {
    let z = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

fn slot(token: u32, position: usize) -> u64 {
    mix((u64::from(token) << 32) + position as u64 + 1)
}

/// From what is seen of full layers, and of those with a window, to a row of logits.
fn row(full: impl Iterator<Item = u64>, sliding: impl Iterator<Item = u64>) -> Vec<f32> {
    let fold = |slots: &mut dyn Iterator<Item = u64>| slots.fold(7u64, |h, s| mix(h ^ s));
    let (mut full, mut sliding) = (full, sliding);
    let hash = mix(fold(&mut full) ^ fold(&mut sliding).rotate_left(7));
    // The tokens that break are never said.
    let logit = |id: u64| if id >= 47 { f32::NEG_INFINITY } else { (mix(hash ^ id) >> 40) as f32 / 4e6 };
    (0..VOCAB as u64).map(logit).collect()
}

fn truth(tokens: &[u32]) -> Vec<f32> {
    let slots: Vec<u64> = tokens.iter().enumerate().map(|(p, &t)| slot(t, p)).collect();
    row(slots.iter().copied(), slots[slots.len().saturating_sub(WINDOW)..].iter().copied())
}

pub struct FakeLogits(Vec<Vec<f32>>);

impl Rows for FakeLogits {
    fn row(&self, row: usize) -> Result<&[f32], String> {
        Ok(&self.0[row])
    }

    /// As a GPU knows it.
    fn best(&self, row: usize) -> Option<u32> {
        argmax(&self.0[row])
    }
}

impl Fake {
    pub fn new(shape: Shape) -> Self {
        let pages = |n: usize| vec![[0xDEAD; PAGE]; n];
        Self { shape, full: pages(shape.pages.full), sliding: pages(shape.pages.sliding) }
    }

    fn read(&self, work: &Paged, position: usize) -> Vec<f32> {
        let at = |store: &[[u64; PAGE]], table: &PageTable, p: usize| store[table.page_of(p)][p % PAGE];
        let first = (position + 1).saturating_sub(WINDOW);
        let full = (0..=position).map(|p| at(&self.full, work.full, p));
        row(full, (first..=position).map(|p| at(&self.sliding, work.sliding, p)))
    }
}

impl Runner for Fake {
    type Logits = FakeLogits;

    fn shape(&self) -> Shape {
        self.shape
    }

    fn step(&mut self, work: &[Paged]) -> Result<FakeLogits, StepError> {
        let tokens: Vec<u32> = work.iter().flat_map(|w| w.tokens).copied().collect();
        assert!(tokens.len() <= self.shape.tokens && !tokens.is_empty());
        if tokens.contains(&BREAKS_STEP) {
            return Err(StepError::Whole("the step broke".into()));
        }
        if let Some(row) = tokens.iter().position(|&t| t == BREAKS_ROW) {
            return Err(StepError::Row { row, message: "the row broke".into() });
        }
        for w in work {
            for (p, &token) in (w.start..).zip(w.tokens) {
                self.full[w.full.page_of(p)][p % PAGE] = slot(token, p);
                self.sliding[w.sliding.page_of(p)][p % PAGE] = slot(token, p);
            }
        }
        let mut rows = Vec::new();
        for w in work {
            let last = w.start + w.tokens.len() - 1;
            match w.logits {
                Logits::None => {}
                Logits::Last => rows.push(self.read(w, last)),
                Logits::All => rows.extend((w.start..=last).map(|p| self.read(w, p))),
            }
        }
        assert!(rows.len() <= self.shape.logits_rows);
        if tokens.contains(&BREAKS_ENGINE) {
            rows.clear();
        }
        Ok(FakeLogits(rows))
    }

    fn attach(&mut self, _: &NewAdapter) -> Result<usize, AttachError> {
        Err(AttachError::Refused("this model takes no adapters".to_owned()))
    }

    fn detach(&mut self, _: usize) {}

    fn copy_page(&mut self, kind: LayerKind, from: u32, to: u32) {
        let store = if kind == LayerKind::Full { &mut self.full } else { &mut self.sliding };
        store[to as usize] = store[from as usize];
    }
}

pub fn request(prompt: Vec<u32>, limit: usize) -> Request {
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

/// What a request without a constraint must say in `context` positions, whoever else runs.
pub fn answer(request: &Request, context: usize) -> (Vec<u32>, Finish) {
    let mut sampler = Sampler::new(request.params.clone(), request.forbidden.clone(), VOCAB).unwrap();
    sampler.see_prompt(&request.prompt);
    let mut tokens = request.prompt.clone();
    let made = |tokens: &[u32]| tokens[request.prompt.len()..].to_vec();
    loop {
        let token = sampler.sample(&truth(&tokens)).unwrap().token;
        tokens.push(token);
        if request.stops.contains(&token) {
            return (made(&tokens), Finish::Stop);
        }
        if tokens.len() - request.prompt.len() == request.limit {
            return (made(&tokens), Finish::Length);
        }
        if tokens.len() > context {
            return (made(&tokens), Finish::ContextFull);
        }
    }
}

/// The logits before each position of `tokens` but the first.
pub fn truths(tokens: &[u32]) -> Vec<Vec<f32>> {
    (1..tokens.len()).map(|len| truth(&tokens[..len])).collect()
}

/// What a request was told, and a way to cancel it.
#[derive(Clone, Default)]
pub struct Heard {
    events: Arc<Mutex<Vec<Event>>>,
    cancelled: Arc<AtomicBool>,
}

impl Heard {
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    pub fn push(&self, event: Event) {
        self.events.lock().unwrap().push(event);
    }

    pub fn events(&self) -> Vec<Event> {
        self.events.lock().unwrap().clone()
    }

    pub fn tokens(&self) -> Vec<u32> {
        let events = self.events();
        events.iter().filter_map(|e| if let Event::Token(s) = e { Some(s.token) } else { None }).collect()
    }

    pub fn cached(&self) -> usize {
        match self.events().first() {
            Some(Event::Started { cached }) => *cached,
            _ => 0,
        }
    }

    /// How it ended; it is told once, and last.
    pub fn finish(&self) -> Option<Finish> {
        let events = self.events();
        let ends = events.iter().filter(|e| matches!(e, Event::Finished(_))).count();
        assert!(ends <= 1, "{events:?}");
        match events.last() {
            Some(Event::Finished(finish)) => Some(finish.clone()),
            _ => {
                assert_eq!(ends, 0, "{events:?}");
                None
            }
        }
    }
}

impl Core<Fake> {
    pub fn add(&mut self, id: u64, request: Request) -> Heard {
        let heard = Heard::default();
        let events = heard.events.clone();
        let sink = Box::new(move |event| {
            events.lock().unwrap().push(event);
            ControlFlow::Continue(())
        });
        self.enqueue(Arrival { id, request, sink, cancelled: heard.cancelled.clone() });
        heard
    }

    pub fn step(&mut self) -> usize {
        self.begin_step();
        let tokens = self.end_step();
        self.tell_ended();
        tokens
    }

    pub fn steps(&mut self, steps: usize) {
        for _ in 0..steps {
            self.step();
        }
    }

    /// Steps until nothing is left; the number of steps.
    pub fn run_out(&mut self) -> usize {
        for steps in 0..100_000 {
            if self.is_idle() {
                return steps;
            }
            self.step();
        }
        panic!("it never ends");
    }

    /// No page is lost: none is used, and all are free once the cache is empty.
    pub fn assert_whole(&mut self) {
        assert_eq!(self.pages.used(), PageCounts { full: 0, sliding: 0 });
        while self.cache.evict(&mut self.pages) {}
        assert_eq!(self.pages.free(), self.shape.pages);
        assert_eq!(self.cache.points(), 0);
    }
}
