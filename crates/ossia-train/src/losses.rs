//! What trainers of all kinds count: losses by class of token, and which tensor a broken number shows in first.

use std::ops::Range;

use ossia_kernels::Runtime;
use ossia_kernels::ops::squares;
use ossia_model::gpt_oss::parameters::Parameter;

use crate::dataset::{Batch, NUM_CLASSES, class};
use crate::error::Result;

/// The name of the first tensor that holds a number that is not finite. `tensors` are all tensors of the run `values`, in order.
pub(crate) fn first_broken<'a>(runtime: &Runtime, tensors: &'a [Parameter], values: &[f32]) -> Result<Option<&'a str>> {
    let squares = squares::forward(runtime, values, &ranges(tensors))?;
    Ok(squares.iter().position(|square| !square.is_finite()).map(|at| tensors[at].name.as_str()))
}

/// Where the tensors' numbers lie.
pub(crate) fn ranges(tensors: &[Parameter]) -> Vec<Range<usize>> {
    tensors.iter().map(|p| p.range.clone()).collect()
}

/// Rows whose loss counts.
pub(crate) fn predicting_rows(batch: &Batch) -> Vec<u32> {
    (0..batch.num_rows() as u32).filter(|&row| batch.weights[row as usize] > 0.0).collect()
}

/// Of each expert's routes, as shares of all.
pub(crate) fn shares(counts: &[f64]) -> Vec<f32> {
    let all: f64 = counts.iter().sum();
    counts.iter().map(|c| (c / all.max(1.0)) as f32).collect()
}

/// Losses by class.
#[derive(Default)]
pub(crate) struct Sums {
    /// Sums, nats.
    pub(crate) nll: [f64; NUM_CLASSES],
    /// Tokens.
    pub(crate) count: [f64; NUM_CLASSES],
}

impl Sums {
    /// nll of the predicting rows of `batch`, nats.
    pub(crate) fn add(&mut self, batch: &Batch, nll: &[f32]) {
        for (row, nll) in predicting_rows(batch).into_iter().zip(nll) {
            let class = usize::from(batch.classes[row as usize]);
            self.nll[class] += f64::from(*nll);
            self.count[class] += 1.0;
        }
    }

    /// Over what is learned; context counts only where nothing else is there.
    pub(crate) fn mean(&self) -> f64 {
        let learned = usize::from(class::CONTEXT) + 1..NUM_CLASSES;
        let sum = |of: &[f64; NUM_CLASSES]| of[learned.clone()].iter().sum::<f64>();
        let (nll, count) = (sum(&self.nll), sum(&self.count));
        if count > 0.0 { nll / count } else { self.nll[0] / self.count[0].max(1.0) }
    }

    /// The mean of each class that had tokens.
    pub(crate) fn per_class(&self) -> [Option<f64>; NUM_CLASSES] {
        std::array::from_fn(|c| (self.count[c] > 0.0).then(|| self.nll[c] / self.count[c]))
    }
}
