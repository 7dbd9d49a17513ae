//! `ossia bench`: prefill and decode speed, time to the first token, share of the memory bandwidth.
//!
//! Random tokens; a warm-up of eight; each round fills the prompt in chunks, then decodes one token at a time. Figures
//! are medians over the rounds. The bandwidth is measured afterwards, on the weights themselves; on a GPU it is that of a
//! copy. Lists of lengths are measured one after the other with the model loaded once.

mod ops;

use std::ops::ControlFlow;
use std::time::Instant;

use ossia_kernels::cpu::bandwidth;
use ossia_kernels::cuda::Device;
use ossia_model::checkpoint::Checkpoint;
use ossia_model::kv_cache::Held;
use ossia_model::{Logits, Model, Work};
use serde_json::{Value, json};

use self::ops::Stopwatch;
use crate::error::Failure;
use crate::source::{Loaded, ModelArgs, Need};
use crate::{machine, output, source};

/// Tokens of the warm-up.
const WARM_UP: usize = 8;

/// Bytes that the bandwidth is measured on.
const BANDWIDTH_BYTES: usize = 2 << 30;

/// Arguments of `bench`.
#[derive(Debug, clap::Args)]
pub struct BenchArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Tokens of the prompt; a list measures one after the other, with as many or one of the other lengths
    #[arg(short, long, default_value = "512", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..))]
    prompt: Vec<u32>,
    /// Tokens to decode
    #[arg(short, long = "num", default_value = "64", value_delimiter = ',')]
    n: Vec<u32>,
    /// Rounds
    #[arg(short, long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Show where the time goes, op by op
    #[arg(long)]
    ops: bool,
    /// Sequences that are decoded side by side
    #[arg(short, long, default_value = "1", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..=1024))]
    batch: Vec<u16>,
    /// Tokens that are there before the prompt
    #[arg(short, long, default_value = "0", value_delimiter = ',')]
    depth: Vec<u32>,
    /// Print one JSON line
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: BenchArgs) -> Result<(), Failure> {
    let settings = args.settings()?;
    let most = |of: fn(&Lengths) -> usize| settings.iter().map(of).max().unwrap_or(0);
    let (length, batch) = (most(Lengths::all).max(WARM_UP), most(|s| s.batch));
    let need = Need { context: length, logits_rows: batch, sequences: batch, quiet: args.json };
    let Loaded { mut model, checkpoint, load_s } = args.model.load(need)?;
    check_length(most(Lengths::all), model.options().context)?;
    let tokens = random_tokens(&model, batch, length);
    let prompt = WARM_UP.min(model.options().context);
    round(&mut model, &tokens, &Lengths { depth: 0, prompt, decoded: 0, batch: 1 }, &mut None)?;
    let mut bandwidth = None;
    for setting in settings {
        let mut object = measure(&mut model, &tokens, &setting, &args, &checkpoint, &mut bandwidth)?;
        object["load_s"] = load_s.into();
        if args.json { output::line(object)? } else { output::line(table(&object))? }
    }
    Ok(())
}

