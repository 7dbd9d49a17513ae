//! Learning from pairs of answers: the better one is to become likelier, the worse one less likely, measured against the
//! model as it was (Direct Preference Optimization, Rafailov and others 2023).
//!
//! ```text
//! m = β ((log π(c) - log ref(c)) - (log π(r) - log ref(r)))        loss = -ln σ(m) = ln(1 + e^-m), mean over pairs
//! dloss / dlog π(c) = -β σ(-m) / P                                 dloss / dlog π(r) = β σ(-m) / P
//! ```
//!
//! log π of an answer is the sum over its learned tokens; the reference is the same weights without the adapter. Its
//! numbers do not change in a run, so each is computed once, when its document is first met.

use std::collections::HashMap;

use ossia_model::gpt_oss::balance::Balancing;
use sha2::{Digest, Sha256};

use super::outcome::{Measured, Method, Outcome};
use super::sft::{draw, finite, lengths};
use super::tuner::{Rows, Tuner};
use crate::dataset::{Batch, Batches, Cursor, Document, NUM_CLASSES};
use crate::error::Result;
use crate::losses::{Sums, predicting_rows, shares};
use crate::metrics::Preference;

/// Pairs and what the reference says of them.
pub struct Dpo {
    batches: Batches,
    held_out: Batch,
    beta: f64,
    reference: Reference,
}

impl Dpo {
    /// Draws pairs from `batches`, whose documents are grouped by two; measures on `held_out`, better and worse in turn,
    /// cut after `max_len` rows. Rows whose class weighs nothing are no part of an answer.
    pub fn new(
        batches: Batches,
        held_out: &[Document],
        max_len: usize,
        class_weights: &[f32; NUM_CLASSES],
        beta: f32,
    ) -> Self {
        let held_out = Batch::of(held_out, max_len, class_weights);
        Self { batches, held_out, beta: f64::from(beta), reference: Reference::default() }
    }

    /// What the trained model makes of the pairs of `micro`.
    fn pairs(&mut self, tuner: &Tuner, micro: &Batch, rows: &[u32]) -> Result<Vec<Pair>> {
        let reference = self.reference.of(tuner, micro, rows)?;
        let nll = tuner.nll(tuner.subject().trained(), micro, rows)?;
        let trained = log_probabilities(micro, rows, &nll);
        let gains: Vec<f64> = trained.iter().zip(&reference).map(|(trained, reference)| trained - reference).collect();
        Ok(gains
            .as_chunks()
            .0
            .iter()
            .map(|&[chosen, rejected]| Pair { margin: self.beta * (chosen - rejected) })
            .collect())
    }
}

/// A better and a worse answer.
#[derive(Clone, Copy, Debug)]
struct Pair {
    /// m.
    margin: f64,
}

impl Pair {
    /// ln(1 + e^-m), without an overflow.
    fn loss(&self) -> f64 {
        let m = self.margin;
        (-m).max(0.0) + (-m.abs()).exp().ln_1p()
    }

    /// σ(-m), how much the pair still has to teach.
    fn pull(&self) -> f64 {
        1.0 / (1.0 + self.margin.exp())
    }
}

/// Sums over pairs.
#[derive(Default)]
struct Tally {
    pairs: f64,
    loss: f64,
    margin: f64,
    right: f64,
}

impl Tally {
    fn add(&mut self, pairs: &[Pair]) {
        self.pairs += pairs.len() as f64;
        self.loss += pairs.iter().map(Pair::loss).sum::<f64>();
        self.margin += pairs.iter().map(|pair| pair.margin).sum::<f64>();
        self.right += pairs.iter().filter(|pair| pair.margin > 0.0).count() as f64;
    }

    fn preference(&self) -> Preference {
        Preference { margin: self.margin / self.pairs, accuracy: self.right / self.pairs }
    }
}

impl Method for Dpo {
    fn step(&mut self, tuner: &mut Tuner, lr: f32) -> Result<Outcome> {
        let micros = draw(&mut self.batches, tuner)?;
        let tokens: usize = micros.iter().map(Batch::num_rows).sum();
        let documents: usize = micros.iter().map(|batch| batch.documents.len()).sum();
        let each = self.beta / (documents as f64 / 2.0);
        tuner.look()?;
        let (mut tally, mut sums, mut loads) = (Tally::default(), Sums::default(), tuner.loads());
        let coefficient = tuner.training().aux_loss.0;
        for micro in &micros {
            let rows = predicting_rows(micro);
            let pairs = self.pairs(tuner, micro, &rows)?;
            let weights = weights(micro, &rows, &pairs, each);
            let balancing =
                Balancing { aux: coefficient * micro.num_rows() as f32 / tokens as f32, pooled: false, z: 0.0 };
            let losses = tuner.add_gradients(micro, &Rows { rows: &rows, weights: &weights }, &balancing)?;
            tally.add(&pairs);
            sums.add(micro, &losses.nll);
            loads.add(&losses.loads);
        }
        let loss = tally.loss / tally.pairs;
        let grad_norm = tuner.update(loss, lr)?;
        Ok(Outcome {
            loss,
            per_class: sums.per_class(),
            aux: f64::from(coefficient) * loads.aux(false),
            tokens,
            documents,
            lengths: lengths(&micros),
            expert_load: loads.layers().iter().map(|layer| shares(&layer.counts)).collect(),
            grad_norm,
            preference: Some(tally.preference()),
            policy: None,
        })
    }

