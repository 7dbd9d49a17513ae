//! `ossia export`: a model to files that other programs read, also with an adapter merged into it. Streams; what could
//! not be kept exactly is said.

mod merging;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use indicatif::{BinaryBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};
use ossia_model::Options;
use ossia_model::checkpoint::Metadata;
use ossia_model::gpt_oss::export::{Dense, Format, Merge, Rounding, Summary, Target, export_to};
use ossia_text::byte_level_tokenizer_json;
use serde_json::json;

use crate::error::Failure;
use crate::gpu::DeviceArg;
use crate::source::{ModelArgs, PrecisionArg, Source, json_from_gguf};
use crate::{carried, output};
use merging::{Adapter, Comparison};

/// Arguments of `export`.
#[derive(Debug, clap::Args)]
pub struct ExportArgs {
    /// A folder, a .gguf file, a name such as gpt-oss-20b, or synth:PRESET for random weights
    #[arg(short, long, env = "OSSIA_MODEL", default_value = "nano")]
    model: String,
    /// What to write
    #[arg(long, value_enum)]
    format: FormatArg,
    /// The matrices of a GGUF file that are no experts [default: bf16]
    #[arg(long, value_enum)]
    dense: Option<DenseArg>,
    /// The folder to write, or the file for gguf
    #[arg(long, value_name = "PATH")]
    out: PathBuf,
    /// Merge this adapter into it: a folder as PEFT has them
    #[arg(long, value_name = "PATH")]
    adapter: Option<PathBuf>,
    /// Text on which the merged model is compared with base and adapter [default: some of our own]
    #[arg(long, value_name = "FILE", requires = "adapter")]
    check: Option<PathBuf>,
    /// Mean KL, in nats a token, above which a merged model is not kept [default: that of the base alone, at most 1e-6 for f32, 0.01 for bf16 and 0.1 otherwise]
    #[arg(long, value_name = "NATS", requires = "adapter")]
    max_kl: Option<f64>,
    /// Replace the model that is there
    #[arg(long)]
    force: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// See [`Format`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum FormatArg {
    /// A Hugging Face folder as released: MXFP4 experts, the rest BF16
    Mxfp4,
    /// A Hugging Face folder of BF16 alone, which others can train
    Bf16,
    /// The same for readers that compute in F32: BF16 where it holds every number, F32 elsewhere. The format for a merge
    F32,
    /// One file for llama.cpp, Ollama and LM Studio
    Gguf,
}

/// See [`Dense`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum DenseArg {
    /// 32-bit floats
    F32,
    /// As in the released safetensors
    Bf16,
    /// 8 bits and a scale for each 32: the smallest
    #[value(name = "q8_0")]
    Q8,
}

/// Runs the command.
pub fn run(args: ExportArgs) -> Result<(), Failure> {
    let format = format(&args)?;
    // Of what the model's arguments say, opening it needs the name alone.
    let model = ModelArgs {
        model: args.model,
        precision: PrecisionArg::F32,
        dense: None,
        threads: None,
        ctx: None,
        chunk: 1,
        device: DeviceArg::Cpu,
    };
    let source = model.open()?;
    let is_own = source.checkpoint.folder().is_some_and(|own| own.canonicalize().ok() == args.out.canonicalize().ok());
    // Its own folder is refused by force and all, by the library.
    if !matches!(format, Format::Gguf(_)) && !is_own {
        output::no_model_in(&args.out, args.force)?;
    }
    let (tokenizer, lacking) = match tokenizer_json(&source, format) {
        Ok(tokenizer) => (tokenizer, None),
        // Weights are of use without it.
        Err(failure) if is_gguf(&source) => (None, Some(failure.to_string())),
        Err(failure) => return Err(failure),
    };
    let adapter = args.adapter.as_deref().map(|path| Adapter::read(path, &source)).transpose()?;
    let tokens = adapter.as_ref().map(|_| merging::tokens(&source, args.check.as_ref())).transpose()?;
    let bar = Bar::new(args.json);
    let progress = &mut |done, total| bar.show(done, total);
    let merge = adapter.as_ref().map(|a| Merge { parameters: &a.parameters, values: &a.values });
    let (tokenizer_json, threads) = (tokenizer.as_deref(), Options::default().threads);
    let target = Target { format, out: &args.out, tokenizer_json, merge, threads };
    let summary = export_to(&source.checkpoint, &source.config, &target, progress);
    bar.0.finish_and_clear();
    let summary = summary?;
    let comparison = match (&adapter, &tokens) {
        (Some(adapter), Some(tokens)) => Some(checked(&source, adapter, &args.out, tokens, args.max_kl, format)?),
        _ => None,
    };
    if carried::is(&source.checkpoint) && !matches!(format, Format::Gguf(_)) {
        let file = args.out.join("generation_config.json");
        std::fs::write(&file, carried::GENERATION).map_err(|e| Failure::io(&file, "write", e))?;
    }
    if args.json {
        let mut object = object(&args.out, args.format, &summary);
        if let Some(comparison) = comparison {
            object["merge"] = comparison.object();
        }
        return output::line(object);
    }
    report(&args.out, &source, &summary, comparison.is_some(), lacking);
    comparison.iter().for_each(|comparison| eprintln!("{}", comparison.lines(format)));
    Ok(())
}

