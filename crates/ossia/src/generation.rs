//! Tokens from a model, one after the other: sampling arguments, and the loop that `run`, `chat` and `generate` share.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use ossia_kernels::ops::sample::{Params, Sampled, Sampler};
use ossia_model::kv_cache::Held;
use ossia_model::{Logits, Model, Work};

use crate::error::Failure;
use crate::machine;
use crate::speculate::{self, Lookup};

/// How the next token is chosen. The default is what the model asks for; gpt-oss asks for temperature 1, nothing cut off.
#[derive(Debug, Clone, clap::Args)]
pub struct SamplingArgs {
    /// Always the likeliest token
    #[arg(long, conflicts_with = "temperature")]
    pub greedy: bool,
    /// Randomness [default: what the model's generation_config.json says, else 1]
    #[arg(long)]
    pub temperature: Option<f32>,
    /// Keep the likeliest tokens that hold this share of the probability (1: all)
    #[arg(long, default_value_t = 1.0)]
    pub top_p: f32,
    /// Keep this many of the likeliest tokens (0: all)
    #[arg(long, default_value_t = 0)]
    pub top_k: usize,
    /// Keep tokens at least this likely against the likeliest (0: all)
    #[arg(long, default_value_t = 0.0)]
    pub min_p: f32,
    /// Divide the logits of tokens seen before (1: off)
    #[arg(long, default_value_t = 1.0)]
    pub repetition_penalty: f32,
    /// Take this off the logits of tokens generated before
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true)]
    pub presence_penalty: f32,
    /// Take this off for each time that a token was generated
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true)]
    pub frequency_penalty: f32,
    /// Add to a token's logit
    #[arg(long, value_name = "ID=BIAS", value_parser = parse_bias)]
    pub logit_bias: Vec<(u32, f32)>,
    /// The same seed gives the same text [default: another each time]
    #[arg(long)]
    pub seed: Option<u64>,
    /// Guess tokens that repeat what was said, and check several at a time; quicker at best, never another answer
    #[arg(long)]
    pub speculate: bool,
    /// Report the log probability of each token, and of so many of the likeliest
    #[arg(long, value_name = "N")]
    pub logprobs: Option<usize>,
}

fn parse_bias(text: &str) -> Result<(u32, f32), String> {
    let (id, bias) = text.split_once('=').ok_or("wanted ID=BIAS, such as 200012=-100")?;
    let id = id.trim().parse().map_err(|_| format!("{id:?} is no token id"))?;
    Ok((id, bias.trim().parse().map_err(|_| format!("{bias:?} is no number"))?))
}

impl SamplingArgs {
    /// Rows of logits of a step.
    pub fn logits_rows(&self) -> usize {
        if self.speculate { 1 + speculate::MOST } else { 1 }
    }

    /// The same with `temperature` where the user gave none.
    pub fn or_temperature(&self, temperature: f32) -> Self {
        Self { temperature: Some(self.temperature.unwrap_or(temperature)), ..self.clone() }
    }

    /// The sampler for a vocabulary of `vocab`, which never gives one of `forbidden`.
    pub fn sampler(&self, forbidden: Vec<u32>, vocab: usize) -> Result<Sampler, Failure> {
        let params = Params {
            temperature: if self.greedy { 0.0 } else { self.temperature.unwrap_or(1.0) },
            top_p: self.top_p,
            top_k: self.top_k,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            logit_bias: self.logit_bias.clone(),
            seed: self.seed.unwrap_or_else(machine::fresh_seed),
            top_logprobs: self.logprobs,
        };
        Ok(Sampler::new(params, Arc::from(forbidden), vocab)?)
    }
}

/// Why generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// A stop token came.
    Stop,
    /// The limit was reached.
    Length,
    /// The caller broke off.
    Broken,
}

/// What the loop reports.
pub enum Progress<'a> {
    /// So many tokens of the prompt are done.
    Prefill(usize),
    /// A token was made; the stop token too.
    Token(&'a Sampled),
}

/// When a generation ends, and how it may hurry.
pub struct Rules<'a> {
    /// It ends after one of these.
    pub stops: &'a [u32],
    /// Tokens at most.
    pub limit: usize,
    /// Whether tokens are guessed, with the tokens that are held already.
    pub guess_after: Option<&'a [u32]>,
}

/// Feeds `prompt` behind what `held` holds, then samples tokens; each is reported before the next is computed. The last
/// token made is not yet in `held`.
pub fn generate(
    model: &mut Model,
    held: &mut Held,
    prompt: &[u32],
    sampler: &mut Sampler,
    rules: &Rules,
    report: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Ended, Failure> {
    sampler.see_prompt(prompt);
    let mut lookup = rules.guess_after.map(|before| {
        let mut lookup = Lookup::default();
        before.iter().chain(prompt).for_each(|&token| lookup.push(token));
        lookup
    });
    let logits = model.prefill(held, prompt, &mut |done| report(Progress::Prefill(done)))?;
    let Some(mut logits) = logits else { return Ok(Ended::Broken) };
    // Of the last step: what was guessed, how many of the guesses came true, and when it began.
    let (mut guesses, mut came, mut began) = (Vec::new(), 0, None);
    for made in 1..=rules.limit {
        let sampled = match logits.best(came).and_then(|best| sampler.take_best(best)) {
            Some(sampled) => sampled,
            None => sampler.sample(logits.row(came).map_err(ossia_model::Error::from)?)?,
        };
        let token = sampled.token;
        if report(Progress::Token(&sampled)).is_break() {
            return Ok(Ended::Broken);
        }
        if rules.stops.contains(&token) {
            return Ok(Ended::Stop);
        }
        if made == rules.limit || held.len == model.options().context {
            return Ok(Ended::Length);
        }
        if let Some(lookup) = &mut lookup {
            lookup.push(token);
        }
        if guesses.get(came) == Some(&token) {
            model.keep(held, 1);
            came += 1;
            continue;
        }
        drop(logits);
        let now = Instant::now();
        let learned = began.replace(now).map(|began| now - began);
        if let Some(lookup) = &mut lookup {
            learned.into_iter().for_each(|took| lookup.learn(guesses.len(), came + 1, took.as_secs_f64()));
            guesses = lookup.guess(room(model, held, rules.limit - made));
        }
        let tokens: Vec<u32> = std::iter::once(token).chain(guesses.iter().copied()).collect();
        logits = model.look_ahead(&mut [Work { held: &mut *held, tokens: &tokens, logits: Logits::All }])?;
        model.keep(held, 1);
        came = 0;
    }
    Ok(Ended::Length)
}

/// How many tokens may be guessed: after the one that is sure, the next step, the context and the answer must have room.
fn room(model: &Model, held: &Held, left: usize) -> usize {
    let options = model.options();
    let step = options.logits_rows.min(options.chunk);
    step.min(options.context - held.len).saturating_sub(1).min(left.saturating_sub(1))
}
