//! A run that was stopped, or ran on other threads, leaves the bits of one that was never broken; and what it learns to
//! be stored as is what the exported file holds.

mod finetune;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use ossia_kernels::cuda::Device;
use ossia_kernels::{Precision, Tensor};
use ossia_model::checkpoint::Checkpoint;
use ossia_model::gpt_oss::config::Config;
use ossia_model::gpt_oss::export::{Format, export};
use ossia_model::kv_cache::Held;
use ossia_model::{Logits, Model, Options, Work};
use ossia_train::dataset::{Batches, Document, class};
use ossia_train::metrics::Record;
use ossia_train::prepare;
use ossia_train::recipe::Recipe;
use ossia_train::run::{self, Ended, Settings, Watcher};
use ossia_train::saved::Store;
use ossia_train::trainer::Trainer;
use serde_json::Value;

const STEPS: u64 = 6;
const MAX_LEN: usize = 160;

const MICRO: &str = r#"
name = "micro"
seed = 3

[model]
num_hidden_layers = 2
hidden_size = 32
intermediate_size = 32
num_attention_heads = 4
num_key_value_heads = 2
head_dim = 8
num_local_experts = 4
num_experts_per_tok = 2
sliding_window = 16
max_position_embeddings = 256
rope_theta = 150000.0
rope_scaling = { rope_type = "yarn", factor = 4.0, original_max_position_embeddings = 64 }

[data]
source = "generated"
documents = 200
vocabulary = 300
max_len = 160
weights = { context = 0.05 }

[training]
steps = 6
batch_tokens = 700
micro_tokens = 320
optimizer = "muon"
lr = 0.02
schedule = "wsd"
warmup = 0.2
decay = 0.4
weight_decay = 0.05
aux_loss = [0.01, 0.001]
router_z_loss = 0.0001
z_loss = 0.0001

[quantize]
from = 0.5

[checkpoints]
every = 2

[validation]
every = 3
documents = 30
"#;

const OPTIMIZERS: [&str; 2] = ["muon", "adamw"];

fn recipe(optimizer: &str) -> Recipe {
    let text = MICRO.replace("\"muon\"", &format!("\"{optimizer}\""));
    Recipe::parse(&text, Path::new("micro.toml")).unwrap()
}

/// Raises the flag after every step, where it is told to.
struct Stopping<'a> {
    stop: &'a AtomicBool,
    always: bool,
}

impl Watcher for Stopping<'_> {
    fn preparing(&mut self, _: &str, _: u64, _: u64) {}
    fn begins(&mut self, _: u64, _: u64, _: &Config) {}
    fn stepped(&mut self, _: &Record) {
        self.stop.store(self.always, Ordering::Relaxed);
    }
    fn saved(&mut self, _: &Path) {}
}

fn run(recipe: &Recipe, folder: &Path, threads: usize, stopping: bool) -> Ended {
    let stop = AtomicBool::new(false);
    let settings =
        Settings { folder, device: &Device::Cpu, threads, peak_flops: 0.0, stop: &stop, memory: None, peak_rss: &|| 0 };
    run::run(recipe, &settings, &mut Stopping { stop: &stop, always: stopping }).unwrap()
}

/// Stops after every step and goes on, on the given numbers of threads in turn; how often it was started.
fn run_in_pieces(recipe: &Recipe, folder: &Path, threads: &[usize]) -> u64 {
    let mut starts = 0;
    loop {
        let ended = run(recipe, folder, threads[starts as usize % threads.len()], true);
        starts += 1;
        assert_eq!(ended.step, starts);
        if ended.complete {
            return starts;
        }
    }
}

/// What a run leaves, without what the clock and the machine say.
#[derive(PartialEq)]
struct Left {
    weights: Vec<u8>,
    moments: Vec<u8>,
    place: Vec<Value>,
    log: Vec<Value>,
}

