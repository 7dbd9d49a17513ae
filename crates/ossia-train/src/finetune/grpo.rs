//! Learning from answers of the model's own: a group of answers to each question, judged by a grader; the better ones
//! become likelier, the worse ones less likely (`objective` has the formula).
//!
//! The answers are drawn by the same kernels and weights that are trained. The old log probabilities come from the
//! training's forward pass all the same, so that on the first update a ratio is exactly 1; how far the two passes are
//! apart is logged. One step is one round of answers, from which `updates` updates are made, so that a checkpoint never
//! stands between answers and what is learned of them.

use std::sync::Arc;

use ossia_model::gpt_oss::balance::{Balancing, Loads};
use ossia_text::Harmony;

use super::config;
use super::data::Items;
use super::graders::{Grader, Sample};
use super::objective::{Objective, Token, Worth, advantages, mean_and_spread};
use super::outcome::{Measured, Method, Outcome};
use super::sft::lengths;
use super::tuner::{Rows, Tuner};
use crate::dataset::{Batch, Cursor, Document, NUM_CLASSES, Order, class};
use crate::error::{Error, Result};
use crate::eval::decode::{self, Draws, Made, Prompt, Rules};
use crate::losses::{predicting_rows, shares};
use crate::metrics::Policy;

/// Held-out questions that are answered for a measurement, at most.
const MOST_MEASURED: usize = 64;
/// Of an answer's tokens; the prompt's count nothing.
const WEIGHTS: [f32; NUM_CLASSES] = [0.0, 1.0, 1.0, 1.0, 1.0];

/// Questions, and how answers to them are judged.
pub struct Grpo {
    items: Items,
    held_out: Items,
    order: Order,
    cursor: Cursor,
    grader: Grader,
    harmony: Arc<Harmony>,
    settings: config::Grpo,
    seed: u64,
    /// The longest question with its answer, tokens.
    max_len: usize,
}

/// An answer and what it was worth.
struct Answer {
    /// The question's tokens.
    prompt: usize,
    document: Document,
    made: Made,
    reward: f64,
    advantage: f64,
    stopped: bool,
}

/// A micro batch of answers.
struct Part {
    batch: Batch,
    rows: Vec<u32>,
    /// Advantage of each row's answer [R].
    advantages: Vec<f64>,
    /// nll when the answers were made [R].
    old: Vec<f32>,
    /// nll of the base [R], where the distance counts.
    base: Option<Vec<f32>>,
}

/// Sums over the tokens of a step.
#[derive(Default)]
struct Tally {
    tokens: f64,
    loss: f64,
    kl: f64,
    clipped: f64,
    off_policy: f64,
}

impl Grpo {
    /// Fails where an item lacks what the grader's templates ask for.
    pub fn new(
        (items, held_out): (Items, Items),
        grader: Grader,
        harmony: Arc<Harmony>,
        settings: config::Grpo,
        seed: u64,
        max_len: usize,
    ) -> Result<Self> {
        for all in [&items, &held_out] {
            for index in 0..all.len() {
                grader.check(&all.get(index)?.item)?;
            }
        }
        let order = Order::new(items.len() as u64, seed);
        let cursor = order.start();
        Ok(Self { items, held_out, order, cursor, grader, harmony, settings, seed, max_len })
    }

    /// Answers to `prompts`, each `group` times, drawn or the likeliest.
    fn answers(
        &self,
        tuner: &mut Tuner,
        prompts: &[Vec<u32>],
        group: usize,
        draws: Option<Draws>,
    ) -> Result<Vec<Made>> {
        tuner.look()?;
        let (model, adapter) = tuner.subject_mut().decoding().expect("a model that answers was loaded");
        let forbidden = self.harmony.tokenizer().unsampleable_ids(model.config().vocab_size);
        let rules = Rules { batch: usize::MAX, stops: self.harmony.stop_ids(), forbidden, draws, adapter };
        let room =
            |tokens: &[u32]| self.settings.max_tokens.min((self.max_len + 1).saturating_sub(tokens.len())).max(1);
        let asked = prompts.iter().flat_map(|tokens| std::iter::repeat_n(tokens, group));
        let asked: Vec<Prompt> = asked.map(|tokens| Prompt { tokens, max_tokens: room(tokens) }).collect();
        Ok(decode::answers(&rules, model, &asked, &mut |_| {})?)
    }

    fn reward(&self, item: &serde_json::Value, made: &Made) -> f64 {
        let (messages, _) = crate::eval::read(&self.harmony, &made.tokens);
        let value = self.grader.grade(item, &Sample::of(&messages)).value;
        // A grader of one's own may say anything.
        if value.is_finite() { value } else { 0.0 }
    }

