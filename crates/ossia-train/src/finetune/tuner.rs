//! One update after another, whatever is trained and whatever the loss is: losses of rows in, gradients added up, the
//! optimizer's step out. What the rows are and how much each counts is the method's business.

use ossia_kernels::Runtime;
use ossia_kernels::ops::cross_entropy::Targets;
use ossia_model::gpt_oss::backward::{Batch as ModelBatch, Losses};
use ossia_model::gpt_oss::balance::{Balancing, Loads};

use super::subject::{Side, Subject};
use crate::dataset::Batch;
use crate::error::{Error, Result};
use crate::losses::first_broken;
use crate::optimizer::{self, Moments, Update};
use crate::recipe::Training;

/// What is trained, its gradients and moments, and the machine.
pub struct Tuner {
    training: Training,
    subject: Subject,
    runtime: Runtime,
    step: u64,
    moments: Moments,
    gradients: Vec<f32>,
}

/// Rows of a batch that are to predict, and how much the loss of each counts.
pub struct Rows<'a> {
    /// Ascending [R].
    pub rows: &'a [u32],
    /// Negative pushes the token away [R].
    pub weights: &'a [f32],
}

impl Tuner {
    /// Trains `subject` on `runtime`, whose arena was planned for it.
    pub fn new(training: Training, subject: Subject, runtime: Runtime) -> Self {
        let len = subject.values().len();
        Self { training, subject, runtime, step: 0, moments: Moments::new(len), gradients: vec![0.0; len] }
    }

    /// How updates are made.
    pub fn training(&self) -> &Training {
        &self.training
    }

    /// What is trained.
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// The same, for those who let it answer.
    pub fn subject_mut(&mut self) -> &mut Subject {
        &mut self.subject
    }

    /// The optimizer's moments.
    pub fn moments(&self) -> &Moments {
        &self.moments
    }

    /// The optimizer's updates so far.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// The gradients that were added since the last update.
    pub fn gradients(&self) -> &[f32] {
        &self.gradients
    }

    /// Goes on where another was.
    pub fn restore(&mut self, step: u64, values: Vec<f32>, moments: Moments) {
        assert!(moments.first.len() == values.len(), "moments of these values");
        self.subject.restore(values);
        (self.step, self.moments) = (step, moments);
    }

    /// Lets the model see the trained numbers as they are now.
    pub fn look(&mut self) -> Result<()> {
        if let Some(name) = first_broken(&self.runtime, self.subject.tensors(), self.subject.values())? {
            return Err(self.not_finite(format!("the weight {name}")));
        }
        self.subject.look(&self.runtime.pool)
    }

    /// nll of `rows` of `batch`, nats, from the trained model or its reference. [R]
    pub fn nll(&self, side: Side, batch: &Batch, rows: &[u32]) -> Result<Vec<f32>> {
        let ids = targets(batch, rows);
        let targets = Targets { ids: &ids, weights: &[], z: 0.0 };
        let batch = ModelBatch {
            tokens: &batch.tokens,
            documents: &batch.documents,
            rows,
            targets,
            recompute: true,
            adapter: side.adapter,
        };
        Ok(side.model.evaluate(&self.runtime, &batch)?)
    }

    /// Adds the gradient of sum w nll over `rows` of `batch`, and gives its losses.
    pub fn add_gradients(&mut self, batch: &Batch, rows: &Rows, balancing: &Balancing) -> Result<Losses> {
        let ids = targets(batch, rows.rows);
        let Side { model, adapter } = self.subject.trained();
        let targets = Targets { ids: &ids, weights: rows.weights, z: self.training.z_loss };
        let batch = ModelBatch {
            tokens: &batch.tokens,
            documents: &batch.documents,
            rows: rows.rows,
            targets,
            recompute: self.training.recompute,
            adapter,
        };
        let mut gradients = self.subject.gradients(&mut self.gradients);
        Ok(model.backward(&self.runtime, &batch, balancing, &mut gradients)?)
    }

    /// How the router was spread, ready to be added to.
    pub fn loads(&self) -> Loads {
        Loads::of(self.subject.trained().model)
    }

    /// Moves the trained numbers along the gradients by learning rate `lr`, and forgets the gradients, whose length
    /// before clipping it gives. An error names the tensor in which a broken number shows; then nothing that was saved
    /// holds it.
    pub fn update(&mut self, loss: f64, lr: f32) -> Result<f64> {
        let tensors = self.subject.tensors();
        if !loss.is_finite() {
            let gradient = first_broken(&self.runtime, tensors, &self.gradients)?;
            return Err(self.not_finite(match gradient {
                Some(name) => format!("the loss, and with it the gradient of {name},"),
                None => "the loss".into(),
            }));
        }
        let norm = optimizer::norm(&self.runtime, tensors, &self.gradients, self.step + 1)?;
        let update = Update { training: &self.training, step: self.step, lr, norm };
        let tensors = tensors.to_vec();
        let values = self.subject.change();
        optimizer::update(&self.runtime, &tensors, values, &self.gradients, &mut self.moments, &update)?;
        if let Some(name) = first_broken(&self.runtime, &tensors, values)? {
            return Err(self.not_finite(format!("the updated weight {name}")));
        }
        self.gradients.fill(0.0);
        self.step += 1;
        Ok(norm)
    }

    /// An error of the step that is going on.
    fn not_finite(&self, what: String) -> Error {
        Error::NotFinite { step: self.step + 1, what }
    }
}

fn targets(batch: &Batch, rows: &[u32]) -> Vec<u32> {
    rows.iter().map(|&row| batch.targets[row as usize]).collect()
}
