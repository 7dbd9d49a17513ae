//! A run from its beginning, or from where it was left, to its end: steps, log, checkpoints.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use ossia_kernels::cuda::{Device, Gpu};
use ossia_model::gpt_oss::config::{Config, LayerKind};
use ossia_model::gpt_oss::scratch::{self, LargestBatch};
use serde::Serialize;
use serde_json::Value;

use crate::dataset::{Batches, DocumentRef, Shard};
use crate::error::{Error, Result};
use crate::metrics::events::Events;
use crate::metrics::{self, ClassLosses, Log, Record};
use crate::prepare::{self, Prepared};
use crate::recipe::Recipe;
use crate::saved::{ModelFiles, Saved, State, Store};
use crate::trainer::{self, Outcome, Trainer};

/// Who is told while a run goes on.
pub trait Watcher {
    /// Data are made or read: what, how many done, of how many.
    fn preparing(&mut self, what: &str, done: u64, all: u64);
    /// The run begins after `step` updates (0: from nothing) of `steps`.
    fn begins(&mut self, step: u64, steps: u64, config: &Config);
    /// An update is done.
    fn stepped(&mut self, record: &Record);
    /// A checkpoint was saved.
    fn saved(&mut self, folder: &Path);
}

/// What a run is given.
pub struct Settings<'a> {
    /// Where everything goes.
    pub folder: &'a Path,
    /// Where the model is computed.
    pub device: &'a Device,
    /// Threads.
    pub threads: usize,
    /// Arithmetic that the machine can do, operations a second; 0 where nobody has measured.
    pub peak_flops: f64,
    /// Raised by whoever wants the run to save and end.
    pub stop: &'a AtomicBool,
    /// Memory that the run may take, bytes, where it is known.
    pub memory: Option<u64>,
    /// The most memory that the process has held, bytes.
    pub peak_rss: &'a dyn Fn() -> u64,
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Updates done in all.
    pub step: u64,
    /// Whether all are done.
    pub complete: bool,
    /// The newest checkpoint.
    pub checkpoint: PathBuf,
    /// The last record.
    pub last: Option<Record>,
}

