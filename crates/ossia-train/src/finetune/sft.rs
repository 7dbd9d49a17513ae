//! Learning from conversations: the cross entropy of what the assistant said.

use ossia_model::gpt_oss::balance::Balancing;

use super::outcome::{Measured, Method, Outcome};
use super::tuner::{Rows, Tuner};
use crate::dataset::{Batch, Batches, Cursor, Document, NUM_CLASSES, class};
use crate::error::{Error, Result};
use crate::losses::{Sums, predicting_rows, shares};

/// What is learned and what is measured.
pub struct Sft {
    batches: Batches,
    held_out: Vec<Document>,
    max_len: usize,
    class_weights: [f32; NUM_CLASSES],
}

impl Sft {
    /// Draws from `batches`; measures on `held_out`, cut after `max_len` rows, with the same weights of classes.
    pub fn new(batches: Batches, held_out: Vec<Document>, max_len: usize, class_weights: [f32; NUM_CLASSES]) -> Self {
        Self { batches, held_out, max_len, class_weights }
    }
}

/// The micro batches of an update.
pub(super) fn draw(batches: &mut Batches, tuner: &Tuner) -> Result<Vec<Batch>> {
    let (micro, all) = (tuner.training().micro_tokens, tuner.training().batch_tokens);
    let drawn: std::result::Result<Vec<_>, _> = (0..(all / micro).max(1)).map(|_| batches.next_micro(micro)).collect();
    Ok(drawn?)
}

/// Rows of each document.
pub(super) fn lengths<'a>(batches: impl IntoIterator<Item = &'a Batch>) -> Vec<usize> {
    batches.into_iter().flat_map(|batch| batch.documents.iter().map(ExactSizeIterator::len)).collect()
}

impl Method for Sft {
    fn step(&mut self, tuner: &mut Tuner, lr: f32) -> Result<Outcome> {
        let micros = draw(&mut self.batches, tuner)?;
        let sum = |batch: &Batch| batch.weights.iter().map(|&w| f64::from(w)).sum::<f64>();
        let weight = micros.iter().map(sum).sum::<f64>().max(f64::MIN_POSITIVE);
        let tokens: usize = micros.iter().map(Batch::num_rows).sum();
        tuner.look()?;
        let (mut sums, mut loads, coefficient) = (Sums::default(), tuner.loads(), tuner.training().aux_loss.0);
        for micro in &micros {
            let rows = predicting_rows(micro);
            let of_row = |&row: &u32| (f64::from(micro.weights[row as usize]) / weight) as f32;
            let weights: Vec<f32> = rows.iter().map(of_row).collect();
            let share = micro.num_rows() as f32 / tokens as f32;
            let balancing = Balancing { aux: coefficient * share, pooled: false, z: 0.0 };
            let losses = tuner.add_gradients(micro, &Rows { rows: &rows, weights: &weights }, &balancing)?;
            sums.add(micro, &losses.nll);
            loads.add(&losses.loads);
        }
        let grad_norm = tuner.update(sums.mean(), lr)?;
        Ok(Outcome {
            loss: sums.mean(),
            per_class: sums.per_class(),
            aux: f64::from(coefficient) * loads.aux(false),
            tokens,
            documents: micros.iter().map(|batch| batch.documents.len()).sum(),
            lengths: lengths(&micros),
            expert_load: loads.layers().iter().map(|layer| shares(&layer.counts)).collect(),
            grad_norm,
            preference: None,
            policy: None,
        })
    }

    fn measure(&mut self, tuner: &mut Tuner) -> Result<Option<Measured>> {
        let mut weights = self.class_weights;
        weights[usize::from(class::CONTEXT)] = 0.0;
        let all = Batch::of(&self.held_out, self.max_len, &weights);
        if predicting_rows(&all).is_empty() {
            return Ok(None);
        }
        tuner.look()?;
        let mut sums = Sums::default();
        for micro in all.split(tuner.training().micro_tokens)? {
            let rows = predicting_rows(&micro);
            // A micro batch may hold documents in which nothing is learned.
            if !rows.is_empty() {
                sums.add(&micro, &tuner.nll(tuner.subject().trained(), &micro, &rows)?);
            }
        }
        finite(sums.mean(), tuner).map(|loss| Some(Measured { loss, preference: None, reward: None }))
    }

    fn cursor(&self) -> Cursor {
        self.batches.cursor()
    }

    fn restore(&mut self, cursor: Cursor) -> Result<()> {
        Ok(self.batches.restore(cursor)?)
    }
}

/// A held-out loss that is a number.
pub(super) fn finite(loss: f64, tuner: &Tuner) -> Result<f64> {
    let broken = Error::NotFinite { step: tuner.step(), what: "the loss of the held-out documents".into() };
    if loss.is_finite() { Ok(loss) } else { Err(broken) }
}
