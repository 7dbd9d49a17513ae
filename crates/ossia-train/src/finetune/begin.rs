//! From a job to what is trained: data, the model, memory, all checked before anything is learned.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use ossia_kernels::arena::Arena;
use ossia_kernels::cpu::isa::Isa;
use ossia_kernels::pool::Pool;
use ossia_kernels::{Precision, Runtime};
use ossia_model::checkpoint::Checkpoint;
use ossia_model::gpt_oss::config::Config as ModelConfig;
use ossia_model::gpt_oss::forward::Transformer;
use ossia_model::gpt_oss::parameters::Parameters;
use ossia_model::gpt_oss::tensors::{Dense, Reading};
use ossia_model::{Model, Options, Plan};
use ossia_text::Harmony;
use ossia_text::harmony::Effort;

use super::config::{self, Config, Method as Way};
use super::data::{self, DataSettings, Dates, Format, Items, Manner, OnBad, Prepared};
use super::dpo::Dpo;
use super::graders::Grader;
use super::grpo::Grpo;
use super::kept::{Identity, fingerprint};
use super::outcome::Method;
use super::plan::{self, Header, Memory};
use super::run::{Watcher, flow};
use super::sft::Sft;
use super::subject::{self, Subject};
use super::tuner::Tuner;
use crate::dataset::{BatchSettings, Batches, class};
use crate::error::{Error, Result};
use crate::recipe::Training;
use crate::run::check_equal;
use crate::saved::Saved;

/// Answers that are made side by side, at most.
const MOST_SEQUENCES: usize = 64;

/// The model to begin with.
pub struct Base<'a> {
    /// Its files; they stay open, since weights are used in place.
    pub checkpoint: &'a Checkpoint,
    /// Its shape.
    pub config: &'a ModelConfig,
    /// Its name, for the adapter's folder.
    pub name: &'a str,
    /// Its vocabulary as tokenizer.json, which a whole model's folder needs.
    pub tokenizer_json: String,
}

/// What a run is given.
pub struct Job<'a> {
    /// What a user has said.
    pub config: &'a Config,
    /// The model.
    pub base: Base<'a>,
    /// Its vocabulary.
    pub harmony: Arc<Harmony>,
    /// The data.
    pub files: &'a [PathBuf],
    /// Where everything goes.
    pub folder: &'a Path,
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

impl Job<'_> {
    /// Whether to go on.
    pub(super) fn flow(&self) -> ControlFlow<()> {
        flow(self.stop)
    }

    fn identity(&self) -> Identity {
        let base = fingerprint(self.base.checkpoint, self.base.config);
        Identity { finetune: self.config.clone(), base }
    }
}

/// Everything that a run needs.
pub(super) struct Begun {
    pub tuner: Tuner,
    pub method: Box<dyn Method>,
    pub header: Header,
    pub identity: Identity,
}

/// A run that goes on must have the base and the configuration that it began with.
pub(super) fn check_same(job: &Job, saved: &Saved<Identity>) -> Result<()> {
    check_equal(&saved.state.recipe, &job.identity(), &job.config.file, &saved.folder)
}

/// Reads data and model; nothing where the run was stopped meanwhile.
pub(super) fn begin(job: &Job, watcher: &mut dyn Watcher) -> Result<Option<Begun>> {
    let (config, model) = (job.config, job.base.config);
    check_lengths(job)?;
    let grader = grader(config)?;
    let settings = data_settings(config, model)?;
    let prepared = data::prepare(job.files, &settings, &job.harmony, &job.folder.join("data"), &mut |now| {
        watcher.preparing(now);
        job.flow()
    })?;
    let Some(prepared) = prepared else { return Ok(None) };
    let training = training(config, model, &prepared);
    let memory = memory(job, &training)?;
    check_memory(job, &memory)?;
    let tuner = tuner(job, &training)?;
    let header = Header {
        method: config.method,
        trained: plan::kinds(tuner.subject().tensors()),
        base_numbers: u64::try_from(model.param_counts().total).unwrap_or(u64::MAX),
        held_out: held_out(config.method, &prepared),
        data: prepared.report.clone(),
        training,
        step: 0,
        memory,
        isolation: grader.as_ref().and_then(Grader::isolation),
    };
    let method = method(job, prepared, grader)?;
    Ok(Some(Begun { tuner, method, header, identity: job.identity() }))
}

