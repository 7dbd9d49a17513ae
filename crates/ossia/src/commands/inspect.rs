//! `ossia inspect`: a model's shape, its tensors and what it would take of this machine. Reads headers only.

use ossia_model::Plan;
use ossia_model::checkpoint::{Layout, RawTensor};
use serde_json::json;

use crate::error::Failure;
use crate::output;
use crate::source::{ModelArgs, Need, plan_line};

/// Arguments of `inspect`.
#[derive(Debug, clap::Args)]
pub struct InspectArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// The model, as with -m
    #[arg(value_name = "MODEL")]
    name: Option<String>,
    /// List every tensor
    #[arg(long)]
    tensors: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(mut args: InspectArgs) -> Result<(), Failure> {
    if let Some(name) = args.name.take() {
        args.model.model = name;
    }
    let source = args.model.open_outline()?;
    let need = Need { context: 8192, logits_rows: 1, sequences: 1, quiet: true };
    let options = args.model.options(&source, need)?;
    let plan = Plan::new(&source.checkpoint, &source.config, &options);
    let fit = source.available.map(|free| plan.check(&source.checkpoint, &source.config, &options, free));
    let tokenizer = source.tokenizer();
    let c = &source.config;
    let counts = c.param_counts();
    let layout = match source.checkpoint.layout() {
        Layout::HuggingFace => "Hugging Face safetensors",
        Layout::Original => "original safetensors",
        Layout::Gguf => "GGUF",
    };
    let tokenizer = match &tokenizer {
        Ok(t) if t.is_o200k_harmony() => "o200k_harmony".to_owned(),
        Ok(t) => format!("its own, {} ids", t.vocab_size()),
        Err(failure) => failure.to_string(),
    };
    if args.json {
        let tensors: Vec<_> = source.checkpoint.tensors().map(|t| json!({ "name": t.name, "dtype": t.dtype.to_string(), "shape": t.shape, "file": t.file.display().to_string() })).collect();
        let mut object = json!({
            "source": source.checkpoint.source(), "layout": layout, "config": c.to_hf_json(), "tokenizer": tokenizer,
            "parameters": { "total": counts.total as u64, "active": counts.active as u64 },
            "memory": { "mapped": plan.mapped, "owned": plan.owned, "kv": plan.kv, "scratch": plan.scratch,
                        "total": plan.total(), "context": plan.context, "available": source.available },
            "fits": fit.as_ref().is_none_or(Result::is_ok),
        });
        if args.tensors {
            object["tensors"] = json!(tensors);
        }
        return output::line(object);
    }
    let mut lines = vec![
        format!("{} ({layout})", source.checkpoint.source()),
        format!("parameters  {} ({} active for a token)", grouped(counts.total as u64), grouped(counts.active as u64)),
        format!(
            "shape       {} layers, width {}, {} experts of which {} at a time, {} + {} heads of {}",
            c.num_layers, c.hidden_size, c.num_experts, c.experts_per_token, c.num_heads, c.num_kv_heads, c.head_dim
        ),
        format!("context     {} tokens, window {} on every other layer", c.max_context, c.sliding_window),
        format!("vocabulary  {} rows; tokenizer: {tokenizer}", c.vocab_size),
        plan_line(&plan, source.available),
    ];
    if let Some(Err(does_not_fit)) = fit {
        lines.push(format!("does not fit: {}", does_not_fit.advice));
    }
    let tensors: Vec<&RawTensor> = source.checkpoint.tensors().collect();
    lines.push(format!("tensors     {}{}", tensors.len(), if args.tensors { "" } else { " (--tensors lists them)" }));
    if args.tensors {
        lines.extend(
            tensors.iter().map(|t| format!("  {:<60} {:<6} {:?}", shown(&t.name), t.dtype.to_string(), t.shape)),
        );
    }
    output::line(lines.join("\n"))
}

/// A name from a file, its control characters escaped: a listing has one line for each tensor whatever they are called.
fn shown(name: &str) -> String {
    let one = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    name.chars().map(one).collect()
}

/// 20914757184 as 20,914,757,184.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let groups = digits.as_bytes().rchunks(3).rev().map(|g| String::from_utf8_lossy(g).into_owned());
    groups.collect::<Vec<_>>().join(",")
}
