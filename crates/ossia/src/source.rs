//! From MODEL on the command line to weights and a tokenizer.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};
use ossia_kernels::Precision;
use ossia_kernels::cpu::isa::Isa;
use ossia_kernels::cuda::Device;
use ossia_model::checkpoint::{Checkpoint, GgufMetadata, GgufValue, Metadata, limits, read_json};
use ossia_model::gpt_oss::adapter::AdapterParameters;
use ossia_model::gpt_oss::config::{Config, PRESETS};
use ossia_model::gpt_oss::synth;
use ossia_model::gpt_oss::tensors::Dense;
use ossia_model::{Model, Options, Plan};
use ossia_text::{GgufVocab, TextError, Tokenizer, byte_level_tokenizer_json};

use crate::error::Failure;
use crate::gpu::DeviceArg;
use crate::{carried, hub, machine};

/// Which model, and how it is to be run: the same for every command.
#[derive(Debug, Clone, clap::Args)]
pub struct ModelArgs {
    /// nano (carried by this program), a folder, a .gguf file, a name such as gpt-oss-20b, or synth:PRESET (random weights)
    #[arg(short, long, env = "OSSIA_MODEL", default_value = "nano")]
    pub model: String,
    /// Arithmetic: fast (integer activations) or f32 (the exact reference)
    #[arg(long, value_enum, default_value = "fast")]
    pub precision: PrecisionArg,
    /// Dense float weights: q8_0 (converted at load), bf16 (kept); by default q8_0 for large models in fast precision
    #[arg(long, value_enum)]
    pub dense: Option<DenseArg>,
    /// Threads, at most one for each core [default: all cores]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Context in tokens [default: the command's need, at most what the model allows]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=131_072))]
    pub ctx: Option<u32>,
    /// Prompt tokens of one step
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=8192))]
    pub chunk: u32,
    /// Where to run: cpu, cuda (or cuda:N), or auto (a GPU where there is one). GPUs are new here: see docs/gpu.md
    #[arg(long, env = "OSSIA_DEVICE", default_value = "cpu", value_name = "DEVICE")]
    pub device: DeviceArg,
}

/// See [`Precision`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum PrecisionArg {
    /// Integer activations where weights are quantized.
    Fast,
    /// f32 activations, exact weights.
    F32,
}

impl PrecisionArg {
    /// The word on the command line.
    pub fn name(self) -> &'static str {
        if self == PrecisionArg::Fast { "fast" } else { "f32" }
    }
}

/// See [`Dense`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum DenseArg {
    /// Converted to Q8_0.
    #[value(name = "q8_0")]
    Q8,
    /// Kept as they are.
    #[value(name = "bf16")]
    Bf16,
}

/// What a command needs of the context and of a step.
#[derive(Debug, Clone, Copy)]
pub struct Need {
    /// Positions, where the user did not say.
    pub context: usize,
    /// Rows of logits of one step.
    pub logits_rows: usize,
    /// Sequences at a time.
    pub sequences: usize,
    /// Whether to say what is being done.
    pub quiet: bool,
}

/// A model that is open but not loaded.
pub struct Source {
    /// The files.
    pub checkpoint: Checkpoint,
    /// The shape.
    pub config: Config,
    /// Memory that was free before anything was opened: random weights are in memory from then on, and would count twice.
    pub available: Option<u64>,
    started: Instant,
}

/// A model that is ready.
pub struct Loaded {
    /// The model.
    pub model: Model,
    /// Its files; they stay open, since weights are used in place.
    pub checkpoint: Checkpoint,
    /// Seconds from the opening of the files to readiness.
    pub load_s: f64,
}

impl ModelArgs {
    /// Opens the model's files; reads no weights. Random ones are made.
    pub fn open(&self) -> Result<Source, Failure> {
        self.open_with(|preset, config, available| {
            check_synth(preset, config.param_counts().packed_bytes, available)?;
            Ok(synth::checkpoint(config, 0)?)
        })
    }

    /// The same for who only looks at names and shapes: random weights are not made.
    pub fn open_outline(&self) -> Result<Source, Failure> {
        self.open_with(|_, config, _| Ok(synth::outline(config)?))
    }

