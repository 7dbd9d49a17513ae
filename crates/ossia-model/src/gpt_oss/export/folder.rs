//! What stands beside the weights in a Hugging Face folder, and what must not be there already.

use std::path::Path;

use serde_json::Value;

use super::Format;
use crate::checkpoint::write::{write_file, write_json};
use crate::checkpoint::{Checkpoint, Error, Metadata, Result, is_flat, limits, read_json};
use crate::gpt_oss::config::Config;
use crate::gpt_oss::synth;

/// Entries of a source's config.json that no program of ours reads, but others do.
const CARRIED: [&str; 4] = ["bos_token_id", "initializer_range", "output_router_logits", "router_aux_loss_coef"];
/// Files of a tokenizer that are handed on as they are.
const COMPANIONS: [&str; 3] = ["chat_template.jinja", "special_tokens_map.json", "tokenizer_config.json"];
/// Bytes of the largest of them.
const COMPANION_BYTES: u64 = 16 << 20;

/// Fails where `out` is what is being read.
pub(super) fn refuse_source(checkpoint: &Checkpoint, out: &Path) -> Result<()> {
    let Ok(out_real) = out.canonicalize() else { return Ok(()) };
    let sources = checkpoint.folder().into_iter().chain([Path::new(checkpoint.source())]);
    if sources.into_iter().filter_map(|path| path.canonicalize().ok()).any(|path| path == out_real) {
        return Err(Error::file(out, "another place than the model's own", "the model that is being exported"));
    }
    Ok(())
}

/// Fails where another model's tokenizer in `out` would be taken for this one's.
pub(super) fn refuse_other_text(out: &Path, has_tokenizer: bool) -> Result<()> {
    let file = out.join("tokenizer.json");
    if has_tokenizer || !file.exists() {
        return Ok(());
    }
    Err(Error::file(&file, "no tokenizer, as the model that is being exported has none", "another model's"))
}

/// Writes the texts of the folder, config.json last.
pub(super) fn write_text(
    from: &Checkpoint,
    config: &Config,
    format: Format,
    out: &Path,
    tokenizer: Option<&str>,
) -> Result<()> {
    if let Some(text) = tokenizer {
        write_file(&out.join("tokenizer.json"), text.as_bytes())?;
    }
    for name in COMPANIONS {
        if let Some(bytes) = companion(from, name)? {
            write_file(&out.join(name), &bytes)?;
        }
    }
    // One that is no text is of no use to anybody.
    if let Metadata::Gguf(metadata) = from.metadata()
        && let Ok(Some(template)) = metadata.str("tokenizer.chat_template")
    {
        write_file(&out.join(COMPANIONS[0]), template.as_bytes())?;
    }
    write_json(&out.join("generation_config.json"), &generation_config(from, config)?)?;
    write_json(&out.join("config.json"), &config_json(from, config, format))
}

/// The source's file of this name, where it has one.
fn companion(from: &Checkpoint, name: &str) -> Result<Option<Vec<u8>>> {
    let Some(file) = from.folder().map(|folder| folder.join(name)).filter(|file| file.is_file()) else {
        return Ok(None);
    };
    let size = std::fs::metadata(&file).map_err(|e| Error::io(&file, "open", e))?.len();
    if size > COMPANION_BYTES {
        return Err(Error::file(&file, format!("at most {COMPANION_BYTES} bytes"), format!("{size}")));
    }
    std::fs::read(&file).map(Some).map_err(|e| Error::io(&file, "read", e))
}

/// The source's chat template, where a file of its own holds it.
pub(super) fn chat_template(from: &Checkpoint) -> Result<Option<String>> {
    let Some(bytes) = companion(from, COMPANIONS[0])? else { return Ok(None) };
    let wrong = |_| Error::file(Path::new(COMPANIONS[0]), "a template in UTF-8", "other bytes");
    String::from_utf8(bytes).map(Some).map_err(wrong)
}

/// The config in the released dialect.
fn config_json(from: &Checkpoint, config: &Config, format: Format) -> Value {
    let mut json = config.to_hf_json();
    if let Metadata::Json { value, .. } = from.metadata()
        && !is_flat(value)
    {
        let carried = CARRIED.into_iter().filter_map(|key| Some((key, value.get(key)?)));
        carried.for_each(|(key, value)| json[key] = value.clone());
    }
    let floats = match format {
        Format::Bf16 => Some("bfloat16"),
        Format::F32 => Some("float32"),
        Format::Mxfp4 | Format::Gguf(_) => None,
    };
    if let (Some(floats), Some(entries)) = (floats, json.as_object_mut()) {
        entries.remove("quantization_config");
        // What readers turn every tensor into, whatever the file has it in.
        entries.insert("torch_dtype".into(), floats.into());
    }
    json.sort_all_objects();
    json
}

/// The source's generation_config.json; else what ends an answer, and no sampling parameters, as released (SPEC 1).
fn generation_config(from: &Checkpoint, config: &Config) -> Result<Value> {
    let file = from.folder().map(|folder| folder.join("generation_config.json")).filter(|file| file.is_file());
    if let Some(file) = file {
        return read_json(&file, limits::CONFIG_BYTES);
    }
    let mut json = synth::generation_config(config);
    json.sort_all_objects();
    Ok(json)
}
