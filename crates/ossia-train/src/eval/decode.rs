//! Answers to many prompts, side by side, the likeliest or drawn: a sequence begins as soon as another ends.
//!
//! An answer depends on its prompt, its place and the seed alone, not on the sequences that ran beside it.

use ossia_kernels::ops::sample::{Params, Sampler};
use ossia_model::kv_cache::Held;
use ossia_model::{Logits, Model, Options, Work};

use super::{Error, Progress};

/// What holds for every sequence.
pub(crate) struct Rules {
    /// Sequences at a time.
    pub batch: usize,
    /// Ids that end one.
    pub stops: Vec<u32>,
    /// Ids that are never chosen.
    pub forbidden: Vec<u32>,
    /// How tokens are drawn; none is the likeliest.
    pub draws: Option<Draws>,
    /// The slot of the adapter that answers.
    pub adapter: Option<usize>,
}

/// How tokens are drawn.
#[derive(Clone, Copy)]
pub(crate) struct Draws {
    /// Above 0.
    pub temperature: f32,
    /// With a prompt's place it gives a seed of its own.
    pub seed: u64,
}

/// An answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Made {
    /// Stop token included.
    pub tokens: Vec<u32>,
    /// ln of each token's probability among all tokens at temperature 1; only where tokens are drawn.
    pub log_probabilities: Vec<f32>,
}

/// What is to be answered.
pub(crate) struct Prompt<'a> {
    /// Its tokens, at least one.
    pub tokens: &'a [u32],
    /// Tokens of the answer at most.
    pub max_tokens: usize,
}

/// A prompt and what has been made of it so far.
struct Sequence<'a> {
    /// The place of the prompt.
    index: usize,
    prompt: &'a Prompt<'a>,
    /// Prompt and answer. The first `held.len` are fed.
    tokens: Vec<u32>,
    held: Held,
    sampler: Sampler,
    log_probabilities: Vec<f32>,
}

impl<'a> Sequence<'a> {
    fn new(index: usize, prompt: &'a Prompt, rules: &Rules, vocab: usize) -> Result<Self, Error> {
        let params = match rules.draws {
            None => Params { temperature: 0.0, ..Params::default() },
            Some(Draws { temperature, seed }) => {
                Params { temperature, seed: of_place(seed, index), ..Params::default() }
            }
        };
        let sampler = Sampler::new(params, rules.forbidden.as_slice().into(), vocab)?;
        let tokens = prompt.tokens.to_vec();
        let held = Held { adapter: rules.adapter, ..Held::default() };
        Ok(Self { index, prompt, tokens, held, sampler, log_probabilities: Vec::new() })
    }

    /// Chooses the next token.
    fn choose(&mut self, rules: &Rules, logits: &[f32]) -> Result<(), Error> {
        let token = self.sampler.sample(logits)?.token;
        if rules.draws.is_some() {
            self.log_probabilities.push(log_probability(logits, token));
        }
        self.tokens.push(token);
        Ok(())
    }

    fn made(&mut self) -> Made {
        let tokens = self.answer().to_vec();
        Made { tokens, log_probabilities: std::mem::take(&mut self.log_probabilities) }
    }

    fn waiting(&self) -> usize {
        self.tokens.len() - self.held.len
    }

    fn answer(&self) -> &[u32] {
        &self.tokens[self.prompt.tokens.len()..]
    }

    fn has_ended(&self, rules: &Rules) -> bool {
        let answer = self.answer();
        answer.len() >= self.prompt.max_tokens || answer.last().is_some_and(|last| rules.stops.contains(last))
    }
}

/// A seed for the sequence at `index`: neighbours have nothing in common.
fn of_place(seed: u64, index: usize) -> u64 {
    let z = seed.wrapping_add((index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// ln of the probability of `token` [V].
fn log_probability(logits: &[f32], token: u32) -> f32 {
    let largest = f64::from(logits.iter().fold(f32::MIN, |most, &logit| most.max(logit)));
    let sum: f64 = logits.iter().map(|&logit| (f64::from(logit) - largest).exp()).sum();
    (f64::from(logits[token as usize]) - largest - sum.ln()) as f32
}

/// The answer to each of `prompts`.
pub(crate) fn answers(
    rules: &Rules,
    model: &mut Model,
    prompts: &[Prompt],
    progress: &mut dyn FnMut(Progress),
) -> Result<Vec<Made>, Error> {
    let mut running = Vec::new();
    let made = run(rules, model, prompts, &mut running, progress);
    // After a failure the model's pages are still lent.
    running.iter_mut().for_each(|sequence: &mut Sequence| model.release(&mut sequence.held));
    made
}

fn run<'a>(
    rules: &Rules,
    model: &mut Model,
    prompts: &'a [Prompt],
    running: &mut Vec<Sequence<'a>>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Vec<Made>, Error> {
    let Options { sequences, logits_rows, .. } = *model.options();
    let batch = rules.batch.min(sequences).min(logits_rows).max(1);
    let mut made = vec![Made::default(); prompts.len()];
    let vocab = model.config().vocab_size;
    let mut waiting = prompts.iter().enumerate();
    let (mut done, mut tokens) = (0, 0);
    loop {
        let admitted = waiting.by_ref().take(batch - running.len());
        for (index, prompt) in admitted {
            running.push(Sequence::new(index, prompt, rules, vocab)?);
        }
        if running.is_empty() {
            return Ok(made);
        }
        tokens += step(rules, model, running)?;
        for mut sequence in running.extract_if(.., |sequence| sequence.has_ended(rules)) {
            model.release(&mut sequence.held);
            made[sequence.index] = sequence.made();
            done += 1;
        }
        progress(Progress { done, all: prompts.len(), tokens });
    }
}

/// One step of all sequences; gives the number of tokens made. A sequence whose prompt is done makes one, the others
/// read on.
fn step(rules: &Rules, model: &mut Model, running: &mut [Sequence]) -> Result<usize, Error> {
    let shares = shares(running, model.options());
    let mut work = Vec::with_capacity(running.len());
    for (sequence, &share) in running.iter_mut().zip(&shares) {
        let logits = if share == sequence.waiting() { Logits::Last } else { Logits::None };
        let start = sequence.held.len;
        work.push(Work { held: &mut sequence.held, tokens: &sequence.tokens[start..start + share], logits });
    }
    let logits = model.step(&mut work)?;
    let ready = running.iter_mut().filter(|sequence| sequence.waiting() == 0);
    for (row, sequence) in ready.enumerate() {
        sequence.choose(rules, logits.row(row))?;
    }
    Ok(logits.rows())
}

/// How many of its waiting tokens each sequence feeds in the next step: one at least, and what is left of the step's room
/// goes to the first that have more.
fn shares(running: &[Sequence], options: &Options) -> Vec<usize> {
    let mut left = options.batch_tokens() - running.len();
    let share = |sequence: &Sequence| {
        let more = left.min(sequence.waiting().min(options.chunk) - 1);
        left -= more;
        1 + more
    };
    running.iter().map(share).collect()
}
