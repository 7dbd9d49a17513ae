//! `ossia finetune`: a model learns from your own files, on your own machine, as an adapter or as a whole.

mod head;
mod progress;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use console::Term;
use ossia_kernels::cpu::isa::Isa;
use ossia_kernels::cpu::peak;
use ossia_text::Harmony;
use ossia_train::finetune::finder::Found;
use ossia_train::finetune::run::{Ended, Why};
use ossia_train::finetune::{self, Base, Config, Job, Method};
use ossia_train::{metrics, plot};
use serde_json::json;

use crate::error::Failure;
use crate::gpu::DeviceArg;
use crate::source::{ModelArgs, PrecisionArg, Source};
use crate::{carried, machine, output};

/// Steps of a search for a learning rate.
const FIND_STEPS: usize = 80;

/// Arguments of `finetune`.
#[derive(Debug, clap::Args)]
pub struct FinetuneArgs {
    /// nano (carried by this program), a folder, a .gguf file, a name such as gpt-oss-20b, or synth:PRESET
    #[arg(short, long, env = "OSSIA_MODEL", default_value = "nano")]
    model: String,
    /// What is learned: conversations, pairs of answers or questions, JSON lines; may be given more than once
    #[arg(long, value_name = "FILE", required = true)]
    data: Vec<PathBuf>,
    /// The settings, a TOML file with tables under [finetune] [default: good for most]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where checkpoints, the log and the adapter go; a run that is there goes on [default: runs/METHOD-DATA]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// How the model learns
    #[arg(long, value_enum)]
    method: Option<MethodArg>,
    /// Directions in which each matrix is moved
    #[arg(long)]
    rank: Option<usize>,
    /// How often all data are seen
    #[arg(long)]
    epochs: Option<f64>,
    /// Updates, whatever the epochs are
    #[arg(long)]
    steps: Option<u64>,
    /// Highest learning rate [default: by method and width of the model]
    #[arg(long)]
    lr: Option<f32>,
    /// Held-out data of their own [default: a share of the data]
    #[arg(long, value_name = "FILE")]
    validation: Option<PathBuf>,
    /// Search for a learning rate: a short run in which it rises; nothing is kept of what it learns
    #[arg(long)]
    find_lr: bool,
    /// Threads [default: all cores]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Print JSON lines: one event when the run begins, one when it has ended
    #[arg(long)]
    json: bool,
}

/// See [`Method`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum MethodArg {
    /// An adapter, from conversations
    Sft,
    /// Every weight, from conversations: for small models
    Full,
    /// An adapter, from pairs of a better and a worse answer
    Dpo,
    /// An adapter, from the model's own answers and a grader
    Grpo,
}

impl MethodArg {
    fn method(self) -> Method {
        match self {
            Self::Sft => Method::Sft,
            Self::Full => Method::Full,
            Self::Dpo => Method::Dpo,
            Self::Grpo => Method::Grpo,
        }
    }
}

/// Runs the command.
pub fn run(args: FinetuneArgs) -> Result<(), Failure> {
    let json = args.json;
    let done = begin(args);
    match &done {
        Err(failure) if json && !matches!(failure, Failure::Stopped(_)) => {
            output::line(json!({ "event": "failed", "error": failure.to_string() }))?;
        }
        _ => {}
    }
    done
}

fn begin(args: FinetuneArgs) -> Result<(), Failure> {
    let config = settings(&args)?;
    let folder = args.out.clone().unwrap_or_else(|| default_folder(&config, &args.data));
    let model = ModelArgs {
        model: args.model.clone(),
        precision: PrecisionArg::F32,
        dense: None,
        threads: args.threads,
        ctx: None,
        chunk: 1,
        device: DeviceArg::Cpu,
    };
    let source = model.open()?;
    let harmony = Arc::new(Harmony::new(source.tokenizer()?)?);
    let threads = args.threads.map_or_else(default_threads, usize::from);
    let stop = Arc::new(AtomicBool::new(false));
    let raised = stop.clone();
    // A second signal is no more than the first: a step is short, and the save must not be torn.
    let handler = ctrlc::set_handler(move || raised.store(true, Ordering::Relaxed));
    handler.map_err(|e| Failure::Message(format!("cannot listen for signals: {e}")))?;
    let tokenizer_json = if config.method == Method::Full { tokenizer_json(&source)? } else { String::new() };
    let base = Base { checkpoint: &source.checkpoint, config: &source.config, name: &args.model, tokenizer_json };
    let job = Job {
        config: &config,
        base,
        harmony,
        files: &args.data,
        folder: &folder,
        threads,
        peak_flops: peak::flops_per_second(threads, Isa::detect()),
        stop: &stop,
        memory: source.available,
        peak_rss: &machine::peak_rss,
    };
    let mut progress = progress::Progress::new(args.json, &args.model, config.epochs, source.available, &stop);
    if args.find_lr {
        let found = finetune::run::find(&job, FIND_STEPS, &mut progress)?;
        return tell_found(&args, &folder, found);
    }
    let ended = finetune::run(&job, &mut progress)?;
    progress.clear();
    tell_ended(&args, &folder, &ended)
}

