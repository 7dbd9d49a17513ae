//! What one update did, whatever the method, and how a method is asked for the next one.

use super::tuner::Tuner;
use crate::dataset::{Cursor, NUM_CLASSES};
use crate::error::Result;
use crate::metrics::{Policy, Preference};

/// What one update did.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What was made smaller, nats: the mean cross entropy over learned tokens, or the method's own loss.
    pub loss: f64,
    /// The mean cross entropy of each class, where the batch had such tokens.
    pub per_class: [Option<f64>; NUM_CLASSES],
    /// The router's auxiliary loss with its coefficient.
    pub aux: f64,
    /// Tokens read, and made where answers were.
    pub tokens: usize,
    /// Documents.
    pub documents: usize,
    /// Rows of each document of a backward pass, again for each update.
    pub lengths: Vec<usize>,
    /// Share of each layer's routes that went to each expert.
    pub expert_load: Vec<Vec<f32>>,
    /// Length of the gradient before clipping.
    pub grad_norm: f64,
    /// For pairs of answers.
    pub preference: Option<Preference>,
    /// For answers of the model's own.
    pub policy: Option<Policy>,
}

/// What was measured on held-out data.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// The loss, lower is better, nats; minus the reward for `grpo`.
    pub loss: f64,
    /// For pairs of answers.
    pub preference: Option<Preference>,
    /// The mean reward, for answers of the model's own.
    pub reward: Option<f64>,
}

/// A way to learn. Everything depends on its settings, the data and the cursor alone.
pub trait Method {
    /// The gradients of the next data are added and the trained numbers moved by learning rate `lr`.
    fn step(&mut self, tuner: &mut Tuner, lr: f32) -> Result<Outcome>;
    /// The optimizer's updates of a step.
    fn updates(&self) -> u64 {
        1
    }
    /// What held-out data cost, where there are any.
    fn measure(&mut self, tuner: &mut Tuner) -> Result<Option<Measured>>;
    /// Where the next data begin.
    fn cursor(&self) -> Cursor;
    /// Goes on from there.
    fn restore(&mut self, cursor: Cursor) -> Result<()>;
}
