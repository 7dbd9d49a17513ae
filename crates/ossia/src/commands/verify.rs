//! `ossia verify`: reads every byte of a model, as loading does and then some: shapes, formats, scales that are not
//! numbers, floats that are not finite, the tokenizer; where the files came from the Hugging Face cache, their hashes.

use std::collections::BTreeSet;
use std::path::Path;

use half::{bf16, f16};
use ossia_kernels::DType;
use ossia_model::Model;
use ossia_model::checkpoint::{Error, RawTensor};
use serde_json::json;

use crate::error::Failure;
use crate::source::{ModelArgs, Need};
use crate::{hub, output};

/// Arguments of `verify`.
#[derive(Debug, clap::Args)]
pub struct VerifyArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// The model, as with -m
    #[arg(value_name = "MODEL")]
    name: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(mut args: VerifyArgs) -> Result<(), Failure> {
    if let Some(name) = args.name.take() {
        args.model.model = name;
    }
    let source = args.model.open()?;
    source.checkpoint.tensors().try_for_each(finite)?;
    // A model may come without a tokenizer; one that it comes with must be right.
    let tokenizer = source.tokenizer();
    let tokenizer = if source.has_tokenizer() { Ok(tokenizer?) } else { tokenizer };
    let files: BTreeSet<_> = source.checkpoint.tensors().map(|t| t.file.clone()).collect();
    let hashes = files.iter().filter(|f| f.is_file()).map(|f| check_hash(f)).collect::<Result<Vec<_>, _>>()?;
    let tensors = source.checkpoint.tensors().count();
    let need = Need { context: 64, logits_rows: 1, sequences: 1, quiet: true };
    let options = args.model.options(&source, need)?;
    // Reading the weights checks names, shapes, formats and scales.
    let model = Model::load(&source.checkpoint, options, source.available, &mut |_, _| {})?;
    let known = hashes.iter().filter(|h| h.1).count();
    if args.json {
        let files: Vec<_> =
            hashes.iter().map(|(file, known, hash)| json!({ "file": file, "sha256": hash, "known": known })).collect();
        let layers = model.config().num_layers;
        return output::line(json!({ "ok": true, "tensors": tensors, "layers": layers, "files": files }));
    }
    let published = match known {
        0 => "no published hash to compare with (only models in the Hugging Face cache have one)".to_owned(),
        _ => format!("{known} of {} files have the hash they were published with", hashes.len()),
    };
    let mut lines = vec![format!("{tensors} tensors are whole, {published}")];
    lines.extend(hashes.iter().map(|(file, _, hash)| format!("  {hash}  {file}")));
    if let Err(failure) = tokenizer {
        lines.push(format!("text commands will not work: {failure}"));
    }
    output::line(lines.join("\n"))
}

/// An error where a float is not finite.
fn finite(tensor: &RawTensor) -> Result<(), Error> {
    let two = |f: fn([u8; 2]) -> f32| tensor.bytes.as_chunks().0.iter().position(|&b| !f(b).is_finite());
    let bad = match tensor.dtype {
        DType::F32 => tensor.bytes.as_chunks().0.iter().position(|&b| !f32::from_le_bytes(b).is_finite()),
        DType::F16 => two(|b| f16::from_le_bytes(b).to_f32()),
        DType::BF16 => two(|b| bf16::from_le_bytes(b).to_f32()),
        DType::Q8_0 => tensor.bytes.chunks_exact(34).position(|b| !f16::from_le_bytes([b[0], b[1]]).is_finite()),
        DType::Mxfp4 | DType::U8 | DType::I32 => None,
    };
    let found = |at| format!("a value that is not, in element or block {at}");
    bad.map_or(Ok(()), |at| Err(Error::tensor(&tensor.file, &tensor.name, "finite numbers", found(at))))
}

/// A file's hash, and whether its name in the cache says that this is right.
fn check_hash(file: &Path) -> Result<(String, bool, String), Failure> {
    let hash = hub::sha256_of(file, &mut |_| {})?;
    // In the cache a large file is a link to a blob that bears its hash.
    let blob = file.canonicalize().map_err(|e| Failure::io(file, "follow", e))?;
    let name = blob.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let known = name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit());
    if known && name != hash {
        return Err(Failure::Message(format!(
            "{}: wanted sha256 {name}, found {hash}: the file is damaged; delete it and pull the model again",
            file.display()
        )));
    }
    Ok((file.display().to_string(), known, hash))
}