    /// The next questions, answered and judged; groups stand together.
    fn round(&mut self, tuner: &mut Tuner) -> Result<Vec<Answer>> {
        let group = self.settings.group;
        let seed = self.seed ^ self.cursor.epoch.rotate_left(40) ^ self.cursor.position.rotate_left(8);
        let (mut prompts, mut items) = (Vec::new(), Vec::new());
        for _ in 0..self.settings.prompts {
            let item = self.items.get(self.order.document_at(&self.cursor) as usize)?;
            self.cursor = self.order.next(self.cursor);
            prompts.push(item.prompt);
            items.push(item.item);
        }
        let draws = Draws { temperature: self.settings.temperature, seed };
        let made = self.answers(tuner, &prompts, group, Some(draws))?;
        let stops = self.harmony.stop_ids();
        let mut answers = Vec::with_capacity(made.len());
        for ((prompt, item), made) in prompts.iter().zip(&items).zip(made.chunks(group)) {
            let rewards: Vec<f64> = made.iter().map(|made| self.reward(item, made)).collect();
            for ((made, reward), advantage) in made.iter().zip(&rewards).zip(advantages(&rewards)) {
                answers.push(Answer {
                    prompt: prompt.len(),
                    document: document(prompt, &made.tokens),
                    stopped: made.tokens.last().is_some_and(|last| stops.contains(last)),
                    made: made.clone(),
                    reward: *reward,
                    advantage,
                });
            }
        }
        Ok(answers)
    }

    /// The micro batches of the answers from which something can be learned, and the largest difference of a log
    /// probability where it was drawn and where it is trained.
    fn parts(&self, tuner: &Tuner, answers: &[Answer]) -> Result<(Vec<Part>, f64)> {
        let learned: Vec<&Answer> = answers.iter().filter(|a| a.advantage != 0.0 || self.settings.kl > 0.0).collect();
        let (mut parts, mut difference) = (Vec::new(), 0.0f64);
        let mut rest = &learned[..];
        while !rest.is_empty() {
            let (some, others) = rest.split_at(fitting(rest, tuner.training().micro_tokens));
            rest = others;
            let documents: Vec<Document> = some.iter().map(|answer| answer.document.clone()).collect();
            let batch = Batch::of(&documents, usize::MAX, &WEIGHTS);
            let rows = predicting_rows(&batch);
            let old = tuner.nll(tuner.subject().trained(), &batch, &rows)?;
            let drawn = some.iter().flat_map(|answer| &answer.made.log_probabilities);
            difference = drawn.zip(&old).fold(difference, |most, (drawn, nll)| {
                let apart = (f64::from(*drawn) + f64::from(*nll)).abs();
                if apart > most || apart.is_nan() { apart } else { most }
            });
            let base = match tuner.subject().reference() {
                Some(side) if self.settings.kl > 0.0 => Some(tuner.nll(side, &batch, &rows)?),
                _ => None,
            };
            let of_answer = |a: &&Answer| std::iter::repeat_n(a.advantage, a.document.tokens.len() - a.prompt);
            let advantages = some.iter().flat_map(of_answer).collect();
            parts.push(Part { batch, rows, advantages, old, base });
        }
        Ok((parts, difference))
    }

    /// Adds the gradients of `parts`; `first` is whether nothing was moved since they were made.
    fn learn(&self, tuner: &mut Tuner, parts: &[Part], first: bool) -> Result<(Tally, Loads)> {
        let objective = Objective { clip: f64::from(self.settings.clip), kl: f64::from(self.settings.kl) };
        tuner.look()?;
        let (mut tally, mut loads) = (Tally::default(), tuner.loads());
        let all: f64 = parts.iter().map(|part| part.rows.len() as f64).sum();
        let num_rows: usize = parts.iter().map(|part| part.batch.num_rows()).sum();
        for part in parts {
            let now = match first {
                true => part.old.clone(),
                false => tuner.nll(tuner.subject().trained(), &part.batch, &part.rows)?,
            };
            let worths = part.worths(&objective, &now);
            let weights: Vec<f32> = worths.iter().map(|worth| (worth.pull / all) as f32).collect();
            let aux = tuner.training().aux_loss.0 * part.batch.num_rows() as f32 / num_rows as f32;
            let balancing = Balancing { aux, pooled: false, z: 0.0 };
            let losses = tuner.add_gradients(&part.batch, &Rows { rows: &part.rows, weights: &weights }, &balancing)?;
            tally.add(&worths);
            // The pass that has made the gradients must have seen what the answers were judged by.
            let ratios = part.worths(&objective, &losses.nll);
            if first {
                let off = ratios.iter().map(|worth| (worth.ratio - 1.0).abs());
                tally.off_policy =
                    off.fold(tally.off_policy, |most, off| if off > most || off.is_nan() { off } else { most });
            }
            loads.add(&losses.loads);
        }
        Ok((tally, loads))
    }
}

impl Part {
    fn worths(&self, objective: &Objective, now: &[f32]) -> Vec<Worth> {
        let token = |row: usize| Token {
            now: -f64::from(now[row]),
            old: -f64::from(self.old[row]),
            base: self.base.as_ref().map(|base| -f64::from(base[row])),
            advantage: self.advantages[row],
        };
        (0..self.rows.len()).map(|row| objective.of(&token(row))).collect()
    }
}

