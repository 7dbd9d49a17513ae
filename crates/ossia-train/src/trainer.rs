//! One update after another: gradients of micro batches added up, then the optimizer.
//!
//! Three runs of numbers: the weights in full precision, what the forward pass sees of them (the same, or rounded to
//! what a file will hold), and the gradients. Everything depends on the recipe and the cursor alone, in fixed order, so a run
//! that was broken off goes on to the same bits.

use ossia_kernels::arena::Arena;
use ossia_kernels::cpu::isa::Isa;
use ossia_kernels::ops::cross_entropy::Targets;
use ossia_kernels::pool::Pool;
use ossia_kernels::quantize_mxfp4::fake_quantize;
use ossia_kernels::{Floats, Precision, Runtime};
use ossia_model::gpt_oss::backward::{Batch as ModelBatch, Losses};
use ossia_model::gpt_oss::balance::{Balancing, Loads};
use ossia_model::gpt_oss::config::Config;
use ossia_model::gpt_oss::forward::Transformer;
use ossia_model::gpt_oss::parameters::{Class, Parameters};
use ossia_model::gpt_oss::scratch::{self, LargestBatch};

use crate::dataset::{Batch, BatchSettings, Batches, Cursor, Document, NUM_CLASSES, class};
use crate::error::{Error, Result};
use crate::losses::{Sums, first_broken, predicting_rows, shares};
use crate::optimizer::{self, Moments, Update};
use crate::recipe::Recipe;
use crate::{init, schedule};

/// What one update did.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Mean cross entropy over learned tokens, nats.
    pub loss: f64,
    /// The same for each class, where the batch had such tokens.
    pub per_class: [Option<f64>; NUM_CLASSES],
    /// The router's auxiliary loss with its coefficient.
    pub aux: f64,
    /// Length of the gradient before clipping.
    pub grad_norm: f64,
    /// Learning rate.
    pub lr: f32,
    /// Tokens of the batch.
    pub tokens: usize,
    /// Its documents.
    pub documents: usize,
    /// Rows of each of them.
    pub lengths: Vec<usize>,
    /// Share of each layer's routes that went to each expert.
    pub expert_load: Vec<Vec<f32>>,
}

/// A model that is being trained.
pub struct Trainer {
    recipe: Recipe,
    parameters: Parameters,
    runtime: Runtime,
    batches: Batches,
    validation: Vec<Document>,
    step: u64,
    weights: Vec<f32>,
    moments: Moments,
    gradients: Vec<f32>,
    /// What the forward pass sees.
    seen: Floats,
}

/// What a checkpoint holds besides weights and moments.
pub struct Place {
    /// Updates done.
    pub step: u64,
    /// Where the next batch begins.
    pub cursor: Cursor,
}

impl Trainer {
    /// A new model, on `threads` threads.
    pub fn new(
        recipe: &Recipe,
        config: &Config,
        batches: Batches,
        validation: Vec<Document>,
        threads: usize,
    ) -> Result<Self> {
        let parameters = Parameters::of(config);
        let weights = init::weights(&parameters, &recipe.init, recipe.seed);
        let largest = LargestBatch {
            tokens: recipe.training.micro_tokens,
            threads,
            recompute: recipe.training.recompute,
            adapter_rank: 0,
        };
        let update = optimizer::scratch_bytes(parameters.tensors(), threads, recipe.training.optimizer);
        let arena = Arena::new(scratch::training_bytes(config, largest).max(update));
        let runtime = Runtime::on_cpu(Pool::new(threads), arena, Isa::detect(), Precision::F32);
        let len = parameters.len();
        Ok(Self {
            recipe: recipe.clone(),
            runtime,
            batches,
            validation,
            step: 0,
            weights,
            moments: Moments::new(len),
            gradients: vec![0.0; len],
            seen: Floats::new(vec![0.0; len]),
            parameters,
        })
    }

