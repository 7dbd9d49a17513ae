//! The launchers; the kernels are in `train.cu`.

use super::{Form, Stored};
use crate::Result;
use crate::cuda::{Argument, Gpu, Shape};
use crate::mxfp4::GROUP;

pub(super) fn look(
    gpu: &Gpu,
    weights: &[f32],
    seen: &[f32],
    tensors: &[Stored],
    form: &dyn Fn(usize) -> Form,
) -> Result<()> {
    let launch = |kernel: &str, blocks: usize, arguments: &[Argument]| {
        let shape = Shape { grid: (blocks, 1, 1), threads: 256, shared: 0 };
        // SAFETY: (x, out, n) or (x, out, groups), and (x, out, n, rounds); ranges lie inside the runs.
        unsafe { gpu.launch("stored.train", kernel, shape, arguments) }
    };
    let halves = |at: usize| gpu.seen_halves(seen[at..].as_ptr().cast()).expect("stored: a run that is held");
    let (from, n) = (gpu.part(weights), weights.len());
    launch("stored_bf16", n.div_ceil(512), &[from, halves(0), Argument::long(n)])?;
    for (which, tensor) in tensors.iter().enumerate() {
        let (start, len, form) = (tensor.range.start, tensor.range.len(), form(which));
        let from = from.plus(4 * start);
        if form == Form::Mxfp4 {
            let groups = len / GROUP;
            launch("stored_mxfp4", groups.div_ceil(8), &[from, halves(start), Argument::long(groups)])?;
        } else if tensor.exact {
            let out = gpu.seen_exact(seen[start..].as_ptr().cast()).expect("stored: held exactly");
            let rounds = usize::from(form == Form::Bf16).into();
            launch("stored_exact", len.div_ceil(256), &[from, out, Argument::long(len), rounds])?;
        }
    }
    Ok(())
}
