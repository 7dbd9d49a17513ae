//! `ossia synth`: random weights of a true shape, for measuring and trying things out. Streams to disk in little memory.

use std::io::IsTerminal;
use std::path::PathBuf;

use indicatif::{ProgressBar, ProgressStyle};
use ossia_model::gpt_oss::synth;
use ossia_text::byte_level_tokenizer_json;

use crate::error::Failure;
use crate::output;
use crate::source::preset_config;

/// Arguments of `synth`.
#[derive(Debug, clap::Args)]
pub struct SynthArgs {
    /// The shape: nano, tiny, mini, small, 20b or 120b
    #[arg(long)]
    preset: String,
    /// Layers, where not the shape's own
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    layers: Option<u16>,
    /// The same seed gives the same weights
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The folder to write
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Replace the model that is there
    #[arg(long)]
    force: bool,
}

/// Runs the command.
pub fn run(args: SynthArgs) -> Result<(), Failure> {
    let config = preset_config(&args.preset, args.layers.map(usize::from))?;
    output::no_model_in(&args.out, args.force)?;
    let bar = if args.json || !std::io::stderr().is_terminal() { ProgressBar::hidden() } else { ProgressBar::new(1) };
    let style = ProgressStyle::with_template("{wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    synth::write(&config, args.seed, &args.out, &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    })?;
    bar.finish_and_clear();
    // The width of o200k_harmony implies its tokenizer.
    if config.vocab_size != 201_088 {
        let file = args.out.join("tokenizer.json");
        std::fs::write(&file, byte_level_tokenizer_json(config.vocab_size)?)
            .map_err(|e| Failure::io(&file, "write", e))?;
    }
    let counts = config.param_counts();
    if args.json {
        let (parameters, bytes) = (counts.total as u64, counts.packed_bytes as u64);
        return output::line(serde_json::json!({ "out": args.out, "parameters": parameters, "bytes": bytes }));
    }
    eprintln!("{}: {} parameters, random weights", args.out.display(), counts.total);
    Ok(())
}