impl Left {
    fn by(folder: &Path) -> Self {
        let last = folder.join(format!("checkpoints/step-{STEPS:08}"));
        let state: Value = serde_json::from_slice(&std::fs::read(last.join("state.json")).unwrap()).unwrap();
        let place = ["step", "cursor", "tokens", "documents", "best"].map(|key| state[key].clone()).to_vec();
        let log = std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
        let record = |line: &str| {
            let mut record: Value = serde_json::from_str(line).unwrap();
            for key in ["tok_s", "flops_share", "elapsed_s", "peak_rss_bytes"] {
                assert!(record.as_object_mut().unwrap().remove(key).is_some(), "{key}");
            }
            record
        };
        Self {
            weights: std::fs::read(last.join("model.safetensors")).unwrap(),
            moments: std::fs::read(last.join("optimizer.safetensors")).unwrap(),
            place,
            log: log.lines().map(record).collect(),
        }
    }
}

#[track_caller]
fn assert_same(got: &Left, want: &Left) {
    assert_eq!(got.place, want.place);
    assert_eq!(got.log, want.log);
    assert!(got == want, "weights or moments differ");
}

#[test]
fn stopping_after_every_step_changes_no_bit() {
    for optimizer in OPTIMIZERS {
        let (recipe, dir) = (recipe(optimizer), tempfile::tempdir().unwrap());
        let (unbroken, broken) = (dir.path().join("unbroken"), dir.path().join("broken"));
        assert!(run(&recipe, &unbroken, 2, false).complete);
        assert_eq!(run_in_pieces(&recipe, &broken, &[2]), STEPS);
        let want = Left::by(&unbroken);
        assert_eq!(want.log.len() as u64, STEPS);
        assert_same(&Left::by(&broken), &want);
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    for optimizer in OPTIMIZERS {
        let (recipe, dir) = (recipe(optimizer), tempfile::tempdir().unwrap());
        let folders = ["one", "two", "in turn"].map(|name| dir.path().join(name));
        run(&recipe, &folders[0], 1, false);
        run(&recipe, &folders[1], 2, false);
        run_in_pieces(&recipe, &folders[2], &[1, 2, 3]);
        let [one, two, in_turn] = folders.map(|folder| Left::by(&folder));
        assert_same(&two, &one);
        assert_same(&in_turn, &one);
    }
}

#[test]
fn computing_blocks_twice_changes_no_bit() {
    let (kept, dir) = (recipe("muon"), tempfile::tempdir().unwrap());
    let mut twice = kept.clone();
    twice.training.recompute = true;
    let folders = ["kept", "twice"].map(|name| dir.path().join(name));
    run(&kept, &folders[0], 2, false);
    run(&twice, &folders[1], 2, false);
    assert_same(&Left::by(&folders[1]), &Left::by(&folders[0]));
}

#[test]
fn a_finished_run_is_left_as_it_is() {
    let (recipe, dir) = (recipe("muon"), tempfile::tempdir().unwrap());
    run(&recipe, dir.path(), 2, false);
    let want = Left::by(dir.path());
    let ended = run(&recipe, dir.path(), 2, false);
    assert!(ended.complete && ended.last.is_none() && ended.step == STEPS);
    assert_same(&Left::by(dir.path()), &want);
}

/// A trainer where the run in `folder` is, and its held-out documents.
fn trainer(recipe: &Recipe, folder: &Path) -> (Trainer, Vec<Document>) {
    let data = folder.join("data");
    let prepared = prepare::prepare(recipe, &data, &mut |_, _, _| std::ops::ControlFlow::Continue(())).unwrap();
    let prepared = prepared.expect("nobody breaks off");
    let config = recipe.config(prepared.num_ids).unwrap();
    let batches = Batches::new(prepared.shards, Trainer::batch_settings(recipe)).unwrap();
    let held_out = prepared.validation;
    let mut trainer = Trainer::new(recipe, &config, batches, held_out.clone(), (&Device::Cpu, 2)).unwrap();
    let saved = Store::open(folder).unwrap().latest("model.safetensors").unwrap().expect("the run has saved");
    saved.restore(&mut trainer).unwrap();
    (trainer, held_out)
}

/// Mean cross entropy of the learned tokens, from a model's logits.
fn loss_of(model: &mut Model, documents: &[Document]) -> f64 {
    let mut losses = Vec::new();
    for document in documents {
        let rows = (document.tokens.len() - 1).min(MAX_LEN);
        let mut held = Held::default();
        let work = Work { held: &mut held, tokens: &document.tokens[..rows], logits: Logits::All };
        let logits = model.step(&mut [work]).unwrap();
        losses.extend(learned_losses(document, &logits));
        model.release(&mut held);
    }
    mean(&losses)
}

/// Cross entropy of a document's learned tokens, from the logits of its first rows.
fn learned_losses(document: &Document, logits: &Tensor) -> Vec<f64> {
    let rows = logits.host().chunks_exact(logits.cols()).enumerate();
    let learned = rows.filter(|(row, _)| document.classes[row + 1] != class::CONTEXT);
    let loss = |(row, logits): (usize, &[f32])| {
        let largest = f64::from(logits.iter().fold(f32::MIN, |m, &v| m.max(v)));
        let total: f64 = logits.iter().map(|&v| (f64::from(v) - largest).exp()).sum();
        largest + total.ln() - f64::from(logits[document.tokens[row + 1] as usize])
    };
    learned.map(loss).collect()
}

fn mean(losses: &[f64]) -> f64 {
    assert!(!losses.is_empty(), "something is learned");
    losses.iter().sum::<f64>() / losses.len() as f64
}

/// The run's last checkpoint as a folder of packed experts.
fn exported(checkpoint: &Path, out: PathBuf) -> Model {
    let source = Checkpoint::open(checkpoint).unwrap();
    let config = Config::from_checkpoint(&source).unwrap();
    export(&source, &config, Format::Mxfp4, &out, None, &mut |_, _| {}).unwrap();
    let options =
        Options { precision: Precision::F32, threads: 2, context: 256, logits_rows: 256, ..Options::default() };
    Model::load(&Checkpoint::open(&out).unwrap(), options, None, &mut |_, _| {}).unwrap()
}

#[test]
fn what_the_quantized_phase_sees_is_what_the_exported_file_holds() {
    for optimizer in OPTIMIZERS {
        let (recipe, dir) = (recipe(optimizer), tempfile::tempdir().unwrap());
        let ended = run(&recipe, dir.path(), 2, false);
        let (mut trainer, held_out) = trainer(&recipe, dir.path());
        let mut model = exported(&ended.checkpoint, dir.path().join("exported"));
        assert!(trainer.is_quantized());
        let file = trainer.parameters().read(model.transformer());
        let seen = trainer.seen_weights().unwrap();
        let different = file.iter().zip(&seen[..]).filter(|(f, s)| f.to_bits() != s.to_bits()).count();
        assert_eq!((file.len(), different), (seen.len(), 0));
        let want = trainer.validate().unwrap().unwrap();
        assert_eq!(ended.last.unwrap().valid_loss, Some(want), "the log says what was measured");
        let got = loss_of(&mut model, &held_out);
        let error = (got - want).abs() / want;
        println!("{optimizer}: {want} in training, {got} from the file, {error:.1e}");
        assert!(error <= 1e-6, "{got} {want} {error:.1e}");
    }
}

#[test]
fn quantization_begins_in_the_middle() {
    let (recipe, dir) = (recipe("muon"), tempfile::tempdir().unwrap());
    let stop = AtomicBool::new(true);
    let settings = Settings {
        folder: dir.path(),
        device: &Device::Cpu,
        threads: 1,
        peak_flops: 0.0,
        stop: &stop,
        memory: None,
        peak_rss: &|| 0,
    };
    // A stop while the data are made leaves nothing to go on from, and harms nothing.
    let ended = run::run(&recipe, &settings, &mut Stopping { stop: &stop, always: true }).unwrap();
    assert_eq!((ended.step, ended.complete), (0, false));
    for step in 1..=STEPS {
        run(&recipe, dir.path(), 1, true);
        let (mut trainer, _) = trainer(&recipe, dir.path());
        assert_eq!((trainer.step_number(), trainer.is_quantized()), (step, step >= 3));
        let exact = trainer.weights().to_vec();
        assert_eq!(trainer.seen_weights().unwrap()[..] == exact[..], step < 3);
    }
}