/// Runs `recipe` to its end or until it is stopped.
pub fn run(recipe: &Recipe, settings: &Settings, watcher: &mut dyn Watcher) -> Result<Ended> {
    let store = Store::open(settings.folder)?;
    let saved = store.latest("model.safetensors")?;
    if let Some(saved) = &saved {
        check_same(recipe, saved)?;
    }
    let data = settings.folder.join("data");
    let prepared = prepare::prepare(recipe, &data, &mut |what, done, all| {
        watcher.preparing(what, done, all);
        if settings.stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    let Some(prepared) = prepared else {
        let (step, checkpoint) = saved.map_or((0, settings.folder.to_owned()), |s| (s.state.step, s.folder));
        return Ok(Ended { step, complete: false, checkpoint, last: None });
    };
    let Prepared { tokenizer_json, num_ids, stop_ids, shards, validation } = prepared;
    let config = Config { eos_ids: stop_ids, ..recipe.config(num_ids)? };
    if config.vocab_size < num_ids {
        let wanted = format!("none, or at least the vocabulary's {num_ids}");
        return Err(recipe.wrong("model.vocab_size", &wanted, config.vocab_size));
    }
    check_memory(recipe, &config, settings)?;
    check_learns(recipe, &shards)?;
    let batches = Batches::new(shards, Trainer::batch_settings(recipe))?;
    let mut trainer = Trainer::new(recipe, &config, batches, validation, (settings.device, settings.threads))?;
    let mut state = State {
        step: 0,
        cursor: trainer.place().cursor,
        tokens: 0,
        documents: 0,
        elapsed_s: 0.0,
        best: None,
        recipe: recipe.clone(),
        hashes: Default::default(),
    };
    if let Some(saved) = &saved {
        saved.restore(&mut trainer)?;
        state = State { hashes: Default::default(), ..saved.state.clone() };
    }
    let resume = saved.as_ref().map(|s| s.state.step);
    let log = Log::open(&settings.folder.join("metrics.jsonl"), resume)?;
    let events = new_events(&settings.folder.join("events"), state.step)?;
    watcher.begins(state.step, recipe.training.steps, &config);
    let mut run = Run { recipe, settings, store, trainer, tokenizer_json, state, log, events, last: None };
    run.go(watcher, saved.map(|s| s.folder))
}

/// Documents that are cut before anything is learned would give a loss of zero and a run of nothing.
fn check_learns(recipe: &Recipe, shards: &[Shard]) -> Result<()> {
    let (max_len, weights) = (recipe.data.max_len, recipe.data.weights.classes());
    // All weights zero is another mistake, which the batches name.
    let is_learned = |&class: &u8| weights.get(usize::from(class)).is_none_or(|&weight| weight != 0.0);
    let learns = |document: DocumentRef| document.classes.iter().skip(1).take(max_len).any(is_learned);
    let mut documents = shards.iter().flat_map(|s| (0..s.num_documents()).filter_map(|index| s.document(index)));
    if documents.any(learns) || weights.iter().all(|&weight| weight == 0.0) {
        return Ok(());
    }
    Err(recipe.wrong("data.max_len", "documents in which something is learned before they are cut", max_len))
}

/// Says what does not fit before anything is taken.
fn check_memory(recipe: &Recipe, config: &Config, settings: &Settings) -> Result<()> {
    let Memory { state, scratch } = match settings.device {
        Device::Cpu => Memory::of(recipe, config, settings.threads),
        Device::Cuda(gpu) => {
            check_gpu_memory(recipe, config, gpu)?;
            Memory::beside_gpu(recipe, config)
        }
    };
    match settings.memory {
        Some(available) if state + scratch > available as f64 => {
            Err(Error::Memory { file: recipe.file.clone(), state, scratch, available: available as f64 })
        }
        _ => Ok(()),
    }
}

fn check_gpu_memory(recipe: &Recipe, config: &Config, gpu: &Gpu) -> Result<()> {
    let (Memory { state, scratch }, (free, _)) = (Memory::of_gpu(recipe, config), gpu.memory()?);
    if state + scratch > free as f64 {
        return Err(Error::GpuMemory { file: recipe.file.clone(), state, scratch, available: free as f64 });
    }
    Ok(())
}

/// Memory of a run, bytes. As floats, since a plan may be of any size.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Weights, what the forward pass sees of them, gradients, two moments.
    pub state: f64,
    /// Of a batch's rows, and of what the largest micro batch makes.
    pub scratch: f64,
}

impl Memory {
    /// Of a run on `threads` threads.
    pub fn of(recipe: &Recipe, config: &Config, threads: usize) -> Self {
        let largest = LargestBatch {
            tokens: recipe.training.micro_tokens,
            threads,
            recompute: recipe.training.recompute,
            adapter_rank: 0,
        };
        let state = 5.0 * 4.0 * config.param_counts().total as f64;
        Self { state, scratch: batch_bytes(recipe) + scratch::training_bytes(config, largest) as f64 }
    }

    /// What a run takes of a GPU.
    pub fn of_gpu(recipe: &Recipe, config: &Config) -> Self {
        let (state, scratch) = trainer::gpu_bytes(recipe, config);
        Self { state: state as f64, scratch: scratch as f64 }
    }

    /// What a run on a GPU takes of the host: weights and moments to be saved, and one more run while they are written.
    pub fn beside_gpu(recipe: &Recipe, config: &Config) -> Self {
        Self { state: 4.0 * 4.0 * config.param_counts().total as f64, scratch: batch_bytes(recipe) }
    }
}

/// Token, target, weight and class of each row, in the batch and in its micro batches.
fn batch_bytes(recipe: &Recipe) -> f64 {
    2.0 * 13.0 * recipe.training.batch_tokens as f64
}

/// An event file of its own. The name holds the second, so a run that is killed and started again within one takes a
/// later name.
pub(crate) fn new_events(folder: &Path, step: u64) -> Result<Events> {
    let mut at = wall_time();
    loop {
        match Events::create(folder, step, at) {
            // Not the folder: a file in its place stays there.
            Err(metrics::Error::Io { source, path, .. })
                if source.kind() == std::io::ErrorKind::AlreadyExists && path != folder =>
            {
                at += 1.0;
            }
            other => return Ok(other?),
        }
    }
}

/// A run that goes on must have the recipe that it began with.
fn check_same(recipe: &Recipe, saved: &Saved) -> Result<()> {
    check_equal(&saved.state.recipe, recipe, &recipe.file, &saved.folder)
}

/// Fails with the first key by which what a run in `folder` began with differs from what `file` says now.
pub(crate) fn check_equal<R: Serialize>(was: &R, is: &R, file: &Path, folder: &Path) -> Result<()> {
    let (was, is) = (as_json(was, file)?, as_json(is, file)?);
    let Some((key, was, is)) = first_difference("", &was, &is) else { return Ok(()) };
    let message = format!(
        "was saved by another recipe: {key} was {was}, {} has {is}; give the first recipe, or another --out",
        file.display()
    );
    Err(Error::Saved { path: folder.into(), message })
}

/// Numbers as people write them: through text, in which a number has the fewest digits that tell it from others.
fn as_json(recipe: &impl Serialize, file: &Path) -> Result<Value> {
    let json = serde_json::to_string(recipe).and_then(|text| serde_json::from_str(&text));
    json.map_err(|e| Error::RecipeSyntax { file: file.into(), message: e.to_string() })
}

/// The first key whose value is not the same, with both values.
fn first_difference(key: &str, was: &Value, is: &Value) -> Option<(String, String, String)> {
    if was == is {
        return None;
    }
    let (Value::Object(old), Value::Object(new)) = (was, is) else {
        let shown = |value: &Value| if value.is_null() { "not given".into() } else { value.to_string() };
        return Some((key.into(), shown(was), shown(is)));
    };
    old.keys().chain(new.keys()).find_map(|name| {
        let of = |table: &serde_json::Map<String, Value>| table.get(name).cloned().unwrap_or(Value::Null);
        let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
        first_difference(&key, &of(old), &of(new))
    })
}

struct Run<'a> {
    recipe: &'a Recipe,
    settings: &'a Settings<'a>,
    store: Store,
    trainer: Trainer,
    tokenizer_json: String,
    state: State,
    log: Log,
    events: Events,
    last: Option<Record>,
}

