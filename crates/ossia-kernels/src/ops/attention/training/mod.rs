//! Attention within whole documents, straight from qkv, and its gradients.
//!
//! A task is one document and one key/value head. It walks blocks of queries (all heads of the group, so that a row is
//! a token and a head, the heads of a token side by side) and, for each, tiles of at most KEYS keys in ascending
//! order. Tiles lie as [key, row]: a lane is a row, so that maxima and sums over the keys need no step across lanes,
//! and keys and values are read where they lie, number by number.
//!
//! **Order of sums**, fixed by the document's length and the window alone: products are chains over channels, keys or
//! rows (see `product`); a row's exponentials are added key by key; o is rescaled at each tile of keys. dk and dv take
//! the blocks of queries in order, rows in order within a block. The first key of a block's first tile is rounded down to
//! a multiple of 8, so that tiles fill whole blocks of registers; keys before the window weigh 0.

mod backward;
mod forward;
mod product;
#[cfg(test)]
mod tests;
mod tile;

use super::Shape;
use crate::cpu::disjoint::Disjoint;
use crate::cpu::isa::Isa;
#[cfg(target_arch = "x86_64")]
use crate::cpu::vector::{Eight, Sixteen};
use crate::ops::rope::Heads;
use crate::{Result, Runtime, Step};
pub use tile::scratch_len;
use tile::{Document, Tiles};

/// Documents whose shares of the sinks' gradients are held at once.
const DOCUMENTS: usize = 256;

/// f32 numbers of scratch for the documents' shares of the sinks' gradients.
pub fn shares_len(heads: Heads) -> usize {
    DOCUMENTS * heads.query
}

/// Memory that tasks write in parts of their own.
#[derive(Clone, Copy)]
pub struct Shared(*mut f32);

// SAFETY: each task writes rows and columns that belong to it alone (its document's rows, its heads' columns).
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    fn new(values: &mut [f32]) -> Self {
        Self(values.as_mut_ptr())
    }
}

/// Where the forward pass writes.
#[derive(Clone, Copy)]
pub struct Outputs {
    /// [T, H d].
    o: Shared,
    /// [T, H], where it is kept.
    lse: Option<Shared>,
}

/// What the backward pass reads besides qkv, and where it writes.
#[derive(Clone, Copy)]
pub struct Gradients<'a> {
    /// [T, H d].
    o: &'a [f32],
    /// [T, H].
    lse: &'a [f32],
    /// [T, H d].
    d_o: &'a [f32],
    /// [T, (H + 2K) d].
    d_qkv: Shared,
}

/// o and, where it is wanted, ln of the sums.
pub fn forward(
    step: &Step,
    qkv: &[f32],
    sinks: &[f32],
    shape: &Shape,
    o: &mut [f32],
    lse: Option<&mut [f32]>,
) -> Result<()> {
    let outputs = Outputs { o: Shared::new(o), lse: lse.map(Shared::new) };
    let (runtime, documents) = (step.runtime, &step.sequences);
    each_task(runtime, documents.len(), shape.heads, &|number, head, tiles| {
        let document = Document::new(&documents[number], head, qkv, sinks, shape);
        // SAFETY: the op has checked the shapes; a task's rows and heads are its own.
        unsafe { forward_on(runtime.isa, &document, tiles, outputs) };
    })
}

/// The gradients of q, k, v (overwritten) and of the sinks (added to, unless frozen).
pub fn backward(
    step: &Step,
    (qkv, sinks): (&[f32], &[f32]),
    shape: &Shape,
    (o, lse, d_o): (&[f32], &[f32], &[f32]),
    d_qkv: &mut [f32],
    mut d_sinks: Option<&mut [f32]>,
) -> Result<()> {
    let (runtime, heads) = (step.runtime, shape.heads);
    let group = heads.query / heads.kv;
    let gradients = Gradients { o, lse, d_o, d_qkv: Shared::new(d_qkv) };
    let mut shares = runtime.arena.take::<f32>(shares_len(heads))?;
    for some in step.sequences.chunks(DOCUMENTS) {
        let parts = Disjoint::new(&mut shares);
        each_task(runtime, some.len(), heads, &|number, head, tiles| {
            let document = Document::new(&some[number], head, qkv, sinks, shape);
            let at = number * heads.query + head * group;
            // SAFETY: one document's share for the heads of the group, which only this task writes.
            let share = unsafe { parts.part(at..at + group) };
            // SAFETY: the op has checked the shapes; a task's rows and heads are its own.
            unsafe { backward_on(runtime.isa, &document, tiles, gradients, share) };
        })?;
        let Some(d_sinks) = &mut d_sinks else { continue };
        for share in shares.chunks_exact(heads.query).take(some.len()) {
            d_sinks.iter_mut().zip(share).for_each(|(d, s)| *d += s);
        }
    }
    Ok(())
}