impl Tally {
    fn add(&mut self, worths: &[Worth]) {
        self.tokens += worths.len() as f64;
        self.loss += worths.iter().map(|worth| worth.loss).sum::<f64>();
        self.kl += worths.iter().map(|worth| worth.kl).sum::<f64>();
        self.clipped += worths.iter().filter(|worth| worth.clipped).count() as f64;
    }

    fn mean(&self, sum: f64) -> f64 {
        sum / self.tokens.max(1.0)
    }
}

impl Method for Grpo {
    fn step(&mut self, tuner: &mut Tuner, lr: f32) -> Result<Outcome> {
        let answers = self.round(tuner)?;
        let (parts, rollout_difference) = self.parts(tuner, &answers)?;
        let (mut all, mut expert_load, mut grad_norm, mut loss, mut aux) =
            (Tally::default(), Vec::new(), 0.0, 0.0, 0.0);
        for update in 0..self.settings.updates {
            let (tally, loads) = self.learn(tuner, &parts, update == 0)?;
            if tally.off_policy != 0.0 {
                return Err(Error::OffPolicy { step: tuner.step() + 1, ratio: tally.off_policy });
            }
            let mean = tally.mean(tally.loss);
            let norm = tuner.update(mean, lr)?;
            if update == 0 {
                (grad_norm, loss) = (norm, mean);
                expert_load = loads.layers().iter().map(|layer| shares(&layer.counts)).collect();
                // Where no answer teaches anything no router was asked.
                let each = if parts.is_empty() { 0.0 } else { loads.aux(false) };
                aux = f64::from(tuner.training().aux_loss.0) * each;
            }
            all.tokens += tally.tokens;
            all.kl += tally.kl;
            all.clipped += tally.clipped;
        }
        let n = answers.len().max(1) as f64;
        let mean = |of: &dyn Fn(&Answer) -> f64| answers.iter().map(of).sum::<f64>() / n;
        let rewards: Vec<f64> = answers.iter().map(|answer| answer.reward).collect();
        let spreads = rewards.chunks(self.settings.group).map(|group| mean_and_spread(group).1);
        let policy = Policy {
            reward: mean(&|answer| answer.reward),
            spread: spreads.sum::<f64>() / self.settings.prompts.max(1) as f64,
            length: mean(&|answer| answer.made.tokens.len() as f64),
            stopped: mean(&|answer| f64::from(u8::from(answer.stopped))),
            kl: (self.settings.kl > 0.0).then(|| all.mean(all.kl)),
            clipped: all.mean(all.clipped),
            off_policy: all.off_policy,
            rollout_difference,
        };
        Ok(Outcome {
            loss,
            per_class: [None; NUM_CLASSES],
            aux,
            tokens: answers.iter().map(|answer| answer.document.tokens.len()).sum(),
            documents: answers.len(),
            lengths: lengths(parts.iter().map(|part| &part.batch)).repeat(self.settings.updates),
            expert_load,
            grad_norm,
            preference: None,
            policy: Some(policy),
        })
    }

    fn updates(&self) -> u64 {
        self.settings.updates as u64
    }

    fn measure(&mut self, tuner: &mut Tuner) -> Result<Option<Measured>> {
        let count = self.held_out.len().min(MOST_MEASURED);
        if count == 0 {
            return Ok(None);
        }
        let (mut prompts, mut items) = (Vec::new(), Vec::new());
        for index in 0..count {
            let item = self.held_out.get(index)?;
            prompts.push(item.prompt);
            items.push(item.item);
        }
        let made = self.answers(tuner, &prompts, 1, None)?;
        let rewards: Vec<f64> = items.iter().zip(&made).map(|(item, made)| self.reward(item, made)).collect();
        let reward = rewards.iter().sum::<f64>() / count as f64;
        Ok(Some(Measured { loss: -reward, preference: None, reward: Some(reward) }))
    }

    fn cursor(&self) -> Cursor {
        self.cursor
    }

    fn restore(&mut self, cursor: Cursor) -> Result<()> {
        self.order.check(&cursor)?;
        self.cursor = cursor;
        Ok(())
    }
}

/// Question and answer; the answer is learned.
fn document(prompt: &[u32], answer: &[u32]) -> Document {
    let classes = [vec![class::CONTEXT; prompt.len()], vec![class::FINAL; answer.len()]].concat();
    Document { tokens: [prompt, answer].concat(), classes }
}

/// How many of the first answers have at most `most` rows together; at least one.
fn fitting(answers: &[&Answer], most: usize) -> usize {
    let mut rows = 0;
    let fits = |answer: &&&Answer| {
        rows += answer.document.tokens.len() - 1;
        rows <= most
    };
    answers.iter().take_while(fits).count().max(1)
}