    fn measure(&mut self, tuner: &mut Tuner) -> Result<Option<Measured>> {
        if self.held_out.documents.is_empty() {
            return Ok(None);
        }
        tuner.look()?;
        let mut tally = Tally::default();
        for micro in self.held_out.split_groups(tuner.training().micro_tokens, 2)? {
            tally.add(&self.pairs(tuner, &micro, &predicting_rows(&micro))?);
        }
        let loss = finite(tally.loss / tally.pairs, tuner)?;
        Ok(Some(Measured { loss, preference: Some(tally.preference()), reward: None }))
    }

    fn cursor(&self) -> Cursor {
        self.batches.cursor()
    }

    fn restore(&mut self, cursor: Cursor) -> Result<()> {
        Ok(self.batches.restore(cursor)?)
    }
}

/// How much each row counts: those of a better answer are pulled up, those of a worse one pushed down. [R]
fn weights(micro: &Batch, rows: &[u32], pairs: &[Pair], each: f64) -> Vec<f32> {
    let of_documents = documents_of(micro, rows).into_iter();
    let weight = |document: usize| {
        let pull = each * pairs[document / 2].pull();
        (if document.is_multiple_of(2) { pull } else { -pull }) as f32
    };
    of_documents.map(weight).collect()
}

/// The document of each row [R].
fn documents_of(micro: &Batch, rows: &[u32]) -> Vec<usize> {
    rows.iter().map(|&row| micro.documents.partition_point(|document| document.end <= row as usize)).collect()
}

/// The log probability of the learned rows of each document.
fn log_probabilities(micro: &Batch, rows: &[u32], nll: &[f32]) -> Vec<f64> {
    let mut sums = vec![0.0; micro.documents.len()];
    for (document, nll) in documents_of(micro, rows).into_iter().zip(nll) {
        sums[document] -= f64::from(*nll);
    }
    sums
}

/// What the model without the adapter says of documents, by a hash of theirs.
#[derive(Default)]
struct Reference(HashMap<[u8; 16], f64>);

impl Reference {
    fn of(&mut self, tuner: &Tuner, micro: &Batch, rows: &[u32]) -> Result<Vec<f64>> {
        let keys: Vec<[u8; 16]> = (0..micro.documents.len()).map(|document| key(micro, document)).collect();
        if keys.iter().any(|key| !self.0.contains_key(key)) {
            let side = tuner.subject().reference().expect("pairs are learned by an adapter");
            let sums = log_probabilities(micro, rows, &tuner.nll(side, micro, rows)?);
            self.0.extend(keys.iter().copied().zip(sums));
        }
        Ok(keys.iter().map(|key| self.0[key]).collect())
    }
}

/// Of a document's tokens and of which are learned.
fn key(micro: &Batch, document: usize) -> [u8; 16] {
    let mut hash = Sha256::new();
    for row in micro.documents[document].clone() {
        hash.update(micro.tokens[row].to_le_bytes());
        hash.update(micro.targets[row].to_le_bytes());
        hash.update([u8::from(micro.weights[row] > 0.0)]);
    }
    let mut key = [0; 16];
    key.copy_from_slice(&hash.finalize()[..16]);
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pull_is_minus_the_slope_of_the_loss() {
        for margin in [-800.0, -30.0, -2.0, -0.1, 0.0, 0.3, 5.0, 40.0, 800.0] {
            let (at, step) = (|m: f64| Pair { margin: m }.loss(), 1e-4);
            let slope = (at(margin + step) - at(margin - step)) / (2.0 * step);
            let pull = Pair { margin }.pull();
            assert!((slope + pull).abs() < 1e-6 && (0.0..=1.0).contains(&pull), "{margin}: {slope} {pull}");
        }
        assert!((Pair { margin: 0.0 }.loss() - std::f64::consts::LN_2).abs() < 1e-15);
    }
}
