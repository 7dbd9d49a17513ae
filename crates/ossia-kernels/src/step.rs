//! What one forward pass needs besides weights and tokens.
//!
//! A step takes the new tokens of any number of sequences, laid end to end. A chunk of a prompt, one decoded token or
//! sixty-four of them are the same call.

use std::ops::Range;

use crate::arena::Arena;
use crate::cpu::isa::Isa;
use crate::cuda::Device;
use crate::kv::{KvLayer, PageTable};
use crate::pool::Pool;
use crate::{Result, Tensor};

/// How exactly the linear layers compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// f32 activations with the weights' exact values: the reference.
    F32,
    /// 8-bit integer activations (a scale for each group of 32) where the weights are quantized.
    Fast,
}

/// What a step is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Prefill and decode: keys and values go to pages, and a token's bits do not depend on its company.
    #[default]
    Inference,
    /// Whole documents, each from position 0, and gradients after: nothing is kept in pages, and float weights are
    /// multiplied by `cpu::gemm`, or on a device as the run that is trained is seen.
    Training,
}

/// The machine's resources, planned once.
pub struct Runtime {
    /// Threads.
    pub pool: Pool,
    /// Scratch.
    pub arena: Arena,
    /// Kernel version.
    pub isa: Isa,
    /// Arithmetic of the linear layers.
    pub precision: Precision,
    /// Where ops run.
    pub device: Device,
}

impl Runtime {
    /// One whose ops run on this machine's processor.
    pub fn on_cpu(pool: Pool, arena: Arena, isa: Isa, precision: Precision) -> Self {
        Self { pool, arena, isa, precision, device: Device::Cpu }
    }
}

/// One sequence's share of a step.
pub struct Sequence<'a> {
    /// Its rows in the batch.
    pub rows: Range<usize>,
    /// Position of the first of them in the sequence.
    pub start: usize,
    /// Pages of the layers that see everything.
    pub full: &'a PageTable,
    /// Pages of the layers with a window.
    pub sliding: &'a PageTable,
    /// The slot of the adapter that its tokens go through; none is the base model. In training all have the same.
    pub adapter: Option<usize>,
}

impl Sequence<'_> {
    /// The pages of layers with or without a window.
    pub fn pages(&self, window: Option<usize>) -> &PageTable {
        if window.is_some() { self.sliding } else { self.full }
    }
}

/// Sees every op's result as it is made. For tests against goldens and for finding where a fault began.
pub trait Tap {
    /// `op` has made `result`; layers are told apart by counting.
    fn see(&mut self, op: &'static str, result: &Tensor);

    /// Whether it wants to see what a device would not make, because it does several ops at once. Then it does one by one,
    /// to the same bits.
    fn wants_all(&self) -> bool {
        true
    }
}

/// One forward pass.
pub struct Step<'a> {
    /// The machine.
    pub runtime: &'a Runtime,
    /// What it is for.
    pub phase: Phase,
    /// Who takes part; their rows lie end to end.
    pub sequences: Vec<Sequence<'a>>,
    /// Keys and values, one entry for each layer.
    pub kv: &'a mut [KvLayer],
    /// Batch rows whose logits are wanted, ascending.
    pub logits_rows: Vec<u32>,
    /// The observer, where there is one.
    pub tap: Option<&'a mut dyn Tap>,
}

impl Step<'_> {
    /// Comes before the first op of a step of training: a device is told what its ops look up.
    pub fn begin(&self, tokens: &[u32]) -> Result<()> {
        match &self.runtime.device {
            Device::Cpu => Ok(()),
            Device::Cuda(gpu) => gpu.begin_training(self, tokens),
        }
    }

    /// Tokens in the batch.
    pub fn tokens(&self) -> usize {
        self.sequences.last().map_or(0, |s| s.rows.end)
    }

    /// The adapter of a step of training.
    ///
    /// # Panics
    /// Where sequences differ in it.
    pub(crate) fn adapter(&self) -> Option<usize> {
        let adapter = self.sequences.first().and_then(|s| s.adapter);
        assert!(self.sequences.iter().all(|s| s.adapter == adapter), "a step of training has one adapter");
        adapter
    }

    /// The adapter of each of `rows` rows, which are those of the batch or those that want logits.
    pub(crate) fn slots(&self, rows: usize) -> Vec<Option<usize>> {
        let all: Vec<_> = self.sequences.iter().flat_map(|s| std::iter::repeat_n(s.adapter, s.rows.len())).collect();
        if rows == all.len() {
            return all;
        }
        assert_eq!(rows, self.logits_rows.len(), "rows of the batch, or those that want logits");
        self.logits_rows.iter().map(|&row| all[row as usize]).collect()
    }

    /// Whether ops may be done several at once.
    pub(crate) fn may_fuse(&self) -> bool {
        self.tap.as_ref().is_none_or(|tap| !tap.wants_all())
    }

    /// Called by each op with what it has made.
    pub(crate) fn made(&mut self, op: &'static str, result: &Tensor) {
        if let Some(tap) = &mut self.tap {
            tap.see(op, result);
        }
    }
}