    /// How documents become batches in this recipe.
    pub fn batch_settings(recipe: &Recipe) -> BatchSettings {
        let (seed, max_len) = (recipe.seed, recipe.data.max_len);
        BatchSettings { seed, max_len, class_weights: recipe.data.weights.classes() }
    }

    /// Updates done.
    pub fn step_number(&self) -> u64 {
        self.step
    }

    /// The tensors.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// The machine.
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// The weights in full precision.
    pub fn weights(&self) -> &[f32] {
        &self.weights
    }

    /// The optimizer's moments.
    pub fn moments(&self) -> &Moments {
        &self.moments
    }

    /// Where the run is.
    pub fn place(&self) -> Place {
        Place { step: self.step, cursor: self.batches.cursor() }
    }

    /// Goes on where another trainer of the same recipe was.
    pub fn restore(&mut self, place: &Place, weights: Vec<f32>, moments: Moments) -> Result<()> {
        assert!(weights.len() == self.weights.len() && moments.first.len() == weights.len(), "of this model");
        self.batches.restore(place.cursor)?;
        (self.step, self.weights, self.moments) = (place.step, weights, moments);
        Ok(())
    }

    /// Whether the forward pass sees weights as a file will hold them.
    pub fn is_quantized(&self) -> bool {
        // After the last step it still does: what was trained is what is measured and kept.
        let last = self.step.min(self.recipe.training.steps - 1);
        schedule::quantized(self.recipe.quantize.from, last, self.recipe.training.steps)
    }

    /// What the forward pass sees of the weights now.
    pub fn seen_weights(&mut self) -> &Floats {
        self.look();
        &self.seen
    }

    /// Refreshes what the forward pass sees.
    fn look(&mut self) {
        let quantized = self.is_quantized();
        let seen = self.seen.change();
        seen.copy_from_slice(&self.weights);
        if quantized {
            let mut rest = seen;
            let mut parts = Vec::new();
            for p in self.parameters.tensors() {
                let part = rest.split_off_mut(..p.range.len()).expect("counted");
                parts.push(std::sync::Mutex::new((p.class, part)));
            }
            self.runtime.pool.run(parts.len(), &|which, _| {
                let (class, part) = &mut *parts[which].lock().unwrap_or_else(|e| e.into_inner());
                as_stored(*class, part);
            });
        }
    }

    fn model(&mut self) -> Result<Transformer> {
        self.look();
        let model = self.parameters.transformer(&self.seen, &self.runtime.pool);
        model.map_err(|error| match first_broken(self.parameters.tensors(), &self.seen) {
            Some(name) => self.not_finite(format!("the weight {name}")),
            None => error.into(),
        })
    }

    /// An error of the step that is going on.
    fn not_finite(&self, what: String) -> Error {
        Error::NotFinite { step: self.step + 1, what }
    }

    /// The same for the loss, with the tensor in which it shows.
    fn broken_loss(&self) -> Error {
        self.not_finite(match first_broken(self.parameters.tensors(), &self.seen) {
            Some(name) => format!("the loss, because of the weight {name},"),
            None => match first_broken(self.parameters.tensors(), &self.gradients) {
                Some(name) => format!("the loss, and with it the gradient of {name},"),
                None => "the loss".into(),
            },
        })
    }

