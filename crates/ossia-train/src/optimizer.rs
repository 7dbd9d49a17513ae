//! From gradients to new weights: Muon or AdamW for each tensor, clipping over all of them.

use ossia_kernels::Runtime;
use ossia_kernels::ops::{adamw, muon, squares};
use ossia_model::gpt_oss::parameters::{Class, Parameter};

use crate::error::{Error, Result};
use crate::losses::ranges;
use crate::recipe::{Optimizer, Training};

/// The moments, two numbers for each parameter; Muon uses the first only.
#[derive(Clone, Debug, PartialEq)]
pub struct Moments {
    /// m, or Muon's momentum.
    pub first: Vec<f32>,
    /// v.
    pub second: Vec<f32>,
}

impl Moments {
    /// Zeros.
    pub fn new(len: usize) -> Self {
        Self { first: vec![0.0; len], second: vec![0.0; len] }
    }
}

/// One update.
pub struct Update<'a> {
    /// Hyperparameters.
    pub training: &'a Training,
    /// Updates done before this one.
    pub step: u64,
    /// Learning rate.
    pub lr: f32,
    /// The gradient's length, from [`norm`].
    pub norm: f64,
}

/// The Euclidean length of all gradients; an error names the first tensor that holds a number that is not finite.
/// `tensors` are all tensors of the run `gradients`, in order.
pub fn norm(runtime: &Runtime, tensors: &[Parameter], gradients: &[f32], step: u64) -> Result<f64> {
    let squares = squares::forward(runtime, gradients, &ranges(tensors))?;
    match squares.iter().position(|s| !s.is_finite()) {
        Some(at) => Err(Error::NotFinite { step, what: format!("the gradient of {}", tensors[at].name) }),
        None => Ok(squares.iter().sum::<f64>().sqrt()),
    }
}

/// Moves the weights; `tensors` are all tensors of the runs, in order.
pub fn update(
    runtime: &Runtime,
    tensors: &[Parameter],
    weights: &mut [f32],
    gradients: &[f32],
    moments: &mut Moments,
    update: &Update,
) -> Result<()> {
    let t = update.training;
    let scale = if update.norm > f64::from(t.clip) { (f64::from(t.clip) / update.norm) as f32 } else { 1.0 };
    let mut matrices = Vec::new();
    let (mut weights, mut first, mut second) = (weights, &mut moments.first[..], &mut moments.second[..]);
    for p in tensors {
        let n = p.range.len();
        let [value, m, v] = [&mut weights, &mut first, &mut second].map(|run| run.split_off_mut(..n).expect("counted"));
        let gradient = &gradients[p.range.clone()];
        if by_muon(p, t.optimizer) {
            let (rows, cols) = (p.shape[0], p.shape[1]);
            matrices.push(muon::Parameter { value, gradient, momentum: m, rows, cols });
        } else {
            let settings = adamw::Settings {
                lr: update.lr,
                betas: t.betas,
                eps: t.eps,
                decay: if decays(p.class) { t.weight_decay } else { 0.0 },
                step: update.step + 1,
                scale,
            };
            adamw::update(runtime, value, gradient, (m, v), &settings)?;
        }
    }
    let settings = muon::Settings { lr: update.lr, momentum: t.momentum, decay: t.weight_decay, scale };
    Ok(muon::update(runtime, &mut matrices, &settings)?)
}

fn by_muon(p: &Parameter, optimizer: Optimizer) -> bool {
    optimizer == Optimizer::Muon && matches!(p.class, Class::Attention | Class::Expert)
}

/// Norms, biases and sinks are not pulled to zero, nor are the tables: a rare token's row would fade.
fn decays(class: Class) -> bool {
    matches!(class, Class::Attention | Class::Expert | Class::Router | Class::Adapter)
}

/// Bytes of scratch of a GPU for an update.
pub fn gpu_scratch_bytes(tensors: &[Parameter], optimizer: Optimizer) -> usize {
    let matrices = tensors.iter().filter(|p| by_muon(p, optimizer));
    let largest = matrices.map(|p| muon::gpu_scratch_len(p.shape[0], p.shape[1])).max().unwrap_or(0);
    4 * largest.max(squares::gpu_scratch_len(&ranges(tensors)))
}

/// Bytes of scratch for an update.
pub fn scratch_bytes(tensors: &[Parameter], threads: usize, optimizer: Optimizer) -> usize {
    let matrices = tensors.iter().filter(|p| by_muon(p, optimizer));
    matrices.map(|p| muon::scratch_bytes(threads, p.shape[0], p.shape[1])).max().unwrap_or(0)
}