fn check_lengths(job: &Job) -> Result<()> {
    let (config, context) = (job.config, job.base.config.max_context);
    let max_len = config.max_len(job.base.config);
    if max_len > context {
        return Err(config.wrong("data.max_len", &format!("at most the model's context, {context}"), max_len));
    }
    if config.method == Way::Grpo && config.grpo.max_tokens >= max_len {
        let wanted = format!("less than finetune.data.max_len, {max_len}, which question and answer share");
        return Err(config.wrong("grpo.max_tokens", &wanted, config.grpo.max_tokens));
    }
    Ok(())
}

fn grader(config: &Config) -> Result<Option<Grader>> {
    if config.method != Way::Grpo {
        return Ok(None);
    }
    let json = serde_json::to_value(&config.grpo.grader)
        .map_err(|error| config.wrong("grpo.grader", "a table that can be written as JSON", error))?;
    Ok(Some(Grader::from_json(&json)?))
}

fn data_settings(config: &Config, model: &ModelConfig) -> Result<DataSettings> {
    let data = &config.data;
    let format = match (data.format.as_str(), config.method) {
        ("chat", _) => Format::Chat,
        ("preference", _) => Format::Preference,
        ("sharegpt", _) => Format::ShareGpt,
        ("alpaca", _) => Format::Alpaca,
        ("items", _) => Format::Items,
        (_, Way::Dpo) => Format::Preference,
        (_, Way::Grpo) => Format::Items,
        _ => Format::Auto,
    };
    let fits = match config.method {
        Way::Dpo => format == Format::Preference,
        Way::Grpo => format == Format::Items,
        Way::Sft | Way::Full => !matches!(format, Format::Preference | Format::Items),
    };
    if !fits {
        return Err(config.wrong("data.format", &format!("a form of data for {}", config.method.name()), &data.format));
    }
    let validation = match &config.validation.file {
        Some(file) => data::Validation::Files(vec![file.clone()]),
        None if config.validation.share == 0.0 => data::Validation::None,
        None => data::Validation::Share(config.validation.share),
    };
    let answer = if config.method == Way::Grpo { config.grpo.max_tokens } else { 0 };
    Ok(DataSettings {
        format,
        on_bad: if data.on_bad == "skip" { OnBad::Skip } else { OnBad::Fail },
        max_len: config.max_len(model) - answer,
        validation,
        validation_most: config.validation.most,
        seed: config.seed,
        manner: manner(data),
    })
}

/// What the system message says where the data do not.
fn manner(data: &config::Data) -> Manner {
    let effort = match data.reasoning.as_str() {
        "low" => Effort::Low,
        "high" => Effort::High,
        _ => Effort::Medium,
    };
    let dates = match data.date.as_str() {
        "drawn" => Dates::Drawn,
        "none" => Dates::None,
        date => Dates::Fixed(date.to_owned()),
    };
    Manner { effort, dates }
}

/// How updates are made; their number follows from the data.
fn training(config: &Config, model: &ModelConfig, prepared: &Prepared) -> Training {
    if config.method == Way::Grpo {
        let rounds = config.epochs * prepared.train_items.len() as f64 / config.grpo.prompts as f64;
        let training = config.training(model, 1);
        return Training { steps: config.steps.unwrap_or((rounds.ceil() as u64).max(1)), ..training };
    }
    // The first token of a document is given.
    config.training(model, prepared.report.tokens.saturating_sub(prepared.report.documents))
}

fn held_out(method: Way, prepared: &Prepared) -> usize {
    match method {
        Way::Sft | Way::Full => prepared.validation.len(),
        Way::Dpo => prepared.validation.len() / 2,
        Way::Grpo => prepared.validation_items.len(),
    }
}

/// How the model is run when it answers.
fn options(job: &Job) -> Options {
    let grpo = &job.config.grpo;
    let sequences = (grpo.prompts * grpo.group).min(MOST_SEQUENCES);
    let answering = job.config.method == Way::Grpo;
    Options {
        precision: Precision::F32,
        dense: Some(Dense::Kept),
        threads: job.threads,
        context: if answering { job.config.max_len(job.base.config) + 1 } else { 1 },
        sequences: if answering { sequences } else { 1 },
        logits_rows: if answering { sequences } else { 1 },
        chunk: if answering { 512 } else { 1 },
        adapter_rank: if answering { job.config.adapter.rank } else { 0 },
        // It is counted with the gradients and moments that belong to it.
        adapter_bytes: 0,
        ..Options::default()
    }
}

/// Bytes of a file that are read into memory together.
const READ_AROUND: f64 = 65_536.0;

