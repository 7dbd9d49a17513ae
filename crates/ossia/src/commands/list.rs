//! `ossia list`: the gpt-oss models that the Hugging Face cache holds. Reads names, sizes and a few hundred bytes of each.

use crate::hub::{CachedModel, HubError, Settings, list};
use indicatif::HumanBytes;

/// List the models on this machine.
#[derive(Debug, clap::Args)]
pub struct ListArgs {
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: ListArgs) -> Result<(), HubError> {
    let settings = Settings::from_env()?;
    let models = list(&settings)?;
    if args.json {
        println!("{}", serde_json::json!({ "cache": settings.cache, "models": models }));
    } else if models.is_empty() {
        eprintln!("no gpt-oss model in {}: fetch one with `ossia pull gpt-oss-20b`", settings.cache.display());
    } else {
        models.iter().for_each(|model| println!("{}", line(model)));
    }
    Ok(())
}

fn line(model: &CachedModel) -> String {
    let state = if model.complete { "" } else { "  (incomplete: pull it again)" };
    let revision: String = model.revision.chars().take(12).collect();
    let size = HumanBytes(model.bytes).to_string();
    format!("{}  {revision}  {size:>10}  {}{state}", model.repo, model.path.display())
}
