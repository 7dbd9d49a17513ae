//! The one door to NVIDIA's GPUs: what is there, what it holds, and how kernels are started on it.
//!
//! No CUDA is needed to build, test or start this program: the driver is looked for at run time. Kernels are CUDA sources
//! beside their ops, compiled for the device at first use. A weight's copy on the device is found by where the host keeps the
//! weight, which stays there as long as its model; so weights know nothing of devices. A device belongs to one model.
//!
//! Everything runs in order on one stream, so scratch that is given back may be lent again at once.

#[cfg(test)]
mod adapter_tests;
mod compile;
mod documents;
mod driver;
#[cfg(test)]
mod fused_tests;
mod graph;
pub(crate) mod pack;
mod runs;
mod step;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod train_tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::arena::Arena;
use crate::{Error, Result};

pub use driver::{About, Memory, Slice};
pub(crate) use driver::{MOST_SHARED, Shape};
pub use graph::Size;
pub(crate) use step::{COLUMNS, FEW_COLUMNS, SPAN, Tables};

/// Keeps compiled kernels from one start to the next.
pub trait Cubins: Send + Sync {
    /// Machine code of the kernels of `op`, kept under everything that decides what it is.
    fn get(&self, op: &str, identity: &str) -> Option<Vec<u8>>;
    /// Keeps it, if that can be done.
    fn put(&self, op: &str, identity: &str, cubin: &[u8]);
}

/// Keeps them as long as the process.
pub struct InMemory;

static IN_MEMORY: Mutex<BTreeMap<String, Vec<u8>>> = Mutex::new(BTreeMap::new());

impl Cubins for InMemory {
    fn get(&self, _: &str, identity: &str) -> Option<Vec<u8>> {
        lock(&IN_MEMORY).get(identity).cloned()
    }

    fn put(&self, _: &str, identity: &str, cubin: &[u8]) {
        lock(&IN_MEMORY).insert(identity.to_owned(), cubin.to_vec());
    }
}

/// The oldest compute capability that has the instructions of our kernels.
const OLDEST: (i32, i32) = (8, 0);

