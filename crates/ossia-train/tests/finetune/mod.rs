//! Fine-tuning from end to end on small models: what is measured, learned, kept and resumed.

mod answers;
mod pairs;
mod runs;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ossia_model::checkpoint::Checkpoint;
use ossia_model::gpt_oss::config::Config as ModelConfig;
use ossia_model::gpt_oss::synth;
use ossia_text::{Harmony, Tokenizer, byte_level_tokenizer_json};
use ossia_train::Error;
use ossia_train::finetune::data::Progress;
use ossia_train::finetune::plan::Header;
use ossia_train::finetune::run::Ended;
use ossia_train::finetune::{Base, Config, Job, Watcher, run};
use ossia_train::metrics::{self, Record};
use serde_json::{Value, json};

/// What the tests' machine is said to do in a second.
const PEAK_FLOPS: f64 = 1e15;

/// A model and its vocabulary.
struct Model {
    checkpoint: Checkpoint,
    config: ModelConfig,
    harmony: Arc<Harmony>,
    tokenizer_json: String,
}

impl Model {
    /// Random weights in the released layout: MXFP4 experts, BF16 for the rest.
    fn random() -> Self {
        Self::of(ModelConfig::preset("tiny", None).unwrap())
    }

    /// The same of any shape.
    fn of(config: ModelConfig) -> Self {
        let tokenizer_json = byte_level_tokenizer_json(config.vocab_size).unwrap();
        let tokenizer = Tokenizer::from_json(&tokenizer_json).unwrap();
        let harmony = Arc::new(Harmony::new(tokenizer.into()).unwrap());
        Self { checkpoint: synth::checkpoint(&config, 1).unwrap(), config, harmony, tokenizer_json }
    }

    /// The model that the program carries.
    fn nano() -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/nano");
        let checkpoint = Checkpoint::open(&folder).unwrap();
        let config = ModelConfig::from_checkpoint(&checkpoint).unwrap();
        let tokenizer_json = std::fs::read_to_string(folder.join("tokenizer.json")).unwrap();
        let tokenizer = Tokenizer::from_json(&tokenizer_json).unwrap();
        Self { checkpoint, config, harmony: Arc::new(Harmony::new(tokenizer.into()).unwrap()), tokenizer_json }
    }
}

/// Raises the flag after every step, where it is told to, and keeps what it is told.
struct Watching<'a> {
    stop: &'a AtomicBool,
    always: bool,
    header: Option<Header>,
}

impl Watcher for Watching<'_> {
    fn preparing(&mut self, _: &Progress) {}
    fn begins(&mut self, header: &Header) {
        self.header = Some(header.clone());
    }
    fn stepped(&mut self, record: &Record) {
        self.stop.store(self.always && record.step > 0, Ordering::Relaxed);
    }
    fn saved(&mut self, _: &Path) {}
}

/// Where a run is, and how it is run.
struct Place<'a> {
    model: &'a Model,
    data: &'a Path,
    folder: &'a Path,
    threads: usize,
    stopping: bool,
}

impl Place<'_> {
    fn try_run(&self, toml: &str) -> Result<(Ended, Header), Error> {
        let config = Config::parse(toml, Path::new("f.toml"))?;
        let stop = AtomicBool::new(false);
        let mut watching = Watching { stop: &stop, always: self.stopping, header: None };
        let ended = run(&self.job(&config, &[self.data.to_owned()], &stop), &mut watching)?;
        Ok((ended, watching.header.expect("the run has begun")))
    }

    fn job<'a>(&'a self, config: &'a Config, files: &'a [PathBuf], stop: &'a AtomicBool) -> Job<'a> {
        let Model { checkpoint, config: shape, harmony, tokenizer_json } = self.model;
        Job {
            config,
            base: Base { checkpoint, config: shape, name: "base", tokenizer_json: tokenizer_json.clone() },
            harmony: harmony.clone(),
            files,
            folder: self.folder,
            threads: self.threads,
            peak_flops: PEAK_FLOPS,
            stop,
            memory: None,
            peak_rss: &|| 0,
        }
    }

    #[track_caller]
    fn run(&self, toml: &str) -> (Ended, Header) {
        self.try_run(toml).unwrap()
    }

    fn log(&self) -> Vec<Record> {
        metrics::read(&self.folder.join("metrics.jsonl")).unwrap()
    }
}

/// Writes `count` examples, one a line.
fn write_lines(file: &Path, count: usize, example: impl Fn(usize) -> Value) {
    let lines: Vec<String> = (0..count).map(|index| example(index).to_string() + "\n").collect();
    std::fs::write(file, lines.concat()).unwrap();
}

/// A question and its answer.
fn chat(question: &str, answer: &str) -> Value {
    json!({ "messages": [{ "role": "user", "content": question }, { "role": "assistant", "content": answer }] })
}

const WORDS: [&str; 8] = ["moss", "fern", "tarn", "scree", "heath", "bracken", "cairn", "fell"];

/// The word of an example, and a number that differs.
fn word(index: usize) -> String {
    format!("{} {}", WORDS[index % WORDS.len()], index / WORDS.len())
}