impl Run<'_> {
    fn go(&mut self, watcher: &mut dyn Watcher, newest: Option<PathBuf>) -> Result<Ended> {
        let steps = self.recipe.training.steps;
        // A run that is killed before its first checkpoint is due must find one, or its log would be another run's.
        let mut newest = match newest {
            Some(folder) => folder,
            None => self.save(watcher)?,
        };
        let mut saved_at = self.state.step;
        while self.state.step < steps {
            let stopped = self.settings.stop.load(Ordering::Relaxed);
            if !stopped {
                self.step(watcher)?;
            }
            let step = self.state.step;
            let due = stopped || step.is_multiple_of(self.recipe.checkpoints.every) || step == steps;
            // A checkpoint is never written over: while that goes on there would be none.
            if due && saved_at != step {
                newest = self.save(watcher)?;
                saved_at = step;
            }
            if stopped {
                break;
            }
        }
        let complete = self.state.step == steps;
        Ok(Ended { step: self.state.step, complete, checkpoint: newest, last: self.last.take() })
    }

    fn step(&mut self, watcher: &mut dyn Watcher) -> Result<()> {
        let start = Instant::now();
        let outcome = self.trainer.step()?;
        let seconds = start.elapsed().as_secs_f64();
        let place = self.trainer.place();
        let state = &mut self.state;
        (state.step, state.cursor) = (place.step, place.cursor);
        state.tokens += outcome.tokens as u64;
        state.documents += outcome.documents as u64;
        let steps = self.recipe.training.steps;
        let due = state.step.is_multiple_of(self.recipe.validation.every) || state.step == steps;
        let valid_loss = if due { self.trainer.validate()? } else { None };
        if let Some(loss) = valid_loss
            && state.best.is_none_or(|(_, best)| loss < best)
        {
            state.best = Some((state.step, loss));
        }
        state.elapsed_s += start.elapsed().as_secs_f64();
        let record = self.record(&outcome, seconds, valid_loss);
        self.log.append(&record)?;
        self.events.append(&record, wall_time())?;
        watcher.stepped(&record);
        self.last = Some(record);
        Ok(())
    }

    fn record(&self, outcome: &Outcome, seconds: f64, valid_loss: Option<f64>) -> Record {
        let (peak, flops) = (self.settings.peak_flops, flops(self.trainer.parameters().config(), &outcome.lengths));
        Record {
            step: self.state.step,
            tokens: self.state.tokens,
            documents: self.state.documents,
            loss: outcome.loss,
            loss_per_class: ClassLosses::of(&outcome.per_class),
            valid_loss,
            aux_loss: outcome.aux,
            z_loss: 0.0,
            grad_norm: outcome.grad_norm,
            lr: f64::from(outcome.lr),
            tok_s: outcome.tokens as f64 / seconds,
            flops_share: if peak > 0.0 { flops / seconds / peak } else { 0.0 },
            elapsed_s: self.state.elapsed_s,
            peak_rss_bytes: (self.settings.peak_rss)(),
            expert_load: outcome.expert_load.clone(),
            ..Record::default()
        }
    }

    fn save(&mut self, watcher: &mut dyn Watcher) -> Result<PathBuf> {
        self.log.sync()?;
        self.trainer.fetch()?;
        let (state, keep) = (self.state.clone(), self.recipe.checkpoints.keep);
        let contents = ModelFiles {
            parameters: self.trainer.parameters(),
            weights: self.trainer.weights(),
            tokenizer_json: &self.tokenizer_json,
            moments: self.trainer.moments(),
        };
        let folder = self.store.save(&contents, state, keep)?;
        watcher.saved(&folder);
        Ok(folder)
    }
}

