//! The model that the program carries: `nano`, trained by this program (models/nano/MODEL_CARD.md), in a few megabytes.

use std::path::Path;

use ossia_kernels::Bytes;
use ossia_model::checkpoint::safetensors::{self, Budget};
use ossia_model::checkpoint::{Checkpoint, Metadata};
use serde_json::Value;

use crate::error::Failure;

/// What the command line calls it.
pub const NAME: &str = "nano";
/// What messages call its files.
const SOURCE: &str = "nano (carried)";

const CONFIG: &str = include_str!("../../../models/nano/config.json");
/// Its generation_config.json.
pub const GENERATION: &str = include_str!("../../../models/nano/generation_config.json");
const WEIGHTS: &[u8] = include_bytes!("../../../models/nano/model.safetensors");
/// Its tokenizer.json.
pub const TOKENIZER: &str = include_str!("../../../models/nano/tokenizer.json");

/// Whether the command line means the carried model: a file or folder of that name goes first. An OSSIA_MODEL that was
/// emptied counts as none.
pub fn is_meant(model: &str) -> bool {
    let emptied = || std::env::var_os("OSSIA_MODEL").is_some_and(|name| name.is_empty());
    model == NAME && !Path::new(NAME).exists() || model.is_empty() && emptied()
}

/// Whether `checkpoint` is the carried one.
pub fn is(checkpoint: &Checkpoint) -> bool {
    checkpoint.source() == SOURCE
}

/// Its weights, where they lie in the program.
pub fn checkpoint() -> Result<Checkpoint, Failure> {
    let file = Path::new(SOURCE);
    let tensors = safetensors::parse(&Bytes::new(WEIGHTS), file, &mut Budget::default())?;
    Ok(Checkpoint::from_parts(SOURCE.into(), Metadata::Json { value: json(CONFIG)?, file: file.into() }, tensors)?)
}

/// What [`GENERATION`] says.
pub fn generation_config() -> Result<Value, Failure> {
    json(GENERATION)
}

fn json(text: &str) -> Result<Value, Failure> {
    serde_json::from_str(text).map_err(|e| Failure::Message(format!("{SOURCE}: {e}")))
}

#[cfg(test)]
mod tests {
    use ossia_model::gpt_oss::config::Config;

    #[test]
    fn the_carried_model_is_whole() {
        let checkpoint = super::checkpoint().unwrap();
        let config = Config::from_checkpoint(&checkpoint).unwrap();
        let tokenizer = ossia_text::Tokenizer::from_json(super::TOKENIZER).unwrap();
        assert_eq!(tokenizer.vocab_size(), config.vocab_size);
        assert!(super::WEIGHTS.len() <= 8 << 20, "{} bytes", super::WEIGHTS.len());
    }
}
