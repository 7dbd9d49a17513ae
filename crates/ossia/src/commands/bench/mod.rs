//! `ossia bench`: prefill and decode speed, time to the first token, share of the memory bandwidth.
//!
//! Random tokens; a warm-up of eight; each round fills the prompt in chunks, then decodes one token at a time. Figures
//! are medians over the rounds. The bandwidth is measured afterwards, on the weights themselves.

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
    /// Tokens of the prompt
    #[arg(short, long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..))]
    prompt: u32,
    /// Tokens to decode
    #[arg(short, long = "num", default_value_t = 64)]
    n: u32,
    /// Rounds
    #[arg(short, long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Show where the time goes, op by op
    #[arg(long)]
    ops: bool,
    /// Sequences that are decoded side by side
    #[arg(short, long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    batch: u16,
    /// Tokens that are there before the prompt
    #[arg(short, long, default_value_t = 0)]
    depth: u32,
    /// Print one JSON line
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: BenchArgs) -> Result<(), Failure> {
    let length = args.length();
    let batch = args.batch as usize;
    let need = Need { context: length.max(WARM_UP), logits_rows: batch, sequences: batch, quiet: args.json };
    let Loaded { mut model, checkpoint, load_s } = args.model.load(need)?;
    check_length(length, model.options().context)?;
    let tokens = random_tokens(&model, batch, length.max(WARM_UP));
    let warm_up = Lengths { depth: 0, prompt: WARM_UP.min(model.options().context), decoded: 0 };
    round(&mut model, &tokens[..1], &warm_up, &mut None)?;
    let lengths = Lengths { depth: args.depth as usize, prompt: args.prompt as usize, decoded: args.n as usize };
    let mut watches = if args.ops { Watches::new(&model) } else { None };
    let rounds = (0..args.rounds).map(|_| round(&mut model, &tokens, &lengths, &mut watches));
    let rounds = rounds.collect::<Result<Vec<_>, _>>()?;
    let peak = machine::peak_rss();
    let (prefill_s, decode_s) = (median(rounds.iter().map(|r| r.0)), median(rounds.iter().map(|r| r.1)));
    let decode = if args.n == 0 { 0.0 } else { (batch * lengths.decoded) as f64 / decode_s };
    let bandwidth = measure_bandwidth(&model, &checkpoint);
    let share = decode / batch as f64 * model.transformer().bytes_per_token() as f64 / bandwidth;
    let on_cpu = matches!(model.options().device, Device::Cpu);
    let mut object = json!({
        "prefill_tok_s": (batch * lengths.prompt) as f64 / prefill_s,
        "decode_tok_s": decode,
        "ttft_s": prefill_s,
        "load_s": load_s,
        "peak_rss_bytes": peak,
        "bandwidth_bytes_s": bandwidth,
        "bytes_per_token": model.transformer().bytes_per_token(),
        "device": format!("{:?}", model.options().device),
        "threads": model.options().threads,
        "precision": args.model.precision.name(),
        "isa": source::isa()?.name(),
        "prompt": args.prompt, "decoded": args.n, "depth": args.depth, "batch": batch, "rounds": args.rounds,
    });
    // Together, sequences share what they read.
    object["bandwidth_share"] = if batch == 1 && on_cpu { share.into() } else { Value::Null };
    if let Some(watches) = watches {
        object["ops"] = json!({
            "prefill": watches.prefill.report(bandwidth), "decode": watches.decode.report(bandwidth),
        });
    }
    if args.json { output::line(object) } else { output::line(table(&object)) }
}

impl BenchArgs {
    /// Positions of a sequence.
    fn length(&self) -> usize {
        [self.depth, self.prompt, self.n].into_iter().map(|n| n as usize).sum()
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
    /// Tokens that are there when the clock starts.
    depth: usize,
    /// Tokens of the prompt.
    prompt: usize,
    /// Tokens decoded, one at a time.
    decoded: usize,
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
    let mut held: Vec<Held> = tokens.iter().map(|_| Held::default()).collect();
    let Lengths { depth, prompt, decoded } = *lengths;
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

fn measure_bandwidth(model: &Model, checkpoint: &Checkpoint) -> f64 {
    let mut left = BANDWIDTH_BYTES;
    let runs: Vec<&[u8]> = checkpoint
        .tensors()
        .map(|t| {
            let run = &t.bytes[..t.bytes.len().min(left)];
            left -= run.len();
            run
        })
        .collect();
    bandwidth::read_bytes_per_second(&model.runtime().pool, &runs, 3)
}

fn table(o: &serde_json::Value) -> String {
    let number = |key: &str| o[key].as_f64().unwrap_or(0.0);
    let lines = [
        format!(
            "prefill    {:>10.1} tok/s   ({} tokens, {:.2} s to the first token)",
            number("prefill_tok_s"),
            o["prompt"],
            number("ttft_s")
        ),
        format!("decode     {:>10.2} tok/s   ({} tokens)", number("decode_tok_s"), o["decoded"]),
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
