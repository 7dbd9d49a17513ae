//! How the router spreads tokens over experts, and the losses that keep it even (SPEC 7.1).
//!
//! aux = E sum over e of (c_e / N) (P_e / N), c_e how often expert e was among the k best, P_e the sum of its
//! probabilities; it equals k at perfect balance. Published fine-tuning code pools all layers (N = layers x tokens), where
//! imbalances of different layers cancel; each layer on its own, and the mean over layers, is the better teacher.

use ossia_kernels::ops::router::{self, Load};
use ossia_kernels::{Tap, Tensor};

use super::forward::Transformer;

/// Coefficients of the losses on the router.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Balancing {
    /// Of the auxiliary loss.
    pub aux: f32,
    /// Whether all layers are counted together.
    pub pooled: bool,
    /// Of the mean square of the log-sum-exp of the router's logits.
    pub z: f32,
}

/// What each layer's router did with a batch.
#[derive(Clone, Debug)]
pub struct Loads {
    k: usize,
    experts: usize,
    tokens: usize,
    layers: Vec<Load>,
}

impl Loads {
    /// Nothing yet.
    pub fn of(model: &Transformer) -> Self {
        let mlp = &model.blocks[0].mlp;
        Self { k: mlp.experts_per_token, experts: mlp.experts.experts.len(), tokens: 0, layers: Vec::new() }
    }

    /// Layer by layer.
    pub fn layers(&self) -> &[Load] {
        &self.layers
    }

    /// Tokens seen.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Adds another batch's, in the same order of layers.
    pub fn add(&mut self, other: &Self) {
        self.tokens += other.tokens;
        if self.layers.is_empty() {
            self.layers.clone_from(&other.layers);
            return;
        }
        for (own, other) in self.layers.iter_mut().zip(&other.layers) {
            own.counts.iter_mut().zip(&other.counts).for_each(|(a, b)| *a += b);
            own.probability.iter_mut().zip(&other.probability).for_each(|(a, b)| *a += b);
            own.square += other.square;
        }
    }

    /// The auxiliary loss, without its coefficient.
    pub fn aux(&self, pooled: bool) -> f64 {
        let loss = |counts: &[f64], probability: &[f64], n: f64| {
            let sum: f64 = counts.iter().zip(probability).map(|(c, p)| c / n * p / n).sum();
            self.experts as f64 * sum
        };
        if pooled {
            let n = (self.layers.len() * self.tokens) as f64;
            return loss(&self.pooled(|l| &l.counts), &self.pooled(|l| &l.probability), n);
        }
        let each = self.layers.iter().map(|l| loss(&l.counts, &l.probability, self.tokens as f64));
        each.sum::<f64>() / self.layers.len() as f64
    }

    /// The mean square of the log-sum-exp.
    pub fn z(&self) -> f64 {
        self.layers.iter().map(|l| l.square).sum::<f64>() / (self.layers.len() * self.tokens) as f64
    }

    fn pooled(&self, part: impl Fn(&Load) -> &Vec<f64>) -> Vec<f64> {
        (0..self.experts).map(|e| self.layers.iter().map(|l| part(l)[e]).sum()).collect()
    }

    /// The gradient for one token's probabilities in `layer` [E], and the coefficient of its lse².
    pub(super) fn gradient(&self, layer: usize, balancing: &Balancing) -> (Vec<f32>, f32) {
        let (layers, tokens) = (self.layers.len() as f64, self.tokens as f64);
        let (counts, n) = if balancing.pooled {
            (self.pooled(|l| &l.counts), (layers * tokens).powi(2))
        } else {
            (self.layers[layer].counts.clone(), layers * tokens.powi(2))
        };
        let factor = f64::from(balancing.aux) * self.experts as f64 / n;
        let load = counts.iter().map(|c| (factor * c) as f32).collect();
        (load, (f64::from(balancing.z) / (layers * tokens)) as f32)
    }
}

impl Tap for Loads {
    fn see(&mut self, op: &'static str, result: &Tensor) {
        if op == "router" {
            self.tokens = result.rows();
            // A device that does not answer is told by the next call that waits for it.
            let logits = result.values().unwrap_or_default();
            self.layers.push(router::load(&logits, self.experts, self.k));
        }
    }
}
