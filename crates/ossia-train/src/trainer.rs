//! One update after another: gradients of micro batches added up, then the optimizer.
//!
//! Three runs of numbers: the weights in full precision, what the forward pass sees of them (the same, or rounded to
//! what a file will hold), and the gradients. On a GPU they and the moments are its own, and the host's are what is saved and
//! restored. Everything depends on the recipe and the cursor alone, in fixed order, so a run
//! that was broken off goes on to the same bits.

use ossia_kernels::arena::Arena;
use ossia_kernels::cpu::isa::Isa;
use ossia_kernels::cuda::{Device, Gpu};
use ossia_kernels::ops::cross_entropy::Targets;
use ossia_kernels::ops::stored::{self, Form, Stored};
use ossia_kernels::pool::Pool;
use ossia_kernels::{Floats, Precision, Runtime};
use ossia_model::gpt_oss::backward::{Batch as ModelBatch, Losses};
use ossia_model::gpt_oss::balance::{Balancing, Loads};
use ossia_model::gpt_oss::config::Config;
use ossia_model::gpt_oss::forward::Transformer;
use ossia_model::gpt_oss::parameters::{Class, Parameters};
use ossia_model::gpt_oss::scratch::{self, LargestBatch, gpu_training_bytes};

use crate::dataset::{Batch, BatchSettings, Batches, Cursor, Document, NUM_CLASSES, class};
use crate::error::{Error, Result};
use crate::losses::{Sums, first_broken, predicting_rows, shares};
use crate::optimizer::{self, Moments, Update};
use crate::recipe::{Recipe, Training};
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
    /// The tensors, for what is seen.
    stored: Vec<Stored>,
}

/// What a checkpoint holds besides weights and moments.
pub struct Place {
    /// Updates done.
    pub step: u64,
    /// Where the next batch begins.
    pub cursor: Cursor,
}

impl Trainer {
    /// A new model, on `device` and `threads` threads.
    pub fn new(
        recipe: &Recipe,
        config: &Config,
        batches: Batches,
        validation: Vec<Document>,
        (device, threads): (&Device, usize),
    ) -> Result<Self> {
        let parameters = Parameters::of(config);
        let weights = init::weights(&parameters, &recipe.init, recipe.seed);
        let runtime = runtime(recipe, &parameters, device, threads)?;
        let len = parameters.len();
        let trainer = Self {
            recipe: recipe.clone(),
            runtime,
            batches,
            validation,
            step: 0,
            weights,
            moments: Moments::new(len),
            gradients: vec![0.0; len],
            seen: Floats::new(vec![0.0; len]),
            stored: parameters.stored(),
            parameters,
        };
        let Moments { first, second } = &trainer.moments;
        for run in [&trainer.weights, first, second, &trainer.gradients] {
            trainer.runtime.hold(run)?;
        }
        stored::hold(&trainer.runtime, &trainer.seen, &trainer.stored)?;
        trainer.runtime.send(&trainer.weights)?;
        Ok(trainer)
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

    /// Brings weights and moments to the host as they are now.
    pub fn fetch(&mut self) -> Result<()> {
        for run in [&mut self.weights, &mut self.moments.first, &mut self.moments.second] {
            self.runtime.fetch(run)?;
        }
        Ok(())
    }

    /// The weights in full precision, as they were when they were last fetched.
    pub fn weights(&self) -> &[f32] {
        &self.weights
    }

    /// The optimizer's moments, as they were when they were last fetched.
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
        self.step = place.step;
        // In their place, by which a device finds its own.
        let runs = [&mut self.weights, &mut self.moments.first, &mut self.moments.second];
        for (run, values) in runs.into_iter().zip([weights, moments.first, moments.second]) {
            run.copy_from_slice(&values);
            self.runtime.send(run)?;
        }
        Ok(())
    }

    /// Whether the forward pass sees weights as a file will hold them.
    pub fn is_quantized(&self) -> bool {
        // After the last step it still does: what was trained is what is measured and kept.
        let last = self.step.min(self.recipe.training.steps - 1);
        schedule::quantized(self.recipe.quantize.from, last, self.recipe.training.steps)
    }

    /// What the forward pass sees of the weights now. On a GPU this is its own, and the host's run is only its name.
    pub fn seen_weights(&mut self) -> Result<&Floats> {
        self.look()?;
        Ok(&self.seen)
    }