/// One setting: an object of what was found. The bandwidth is measured once.
fn measure(
    model: &mut Model,
    tokens: &[Vec<u32>],
    lengths: &Lengths,
    args: &BenchArgs,
    checkpoint: &Checkpoint,
    bandwidth: &mut Option<f64>,
) -> Result<Value, Failure> {
    let mut watches = if args.ops { Watches::new(model) } else { None };
    let rounds = (0..args.rounds).map(|_| round(model, tokens, lengths, &mut watches));
    let rounds = rounds.collect::<Result<Vec<_>, _>>()?;
    let peak = machine::peak_rss();
    let Lengths { batch, prompt, decoded, depth } = *lengths;
    let (prefill_s, decode_s) = (median(rounds.iter().map(|r| r.0)), median(rounds.iter().map(|r| r.1)));
    let decode = if decoded == 0 { 0.0 } else { (batch * decoded) as f64 / decode_s };
    let bandwidth = match *bandwidth {
        Some(known) => known,
        None => *bandwidth.insert(measure_bandwidth(model, checkpoint)?),
    };
    let bytes_per_token = match model.options().device {
        Device::Cpu => model.transformer().bytes_per_token(),
        Device::Cuda(_) => model.transformer().gpu_bytes_per_token(),
    };
    let share = decode * bytes_per_token as f64 / bandwidth;
    let mut object = json!({
        "prefill_tok_s": (batch * prompt) as f64 / prefill_s,
        "decode_tok_s": decode,
        "ttft_s": prefill_s,
        "load_s": Value::Null,
        "peak_rss_bytes": peak,
        "bandwidth_bytes_s": bandwidth,
        "bytes_per_token": bytes_per_token,
        "device": format!("{:?}", model.options().device),
        "threads": model.options().threads,
        "precision": args.model.precision.name(),
        "isa": source::isa()?.name(),
        "prompt": prompt, "decoded": decoded, "depth": depth, "batch": batch, "rounds": args.rounds,
    });
    // Together, sequences share what they read.
    object["bandwidth_share"] = if batch == 1 { share.into() } else { Value::Null };
    if let Some(watches) = watches {
        object["ops"] = json!({
            "prefill": watches.prefill.report(bandwidth), "decode": watches.decode.report(bandwidth),
        });
    }
    Ok(object)
}

impl BenchArgs {
    /// What is measured, one after the other.
    fn settings(&self) -> Result<Vec<Lengths>, Failure> {
        let counts = [self.prompt.len(), self.n.len(), self.batch.len(), self.depth.len()];
        let count = counts.into_iter().max().unwrap_or(1);
        if counts.iter().any(|&n| n != 1 && n != count) {
            return Err(Failure::Usage(format!(
                "-p, -n, -b and -d have {counts:?} lengths: wanted as many of each, or one"
            )));
        }
        let of = |list: &[u32], i: usize| list[i % list.len()] as usize;
        let setting = |i: usize| Lengths {
            depth: of(&self.depth, i),
            prompt: of(&self.prompt, i),
            decoded: of(&self.n, i),
            batch: usize::from(self.batch[i % self.batch.len()]),
        };
        Ok((0..count).map(setting).collect())
    }
}

fn check_length(wanted: usize, context: usize) -> Result<(), Failure> {
    if wanted <= context {
        return Ok(());
    }
    Err(Failure::Usage(format!(
        "-d, -p and -n: {wanted} tokens in all, and the context ends at {context} tokens (--ctx)"
    )))
}

/// `length` tokens for each of `batch` sequences.
fn random_tokens(model: &Model, batch: usize, length: usize) -> Vec<Vec<u32>> {
    let vocab = model.config().vocab_size as u64;
    let mut state = 7u64;
    let mut token = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) % vocab) as u32
    };
    (0..batch).map(|_| (0..length).map(|_| token()).collect()).collect()
}

/// What a round does with each sequence, in this order.
struct Lengths {
    /// Sequences, side by side.
    batch: usize,
    /// Tokens that are there when the clock starts.
    depth: usize,
    /// Tokens of the prompt.
    prompt: usize,
    /// Tokens decoded, one at a time.
    decoded: usize,
}

impl Lengths {
    /// Positions of a sequence.
    fn all(&self) -> usize {
        self.depth + self.prompt + self.decoded
    }
}

/// Where the time of both phases goes.
struct Watches {
    prefill: Stopwatch,
    decode: Stopwatch,
}

impl Watches {
    fn new(model: &Model) -> Option<Self> {
        let watch = || Stopwatch::new(model.transformer());
        Some(Self { prefill: watch()?, decode: watch()? })
    }
}