/// A GPU, with its kernels and what one model keeps on it.
pub struct Gpu {
    context: Arc<driver::Context>,
    about: About,
    modules: Vec<(&'static str, Mutex<driver::Module>)>,
    functions: Mutex<HashMap<String, driver::Function>>,
    weights: Mutex<HashMap<(usize, &'static str), Arc<Memory>>>,
    staging: Mutex<Option<driver::staging::Staging>>,
    notes: Mutex<driver::staging::Notes>,
    scratch: OnceLock<driver::Scratch>,
    tables: Mutex<Option<Arc<Tables>>>,
    documents: Mutex<Option<Arc<documents::Documents>>>,
    runs: Mutex<runs::Runs>,
    recordings: Mutex<HashMap<Size, graph::Recording>>,
    pinned: OnceLock<driver::Pinned>,
    counters: Memory,
    /// Kernels that were started.
    #[cfg(test)]
    pub(crate) launches: std::sync::atomic::AtomicUsize,
}

/// Counters that kernels leave at zero (`comes_last` in `common.cuh`).
const COUNTERS: usize = 1 << 16;

impl Gpu {
    /// Opens device `ordinal`, counted from 0, and compiles the kernels for it or takes those that are kept.
    pub fn open(ordinal: usize, cubins: &dyn Cubins) -> Result<Arc<Self>> {
        Self::open_with(ordinal, cubins, compile::SOURCES.iter())
    }

    /// The same with the kernels of training.
    pub fn open_for_training(ordinal: usize, cubins: &dyn Cubins) -> Result<Arc<Self>> {
        Self::open_with(ordinal, cubins, compile::SOURCES.iter().chain(compile::TRAINING))
    }

    fn open_with<'a>(
        ordinal: usize,
        cubins: &dyn Cubins,
        sources: impl Iterator<Item = &'a compile::Source>,
    ) -> Result<Arc<Self>> {
        if !driver::present() {
            let reason =
                "NVIDIA's driver is not on this machine (libcuda is not found): install it, or use --device cpu";
            return Err(Error::Cuda { what: "looking for a GPU", reason: reason.to_owned() });
        }
        let (context, about) = driver::Context::open(ordinal)?;
        if about.capability < OLDEST {
            let (major, minor) = about.capability;
            let reason = format!("{} has compute capability {major}.{minor}, wanted 8.0 or newer", about.name);
            return Err(Error::Cuda { what: "choosing a device", reason });
        }
        let mut modules = Vec::new();
        let sources = sources.filter(|source| source.is_for(about.capability)).collect::<Vec<_>>();
        for (name, cubin) in compile::cubins(&sources, about.capability, cubins) {
            modules.push((name, Mutex::new(driver::Module::load(&context, &cubin?)?)));
        }
        let mut counters = Memory::new(&context, 4 * COUNTERS)?;
        counters.clear()?;
        let notes = Mutex::new(driver::staging::Notes::new(&context)?);
        Ok(Arc::new(Self {
            context,
            about,
            notes,
            modules,
            functions: Mutex::default(),
            weights: Mutex::default(),
            staging: Mutex::default(),
            scratch: OnceLock::new(),
            tables: Mutex::default(),
            documents: Mutex::default(),
            runs: Mutex::default(),
            recordings: Mutex::default(),
            pinned: OnceLock::new(),
            counters,
            #[cfg(test)]
            launches: Default::default(),
        }))
    }

    /// What the device is.
    pub fn about(&self) -> &About {
        &self.about
    }

    /// Whether there are the kernels of `hopper.cu`.
    pub(crate) fn is_hopper(&self) -> bool {
        self.about.capability == compile::HOPPER
    }

    /// Bytes that are free on it, and all that it has.
    pub fn memory(&self) -> Result<(usize, usize)> {
        self.context.memory()
    }

    /// Sets aside the scratch of the largest step.
    ///
    /// # Panics
    /// The second time.
    pub fn reserve_scratch(&self, bytes: usize) -> Result<()> {
        assert!(self.scratch.set(driver::Scratch::new(&self.context, bytes)?).is_ok(), "cuda: scratch is planned once");
        Ok(())
    }

    /// Holds the host's scratch where it is, so that results are copied there without a detour. A system that refuses has
    /// slower copies.
    pub fn pin(&self, arena: &Arena) {
        if let Ok(pinned) = driver::Pinned::new(&self.context, arena) {
            let _ = self.pinned.set(pinned);
        }
    }

    /// The most bytes of scratch that were lent at once.
    pub fn scratch_peak(&self) -> usize {
        self.scratch().peak()
    }

    fn scratch(&self) -> &driver::Scratch {
        self.scratch.get().expect("cuda: scratch is planned before the first step")
    }

    /// `count` counters that are zero between kernels.
    ///
    /// # Panics
    /// Where there are not so many.
    pub(crate) fn counters(&self, count: usize) -> Argument {
        assert!(count <= COUNTERS, "cuda: a step has few blocks that wait for each other");
        Argument::from(&self.counters)
    }

    /// `len` numbers of four bytes.
    ///
    /// # Panics
    /// Before [`Gpu::reserve_scratch`].
    pub(crate) fn take(&self, len: usize) -> Result<Slice> {
        self.scratch().take(len)
    }

    /// A step's numbers in scratch, for kernels that are started later: nobody waits.
    pub(crate) fn told(&self, numbers: &[u32]) -> Result<Slice> {
        let slice = self.take(numbers.len())?;
        lock(&self.notes).send(slice.at(), &numbers.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<_>>())?;
        Ok(slice)
    }

    /// Numbers that kernels have made, on the host.
    pub(crate) fn heard(&self, slice: &Slice) -> Result<Vec<u32>> {
        let mut bytes = vec![0; 4 * slice.len()];
        lock(&self.notes).fetch(slice.at(), &mut bytes)?;
        Ok(bytes.as_chunks::<4>().0.iter().map(|&n| u32::from_le_bytes(n)).collect())
    }

    /// Floats of the host in scratch.
    pub(crate) fn uploaded(&self, values: &[f32]) -> Result<Slice> {
        let mut slice = self.take(values.len())?;
        slice.upload(&values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>())?;
        Ok(slice)
    }

    /// Zeros, for keys and values.
    pub(crate) fn zeros(&self, bytes: usize) -> Result<Memory> {
        let mut memory = Memory::new(&self.context, bytes)?;
        memory.clear()?;
        Ok(memory)
    }

    /// The device's copy of a weight in the form `form`, made by `make` at first use. `key` is where the host has it.
    fn held(&self, key: *const (), form: &'static str, make: impl FnOnce() -> Result<Memory>) -> Result<Arc<Memory>> {
        let key = (key.addr(), form);
        if let Some(found) = lock(&self.weights).get(&key) {
            return Ok(found.clone());
        }
        let memory = Arc::new(make()?);
        lock(&self.weights).insert(key, memory.clone());
        Ok(memory)
    }

    /// The same for bytes that `make` makes on the host.
    pub(crate) fn weight(
        &self,
        key: *const (),
        form: &'static str,
        make: impl FnOnce() -> Result<Vec<u8>>,
    ) -> Result<Arc<Memory>> {
        self.held(key, form, || {
            let bytes = make()?;
            let mut memory = Memory::new(&self.context, bytes.len())?;
            memory.put(0, &bytes)?;
            Ok(memory)
        })
    }

    /// `bytes` bytes for what stays, their values left over from earlier use.
    pub(crate) fn room(&self, bytes: usize) -> Result<Memory> {
        Memory::new(&self.context, bytes)
    }

    /// Bytes a second that a copy on the device reads and writes, the best of some: what memory gives at that moment.
    pub fn copy_bandwidth(&self) -> Result<f64> {
        let bytes = (self.memory()?.0 / 4).min(2 << 30);
        let (from, to) = (self.room(bytes)?, self.room(bytes)?);
        let mut best = f64::INFINITY;
        for _ in 0..8 {
            let started = std::time::Instant::now();
            self.context.copy(&from, &to)?;
            best = best.min(started.elapsed().as_secs_f64());
        }
        Ok(2.0 * bytes as f64 / best)
    }

    /// The device's copy of plain numbers, or what training has in their place.
    pub(crate) fn floats(&self, values: &[f32]) -> Result<Argument> {
        let key = values.as_ptr().cast();
        match self.seen_exact(key) {
            Some(seen) => Ok(seen),
            // Kept as long as the device.
            None => {
                Ok((&self.weight(key, "f32", || Ok(values.iter().flat_map(|v| v.to_le_bytes()).collect()))?).into())
            }
        }
    }

    /// Starts a kernel of an op's file.
    ///
    /// # Safety
    /// The arguments are those that the kernel declares, in order, and what they point to is as large as it takes it to be.
    pub(crate) unsafe fn launch(&self, op: &str, kernel: &str, shape: Shape, arguments: &[Argument]) -> Result<()> {
        if shape.grid.0 * shape.grid.1 * shape.grid.2 == 0 {
            return Ok(());
        }
        #[cfg(test)]
        self.launches.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let known = lock(&self.functions).get(kernel).copied();
        let function = match known {
            Some(function) => function,
            None => {
                let module = &self.modules.iter().find(|m| m.0 == op).expect("every op with launchers has a source").1;
                let function = lock(module).function(kernel)?;
                lock(&self.functions).insert(kernel.to_owned(), function);
                function
            }
        };
        let mut bits: Vec<u64> = arguments.iter().map(|argument| argument.0).collect();
        // SAFETY: promised by the caller.
        unsafe { self.context.launch(function, shape, &mut bits) }
    }

    fn set_tables(&self, tables: Option<Tables>) {
        *lock(&self.tables) = tables.map(Arc::new);
    }

    /// What the step that runs now has told.
    ///
    /// # Panics
    /// Before [`Gpu::begin`].
    pub(crate) fn tables(&self) -> Arc<Tables> {
        lock(&self.tables).clone().expect("cuda: a step is begun before its first op")
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A kernel's argument, as bits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Argument(u64);

impl From<&Memory> for Argument {
    fn from(memory: &Memory) -> Self {
        Self(memory.at())
    }
}

impl From<&Argument> for Argument {
    fn from(argument: &Argument) -> Self {
        *argument
    }
}

impl From<&Arc<Memory>> for Argument {
    fn from(memory: &Arc<Memory>) -> Self {
        Self(memory.at())
    }
}

impl From<&Slice> for Argument {
    fn from(slice: &Slice) -> Self {
        Self(slice.at())
    }
}

impl From<usize> for Argument {
    /// An int.
    fn from(value: usize) -> Self {
        Self(u64::from(i32::try_from(value).expect("cuda: counts are below 2^31") as u32))
    }
}

impl From<f32> for Argument {
    fn from(value: f32) -> Self {
        Self(u64::from(value.to_bits()))
    }
}

impl Argument {
    /// No memory.
    pub(crate) const NULL: Self = Self(0);

    /// A 64-bit number.
    pub(crate) fn long(value: usize) -> Self {
        Self(value as u64)
    }

    /// Bytes from `earlier` to here.
    pub(crate) fn distance(self, earlier: Self) -> usize {
        (self.0 - earlier.0) as usize
    }

    /// A place inside what an argument points to.
    pub(crate) fn plus(self, bytes: usize) -> Self {
        Self(self.0 + bytes as u64)
    }
}

/// Where a model runs.
#[derive(Clone, Default)]
pub enum Device {
    /// This machine's processor.
    #[default]
    Cpu,
    /// A GPU of its own.
    Cuda(Arc<Gpu>),
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Device::Cpu => f.write_str("Cpu"),
            Device::Cuda(gpu) => write!(f, "Cuda({})", gpu.about.name),
        }
    }
}
