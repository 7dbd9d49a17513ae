//! What is trained: an adapter over a model that stays as it is, or every weight of a model.
//!
//! The trained numbers are one run of f32 with a range for each tensor. For a step they are lent to the model (`look`)
//! and taken back to be changed (`change`). The base is neither copied nor touched: the same weights, without the
//! adapter, are the reference that preferences and policies are measured against.

use ossia_kernels::Floats;
use ossia_kernels::pool::Pool;
use ossia_model::Model;
use ossia_model::gpt_oss::adapter::{AdapterConfig, AdapterParameters};
use ossia_model::gpt_oss::backward::Gradients;
use ossia_model::gpt_oss::config::Config;
use ossia_model::gpt_oss::forward::Transformer;
use ossia_model::gpt_oss::parameters::{Parameter, Parameters};

use crate::error::Result;

/// The weights under an adapter.
pub enum Base {
    /// Weights alone.
    Weights(Box<Transformer>),
    /// Weights that can also answer.
    Decoding(Box<Model>),
}

impl Base {
    fn transformer(&self) -> &Transformer {
        match self {
            Self::Weights(transformer) => transformer,
            Self::Decoding(model) => model.transformer(),
        }
    }

    fn transformer_mut(&mut self) -> &mut Transformer {
        match self {
            Self::Weights(transformer) => transformer,
            Self::Decoding(model) => model.transformer_mut(),
        }
    }
}

/// A model and the slot of the adapter that it is to be run with.
#[derive(Clone, Copy)]
pub struct Side<'a> {
    /// The weights.
    pub model: &'a Transformer,
    /// None is the base.
    pub adapter: Option<usize>,
}

/// What is trained.
pub struct Subject {
    kind: Kind,
    values: Floats,
}

enum Kind {
    Adapter { base: Base, parameters: Box<AdapterParameters>, slot: Option<usize> },
    Full { parameters: Box<Parameters>, seen: Option<Box<Transformer>> },
}

impl Subject {
    /// A new adapter, which changes nothing yet.
    pub fn adapter(base: Base, config: &Config, adapter: &AdapterConfig, seed: u64) -> Self {
        let parameters = Box::new(AdapterParameters::of(config, adapter));
        let values = Floats::new(parameters.init(seed));
        Self { kind: Kind::Adapter { base, parameters, slot: None }, values }
    }

    /// Every weight of `model`, as floats.
    pub fn full(model: &Transformer, config: &Config) -> Self {
        let parameters = Box::new(Parameters::of(config));
        let values = Floats::new(parameters.read(model));
        Self { kind: Kind::Full { parameters, seen: None }, values }
    }

    /// The trained tensors, in order.
    pub fn tensors(&self) -> &[Parameter] {
        match &self.kind {
            Kind::Adapter { parameters, .. } => parameters.tensors(),
            Kind::Full { parameters, .. } => parameters.tensors(),
        }
    }

    /// The adapter's tensors, where an adapter is trained.
    pub fn adapter_parameters(&self) -> Option<&AdapterParameters> {
        match &self.kind {
            Kind::Adapter { parameters, .. } => Some(parameters),
            Kind::Full { .. } => None,
        }
    }

    /// The model's tensors, where all are trained.
    pub fn parameters(&self) -> Option<&Parameters> {
        match &self.kind {
            Kind::Adapter { .. } => None,
            Kind::Full { parameters, .. } => Some(parameters),
        }
    }

    /// The trained numbers.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Lends the numbers to the model.
    pub fn look(&mut self, pool: &Pool) -> Result<()> {
        match &mut self.kind {
            Kind::Adapter { base, parameters, slot } if slot.is_none() => {
                *slot = Some(parameters.attach(&self.values, base.transformer_mut()));
            }
            Kind::Full { parameters, seen } if seen.is_none() => {
                *seen = Some(Box::new(parameters.transformer(&self.values, pool)?));
            }
            _ => {}
        }
        Ok(())
    }

    /// The numbers, to be changed; the model no longer sees them.
    pub fn change(&mut self) -> &mut [f32] {
        match &mut self.kind {
            Kind::Adapter { base, slot, .. } => {
                if let Some(slot) = slot.take() {
                    base.transformer_mut().detach(slot);
                }
            }
            Kind::Full { seen, .. } => *seen = None,
        }
        self.values.change()
    }

    /// Takes the numbers of a saved run.
    ///
    /// # Panics
    /// Where they are of another subject.
    pub fn restore(&mut self, values: Vec<f32>) {
        self.change().copy_from_slice(&values);
    }

    /// The model as it is trained.
    ///
    /// # Panics
    /// Before it was looked at.
    pub fn trained(&self) -> Side<'_> {
        match &self.kind {
            Kind::Adapter { base, slot, .. } => {
                assert!(slot.is_some(), "looked at before it is run");
                Side { model: base.transformer(), adapter: *slot }
            }
            Kind::Full { seen, .. } => {
                Side { model: seen.as_deref().expect("looked at before it is run"), adapter: None }
            }
        }
    }

    /// The model as it was, where it is still there.
    pub fn reference(&self) -> Option<Side<'_>> {
        match &self.kind {
            Kind::Adapter { base, .. } => Some(Side { model: base.transformer(), adapter: None }),
            Kind::Full { .. } => None,
        }
    }

    /// The model to answer with, and the adapter's slot.
    pub fn decoding(&mut self) -> Option<(&mut Model, Option<usize>)> {
        match &mut self.kind {
            Kind::Adapter { base: Base::Decoding(model), slot, .. } => Some((model, *slot)),
            _ => None,
        }
    }

    /// Where gradients of the trained numbers go; frozen tensors have no place.
    pub fn gradients<'a>(&self, run: &'a mut [f32]) -> Gradients<'a> {
        match &self.kind {
            Kind::Adapter { parameters, .. } => parameters.gradients(run),
            Kind::Full { parameters, .. } => parameters.gradients(run),
        }
    }
}