fn memory(job: &Job, training: &Training) -> Result<Memory> {
    let (config, model) = (job.config, job.base.config);
    let plan = Plan::new(job.base.checkpoint, model, &options(job));
    let numbers = match config.method {
        Way::Full => Parameters::of(model).len(),
        _ => ossia_model::gpt_oss::adapter::AdapterParameters::of(model, &config.adapter_config()).len(),
    };
    // The numbers, what the forward pass sees of them is the same, gradients, two moments; a whole model's base goes.
    let state = 4.0 * 4.0 * numbers as f64;
    // Token, target, weight and class of each row, in the batch and in its micro batches.
    let rows = 2.0 * 13.0 * training.batch_tokens as f64;
    let scratch = rows + plan::scratch_bytes(config, model, training, job.threads) as f64;
    let answers = if config.method == Way::Grpo { (plan.kv + plan.scratch) as f64 } else { 0.0 };
    // Of the table the rows of the run's tokens are read, and what the system reads around each.
    let tokens = training.steps as f64 * training.batch_tokens as f64;
    let table = (tokens * READ_AROUND).min(plan.table as f64);
    let mapped = plan.mapped as f64 - plan.table as f64 + table;
    Ok(Memory { mapped, owned: plan.owned as f64, state, scratch, answers })
}

fn check_memory(job: &Job, memory: &Memory) -> Result<()> {
    match job.memory {
        Some(available) if memory.total() > available as f64 => Err(Error::FinetuneMemory {
            file: job.config.file.clone(),
            total: memory.total(),
            weights: memory.mapped + memory.owned,
            state: memory.state,
            scratch: memory.scratch + memory.answers,
            available: available as f64,
        }),
        _ => Ok(()),
    }
}

fn tuner(job: &Job, training: &Training) -> Result<Tuner> {
    let (config, model) = (job.config, job.base.config);
    let pool = Pool::new(job.threads);
    let adapter = config.adapter_config();
    let subject = match config.method {
        Way::Grpo => {
            let base = Model::load(job.base.checkpoint, options(job), None, &mut |_, _| {})?;
            Subject::adapter(subject::Base::Decoding(Box::new(base)), model, &adapter, config.seed)
        }
        Way::Full => Subject::full(&read(job, &pool)?, model),
        Way::Sft | Way::Dpo => {
            let base = subject::Base::Weights(Box::new(read(job, &pool)?));
            Subject::adapter(base, model, &adapter, config.seed)
        }
    };
    let arena = Arena::new(plan::scratch_bytes(config, model, training, job.threads));
    let runtime = Runtime::on_cpu(pool, arena, Isa::detect(), Precision::F32);
    Ok(Tuner::new(training.clone(), subject, runtime))
}

/// The base's weights, in the form that their file has.
fn read(job: &Job, pool: &Pool) -> Result<Transformer> {
    let reading = &mut Reading { dense: Dense::Kept, pool, isa: Isa::detect(), progress: &mut |_, _| {} };
    Ok(Transformer::read(job.base.checkpoint, job.base.config, reading)?)
}

fn method(job: &Job, prepared: Prepared, grader: Option<Grader>) -> Result<Box<dyn Method>> {
    let (config, max_len) = (job.config, job.config.max_len(job.base.config));
    let mut class_weights = config.data.weights.classes();
    if config.method == Way::Dpo {
        class_weights[usize::from(class::CONTEXT)] = 0.0;
    }
    let settings = BatchSettings { seed: config.seed, max_len, class_weights };
    let Prepared { train, validation, train_items, validation_items, .. } = prepared;
    Ok(match (config.method, grader) {
        (Way::Grpo, Some(grader)) => Box::new(grpo(job, (train_items, validation_items), grader, max_len)?),
        (Way::Dpo, _) => {
            let batches = Batches::new(train, settings)?.in_groups(2)?;
            Box::new(Dpo::new(batches, &validation, max_len, &class_weights, config.dpo.beta))
        }
        _ => Box::new(Sft::new(Batches::new(train, settings)?, validation, max_len, class_weights)),
    })
}

fn grpo(job: &Job, items: (Items, Items), grader: Grader, max_len: usize) -> Result<Grpo> {
    Grpo::new(items, grader, job.harmony.clone(), job.config.grpo.clone(), job.config.seed, max_len)
}

/// Useful arithmetic of the backward passes over documents of `lengths` rows: four operations for each weight of the base
/// that a row meets (its gradient is not wanted), or six where all weights are trained; and the attention's. Passes that
/// only look, such as a reference's or those that draw answers, are not counted.
pub(super) fn flops(job: &Job, lengths: &[usize]) -> f64 {
    let (whole, rows) = (crate::run::flops(job.base.config, lengths), lengths.iter().sum::<usize>() as f64);
    let per_row = if job.config.method == Way::Full { 0.0 } else { 2.0 * job.base.config.param_counts().active as f64 };
    whole - rows * per_row
}