    /// One update.
    pub fn step(&mut self) -> Result<Outcome> {
        let training = self.recipe.training.clone();
        let batch = self.batches.next_batch(training.batch_tokens)?;
        let model = self.model()?;
        self.gradients.fill(0.0);
        let weight: f64 = batch.weights.iter().map(|&w| f64::from(w)).sum::<f64>().max(f64::MIN_POSITIVE);
        let (tokens, documents) = (batch.num_rows(), batch.documents.len());
        let lengths = batch.documents.iter().map(ExactSizeIterator::len).collect();
        let mut sums = Sums::default();
        let mut loads = Loads::of(&model);
        let aux = schedule::line(training.aux_loss, self.step, training.steps);
        for micro in batch.split(training.micro_tokens)? {
            let share = micro.num_rows() as f32 / tokens as f32;
            let balancing = Balancing { aux: aux * share, pooled: false, z: training.router_z_loss * share };
            let losses = self.add_gradients(&model, &micro, weight, training.z_loss, &balancing)?;
            sums.add(&micro, &losses.nll);
            loads.add(&losses.loads);
        }
        drop(model);
        let loss = sums.mean();
        if !loss.is_finite() {
            return Err(self.broken_loss());
        }
        let norm = optimizer::norm(&self.runtime, self.parameters.tensors(), &self.gradients, self.step + 1)?;
        let lr = schedule::learning_rate(&training, self.step);
        let update = Update { training: &training, step: self.step, lr, norm };
        let (weights, moments) = (&mut self.weights, &mut self.moments);
        optimizer::update(&self.runtime, self.parameters.tensors(), weights, &self.gradients, moments, &update)?;
        // Before anybody can save them.
        if let Some(name) = first_broken(self.parameters.tensors(), &self.weights) {
            return Err(self.not_finite(format!("the updated weight {name}")));
        }
        self.step += 1;
        let expert_load = loads.layers().iter().map(|layer| shares(&layer.counts)).collect();
        let aux = f64::from(aux) * loads.aux(false) + f64::from(training.router_z_loss) * loads.z();
        let per_class = sums.per_class();
        Ok(Outcome { loss, per_class, aux, grad_norm: norm, lr, tokens, documents, lengths, expert_load })
    }

    fn add_gradients(
        &mut self,
        model: &Transformer,
        micro: &Batch,
        weight: f64,
        z: f32,
        balancing: &Balancing,
    ) -> Result<Losses> {
        let rows = predicting_rows(micro);
        let ids: Vec<u32> = rows.iter().map(|&r| micro.targets[r as usize]).collect();
        let weights: Vec<f32> = rows.iter().map(|&r| (f64::from(micro.weights[r as usize]) / weight) as f32).collect();
        let targets = Targets { ids: &ids, weights: &weights, z };
        let recompute = self.recipe.training.recompute;
        let batch = ModelBatch {
            tokens: &micro.tokens,
            documents: &micro.documents,
            rows: &rows,
            targets,
            recompute,
            adapter: None,
        };
        let mut gradients = self.parameters.gradients(&mut self.gradients);
        Ok(model.backward(&self.runtime, &batch, balancing, &mut gradients)?)
    }

    /// Mean cross entropy over the learned tokens of the held-out documents, nats; nothing where there are no such tokens.
    pub fn validate(&mut self) -> Result<Option<f64>> {
        if self.validation.is_empty() {
            return Ok(None);
        }
        let mut weights = self.recipe.data.weights.classes();
        weights[usize::from(class::CONTEXT)] = 0.0;
        let all = Batch::of(&self.validation, self.recipe.data.max_len, &weights);
        let model = self.model()?;
        let mut sums = Sums::default();
        for micro in all.split(self.recipe.training.micro_tokens)? {
            let rows = predicting_rows(&micro);
            let ids: Vec<u32> = rows.iter().map(|&r| micro.targets[r as usize]).collect();
            let targets = Targets { ids: &ids, weights: &[], z: 0.0 };
            let (tokens, documents) = (&micro.tokens, &micro.documents);
            let batch = ModelBatch { tokens, documents, rows: &rows, targets, recompute: true, adapter: None };
            sums.add(&micro, &model.evaluate(&self.runtime, &batch)?);
        }
        drop(model);
        if sums.count == [0.0; NUM_CLASSES] {
            return Ok(None);
        }
        let loss = sums.mean();
        if loss.is_finite() {
            return Ok(Some(loss));
        }
        Err(Error::NotFinite { step: self.step, what: "the loss of the held-out documents".into() })
    }
}

/// What a file will hold: experts as MXFP4, everything else as BF16.
fn as_stored(class: Class, values: &mut [f32]) {
    match class {
        Class::Expert => fake_quantize(values),
        _ => values.iter_mut().for_each(|v| *v = half::bf16::from_f32(*v).to_f32()),
    }
}