/// How far the merged model is from base and adapter; one that is too far is taken away again.
fn checked(
    source: &Source,
    adapter: &Adapter,
    out: &Path,
    tokens: &[u32],
    max_kl: Option<f64>,
    format: Format,
) -> Result<Comparison, Failure> {
    let comparison = merging::compare(source, adapter, out, tokens)?;
    let (kl, base) = (comparison.merged.mean_kl(), comparison.base.mean_kl());
    let bound = max_kl.unwrap_or_else(|| merging::bound(format).min(base));
    // Not-a-number is no small number.
    if kl <= bound {
        return Ok(comparison);
    }
    merging::discard(out)?;
    Err(Failure::Message(format!(
        "{}: nothing was kept: the merged model's mean KL against base + adapter is {kl:.3e} nats, above {bound:.3e} (the base \
         alone: {base:.3e}); keep the adapter apart, merge into f32, which rounds nothing, or bf16, or raise --max-kl",
        out.display()
    )))
}

fn format(args: &ExportArgs) -> Result<Format, Failure> {
    let dense = match args.dense {
        Some(DenseArg::F32) => Dense::F32,
        Some(DenseArg::Bf16) | None => Dense::Bf16,
        Some(DenseArg::Q8) => Dense::Q8,
    };
    match args.format {
        FormatArg::Gguf => Ok(Format::Gguf(dense)),
        _ if args.dense.is_some() => {
            Err(Failure::Usage("--dense goes with --format gguf; a folder's dense weights are BF16, or with --format f32 what loses nothing".into()))
        }
        FormatArg::Mxfp4 => Ok(Format::Mxfp4),
        FormatArg::Bf16 => Ok(Format::Bf16),
        FormatArg::F32 => Ok(Format::F32),
    }
}

fn is_gguf(source: &Source) -> bool {
    matches!(source.checkpoint.metadata(), Metadata::Gguf(_))
}

/// The text of the model's tokenizer.json, where it has one that is right. From a GGUF file to another its lists go as
/// they are.
fn tokenizer_json(source: &Source, format: Format) -> Result<Option<String>, Failure> {
    match (source.checkpoint.metadata(), format) {
        (Metadata::Gguf(_), Format::Gguf(_)) => return Ok(None),
        (Metadata::Gguf(metadata), _) => return json_from_gguf(metadata),
        (Metadata::Json { .. }, _) => {}
    }
    if carried::is(&source.checkpoint) {
        return Ok(Some(carried::TOKENIZER.to_owned()));
    }
    let Some(folder) = source.checkpoint.folder() else {
        // Weights in memory are random; the width of o200k_harmony implies its tokenizer.
        let vocab = source.config.vocab_size;
        return if vocab == 201_088 { Ok(None) } else { Ok(Some(byte_level_tokenizer_json(vocab)?)) };
    };
    if !source.has_tokenizer() {
        return Ok(None);
    }
    source.tokenizer()?;
    let places = [folder.join("tokenizer.json"), folder.join("../tokenizer.json")];
    let Some(file) = places.into_iter().find(|file| file.is_file()) else { return Ok(None) };
    std::fs::read_to_string(&file).map(Some).map_err(|e| Failure::io(&file, "read", e))
}

/// A bar that appears when a second has passed.
struct Bar(ProgressBar, Instant, bool);

impl Bar {
    fn new(quiet: bool) -> Self {
        let style = ProgressStyle::with_template("exporting {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}");
        let bar = ProgressBar::hidden().with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self(bar, Instant::now(), !quiet && std::io::stderr().is_terminal())
    }

    fn show(&self, done: u64, total: u64) {
        self.0.set_length(total);
        self.0.set_position(done);
        if self.2 && self.0.is_hidden() && self.1.elapsed() > Duration::from_secs(1) {
            self.0.set_draw_target(ProgressDrawTarget::stderr());
        }
    }
}

fn object(out: &Path, format: FormatArg, summary: &Summary) -> serde_json::Value {
    let rounding = |r: &Rounding| {
        json!({
            "format": r.format.to_string(), "values": r.values, "inexact": r.inexact,
            "max_relative_error": r.max_relative_error, "rms_relative_error": r.rms_relative_error,
            "worst_tensor": r.worst_tensor,
        })
    };
    json!({
        "out": out, "format": format!("{format:?}").to_lowercase(), "files": summary.num_files,
        "tensors": summary.num_tensors, "bytes": summary.bytes, "tokenizer": summary.has_tokenizer,
        "rounded": summary.rounded.iter().map(rounding).collect::<Vec<_>>(),
    })
}

fn report(out: &Path, source: &Source, summary: &Summary, is_merged: bool, lacking: Option<String>) {
    let (tensors, size, files) = (summary.num_tensors, BinaryBytes(summary.bytes), summary.num_files);
    let plural = if files == 1 { "file" } else { "files" };
    eprintln!("{}: {tensors} tensors, {size} in {files} {plural}", out.display());
    for r in &summary.rounded {
        eprintln!(
            "{}: {} of {} values rounded, rms {:.2e}, at most {:.2e} ({})",
            r.format, r.inexact, r.values, r.rms_relative_error, r.max_relative_error, r.worst_tensor
        );
    }
    if summary.rounded.is_empty() {
        let of = if is_merged { "the merged model's" } else { "the source's" };
        eprintln!("every value is exactly {of}");
    }
    if let Some(problem) = lacking {
        eprintln!("no tokenizer was written: {problem}");
    } else if !summary.has_tokenizer {
        let vocab = source.config.vocab_size;
        let why = if vocab == 201_088 { "other programs need" } else { "a vocabulary of its own needs" };
        eprintln!("no tokenizer was written: the source has none in this form, and {why} a tokenizer.json");
    }
}