/// Seconds of prefill and of decode, of all sequences together.
fn round(
    model: &mut Model,
    tokens: &[Vec<u32>],
    lengths: &Lengths,
    watches: &mut Option<Watches>,
) -> Result<(f64, f64), Failure> {
    let Lengths { batch, depth, prompt, decoded } = *lengths;
    let tokens = &tokens[..batch];
    let mut held: Vec<Held> = tokens.iter().map(|_| Held::default()).collect();
    for (tokens, held) in tokens.iter().zip(&mut held).filter(|_| depth > 0) {
        model.prefill(held, &tokens[..depth], &mut |_| ControlFlow::Continue(()))?;
    }
    let start = Instant::now();
    for (tokens, held) in tokens.iter().zip(&mut held) {
        prefill(model, held, &tokens[depth..depth + prompt], watches.as_mut().map(|w| &mut w.prefill))?;
    }
    let prefilled = start.elapsed().as_secs_f64();
    let start = Instant::now();
    for at in depth + prompt..depth + prompt + decoded {
        let work = held.iter_mut().zip(tokens);
        let mut work: Vec<Work> =
            work.map(|(held, tokens)| Work { held, tokens: &tokens[at..=at], logits: Logits::Last }).collect();
        step(model, &mut work, watches.as_mut().map(|w| &mut w.decode))?;
    }
    let decode = start.elapsed().as_secs_f64();
    held.iter_mut().for_each(|held| model.release(held));
    Ok((prefilled, decode))
}

/// A prompt, chunk by chunk; only the last token has logits.
fn prefill(
    model: &mut Model,
    held: &mut Held,
    tokens: &[u32],
    mut watch: Option<&mut Stopwatch>,
) -> Result<(), Failure> {
    let chunks: Vec<&[u32]> = tokens.chunks(model.options().chunk).collect();
    for (i, tokens) in chunks.iter().enumerate() {
        let logits = if i + 1 == chunks.len() { Logits::Last } else { Logits::None };
        step(model, &mut [Work { held: &mut *held, tokens, logits }], watch.as_deref_mut())?;
    }
    Ok(())
}

fn step(model: &mut Model, work: &mut [Work], watch: Option<&mut Stopwatch>) -> Result<(), Failure> {
    match watch {
        Some(watch) => {
            watch.start();
            model.step_tapped(work, watch)?;
        }
        // Logits stay where they are made, as where tokens are chosen greedily.
        None => {
            model.look_ahead(work)?;
            work.iter_mut().for_each(|w| model.keep(w.held, w.tokens.len()));
        }
    }
    Ok(())
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Bytes a second: what all threads read of weights; on a GPU what a copy reads and writes.
fn measure_bandwidth(model: &Model, checkpoint: &Checkpoint) -> Result<f64, Failure> {
    if let Device::Cuda(gpu) = &model.options().device {
        return gpu.copy_bandwidth().map_err(|e| Failure::Message(e.to_string()));
    }
    let mut left = BANDWIDTH_BYTES;
    let runs: Vec<&[u8]> = checkpoint
        .tensors()
        .map(|t| {
            let run = &t.bytes[..t.bytes.len().min(left)];
            left -= run.len();
            run
        })
        .collect();
    Ok(bandwidth::read_bytes_per_second(&model.runtime().pool, &runs, 3))
}

fn table(o: &serde_json::Value) -> String {
    let number = |key: &str| o[key].as_f64().unwrap_or(0.0);
    let together = if o["batch"] == 1 { String::new() } else { format!(" of {} sequences side by side", o["batch"]) };
    let lines = [
        format!(
            "prefill    {:>10.1} tok/s   ({} tokens, {:.2} s to the first token)",
            number("prefill_tok_s"),
            o["prompt"],
            number("ttft_s")
        ),
        format!("decode     {:>10.2} tok/s   ({} tokens{together})", number("decode_tok_s"), o["decoded"]),
        format!(
            "bandwidth  {:>10.1} GB/s    {}{:.2} GB a token",
            number("bandwidth_bytes_s") / 1e9,
            o["bandwidth_share"]
                .as_f64()
                .map_or(String::new(), |s| format!("{:.1} % of it used by decode, ", 100.0 * s)),
            number("bytes_per_token") / 1e9
        ),
        format!("load       {:>10.2} s", number("load_s")),
        format!("memory     {:>10.2} GB      at most", number("peak_rss_bytes") / 1e9),
        format!("{} threads, {} precision, {}", o["threads"], o["precision"], o["isa"]),
    ];
    let ops = ["prefill", "decode"].map(|phase| match o["ops"].get(phase) {
        Some(report) => ops::table(phase, report),
        None => String::new(),
    });
    lines.join("\n") + &ops.concat()
}
