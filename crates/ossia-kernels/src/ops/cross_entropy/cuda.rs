//! The launchers; the kernel is in `train.cu`. Rows are taken in chunks as on the processor.

use super::Targets;
use crate::cuda::{Argument, Gpu, Shape};
use crate::ops::linear::cuda_train::{self as linear, Io};
use crate::ops::linear::{Linear, LinearGrad, Write};
use crate::{Result, Tensor};

/// Logits that are held at once, unless that is very few rows: weights are read again for each chunk.
const LOGITS: usize = 1 << 26;

/// Rows of a chunk.
fn chunk_rows(vocab: usize) -> usize {
    (LOGITS / vocab).clamp(128, 4096)
}

/// Numbers of scratch besides dt, for so many rows.
pub fn scratch_len(rows: usize, vocab: usize) -> usize {
    chunk_rows(vocab).min(rows) * vocab + 3 * rows
}

/// nll [R], and where there is a `back` (its gradients and dt) what it grows by.
pub(super) fn rows(
    gpu: &Gpu,
    t: &Tensor,
    unembedding: &Linear,
    targets: Targets,
    mut back: Option<(&mut LinearGrad, &Tensor)>,
) -> Result<Vec<f32>> {
    let (vocab, d, count) = (unembedding.rows(), unembedding.cols(), t.rows());
    let chunk = chunk_rows(vocab);
    let mut ids = gpu.take(count)?;
    ids.upload(&targets.ids.iter().flat_map(|id| id.to_le_bytes()).collect::<Vec<_>>())?;
    let weights = if back.is_some() { Some(gpu.uploaded(targets.weights)?) } else { None };
    let (nll, logits) = (gpu.take(count)?, gpu.take(chunk.min(count) * vocab)?);
    for first in (0..count).step_by(chunk) {
        let rows = chunk.min(count - first);
        let at = |tensor: &Tensor| Argument::from(tensor.device()).plus(4 * first * d);
        linear::apply(gpu, at(t), unembedding, (&logits).into(), rows, Write::Set)?;
        let arguments = [
            (&logits).into(),
            Argument::from(&ids).plus(4 * first),
            weights.as_ref().map_or(Argument::NULL, |weights| Argument::from(weights).plus(4 * first)),
            targets.z.into(),
            Argument::from(&nll).plus(4 * first),
            vocab.into(),
        ];
        let shape = Shape { grid: (rows, 1, 1), threads: 256, shared: 0 };
        // SAFETY: (logits, ids, weights, z, nll, vocab), and ids lie inside the vocabulary.
        unsafe { gpu.launch("cross_entropy.train", "cross_entropy_rows", shape, &arguments)? };
        if let Some((grad, dt)) = &mut back {
            let io = Io { x: at(t), dy: (&logits).into(), dx: at(dt), rows };
            linear::gradients(gpu, &io, unembedding, grad, Write::Set)?;
        }
    }
    nll.download()
}
