//! An adapter's products, added to the model's matrices row by row while they are written.

use ossia_kernels::mxfp4::GROUP;

use super::items::{Item, Which};
use crate::checkpoint::Layout;
use crate::gpt_oss::adapter::AdapterParameters;
use crate::gpt_oss::parameters::Parameter;

/// An adapter that becomes part of the model.
#[derive(Clone, Copy)]
pub struct Merge<'a> {
    /// Its factors.
    pub parameters: &'a AdapterParameters,
    /// Their numbers.
    pub values: &'a [f32],
}

/// s B A for the rows of one matrix: row r gets that of row `first + step r` of B.
#[derive(Clone, Copy)]
pub(super) struct Delta<'a> {
    a: &'a [f32],
    b: &'a [f32],
    rank: usize,
    scale: f32,
    first: usize,
    step: usize,
}

impl<'a> Merge<'a> {
    /// What is added to a matrix of `item`, that of `expert` where it has many; nothing where it is not adapted.
    pub(super) fn delta(&self, item: Item, expert: usize) -> Option<Delta<'a>> {
        let (stem, first, step) = match item {
            Item::Unembedding => ("lm_head".to_owned(), 0, 1),
            Item::Weight(layer, linear) => (in_layer(layer, linear.stem(Layout::HuggingFace)), 0, 1),
            Item::Experts(layer, which) => {
                let (first, step) = match which {
                    Which::Gate => (0, 2),
                    Which::Up => (1, 2),
                    Which::GateUp | Which::Down => (0, 1),
                };
                (in_layer(layer, which.stem(Layout::HuggingFace)), first, step)
            }
            _ => return None,
        };
        let (parameters, values): (&'a AdapterParameters, &'a [f32]) = (self.parameters, self.values);
        let factor = |name: &str| {
            let parameter = parameters.get(&format!("{stem}.{name}.weight"))?;
            Some(one(parameter, values, expert))
        };
        let config = parameters.config();
        let (rank, scale) = (config.rank, config.scale());
        Some(Delta { a: factor("lora_A")?, b: factor("lora_B")?, rank, scale, first, step })
    }
}

impl Merge<'_> {
    /// Whether something is added to a matrix of `item`.
    pub(super) fn changes(&self, item: Item, experts: usize) -> bool {
        (0..experts).any(|expert| self.delta(item, expert).is_some_and(|delta| delta.b.iter().any(|&b| b != 0.0)))
    }
}

fn in_layer(layer: usize, stem: &str) -> String {
    format!("model.layers.{layer}.{stem}")
}

/// The matrix of one expert, or the only one.
fn one<'a>(parameter: &Parameter, values: &'a [f32], expert: usize) -> &'a [f32] {
    let all = &values[parameter.range.clone()];
    if parameter.shape.len() < 3 {
        return all;
    }
    let len = all.len() / parameter.shape[0];
    &all[expert * len..(expert + 1) * len]
}

impl Delta<'_> {
    /// B's row for row `row` of the matrix.
    fn factors(&self, row: usize) -> &[f32] {
        &self.b[(self.first + self.step * row) * self.rank..][..self.rank]
    }

    /// Whether a row stays as it is, to the bit.
    pub fn is_zero(&self, row: usize) -> bool {
        self.factors(row).iter().all(|&b| b == 0.0)
    }

    /// Adds the product's numbers to those of a group of columns.
    pub fn add(&self, row: usize, group: usize, values: &mut [f32; GROUP]) {
        let factors = self.factors(row);
        let (mut sums, cols) = ([0.0; GROUP], self.a.len() / self.rank);
        for (&b, a) in factors.iter().zip(self.a.chunks_exact(cols)) {
            let (factor, a) = (self.scale * b, &a[group * GROUP..][..GROUP]);
            sums.iter_mut().zip(a).for_each(|(sum, a)| *sum += factor * a);
        }
        values.iter_mut().zip(sums).for_each(|(value, sum)| *value += sum);
    }
}
