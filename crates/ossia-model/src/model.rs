//! A loaded model: weights, the machine's share that was planned for it, and the step that turns tokens into logits.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use ossia_kernels::arena::Arena;
use ossia_kernels::cpu::isa::Isa;
use ossia_kernels::cuda::Device;
use ossia_kernels::kv::PageTable;
use ossia_kernels::pool::Pool;
use ossia_kernels::{Floats, Phase, Precision, Runtime, Sequence, Step, Tap, Tensor};

use crate::checkpoint::{self, Checkpoint};
use crate::fault::{Fault, FaultFinder, Watch};
use crate::gpt_oss::adapter::{self, AdapterParameters};
use crate::gpt_oss::config::{Config, LayerKind};
use crate::gpt_oss::forward::Transformer;
use crate::gpt_oss::tensors::{Dense, Reading};
use crate::kv_cache::{Full, Held, KvCache};
use crate::logits::StepLogits;
use crate::on_gpu;
use crate::plan::{DoesNotFit, Plan};
use crate::stop::Stop;

/// What can go wrong with a model.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The checkpoint is not what it should be.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    /// It is larger than the machine.
    #[error(transparent)]
    DoesNotFit(#[from] Box<DoesNotFit>),
    /// It is larger than the GPU.
    #[error(transparent)]
    GpuTooSmall(#[from] Box<on_gpu::GpuTooSmall>),
    /// No page is left.
    #[error(transparent)]
    Full(#[from] Full),
    /// An op failed.
    #[error(transparent)]
    Op(#[from] ossia_kernels::Error),
    /// The numbers went wrong.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// How a model is to be run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Arithmetic of the linear layers.
    pub precision: Precision,
    /// What dense float weights become; by default Q8_0 in fast precision where they are large, else nothing.
    pub dense: Option<Dense>,
    /// Threads.
    pub threads: usize,
    /// Kernel version.
    pub isa: Isa,
    /// Positions of a sequence.
    pub context: usize,
    /// Sequences at once.
    pub sequences: usize,
    /// Positions of all sequences together, at least a context; nothing means that each has a whole context of its own.
    pub kv_tokens: Option<usize>,
    /// New tokens of a step.
    pub chunk: usize,
    /// Rows of logits of a step.
    pub logits_rows: usize,
    /// The largest rank of the adapters that may be attached; 0 for none.
    pub adapter_rank: usize,
    /// Where it runs.
    pub device: Device,
    /// Bytes of the adapters that may be attached at once.
    pub adapter_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            precision: Precision::Fast,
            dense: None,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            isa: Isa::detect(),
            context: 8192,
            sequences: 1,
            kv_tokens: None,
            chunk: 512,
            logits_rows: 1,
            adapter_rank: 0,
            device: Device::Cpu,
            adapter_bytes: 0,
        }
    }
}

impl Options {
    /// The same with room for this adapter.
    pub fn with_adapter(self, adapter: &AdapterParameters) -> Self {
        Self { adapter_rank: adapter.config().rank, adapter_bytes: adapter.bytes(), ..self }
    }
}

/// Which of a sequence's new tokens want logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logits {
    /// None: more of the prompt follows.
    None,
    /// The last.
    Last,
    /// Every one.
    All,
}

/// One sequence's share of a step.
pub struct Work<'a> {
    /// Its pages.
    pub held: &'a mut Held,
    /// Its new tokens, at least one.
    pub tokens: &'a [u32],
    /// Which of them want logits.
    pub logits: Logits,
}

impl Work<'_> {
    fn paged(&self) -> Paged<'_> {
        let Held { full, sliding, adapter, len } = &*self.held;
        Paged { full, sliding, adapter: *adapter, start: *len, tokens: self.tokens, logits: self.logits }
    }
}

