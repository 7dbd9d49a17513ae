//! `ossia generate`: raw token ids in and out, no harmony, nothing masked.

use std::ops::ControlFlow;

use ossia_kernels::ops::sample::Sampled;
use ossia_model::kv_cache::Held;

use crate::error::Failure;
use crate::generation::{self, Progress, Rules, SamplingArgs};
use crate::output;
use crate::source::{ModelArgs, Need};

/// Arguments of `generate`.
#[derive(Debug, clap::Args)]
pub struct GenerateArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Ids of the prompt
    #[arg(long, value_name = "ID,ID", value_delimiter = ',', required = true)]
    tokens: Vec<u32>,
    /// Tokens to make
    #[arg(short, long = "num", default_value_t = 32)]
    n: usize,
    /// End after one of these ids
    #[arg(long, value_name = "ID,ID", value_delimiter = ',')]
    stop: Vec<u32>,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: GenerateArgs) -> Result<(), Failure> {
    let context = args.tokens.len().saturating_add(args.n);
    let need = Need { context, logits_rows: args.sampling.logits_rows(), sequences: 1, quiet: args.json };
    let source = args.model.open()?;
    let vocab = source.config.vocab_size;
    if let Some(id) = args.tokens.iter().find(|&&id| id as usize >= vocab) {
        return Err(Failure::Usage(format!("--tokens: token id {id} is outside the vocabulary of {vocab}")));
    }
    let sampling = args.sampling.or_temperature(source.temperature()?);
    let mut model = source.load(&args.model, need)?.model;
    let mut sampler = sampling.sampler(Vec::new(), vocab)?;
    let mut made: Vec<Sampled> = Vec::new();
    let mut shown = Ok(ControlFlow::Continue(()));
    let mut keep = |progress: Progress| {
        if let Progress::Token(sampled) = progress {
            if !args.json {
                let comma = if made.is_empty() { "" } else { "," };
                shown = output::part(format_args!("{comma}{}", sampled.token));
            }
            made.push(sampled.clone());
        }
        *shown.as_ref().unwrap_or(&ControlFlow::Break(()))
    };
    let rules = Rules { stops: &args.stop, limit: args.n, guess_after: args.sampling.speculate.then_some(&[]) };
    generation::generate(&mut model, &mut Held::default(), &args.tokens, &mut sampler, &rules, &mut keep)?;
    if shown?.is_break() {
        return Ok(());
    }
    if !args.json {
        return output::line("");
    }
    let ids: Vec<u32> = made.iter().map(|s| s.token).collect();
    let mut object = serde_json::json!({ "tokens": ids });
    if args.sampling.logprobs.is_some() {
        object["logprobs"] = serde_json::json!(made.iter().map(|s| s.logprob).collect::<Vec<_>>());
        object["top_logprobs"] = serde_json::json!(made.iter().map(|s| &s.top).collect::<Vec<_>>());
    }
    output::line(object)
}