    fn open_with(
        &self,
        synth: impl FnOnce(&str, &Config, Option<u64>) -> Result<Checkpoint, Failure>,
    ) -> Result<Source, Failure> {
        let (started, available) = (Instant::now(), machine::memory_available());
        let checkpoint = match self.model.strip_prefix("synth:") {
            Some(preset) => synth(preset, &preset_config(preset, None)?, available)?,
            None if carried::is_meant(&self.model) => carried::checkpoint()?,
            None => Checkpoint::open(&hub::resolve(&self.model, &hub::Settings::from_env()?)?.path)?,
        };
        let config = Config::from_checkpoint(&checkpoint)?;
        Ok(Source { checkpoint, config, available, started })
    }

    /// How to run the model of `source`.
    pub fn options(&self, source: &Source, need: Need) -> Result<Options, Failure> {
        let most = source.config.max_context;
        let context = self.ctx.map_or(need.context.clamp(1, most), |c| c as usize);
        if context > most {
            return Err(Failure::Usage(format!("--ctx {context}: this model's context ends at {most} tokens")));
        }
        let defaults = Options::default();
        Ok(Options {
            precision: if self.precision == PrecisionArg::Fast { Precision::Fast } else { Precision::F32 },
            dense: self.dense.map(|d| if d == DenseArg::Q8 { Dense::Q8 } else { Dense::Kept }),
            // More than cores would only wait for each other.
            threads: self.threads.map_or(defaults.threads, |n| usize::from(n).min(defaults.threads)),
            isa: isa()?,
            context,
            sequences: need.sequences,
            kv_tokens: None,
            chunk: (self.chunk as usize).min(context),
            logits_rows: need.logits_rows,
            adapter_rank: 0,
            device: Device::Cpu,
            adapter_bytes: 0,
        })
    }

    /// Opens and loads the model.
    pub fn load(&self, need: Need) -> Result<Loaded, Failure> {
        let source = self.open()?;
        source.load(self, need)
    }
}

impl Source {
    /// Loads the weights, after saying what they will take.
    pub fn load(self, args: &ModelArgs, need: Need) -> Result<Loaded, Failure> {
        self.load_for_adapter(args, need, None)
    }

    /// The same with room for an adapter.
    pub fn load_for_adapter(
        self,
        args: &ModelArgs,
        need: Need,
        adapter: Option<&AdapterParameters>,
    ) -> Result<Loaded, Failure> {
        let options = Options { device: args.device.open()?, ..args.options(&self, need)? };
        let options = adapter.map_or(options.clone(), |adapter| options.with_adapter(adapter));
        if !need.quiet {
            eprintln!("{}", plan_line(&Plan::new(&self.checkpoint, &self.config, &options), self.available));
        }
        let bar = bar(self.config.num_layers, need.quiet);
        let progress = &mut |done, _| bar.set_position(done as u64);
        let model = Model::load(&self.checkpoint, options, self.available, progress);
        bar.finish_and_clear();
        let load_s = self.started.elapsed().as_secs_f64();
        Ok(Loaded { model: model?, checkpoint: self.checkpoint, load_s })
    }

    /// Whether the model's files hold a tokenizer, right or wrong.
    pub fn has_tokenizer(&self) -> bool {
        match (self.checkpoint.metadata(), self.checkpoint.folder()) {
            (Metadata::Gguf(metadata), _) => metadata.get("tokenizer.ggml.tokens").is_some(),
            (_, folder) => folder.and_then(tokenizer_file).is_some(),
        }
    }

    /// The temperature that the model's generation_config.json asks for: 0 where it says not to sample, 1 where it says
    /// nothing, as gpt-oss' own does.
    pub fn temperature(&self) -> Result<f32, Failure> {
        let file = self.checkpoint.folder().map(|folder| folder.join("generation_config.json")).filter(|f| f.is_file());
        let json = match file {
            Some(file) => read_json(&file, limits::CONFIG_BYTES)?,
            None if carried::is(&self.checkpoint) => carried::generation_config()?,
            None => return Ok(1.0),
        };
        if json.get("do_sample").and_then(serde_json::Value::as_bool) == Some(false) {
            return Ok(0.0);
        }
        let asked = json.get("temperature").and_then(serde_json::Value::as_f64).unwrap_or(1.0) as f32;
        Ok(if asked.is_finite() && asked >= 0.0 { asked } else { 1.0 })
    }

    /// The model's tokenizer; an error says what is missing.
    pub fn tokenizer(&self) -> Result<Arc<Tokenizer>, Failure> {
        tokenizer(&self.checkpoint, &self.config)
    }
}