/// One sequence's share of a step where the caller gives out the pages: [`Model::step_paged`].
#[derive(Clone, Copy)]
pub struct Paged<'a> {
    /// Pages of layers that see everything; they cover positions 0 to the last new token.
    pub full: &'a PageTable,
    /// Pages of layers with a window; they cover the window before the first new token to the last new token.
    pub sliding: &'a PageTable,
    /// The slot of the adapter, the same for all tokens of a sequence; none is the base model.
    pub adapter: Option<usize>,
    /// Position of the first new token.
    pub start: usize,
    /// Its new tokens, at least one.
    pub tokens: &'a [u32],
    /// Which of them want logits.
    pub logits: Logits,
}

/// A model ready to run. Its pages are given out either by itself ([`Held`]) or by the caller ([`Model::step_paged`]);
/// one model is not used both ways.
pub struct Model {
    config: Config,
    transformer: Transformer,
    runtime: Runtime,
    kv: KvCache,
    options: Options,
    plan: Plan,
    /// Bytes of the adapters that are attached, by slot.
    attached: HashMap<usize, u64>,
    stop: Stop,
}

impl Model {
    /// Reads `checkpoint`. `available` is the memory that may be used; `progress` is told (layers done, all).
    pub fn load(
        checkpoint: &Checkpoint,
        options: Options,
        available: Option<u64>,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self, Error> {
        let config = Config::from_checkpoint(checkpoint)?;
        let plan = Plan::new(checkpoint, &config, &options);
        if let Some(available) = available {
            plan.check(checkpoint, &config, &options, available).map_err(Box::new)?;
        }
        let pool = Pool::new(options.threads);
        let mut reading = Reading { dense: options.dense(checkpoint), pool: &pool, isa: options.isa, progress };
        let transformer = Transformer::read(checkpoint, &config, &mut reading)?;
        let arena = match &options.device {
            Device::Cpu => Arena::new(plan.scratch as usize),
            Device::Cuda(gpu) => on_gpu::host_scratch(gpu, &config, &options),
        };
        let device = options.device.clone();
        let runtime = Runtime { pool, arena, isa: options.isa, precision: options.precision, device: device.clone() };
        let kv = match &options.device {
            Device::Cpu => KvCache::new(&config, options.kv_type(), options.pages(&config)),
            Device::Cuda(gpu) => on_gpu::prepare(gpu, &config, &options)?,
        };
        let attached = HashMap::new();
        let mut model = Self { config, transformer, runtime, kv, options, plan, attached, stop: Stop::default() };
        if let Device::Cuda(gpu) = &device {
            model.warm_up()?;
            gpu.end_loading();
        }
        Ok(model)
    }

    /// One token through all layers: a device takes its copies of the weights when they are first used.
    fn warm_up(&mut self) -> Result<(), Error> {
        let mut held = Held::default();
        let warmed = self.step(&mut [Work { held: &mut held, tokens: &[0], logits: Logits::Last }]).map(drop);
        self.release(&mut held);
        warmed
    }

    /// The model's shape.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The weights.
    pub fn transformer(&self) -> &Transformer {
        &self.transformer
    }

    /// The weights, for who attaches adapters to them under a plan of his own.
    pub fn transformer_mut(&mut self) -> &mut Transformer {
        &mut self.transformer
    }

    /// Attaches an adapter; the slot is what [`Held::adapter`] and [`Paged::adapter`] name. Errors where its rank is larger
    /// than the options foresaw, its shape another model's, or no room for its numbers is left of what was planned.
    pub fn attach(&mut self, parameters: &AdapterParameters, values: &Floats) -> Result<usize, adapter::Error> {
        let (rank, foreseen) = (parameters.config().rank, self.options.adapter_rank);
        if rank > foreseen {
            return Err(adapter::Error::Rank { rank, foreseen });
        }
        if !parameters.fits(&self.config) {
            return Err(adapter::Error::OtherModel);
        }
        let (bytes, held): (u64, u64) = (parameters.bytes(), self.attached.values().sum());
        if held.saturating_add(bytes) > self.options.adapter_bytes {
            return Err(adapter::Error::Room { bytes, held, foreseen: self.options.adapter_bytes });
        }
        let slot = parameters.attach(values, &mut self.transformer);
        self.forget_recordings();
        self.attached.insert(slot, bytes);
        Ok(slot)
    }

    /// Takes an adapter away. Sequences that name its slot go through the base model from then on.
    pub fn detach(&mut self, slot: usize) {
        self.forget_recordings();
        self.transformer.detach(slot);
        self.attached.remove(&slot);
    }

    /// A device's recorded steps name the copies of adapters that were attached then.
    fn forget_recordings(&self) {
        if let Device::Cuda(gpu) = &self.runtime.device {
            gpu.forget_recordings();
        }
    }

    /// The threads and scratch.
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// How it runs.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Its memory.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Gives back what a sequence held.
    pub fn release(&mut self, held: &mut Held) {
        self.kv.release(held);
    }

    /// Pages for all new tokens; none where a sequence would outgrow the context, which ends inside its last page.
    fn reserve(&mut self, work: &mut [Work]) -> Result<(), Full> {
        let context = self.options.context;
        if let Some(w) = work.iter().find(|w| w.held.len.saturating_add(w.tokens.len()) > context) {
            return Err(Full { len: w.held.len, wanted: w.tokens.len() });
        }
        work.iter_mut().try_for_each(|w| self.kv.reserve(w.held, w.tokens.len()))
    }

    /// One step: logits [R, V], rows in the order of the work. A failed step leaves every sequence as it was.
    pub fn step(&mut self, work: &mut [Work]) -> Result<Tensor, Error> {
        let logits = self.look_ahead(work)?;
        work.iter_mut().for_each(|w| self.kv.advance(w.held, w.tokens.len()));
        Ok(logits.into_host()?)
    }

    /// A step that is only looked at: no token counts as read until [`Model::keep`]. What is not kept is written over.
    pub fn look_ahead(&mut self, work: &mut [Work]) -> Result<StepLogits, Error> {
        self.reserve(work)?;
        self.step_paged(&work.iter().map(Work::paged).collect::<Vec<_>>())
    }

    /// One step over pages that the caller gives out: logits [R, V], rows in the order of the work. Positions may be
    /// written again: the same tokens behind the same tokens leave the same bits.
    ///
    /// # Panics
    /// Where a table does not cover what its sequence sees.
    pub fn step_paged(&mut self, work: &[Paged]) -> Result<StepLogits, Error> {
        let device = self.runtime.device.clone();
        let mut watch = Watch::new(self.config.num_layers, device);
        // Where all rows have logits, these show every fault, and a GPU's step can be replayed.
        let all_seen = work.iter().all(|w| w.logits != Logits::None && w.tokens.len() == 1);
        let on_gpu = matches!(self.runtime.device, Device::Cuda(_));
        let logits = self.forward(work, if all_seen && on_gpu { None } else { Some(&mut watch) })?;
        let logits = StepLogits::new(logits, &self.runtime.device, &self.runtime.arena)?;
        if !watch.finite || !logits.is_finite() {
            drop(logits);
            return Err(self.find_fault(work)?.into());
        }
        Ok(logits)
    }

    /// Copies keys and values of page `from` to page `to`, in all layers of a kind.
    ///
    /// # Panics
    /// Where there is no such page.
    pub fn copy_page(&mut self, kind: LayerKind, from: u32, to: u32) {
        let layers = self.kv.layers().iter_mut().zip(&self.config.layer_types);
        layers.filter(|(_, k)| **k == kind).for_each(|(layer, _)| layer.copy_page(from as usize, to as usize));
    }

    /// Counts the next `tokens` tokens of the last [`Model::look_ahead`] as read.
    pub fn keep(&mut self, held: &mut Held, tokens: usize) {
        self.kv.advance(held, tokens);
    }

    /// The same, with every op's result shown to `tap`.
    pub fn step_tapped(&mut self, work: &mut [Work], tap: &mut dyn Tap) -> Result<Tensor, Error> {
        self.reserve(work)?;
        let logits = self.forward(&work.iter().map(Work::paged).collect::<Vec<_>>(), Some(tap))?;
        work.iter_mut().for_each(|w| self.kv.advance(w.held, w.tokens.len()));
        Ok(logits)
    }

    /// From now on a prompt ends within a layer of this flag's being raised; on a GPU, which runs ahead, with its chunk.
    pub fn stop_at(&mut self, flag: Arc<AtomicBool>) {
        self.stop = Stop::at(flag);
    }

    /// A prompt, chunk by chunk: the last token's logits [1, V], or nothing where `chunk_done` (told the tokens done)
    /// breaks off or the stop is raised; the sequence then holds the chunks that were done.
    pub fn prefill(
        &mut self,
        held: &mut Held,
        tokens: &[u32],
        chunk_done: &mut dyn FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Option<StepLogits>, Error> {
        if held.len.saturating_add(tokens.len()) > self.options.context {
            return Err(Full { len: held.len, wanted: tokens.len() }.into());
        }
        let on_cpu = matches!(self.options.device, Device::Cpu);
        self.transformer.stop = if on_cpu { self.stop.clone() } else { Stop::default() };
        let result = self.prefill_chunks(held, tokens, chunk_done);
        self.transformer.stop = Stop::default(); // no other step may pass over blocks
        result
    }

    fn prefill_chunks(
        &mut self,
        held: &mut Held,
        tokens: &[u32],
        chunk_done: &mut dyn FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Option<StepLogits>, Error> {
        let mut done = 0;
        loop {
            let end = (done + self.options.chunk).min(tokens.len());
            let last = end == tokens.len();
            let logits = if last { Logits::Last } else { Logits::None };
            let result = self.look_ahead(&mut [Work { held: &mut *held, tokens: &tokens[done..end], logits }])?;
            if self.transformer.stop.is_raised() {
                return Ok(None);
            }
            self.keep(held, end - done);
            done = end;
            if last {
                return Ok(Some(result));
            }
            if chunk_done(done).is_break() {
                return Ok(None);
            }
        }
    }

    fn forward<'a>(&'a mut self, work: &'a [Paged], tap: Option<&'a mut (dyn Tap + 'a)>) -> Result<Tensor, Error> {
        let (mut tokens, mut sequences) = (Vec::new(), Vec::new());
        for w in work {
            let rows = tokens.len()..tokens.len() + w.tokens.len();
            tokens.extend_from_slice(w.tokens);
            let Paged { full, sliding, adapter, start, .. } = *w;
            sequences.push(Sequence { rows, start, full, sliding, adapter });
        }
        let (kv, logits_rows) = (self.kv.layers(), logits_rows(work));
        let mut step = Step { runtime: &self.runtime, phase: Phase::Inference, sequences, kv, logits_rows, tap };
        if let Device::Cuda(gpu) = &self.runtime.device {
            let size = gpu.begin(&step, &tokens, self.config.num_heads / self.config.num_kv_heads)?;
            if let (Some(size), true) = (size, step.tap.is_none()) {
                return Ok(gpu.replayed(size, || self.transformer.forward(&mut step, &tokens))?);
            }
        }
        Ok(self.transformer.forward(&mut step, &tokens)?)
    }

    /// Runs a broken step again and looks at every op's result.
    fn find_fault(&mut self, work: &[Paged]) -> Result<Fault, Error> {
        let mut finder = FaultFinder::new(self.config.num_layers, logits_rows(work));
        self.forward(work, Some(&mut finder))?;
        Ok(finder.fault())
    }
}

/// The batch rows whose logits are wanted.
fn logits_rows(work: &[Paged]) -> Vec<u32> {
    let (mut rows, mut end) = (Vec::new(), 0);
    for w in work {
        let start = end;
        end += w.tokens.len() as u32;
        rows.extend(match w.logits {
            Logits::None => end..end,
            Logits::Last => end - 1..end,
            Logits::All => start..end,
        });
    }
    rows
}
