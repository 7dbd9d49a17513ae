//! A fine-tuning run from its beginning, or from where it was left, to its end: the head, the loss before training,
//! steps, measurements, checkpoints, and the adapter.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::begin::{self, Begun};
use super::config::Config;
use super::data::Progress;
use super::finder::{self, Found, Tried};
use super::kept::{self, Identity, Kept};
use super::outcome::{Measured, Method, Outcome};
use super::plan::Header;
use super::tuner::Tuner;
use crate::error::Result;
use crate::metrics::events::Events;
use crate::metrics::{ClassLosses, Log, Record};
use crate::run::{new_events, wall_time};
use crate::saved::{State, Store};
use crate::schedule;

pub use super::begin::{Base, Job};

/// Who is told while a run goes on.
pub trait Watcher {
    /// Data are read.
    fn preparing(&mut self, now: &Progress);
    /// Everything is checked, nothing is trained yet.
    fn begins(&mut self, header: &Header);
    /// An update is done; step 0 is the measurement before the first.
    fn stepped(&mut self, record: &Record);
    /// A checkpoint was saved.
    fn saved(&mut self, folder: &Path);
    /// A step of a search for the learning rate is done.
    fn tried(&mut self, _tried: Tried) {}
}

/// What ended a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// All steps are done.
    Complete,
    /// Held-out data have not got better for long enough.
    Patience,
    /// It was asked to stop, and can go on.
    Stopped,
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Steps done in all.
    pub step: u64,
    /// Tokens read in all.
    pub tokens: u64,
    /// Why.
    pub why: Why,
    /// The newest checkpoint; the run's folder where there is none yet.
    pub checkpoint: PathBuf,
    /// The finished adapter or model, where the run is at its end.
    pub finished: Option<PathBuf>,
    /// The step that the finished one is from.
    pub chosen: u64,
    /// The last record.
    pub last: Option<Record>,
}

/// Runs a job to its end or until it is stopped.
pub fn run(job: &Job, watcher: &mut dyn Watcher) -> Result<Ended> {
    let store = Store::open(job.folder)?;
    let weights = kept::weights_file(job.config.method);
    let saved = store.latest::<Identity>(weights)?;
    if let Some(saved) = &saved {
        begin::check_same(job, saved)?;
    }
    let Some(Begun { mut tuner, mut method, mut header, identity }) = begin::begin(job, watcher)? else {
        let (step, tokens) = saved.as_ref().map_or((0, 0), |s| (s.state.step, s.state.tokens));
        let checkpoint = saved.map_or_else(|| job.folder.to_owned(), |s| s.folder);
        return Ok(Ended { step, tokens, why: Why::Stopped, checkpoint, finished: None, chosen: step, last: None });
    };
    let mut state = State {
        step: 0,
        cursor: method.cursor(),
        tokens: 0,
        documents: 0,
        elapsed_s: 0.0,
        best: None,
        recipe: identity,
        hashes: Default::default(),
    };
    if let Some(saved) = &saved {
        kept::restore(saved, &mut tuner, job.base.config, method.updates())?;
        method.restore(saved.state.cursor)?;
        state = State { hashes: Default::default(), ..saved.state.clone() };
    }
    let log = Log::open(&job.folder.join("metrics.jsonl"), saved.as_ref().map(|s| s.state.step))?;
    let events = new_events(&job.folder.join("events"), state.step)?;
    header.step = state.step;
    watcher.begins(&header);
    let every = job.config.validate_every(header.training.steps);
    let mut run = Run { job, store, tuner, method, state, log, events, every, header, last: None };
    run.go(watcher, saved.map(|s| s.folder))
}

/// Searches for a learning rate with the data and the model of a job; keeps nothing of what was learned.
pub fn find(job: &Job, steps: usize, watcher: &mut dyn Watcher) -> Result<Option<Found>> {
    let Some(Begun { mut tuner, mut method, header, .. }) = begin::begin(job, watcher)? else { return Ok(None) };
    watcher.begins(&header);
    let usual = f64::from(header.training.lr);
    let found = finder::find(&mut tuner, &mut *method, usual, steps, &mut |tried| {
        watcher.tried(tried);
        job.flow()
    })?;
    Ok(Some(found))
}

struct Run<'a> {
    job: &'a Job<'a>,
    store: Store,
    tuner: Tuner,
    method: Box<dyn Method>,
    state: State<Identity>,
    log: Log,
    events: Events,
    /// Steps from one measurement to the next.
    every: u64,
    header: Header,
    last: Option<Record>,
}