/// Whether a single word can only be meant as a model: a prompt that is one was typed by a hand that knows other programs.
pub fn is_model_name(word: &str) -> bool {
    let name = word.strip_prefix("openai/").unwrap_or(word);
    let is_word = !word.contains(char::is_whitespace);
    is_word && (name.starts_with("gpt-oss-") || name.ends_with(".gguf") || name.starts_with("synth:") || word == "nano")
}

/// The kernels' version: the best, or the one that OSSIA_ISA names.
pub fn isa() -> Result<Isa, Failure> {
    match std::env::var("OSSIA_ISA").as_deref() {
        Err(_) | Ok("") => Ok(Isa::detect()),
        Ok(name) => Isa::all().into_iter().find(|isa| isa.name() == name).ok_or_else(|| {
            let here: Vec<_> = Isa::all().iter().map(|isa| isa.name()).collect();
            Failure::Usage(format!("OSSIA_ISA={name}: this machine has {}", here.join(", ")))
        }),
    }
}

/// The shape called `name`.
pub fn preset_config(name: &str, layers: Option<usize>) -> Result<Config, Failure> {
    if !PRESETS.contains(&name) {
        return Err(Failure::Usage(format!("no preset {name:?}; there are {}", PRESETS.join(", "))));
    }
    Ok(Config::preset(name, layers)?)
}

/// Random weights are made in memory before there is a plan that could refuse them.
fn check_synth(preset: &str, bytes: u128, available: Option<u64>) -> Result<(), Failure> {
    match available {
        Some(available) if bytes > u128::from(available) => Err(Failure::Message(format!(
            "synth:{preset} makes {} of weights in memory, the machine has {} free; write them to disk with \
             `ossia synth --preset {preset} --out DIR` and name the folder, or choose a smaller shape",
            indicatif::BinaryBytes(u64::try_from(bytes).unwrap_or(u64::MAX)),
            indicatif::BinaryBytes(available),
        ))),
        _ => Ok(()),
    }
}

/// The tokenizer of `checkpoint`: its tokenizer.json, its GGUF metadata, or what its vocabulary's width implies.
pub fn tokenizer(checkpoint: &Checkpoint, config: &Config) -> Result<Arc<Tokenizer>, Failure> {
    let found = match (checkpoint.metadata(), checkpoint.folder()) {
        (Metadata::Gguf(metadata), _) => from_gguf(metadata)?,
        (_, Some(folder)) => from_folder(folder)?,
        (_, None) if carried::is(checkpoint) => Some(Tokenizer::from_json(carried::TOKENIZER)?),
        (_, None) => None,
    };
    let tokenizer = match found {
        Some(tokenizer) => tokenizer,
        None if config.vocab_size == 201_088 => Tokenizer::o200k_harmony(),
        None if checkpoint.folder().is_none() => Tokenizer::from_json(&byte_level_tokenizer_json(config.vocab_size)?)?,
        None => {
            let (v, source) = (config.vocab_size, checkpoint.source());
            return Err(Failure::Message(format!(
                "{source}: there is no tokenizer.json, and a vocabulary of {v} is not gpt-oss' own: put the tokenizer \
                 beside the weights, or use the commands that take token ids (generate, logits, bench)"
            )));
        }
    };
    if tokenizer.vocab_size() > config.vocab_size {
        let (t, v, source) = (tokenizer.vocab_size(), config.vocab_size, checkpoint.source());
        return Err(Failure::Message(format!(
            "{source}: the tokenizer has ids up to {}, the embedding table {v} rows: wanted a tokenizer of at most {v} ids",
            t - 1
        )));
    }
    Ok(Arc::new(tokenizer))
}

fn tokenizer_file(folder: &Path) -> Option<PathBuf> {
    // An original/ folder keeps the tokenizer one level up.
    let places: [PathBuf; 2] = [folder.join("tokenizer.json"), folder.join("../tokenizer.json")];
    let original = folder.file_name().is_some_and(|name| name == "original");
    places.into_iter().take(if original { 2 } else { 1 }).find(|p| p.is_file())
}

fn from_folder(folder: &Path) -> Result<Option<Tokenizer>, Failure> {
    let read = |file: PathBuf| Tokenizer::from_json_file(&file).map_err(|error| in_file(error, &file));
    Ok(tokenizer_file(folder).map(read).transpose()?)
}