/// The settings of the file, with what the command line says in their place.
fn settings(args: &FinetuneArgs) -> Result<Config, Failure> {
    let mut config = match &args.config {
        Some(file) => Config::read(file)?,
        None => Config::default(),
    };
    if let Some(method) = args.method {
        config.method = method.method();
    }
    if let Some(rank) = args.rank {
        config.adapter.rank = rank;
    }
    config.epochs = args.epochs.unwrap_or(config.epochs);
    config.steps = args.steps.or(config.steps);
    config.lr = args.lr.or(config.lr);
    config.validation.file = args.validation.clone().or(config.validation.file);
    config.check()?;
    Ok(config)
}

fn default_folder(config: &Config, data: &[PathBuf]) -> PathBuf {
    let stem = data.first().and_then(|file| file.file_stem()).map(|stem| stem.to_string_lossy().into_owned());
    Path::new("runs").join(format!("{}-{}", config.method.name(), stem.unwrap_or_default()))
}

fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The text of the model's tokenizer.json, which the folder of a whole model needs.
fn tokenizer_json(source: &Source) -> Result<String, Failure> {
    if carried::is(&source.checkpoint) {
        return Ok(carried::TOKENIZER.to_owned());
    }
    let file = source.checkpoint.folder().map(|folder| folder.join("tokenizer.json")).filter(|file| file.is_file());
    let Some(file) = file else {
        let wanted = "--method full: wanted a model's folder with its tokenizer.json, found none; train an adapter \
                      (--method sft), or export the model to a folder first";
        return Err(Failure::Message(wanted.into()));
    };
    std::fs::read_to_string(&file).map_err(|error| Failure::io(&file, "read", error))
}

/// What a search has found, drawn.
fn tell_found(args: &FinetuneArgs, folder: &Path, found: Option<Found>) -> Result<(), Failure> {
    let Some(Found { tried, best }) = found else {
        return Err(Failure::Message("the search was stopped before it began".into()));
    };
    let points: Vec<(f64, f64)> = tried.iter().map(|tried| (tried.lr, tried.loss)).collect();
    let files = plot::finder::draw(&points, best, &folder.join("plots")).map_err(ossia_train::Error::from)?;
    if args.json {
        let tried: Vec<_> = tried.iter().map(|tried| json!({ "lr": tried.lr, "loss": tried.loss })).collect();
        return output::line(json!({ "lr": best, "tried": tried, "files": files }));
    }
    output::line(plot::finder::text(&points, best))?;
    match best {
        Some(best) => {
            eprintln!("the loss falls fastest at {best:.1e}: --lr {best:.1e}; the curve is {}", files[0].display())
        }
        None => eprintln!("the loss fell at no rate; look at the data, or try --method sft with more of them"),
    }
    Ok(())
}

fn tell_ended(args: &FinetuneArgs, folder: &Path, ended: &Ended) -> Result<(), Failure> {
    if args.json {
        let why = match ended.why {
            Why::Complete => "complete",
            Why::Patience => "patience",
            Why::Stopped => "stopped",
        };
        let last = ended.last.as_ref();
        output::line(json!({
            "event": "ended", "why": why, "step": ended.step, "tokens": ended.tokens,
            "loss": last.map(|r| r.loss), "valid_loss": last.and_then(|r| r.valid_loss),
            "checkpoint": ended.checkpoint, "finished": ended.finished, "chosen_step": ended.chosen,
        }))?;
    }
    let Some(finished) = &ended.finished else {
        let line = format!("stopped after {} steps, saved; the same command goes on from there", ended.step);
        return Err(Failure::Stopped(line));
    };
    if args.json {
        return Ok(());
    }
    let records = metrics::read(&folder.join("metrics.jsonl")).map_err(ossia_train::Error::from)?;
    let width = usize::from(Term::stdout().size_checked().map_or(100, |(_, columns)| columns));
    output::line(plot::terminal::draw(&records, width))?;
    let why = if ended.why == Why::Patience { "held-out data got no better" } else { "done" };
    eprintln!("{why} after {} steps; from step {}: {}", ended.step, ended.chosen, finished.display());
    eprintln!("draw it: ossia train plot {}", folder.display());
    Ok(())
}
