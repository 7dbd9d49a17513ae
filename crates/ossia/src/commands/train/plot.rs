//! `ossia train plot`: pictures of a run, and the same as text.

use std::path::PathBuf;

use console::Term;
use ossia_train::{metrics, plot};

use crate::error::Failure;
use crate::output;

/// Arguments of `train plot`.
#[derive(Debug, clap::Args)]
pub struct PlotArgs {
    /// The folder of the run
    run: PathBuf,
    /// Where the pictures go [default: RUN/plots]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print one JSON object with the files
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: PlotArgs) -> Result<(), Failure> {
    let records = metrics::read(&args.run.join("metrics.jsonl")).map_err(ossia_train::Error::from)?;
    let out = args.out.unwrap_or_else(|| args.run.join("plots"));
    let files = plot::draw(&records, &out).map_err(ossia_train::Error::from)?;
    if args.json {
        return output::line(serde_json::json!({ "records": records.len(), "files": files }));
    }
    let width = usize::from(Term::stdout().size_checked().map_or(100, |(_, columns)| columns));
    output::line(plot::terminal::draw(&records, width))?;
    eprintln!("{} pictures in {}", files.len(), out.display());
    Ok(())
}
