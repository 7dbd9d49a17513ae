//! Greedy answers to many prompts, side by side: a sequence begins as soon as another ends.

use ossia_kernels::ops::sample::{Params, Sampler};
use ossia_model::kv_cache::Held;
use ossia_model::{Logits, Model, Options, Work};

use super::{Error, Progress};

/// What holds for every sequence.
pub(super) struct Rules {
    /// Sequences at a time.
    pub batch: usize,
    /// Ids that end one.
    pub stops: Vec<u32>,
    /// Ids that are never chosen.
    pub forbidden: Vec<u32>,
}

/// What is to be answered.
pub(super) struct Prompt<'a> {
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
}

impl<'a> Sequence<'a> {
    fn new(index: usize, prompt: &'a Prompt) -> Self {
        Self { index, prompt, tokens: prompt.tokens.to_vec(), held: Held::default() }
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

/// The answer to each of `prompts`, stop token included.
pub(super) fn answers(
    rules: &Rules,
    model: &mut Model,
    prompts: &[Prompt],
    progress: &mut dyn FnMut(Progress),
) -> Result<Vec<Vec<u32>>, Error> {
    let params = Params { temperature: 0.0, ..Params::default() };
    let mut sampler = Sampler::new(params, rules.forbidden.as_slice().into(), model.config().vocab_size)?;
    let mut running = Vec::new();
    let made = run(rules, model, &mut sampler, prompts, &mut running, progress);
    // After a failure the model's pages are still lent.
    running.iter_mut().for_each(|sequence: &mut Sequence| model.release(&mut sequence.held));
    made
}

fn run<'a>(
    rules: &Rules,
    model: &mut Model,
    sampler: &mut Sampler,
    prompts: &'a [Prompt],
    running: &mut Vec<Sequence<'a>>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Vec<Vec<u32>>, Error> {
    let Options { sequences, logits_rows, .. } = *model.options();
    let batch = rules.batch.min(sequences).min(logits_rows).max(1);
    let mut made = vec![Vec::new(); prompts.len()];
    let mut waiting = prompts.iter().enumerate();
    let (mut done, mut tokens) = (0, 0);
    loop {
        let admitted = waiting.by_ref().take(batch - running.len());
        running.extend(admitted.map(|(index, prompt)| Sequence::new(index, prompt)));
        if running.is_empty() {
            return Ok(made);
        }
        tokens += step(model, sampler, running)?;
        for mut sequence in running.extract_if(.., |sequence| sequence.has_ended(rules)) {
            model.release(&mut sequence.held);
            made[sequence.index] = sequence.answer().to_vec();
            done += 1;
        }
        progress(Progress { done, all: prompts.len(), tokens });
    }
}

/// One step of all sequences; gives the number of tokens made. A sequence whose prompt is done makes one, the others
/// read on.
fn step(model: &mut Model, sampler: &mut Sampler, running: &mut [Sequence]) -> Result<usize, Error> {
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
        sequence.tokens.push(sampler.sample(logits.row(row))?.token);
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
