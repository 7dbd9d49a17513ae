//! A task is a tensor.

use super::{Form, Stored};
use crate::Runtime;
use crate::cpu::disjoint::Disjoint;
use crate::quantize_mxfp4::fake_quantize;

pub fn look(
    runtime: &Runtime,
    weights: &[f32],
    seen: &mut [f32],
    tensors: &[Stored],
    form: &(dyn Fn(usize) -> Form + Sync),
) {
    let seen = Disjoint::new(seen);
    runtime.pool.run(tensors.len(), &|which, _| {
        let range = tensors[which].range.clone();
        // SAFETY: tensors of a run do not overlap.
        let part = unsafe { seen.part(range.clone()) };
        part.copy_from_slice(&weights[range]);
        match form(which) {
            Form::Whole => {}
            Form::Bf16 => part.iter_mut().for_each(|v| *v = half::bf16::from_f32(*v).to_f32()),
            Form::Mxfp4 => fake_quantize(part),
        }
    });
}