    /// Refreshes what the forward pass sees: with quantization what a file will hold, experts as MXFP4, everything else as BF16.
    fn look(&mut self) -> Result<()> {
        let (quantized, tensors) = (self.is_quantized(), self.parameters.tensors());
        let form = |which: usize| match tensors[which].class {
            _ if !quantized => Form::Whole,
            Class::Expert => Form::Mxfp4,
            _ => Form::Bf16,
        };
        Ok(stored::look(&self.runtime, &self.weights, self.seen.change(), &self.stored, &form)?)
    }

    fn model(&mut self) -> Result<Transformer> {
        self.look()?;
        let model = match self.parameters.transformer(&self.seen, &self.runtime.pool) {
            Ok(model) => model,
            Err(error) => {
                let name = first_broken(&self.runtime, self.parameters.tensors(), &self.weights)?;
                return Err(name.map_or(error.into(), |name| self.not_finite(format!("the weight {name}"))));
            }
        };
        self.parameters.name(&model, &self.seen, &self.runtime);
        Ok(model)
    }

    /// An error of the step that is going on.
    fn not_finite(&self, what: String) -> Error {
        Error::NotFinite { step: self.step + 1, what }
    }

    /// The same for the loss, with the tensor in which it shows.
    fn broken_loss(&self) -> Error {
        let broken = |values: &[f32]| first_broken(&self.runtime, self.parameters.tensors(), values);
        let what = broken(&self.weights).and_then(|weight| match weight {
            Some(name) => Ok(format!("the loss, because of the weight {name},")),
            None => Ok(broken(&self.gradients)?
                .map_or_else(|| "the loss".into(), |name| format!("the loss, and with it the gradient of {name},"))),
        });
        what.map_or_else(|error| error, |what| self.not_finite(what))
    }

    /// One update.
    pub fn step(&mut self) -> Result<Outcome> {
        let training = self.recipe.training.clone();
        let batch = self.batches.next_batch(training.batch_tokens)?;
        let model = self.model()?;
        self.runtime.clear(&mut self.gradients)?;
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
        if let Some(name) = first_broken(&self.runtime, self.parameters.tensors(), &self.weights)? {
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

/// Where a run is computed, with scratch for its largest batch and its update.
fn runtime(recipe: &Recipe, parameters: &Parameters, device: &Device, threads: usize) -> Result<Runtime> {
    let (tensors, optimizer) = (parameters.tensors(), recipe.training.optimizer);
    let (pool, isa, precision) = (Pool::new(threads), Isa::detect(), Precision::F32);
    let tokens = recipe.training.micro_tokens;
    let arena = match device {
        Device::Cpu => {
            let recompute = recipe.training.recompute;
            let largest = LargestBatch { tokens, threads, recompute, adapter_rank: 0 };
            let update = optimizer::scratch_bytes(tensors, threads, optimizer);
            Arena::new(scratch::training_bytes(parameters.config(), largest).max(update))
        }
        Device::Cuda(gpu) => {
            gpu.reserve_scratch(gpu_scratch_bytes(recipe, parameters))?;
            // Of each layer two empty ranges.
            Arena::new(128 * (parameters.config().num_layers + 8))
        }
    };
    Ok(Runtime { pool, arena, isa, precision, device: device.clone() })
}

/// Bytes of a GPU's scratch for the largest batch and the update.
fn gpu_scratch_bytes(recipe: &Recipe, parameters: &Parameters) -> usize {
    let Training { micro_tokens, recompute, optimizer, .. } = recipe.training;
    let config = parameters.config();
    let step = gpu_training_bytes(config, micro_tokens, recompute);
    // What the last step was told of its documents is there until the next begins; a range begins at a multiple of 256 bytes.
    let told = 4 * (Gpu::training_tables_len(micro_tokens) + micro_tokens * config.head_dim) + (1 << 20);
    step.max(told + optimizer::gpu_scratch_bytes(parameters.tensors(), optimizer))
}

/// What a run takes of a GPU's memory, bytes: the weights, what is seen of them, gradients and two moments; and scratch.
pub(crate) fn gpu_bytes(recipe: &Recipe, config: &Config) -> (usize, usize) {
    let parameters = Parameters::of(config);
    let seen = stored::gpu_bytes(parameters.len(), &parameters.stored());
    (4 * 4 * parameters.len() + seen, gpu_scratch_bytes(recipe, &parameters))
}