/// Names the file, which a GGUF file's tokenizer does not know, and cuts what the file says to a length for one line.
fn in_file(mut error: TextError, file: &Path) -> TextError {
    const MOST_SHOWN: usize = 400;
    if let TextError::Tokenizer { origin, problem } = &mut error {
        *origin = file.display().to_string();
        if let Some((end, _)) = problem.char_indices().nth(MOST_SHOWN) {
            problem.truncate(end);
            problem.push_str("...");
        }
    } else if let TextError::TooLarge { origin, .. } = &mut error {
        *origin = file.display().to_string();
    }
    error
}

fn from_gguf(metadata: &GgufMetadata) -> Result<Option<Tokenizer>, Failure> {
    let Some(vocab) = gguf_vocab(metadata)? else { return Ok(None) };
    Ok(Some(Tokenizer::from_gguf(vocab).map_err(|error| in_file(error, metadata.file()))?))
}

/// The tokenizer of a GGUF file as the text of a tokenizer.json; nothing where the file has none.
pub fn json_from_gguf(metadata: &GgufMetadata) -> Result<Option<String>, Failure> {
    let Some(vocab) = gguf_vocab(metadata)? else { return Ok(None) };
    Ok(Some(Tokenizer::json_from_gguf(vocab).map_err(|error| in_file(error, metadata.file()))?))
}

fn gguf_vocab(metadata: &GgufMetadata) -> Result<Option<GgufVocab>, Failure> {
    let key = |end: &str| format!("tokenizer.ggml.{end}");
    for list in ["tokens", "token_type", "merges"] {
        check_list(metadata, &key(list))?;
    }
    let Some(tokens) = metadata.strings(&key("tokens"))? else { return Ok(None) };
    let owned = |v: Vec<&str>| v.into_iter().map(str::to_owned).collect::<Vec<_>>();
    let types = metadata.integers(&key("token_type"))?.unwrap_or_default();
    Ok(Some(GgufVocab {
        model: metadata.str(&key("model"))?.unwrap_or_default().to_owned(),
        pre: metadata.str(&key("pre"))?.unwrap_or_default().to_owned(),
        tokens: owned(tokens),
        types: types.iter().map(|&t| i32::try_from(t).unwrap_or(0)).collect(),
        merges: owned(metadata.strings(&key("merges"))?.unwrap_or_default()),
    }))
}

/// A tokenizer's list is copied several times while it is read: one far beyond gpt-oss' own (201,088 tokens, 446,189
/// merges, 8 MB) is refused first.
fn check_list(metadata: &GgufMetadata, key: &str) -> Result<(), Failure> {
    const MOST: usize = 1 << 19;
    const MOST_BYTES: usize = 16 << 20;
    match metadata.get(key) {
        Some(GgufValue::Array { len, bytes, .. }) if *len > MOST || bytes.len() > MOST_BYTES => {
            let found = format!("{len} entries in {} bytes", bytes.len());
            let wanted = format!("at most {MOST} entries in {MOST_BYTES} bytes");
            Err(ossia_model::checkpoint::Error::key(metadata.file(), key, wanted, found).into())
        }
        _ => Ok(()),
    }
}

/// The memory plan on one line.
pub fn plan_line(plan: &Plan, available: Option<u64>) -> String {
    let size = |bytes: u64| indicatif::BinaryBytes(bytes).to_string();
    let machine = available.map_or(String::new(), |m| format!(" of {} free", size(m)));
    format!(
        "memory: weights {} ({} in place), KV {} at {} tokens, scratch {}{}; {} in all{machine}",
        size(plan.weights()),
        size(plan.mapped),
        size(plan.kv),
        plan.kv_tokens,
        size(plan.scratch),
        plan.of_adapters(),
        size(plan.total()),
    )
}

fn bar(layers: usize, quiet: bool) -> ProgressBar {
    if quiet || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("loading {wide_bar} layer {pos} of {len}");
    ProgressBar::new(layers as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

#[cfg(test)]
mod tests {
    use super::check_synth;

    #[test]
    fn weights_larger_than_the_memory_are_not_made() {
        let line = check_synth("120b", 65_248_815_744, Some(8 << 30)).unwrap_err().to_string();
        for part in ["synth:120b", "60.77 GiB", "8.00 GiB free", "--preset 120b --out DIR"] {
            assert!(line.contains(part), "{line}");
        }
        assert!(check_synth("120b", 65_248_815_744, Some(65_248_815_744)).is_ok());
        assert!(check_synth("120b", 65_248_815_744, None).is_ok());
    }
}