/// Useful arithmetic of training on one token of documents of `length` tokens: six operations for each weight that the
/// token meets, twelve for each pair of positions and channel of the attention (half of them visible).
pub fn flops_per_token(config: &Config, length: usize) -> f64 {
    let counts = config.param_counts();
    let attention: f64 = config
        .layer_types
        .iter()
        .map(|kind| {
            let reach = if *kind == LayerKind::Sliding { length.min(config.sliding_window) } else { length } as f64;
            // The first `reach` positions see 1, 2, 3 and so on, all others `reach`.
            let pairs = reach * (reach + 1.0) / 2.0 + (length as f64 - reach) * reach;
            12.0 * config.query_size() as f64 * pairs / (length as f64).max(1.0)
        })
        .sum();
    6.0 * counts.active as f64 + attention
}

/// The same for documents of these lengths.
pub fn flops(config: &Config, lengths: &[usize]) -> f64 {
    lengths.iter().map(|&length| length as f64 * flops_per_token(config, length)).sum()
}

pub(crate) fn wall_time() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attention_is_counted_pair_by_pair() {
        let config = Config::preset("tiny", None).unwrap();
        let weights = 6.0 * config.param_counts().active as f64;
        let lengths = [1, 7, config.sliding_window, 3 * config.sliding_window / 2, 5 * config.sliding_window];
        let seen = |kind: LayerKind, at: usize| {
            if kind == LayerKind::Sliding { (at + 1).min(config.sliding_window) } else { at + 1 }
        };
        for length in lengths {
            let pairs: usize =
                config.layer_types.iter().map(|&kind| (0..length).map(|at| seen(kind, at)).sum::<usize>()).sum();
            let wanted = length as f64 * weights + 12.0 * (config.query_size() * pairs) as f64;
            let found = flops(&config, &[length]);
            assert!((found / wanted - 1.0).abs() < 1e-12, "{length}: {found} {wanted}");
        }
        let each: f64 = lengths.iter().map(|&length| flops(&config, &[length])).sum();
        assert_eq!(flops(&config, &lengths), each);
        assert_eq!(flops(&config, &[]), 0.0);
    }
}
