//! `ossia bench`: prefill and decode speed, time to the first token, share of the memory bandwidth.
//!
//! Random tokens; a warm-up of eight; each round fills the prompt in chunks, then decodes one token at a time. Figures
//! are medians over the rounds. The bandwidth is measured afterwards, on the weights themselves.

use std::time::Instant;

use ossia_kernels::cpu::bandwidth;
use ossia_model::checkpoint::Checkpoint;
use ossia_model::kv_cache::Held;
use ossia_model::{Logits, Model, Work};
use serde_json::json;

use crate::error::Failure;
use crate::source::{Loaded, ModelArgs, Need};
use crate::{machine, output, source};

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
    /// Print one JSON line
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: BenchArgs) -> Result<(), Failure> {
    let (p, n) = (args.prompt as usize, args.n as usize);
    let need = Need { context: (p + n).max(8), logits_rows: 1, quiet: args.json };
    let Loaded { mut model, checkpoint, load_s } = args.model.load(need)?;
    check_length(p + n, model.options().context)?;
    let vocab = model.config().vocab_size as u64;
    let mut state = 7u64;
    let mut token = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) % vocab) as u32
    };
    let tokens: Vec<u32> = (0..(p + n).max(8)).map(|_| token()).collect();
    let warm_up = model.options().context.min(8);
    round(&mut model, &tokens[..warm_up], 0)?;
    let rounds = (0..args.rounds).map(|_| round(&mut model, &tokens[..p + n], n));
    let rounds = rounds.collect::<Result<Vec<_>, _>>()?;
    let peak = machine::peak_rss();
    let (prefill_s, decode_s) = (median(rounds.iter().map(|r| r.0)), median(rounds.iter().map(|r| r.1)));
    let decode = if n == 0 { 0.0 } else { n as f64 / decode_s };
    let bandwidth = measure_bandwidth(&model, &checkpoint);
    let share = decode * model.transformer().bytes_per_token() as f64 / bandwidth;
    let object = json!({
        "prefill_tok_s": p as f64 / prefill_s,
        "decode_tok_s": decode,
        "ttft_s": prefill_s,
        "load_s": load_s,
        "peak_rss_bytes": peak,
        "bandwidth_bytes_s": bandwidth,
        "bandwidth_share": share,
        "bytes_per_token": model.transformer().bytes_per_token(),
        "threads": model.options().threads,
        "precision": args.model.precision.name(),
        "isa": source::isa()?.name(),
        "prompt": p, "decoded": n, "rounds": args.rounds,
    });
    if args.json { output::line(object) } else { output::line(table(&object)) }
}

fn check_length(wanted: usize, context: usize) -> Result<(), Failure> {
    if wanted <= context {
        return Ok(());
    }
    Err(Failure::Usage(format!("-p and -n: {wanted} tokens in all, and the context ends at {context} tokens (--ctx)")))
}

/// Seconds of prefill and decode; the last `n` tokens are decoded.
fn round(model: &mut Model, tokens: &[u32], n: usize) -> Result<(f64, f64), Failure> {
    let mut held = Held::default();
    let (prompt, rest) = tokens.split_at(tokens.len() - n);
    let start = Instant::now();
    model.prefill(&mut held, prompt, &mut |_| std::ops::ControlFlow::Continue(()))?;
    let prefill = start.elapsed().as_secs_f64();
    let start = Instant::now();
    for token in rest {
        let tokens = std::slice::from_ref(token);
        model.step(&mut [Work { held: &mut held, tokens, logits: Logits::Last }])?;
    }
    let decode = start.elapsed().as_secs_f64();
    model.release(&mut held);
    Ok((prefill, decode))
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
            "bandwidth  {:>10.1} %       of {:.1} GB/s ({:.2} GB a token)",
            100.0 * number("bandwidth_share"),
            number("bandwidth_bytes_s") / 1e9,
            number("bytes_per_token") / 1e9
        ),
        format!("load       {:>10.2} s", number("load_s")),
        format!("memory     {:>10.2} GB      at most", number("peak_rss_bytes") / 1e9),
        format!("{} threads, {} precision, {}", o["threads"], o["precision"], o["isa"]),
    ];
    lines.join("\n")
}