impl Run<'_> {
    fn config(&self) -> &Config {
        self.job.config
    }

    fn go(&mut self, watcher: &mut dyn Watcher, newest: Option<PathBuf>) -> Result<Ended> {
        let steps = self.header.training.steps;
        // A run that is killed before its first checkpoint is due must find one, or its log would be another run's.
        let mut newest = match newest {
            Some(folder) => folder,
            None => self.save(watcher)?,
        };
        if self.state.step == 0 && !self.is_stopped() {
            self.measure_before(watcher)?;
        }
        let mut saved_at = self.state.step;
        while self.state.step < steps && !self.has_no_patience() {
            let stopped = self.is_stopped();
            if !stopped {
                self.step(watcher)?;
            }
            let step = self.state.step;
            let is_best =
                self.config().validation.patience > 0 && self.state.best.is_some_and(|(best, _)| best == step);
            let last = step == steps || self.has_no_patience();
            let due = stopped || last || is_best || step.is_multiple_of(self.config().checkpoints.every);
            // A checkpoint is never written over: while that goes on there would be none.
            if due && saved_at != step {
                newest = self.save(watcher)?;
                saved_at = step;
            }
            if stopped {
                break;
            }
        }
        self.end(newest)
    }

    fn is_stopped(&self) -> bool {
        self.job.stop.load(Ordering::Relaxed)
    }

    /// Whether held-out data have been no better for as many measurements as the run waits for.
    fn has_no_patience(&self) -> bool {
        let (patience, step) = (self.config().validation.patience, self.state.step);
        let best = self.state.best.map_or(step, |(best, _)| best);
        patience > 0 && step.is_multiple_of(self.every) && step / self.every - best / self.every >= patience
    }

    /// Puts the adapter in its place where the run is at its end.
    fn end(&mut self, newest: PathBuf) -> Result<Ended> {
        let (step, patience) = (self.state.step, self.config().validation.patience);
        let why = match step == self.header.training.steps {
            true => Why::Complete,
            false if self.has_no_patience() => Why::Patience,
            false => Why::Stopped,
        };
        let (tokens, last) = (self.state.tokens, self.last.take());
        let mut ended = Ended { step, tokens, why, checkpoint: newest.clone(), finished: None, chosen: step, last };
        if why == Why::Stopped {
            return Ok(ended);
        }
        let best = self.state.best.filter(|_| patience > 0);
        let best = best.and_then(|(best, _)| Some((best, self.store.folder_of(best)?)));
        let (chosen, from) = best.unwrap_or((step, newest));
        ended.chosen = chosen;
        ended.finished = Some(kept::finish(&from, self.job.folder, self.config().method)?);
        Ok(ended)
    }

    /// The first line of the log: what held-out data cost before anything is learned.
    fn measure_before(&mut self, watcher: &mut dyn Watcher) -> Result<()> {
        let Some(measured) = self.method.measure(&mut self.tuner)? else { return Ok(()) };
        self.state.best = Some((0, measured.loss));
        if self.log.last_step().is_some() {
            return Ok(());
        }
        let peak_rss_bytes = (self.job.peak_rss)();
        let record = Record { loss: measured.loss, peak_rss_bytes, ..Record::default() };
        self.tell(with(record, Some(measured)), watcher)
    }

    fn step(&mut self, watcher: &mut dyn Watcher) -> Result<()> {
        let start = Instant::now();
        let lr = schedule::learning_rate(&self.header.training, self.state.step);
        let outcome = self.method.step(&mut self.tuner, lr)?;
        let seconds = start.elapsed().as_secs_f64();
        let state = &mut self.state;
        state.step += 1;
        state.cursor = self.method.cursor();
        state.tokens += outcome.tokens as u64;
        state.documents += outcome.documents as u64;
        let due = state.step.is_multiple_of(self.every) || state.step == self.header.training.steps;
        let measured = if due { self.method.measure(&mut self.tuner)? } else { None };
        if let Some(Measured { loss, .. }) = measured
            && state.best.is_none_or(|(_, best)| loss < best)
        {
            state.best = Some((state.step, loss));
        }
        state.elapsed_s += start.elapsed().as_secs_f64();
        let record = self.record(outcome, lr, seconds);
        self.tell(with(record, measured), watcher)
    }

    fn tell(&mut self, record: Record, watcher: &mut dyn Watcher) -> Result<()> {
        self.log.append(&record)?;
        self.events.append(&record, wall_time())?;
        watcher.stepped(&record);
        self.last = Some(record);
        Ok(())
    }

    fn record(&self, outcome: Outcome, lr: f32, seconds: f64) -> Record {
        let (peak, flops) = (self.job.peak_flops, begin::flops(self.job, &outcome.lengths));
        Record {
            step: self.state.step,
            tokens: self.state.tokens,
            documents: self.state.documents,
            loss: outcome.loss,
            loss_per_class: ClassLosses::of(&outcome.per_class),
            aux_loss: outcome.aux,
            grad_norm: outcome.grad_norm,
            lr: f64::from(lr),
            tok_s: outcome.tokens as f64 / seconds,
            flops_share: if peak > 0.0 { flops / seconds / peak } else { 0.0 },
            elapsed_s: self.state.elapsed_s,
            peak_rss_bytes: (self.job.peak_rss)(),
            preference: outcome.preference,
            policy: outcome.policy,
            expert_load: outcome.expert_load,
            ..Record::default()
        }
    }

    fn save(&mut self, watcher: &mut dyn Watcher) -> Result<PathBuf> {
        self.log.sync()?;
        let kept = Kept { tuner: &self.tuner, base: self.job.base.name, tokenizer_json: &self.job.base.tokenizer_json };
        let folder = self.store.save(&kept, self.state.clone(), self.config().checkpoints.keep)?;
        watcher.saved(&folder);
        Ok(folder)
    }
}

/// A record with what was measured.
fn with(record: Record, measured: Option<Measured>) -> Record {
    let Some(measured) = measured else { return record };
    // A reward has no loss of its own.
    let valid_loss = measured.reward.is_none().then_some(measured.loss);
    Record { valid_loss, valid_preference: measured.preference, valid_reward: measured.reward, ..record }
}

/// Whether to go on, for whoever asks in the middle of something.
pub(super) fn flow(stop: &AtomicBool) -> std::ops::ControlFlow<()> {
    if stop.load(Ordering::Relaxed) { std::ops::ControlFlow::Break(()) } else { std::ops::ControlFlow::Continue(()) }
}
