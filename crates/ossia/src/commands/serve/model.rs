//! The model of a server: the largest context that fits, room for several answers at once, and its names.

use std::path::PathBuf;

use ossia_engine::{Engine, EngineOptions};
use ossia_model::gpt_oss::config::Config;
use ossia_model::{Model, Options, Plan};
use ossia_serve::clock;
use ossia_serve::models::{ServedModel, usual_aliases};
use ossia_text::Harmony;
use sha2::{Digest, Sha256};

use super::learning::{self, Room};
use crate::carried;
use crate::error::Failure;
use crate::source::{ModelArgs, Need, Source, plan_line};

/// Tokens that each answer beside the longest one has room for, where the user does not say.
const SHARE: usize = 4096;
/// A model with fewer bytes of weights is as fast on one thread as on several: its ops are too short to be shared. The other
/// cores have the connections.
const ONE_THREAD: u64 = 32 << 20;
/// The smallest context that is tried before the model is refused for want of memory.
const LEAST_CONTEXT: usize = 4096;

/// A model that is ready to serve.
pub struct Loaded {
    /// Its numbers and names.
    pub model: ServedModel,
    /// Changes with the program and the model.
    pub fingerprint: String,
    /// It.
    pub engine: Engine,
    /// Its text.
    pub harmony: Harmony,
    /// Its shape.
    pub config: Config,
}

/// Loads the model for `parallel` answers at once, and starts its engine.
pub fn load(
    args: &ModelArgs,
    parallel: usize,
    kv_tokens: Option<u32>,
    engine: EngineOptions,
    aliases: Vec<String>,
    adapters: &[(String, PathBuf)],
) -> Result<Loaded, Failure> {
    let source = args.open()?;
    let harmony = Harmony::new(source.tokenizer()?)?;
    let temperature = source.temperature()?;
    let device = args.device.open()?;
    let room = learning::room(adapters, &source.config, source.available)?;
    let options = Options { device, ..options(args, &source, parallel, kv_tokens, room)? };
    let plan = Plan::new(&source.checkpoint, &source.config, &options);
    eprintln!("{}", plan_line(&plan, source.available));
    let (context, precision) = (options.context, args.precision.name());
    let model = Model::load(&source.checkpoint, options, source.available, &mut |_, _| {})?;
    let id = name(&args.model);
    let served = ServedModel {
        aliases: usual_aliases(&id).into_iter().chain(aliases).collect(),
        created: clock::now_s(),
        temperature,
        context,
        num_parameters: u64::try_from(source.config.param_counts().total).unwrap_or(u64::MAX),
        num_bytes: plan.weights(),
        quantization: "MXFP4".to_owned(),
        id,
    };
    let seen = format!("{} {} {} {precision}", env!("CARGO_PKG_VERSION"), served.id, served.num_bytes);
    let digest = Sha256::digest(seen.as_bytes());
    let fingerprint = digest.iter().take(5).fold("fp_".to_owned(), |text, byte| format!("{text}{byte:02x}"));
    Ok(Loaded { model: served, fingerprint, engine: Engine::start(model, engine), harmony, config: source.config })
}

/// The context that the user asks for, or the largest that fits: halved from the model's own until it does.
fn options(
    args: &ModelArgs,
    source: &Source,
    parallel: usize,
    kv_tokens: Option<u32>,
    adapters: Room,
) -> Result<Options, Failure> {
    let with = |context: usize| -> Result<Options, Failure> {
        let need = Need { context, logits_rows: parallel, sequences: parallel, quiet: true };
        let options = args.options(source, need)?;
        let share = options.context + (parallel - 1) * options.context.min(SHARE);
        let asked = kv_tokens.map_or(share, |tokens| tokens as usize);
        let Room { rank: adapter_rank, bytes: adapter_bytes } = adapters;
        let options = Options { kv_tokens: Some(asked), adapter_rank, adapter_bytes, ..options };
        let is_small = Plan::new(&source.checkpoint, &source.config, &options).weights() < ONE_THREAD;
        let threads = if is_small && args.threads.is_none() { 1 } else { options.threads };
        Ok(Options { threads, ..options })
    };
    let most = source.config.max_context;
    let (Some(available), None) = (source.available, args.ctx) else { return with(most) };
    let halves = std::iter::successors(Some(most), |context| Some(context / 2));
    for context in halves.take_while(|&context| context >= LEAST_CONTEXT.min(most)) {
        let options = with(context)?;
        // A tenth is left for everything that is not planned.
        if Plan::new(&source.checkpoint, &source.config, &options).total() <= available / 10 * 9 {
            return Ok(options);
        }
    }
    with(LEAST_CONTEXT.min(most))
}

/// What clients call it: the name on the command line, of a path its last part.
fn name(model: &str) -> String {
    let is_path = model.starts_with(['/', '.', '~']) || model.ends_with(".gguf");
    let last = model.trim_end_matches('/').rsplit('/').next().unwrap_or(model);
    let name = if is_path { last.trim_end_matches(".gguf") } else { model.trim_end_matches('/') };
    if name.is_empty() { carried::NAME.to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::name;

    #[test]
    fn names() {
        for (model, wanted) in [
            ("nano", "nano"),
            ("", "nano"),
            ("gpt-oss-20b", "gpt-oss-20b"),
            ("openai/gpt-oss-20b", "openai/gpt-oss-20b"),
            ("/models/mine/", "mine"),
            ("./a/gpt-oss-20b.gguf", "gpt-oss-20b"),
            ("synth:tiny", "synth:tiny"),
        ] {
            assert_eq!(name(model), wanted, "{model}");
        }
    }
}
