//! `ossia list`: the gpt-oss models that the Hugging Face cache holds. Reads names, sizes and a few hundred bytes of each.

use crate::error::Failure;
use crate::hub::{CachedModel, Settings, list};
use crate::output;
use indicatif::HumanBytes;

/// List the models on this machine.
#[derive(Debug, clap::Args)]
pub struct ListArgs {
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: ListArgs) -> Result<(), Failure> {
    let settings = Settings::from_env()?;
    let models = list(&settings)?;
    if args.json {
        output::line(serde_json::json!({ "cache": settings.cache, "models": models }))?;
    } else if models.is_empty() {
        eprintln!("no gpt-oss model in {}: fetch one with `ossia pull gpt-oss-20b`", settings.cache.display());
    } else {
        models.iter().try_for_each(|model| output::line(line(model)))?;
    }
    Ok(())
}

fn line(model: &CachedModel) -> String {
    let state = if model.complete { "" } else { "  (incomplete: pull it again)" };
    let revision: String = model.revision.chars().take(12).collect();
    let size = HumanBytes(model.bytes).to_string();
    format!("{}  {revision}  {size:>10}  {}{state}", model.repo, model.path.display())
}