/// Runs `work` for the number of each document and each key/value head, with the thread's scratch.
fn each_task(
    runtime: &Runtime,
    num_documents: usize,
    heads: Heads,
    work: &(dyn Fn(usize, usize, Tiles) + Sync),
) -> Result<()> {
    let len = scratch_len(heads);
    let mut scratch = runtime.arena.take::<f32>(runtime.pool.threads() * len)?;
    let scratch = Disjoint::new(&mut scratch);
    runtime.pool.run(num_documents * heads.kv, &|task, thread| {
        // SAFETY: a thread runs one task at a time.
        let own = unsafe { scratch.part(thread * len..(thread + 1) * len) };
        work(task / heads.kv, task % heads.kv, Tiles::new(own, heads));
    });
    Ok(())
}

/// The widest version that the machine and the number of channels allow. AVX2 and AVX-512 give the same bits.
///
/// # Safety
/// The buffers have the op's shapes, and no other thread writes the task's part of them.
unsafe fn forward_on(isa: Isa, document: &Document, tiles: Tiles, outputs: Outputs) {
    let dim = document.dim;
    // SAFETY: promised by the caller; the instruction sets are only chosen where they were detected.
    unsafe {
        match isa.of_floats() {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 if dim.is_multiple_of(16) => forward_avx512(document, tiles, outputs),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 | Isa::Avx512 if dim.is_multiple_of(8) => forward_avx2(document, tiles, outputs),
            _ if dim.is_multiple_of(4) => forward::run::<[f32; 4]>(document, tiles, outputs),
            _ => forward::run::<[f32; 1]>(document, tiles, outputs),
        }
    }
}

/// The widest version, as in `forward_on`.
///
/// # Safety
/// As `forward_on`.
unsafe fn backward_on(isa: Isa, document: &Document, tiles: Tiles, gradients: Gradients, share: &mut [f32]) {
    let dim = document.dim;
    // SAFETY: promised by the caller; the instruction sets are only chosen where they were detected.
    unsafe {
        match isa.of_floats() {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 if dim.is_multiple_of(16) => backward_avx512(document, tiles, gradients, share),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 | Isa::Avx512 if dim.is_multiple_of(8) => backward_avx2(document, tiles, gradients, share),
            _ if dim.is_multiple_of(4) => backward::run::<[f32; 4]>(document, tiles, gradients, share),
            _ => backward::run::<[f32; 1]>(document, tiles, gradients, share),
        }
    }
}

/// # Safety
/// As `forward_on`, with the features.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
unsafe fn forward_avx512(document: &Document, tiles: Tiles, outputs: Outputs) {
    // SAFETY: promised by the caller.
    unsafe { forward::run::<Sixteen>(document, tiles, outputs) }
}

/// # Safety
/// As `forward_on`, with the features.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn forward_avx2(document: &Document, tiles: Tiles, outputs: Outputs) {
    // SAFETY: promised by the caller.
    unsafe { forward::run::<Eight>(document, tiles, outputs) }
}

/// # Safety
/// As `forward_on`, with the features.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
unsafe fn backward_avx512(document: &Document, tiles: Tiles, gradients: Gradients, share: &mut [f32]) {
    // SAFETY: promised by the caller.
    unsafe { backward::run::<Sixteen>(document, tiles, gradients, share) }
}

/// # Safety
/// As `forward_on`, with the features.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn backward_avx2(document: &Document, tiles: Tiles, gradients: Gradients, share: &mut [f32]) {
    // SAFETY: promised by the caller.
    unsafe { backward::run::<Eight>(document, tiles, gradients, share) }
}
