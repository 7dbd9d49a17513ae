//! `ossia train check`: loss and every gradient against a golden file.

use std::path::PathBuf;

use ossia_train::check;

use crate::error::Failure;
use crate::output;
use crate::source::{self, ModelArgs};

/// The largest relative error that passes.
const BAR: f64 = 1e-5;

/// Arguments of `train check`.
#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// A safetensors file with input_ids, attention_mask, labels, loss and grad.* of another implementation
    #[arg(long, value_name = "FILE")]
    golden: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: CheckArgs) -> Result<(), Failure> {
    let source::Source { checkpoint, .. } = args.model.open()?;
    let mut compared =
        check::compare(&checkpoint, &args.golden, args.model.threads.map_or_else(super::default_threads, usize::from))?;
    compared.sort_by(|a, b| b.error.total_cmp(&a.error));
    let worst = compared.first().ok_or_else(|| Failure::Message("the golden file holds nothing to compare".into()))?;
    // Not-a-number compares as false and so fails.
    let holds = compared.iter().all(|c| c.error <= BAR);
    if args.json {
        output::line(serde_json::json!({ "holds": holds, "bar": BAR, "compared": compared }))?;
    } else {
        let lines: Vec<String> = compared.iter().take(5).map(|c| format!("{:.1e}  {}", c.error, c.name)).collect();
        output::line(format!("{} quantities, the worst:\n{}", compared.len(), lines.join("\n")))?;
    }
    if holds {
        return Ok(());
    }
    Err(Failure::Message(format!(
        "{}: {} is off by {:.1e} of the largest, wanted {BAR:.0e}",
        args.golden.display(),
        worst.name,
        worst.error
    )))
}
