//! `ossia logits`: logits of every position, safetensors in and out. Rows go to disk as they are made.

use std::path::{Path, PathBuf};

use ossia_kernels::{DType, Floats};
use ossia_model::checkpoint::safetensors;
use ossia_model::checkpoint::write::{TensorSpec, Writer};
use ossia_model::gpt_oss::adapter::peft;
use ossia_model::kv_cache::Held;
use ossia_model::{Logits, Model, Work};

use crate::error::Failure;
use crate::output;
use crate::source::{ModelArgs, Need};

/// Bytes of logits of one step.
const STEP_BYTES: usize = 64 << 20;

/// Arguments of `logits`.
#[derive(Debug, clap::Args)]
pub struct LogitsArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// A safetensors file with I32 `tokens` [T]
    #[arg(long, value_name = "FILE")]
    tokens: PathBuf,
    /// Written: a safetensors file with F32 `logits` [T, V]
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// An adapter (a PEFT folder) through which the tokens go
    #[arg(long, value_name = "FOLDER")]
    adapter: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(mut args: LogitsArgs) -> Result<(), Failure> {
    let tokens = read_tokens(&args.tokens)?;
    let source = args.model.open()?;
    let vocab = source.config.vocab_size;
    check_ids(&args.tokens, &tokens, vocab)?;
    let rows = (STEP_BYTES / (4 * vocab)).clamp(1, args.model.chunk as usize);
    args.model.chunk = rows as u32;
    let need = Need { context: tokens.len(), logits_rows: rows, sequences: 1, quiet: args.json };
    let adapter = args.adapter.as_ref().map(|folder| peft::load(folder, &source.config)).transpose()?;
    let (mut model, slot) = match adapter {
        None => (source.load(&args.model, need)?.model, None),
        Some((parameters, values)) => {
            let options = args.model.options(&source, need)?.with_adapter(&parameters);
            let mut model = Model::load(&source.checkpoint, options, source.available, &mut |_, _| {})?;
            let slot = model.attach(&parameters, &Floats::new(values));
            (model, Some(slot.map_err(|error| Failure::Message(error.to_string()))?))
        }
    };
    check_length(&args.tokens, tokens.len(), model.options().context)?;
    let spec = TensorSpec { name: "logits".into(), dtype: DType::F32, shape: vec![tokens.len(), vocab] };
    let mut writer = Writer::create(&args.out, &[spec], &[])?;
    let mut held = Held { adapter: slot, ..Held::default() };
    for tokens in tokens.chunks(rows) {
        let logits = model.step(&mut [Work { held: &mut held, tokens, logits: Logits::All }])?;
        let bytes: Vec<u8> = logits.host().iter().flat_map(|v| v.to_le_bytes()).collect();
        writer.write(&bytes)?;
    }
    writer.finish()?;
    if args.json {
        return output::line(serde_json::json!({ "out": args.out, "tokens": tokens.len(), "vocab": vocab }));
    }
    eprintln!("{}: logits [{}, {vocab}]", args.out.display(), tokens.len());
    Ok(())
}

/// Before the model is loaded, and with the name of the file.
fn check_ids(file: &Path, tokens: &[u32], vocab: usize) -> Result<(), Failure> {
    let Some((at, id)) = tokens.iter().enumerate().find(|(_, id)| **id as usize >= vocab) else { return Ok(()) };
    let file = file.display();
    Err(Failure::Message(format!(
        "{file}: token id {id} is outside the vocabulary of {vocab}, at place {at} of `tokens`"
    )))
}

fn check_length(file: &Path, found: usize, context: usize) -> Result<(), Failure> {
    if found <= context {
        return Ok(());
    }
    let file = file.display();
    Err(Failure::Message(format!(
        "{file}: wanted at most {context} tokens, the model's context (--ctx), found {found}"
    )))
}

fn read_tokens(file: &Path) -> Result<Vec<u32>, Failure> {
    let wrong = |found: String| {
        Failure::Message(format!("{}: wanted an I32 tensor `tokens` [T], found {found}", file.display()))
    };
    let tensors = safetensors::open(file)?;
    let tensor = tensors.iter().find(|t| t.name == "tokens").ok_or_else(|| wrong("none of that name".into()))?;
    if tensor.dtype != DType::I32 || tensor.shape.len() != 1 || tensor.bytes.is_empty() {
        return Err(wrong(format!("{} {:?}", tensor.dtype, tensor.shape)));
    }
    let id = |&b: &[u8; 4]| u32::try_from(i32::from_le_bytes(b)).map_err(|_| wrong("a negative id".into()));
    tensor.bytes.as_chunks().0.iter().map(id).collect()
}
