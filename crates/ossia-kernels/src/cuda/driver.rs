//! NVIDIA's driver: memory, copies, launches. Everything runs in order on one stream.
//!
//! The driver's library is found at run time, so that one program serves machines with and without a GPU; nothing here is
//! called before [`present`] has said that it is there, since a function that is missing would end the process.

mod recording;
pub(super) mod staging;

pub(super) use recording::Graph;

use std::ffi::{CString, c_void};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cudarc::driver::sys::{self, CUdevice_attribute_enum as Attribute};

use crate::arena::{Arena, Ranges};
use crate::{Error, Result};

/// What a failed call is told as.
fn checked(result: sys::CUresult, what: &'static str) -> Result<()> {
    result.result().map_err(|error| Error::Cuda { what, reason: error.to_string() })
}

/// Whether the driver's library is on this machine.
pub(super) fn present() -> bool {
    // SAFETY: loads the library and lets it go again.
    unsafe { sys::is_culib_present() }
}

/// One GPU's context and stream. What was allocated holds it alive.
#[derive(Debug)]
pub(super) struct Context {
    stream: sys::CUstream,
    context: sys::CUcontext,
    device: sys::CUdevice,
    /// Whether a kernel may be started before the one before has ended; it waits itself (`after_others` in `common.cuh`).
    overlaps: bool,
    /// Bytes of shared memory that a block may have.
    shared: usize,
}

// SAFETY: the driver's handles may be used from any thread; `bind` makes the context current where it is used.
unsafe impl Send for Context {}
// SAFETY: as above; the driver locks what it shares.
unsafe impl Sync for Context {}

/// What is asked of a device before it is used.
#[derive(Clone, Debug)]
pub struct About {
    /// As the driver names it.
    pub name: String,
    /// Compute capability, 9 and 0 for Hopper.
    pub capability: (i32, i32),
    /// Streaming multiprocessors.
    pub processors: usize,
}

impl Context {
    /// Opens device `ordinal`.
    pub(super) fn open(ordinal: usize) -> Result<(Arc<Self>, About)> {
        let (mut device, mut count, mut context, mut stream) = (0, 0, std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: out parameters are valid for the calls.
        unsafe {
            checked(sys::cuInit(0), "starting the driver")?;
            checked(sys::cuDeviceGetCount(&mut count), "counting devices")?;
            if ordinal >= count as usize {
                let reason = format!("wanted device {ordinal}, the driver has {count}; devices are counted from 0");
                return Err(Error::Cuda { what: "choosing a device", reason });
            }
            checked(sys::cuDeviceGet(&mut device, ordinal as i32), "opening the device")?;
            checked(sys::cuDevicePrimaryCtxRetain(&mut context, device), "opening the device")?;
            checked(sys::cuCtxSetCurrent(context), "opening the device")?;
            let flags = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
            checked(sys::cuStreamCreate(&mut stream, flags), "opening a stream")?;
        }
        let mut this = Self { stream, context, device, overlaps: false, shared: 0 };
        this.shared = this.ask(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)? as usize;
        let (about, mut version) = (this.about()?, 0);
        // SAFETY: the out parameter is valid for the call.
        checked(unsafe { sys::cuDriverGetVersion(&mut version) }, "asking for the driver's version")?;
        // From Hopper on, and from CUDA 12.3 on in recordings too.
        this.overlaps = about.capability >= (9, 0) && version >= 12_030;
        Ok((Arc::new(this), about))
    }

    fn ask(&self, attribute: sys::CUdevice_attribute) -> Result<i32> {
        let mut value = 0;
        // SAFETY: the out parameter is valid for the call.
        checked(unsafe { sys::cuDeviceGetAttribute(&mut value, attribute, self.device) }, "asking the device")?;
        Ok(value)
    }

    fn about(&self) -> Result<About> {
        let major = self.ask(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        let minor = self.ask(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
        let processors = self.ask(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)? as usize;
        let mut name = [0u8; 256];
        // SAFETY: the driver writes at most the length that it is told, with a zero at the end.
        checked(unsafe { sys::cuDeviceGetName(name.as_mut_ptr().cast(), 255, self.device) }, "asking the device")?;
        let len = name.iter().position(|&b| b == 0).unwrap_or(name.len());
        Ok(About { name: String::from_utf8_lossy(&name[..len]).into_owned(), capability: (major, minor), processors })
    }

    /// Makes the context current in this thread.
    fn bind(&self) -> Result<()> {
        // SAFETY: the context lives as long as `self`.
        checked(unsafe { sys::cuCtxSetCurrent(self.context) }, "choosing the device")
    }

    /// Bytes that are free, and all.
    pub(super) fn memory(&self) -> Result<(usize, usize)> {
        self.bind()?;
        let (mut free, mut all) = (0, 0);
        // SAFETY: out parameters are valid for the call.
        checked(unsafe { sys::cuMemGetInfo_v2(&mut free, &mut all) }, "asking for the memory")?;
        Ok((free, all))
    }

    /// Waits until everything that was asked for is done.
    pub(super) fn synchronize(&self) -> Result<()> {
        self.bind()?;
        // SAFETY: the stream lives as long as `self`.
        checked(unsafe { sys::cuStreamSynchronize(self.stream) }, "computing")
    }

    /// Copies as much as both have, after what was asked for before; returns when it is done.
    pub(super) fn copy(&self, from: &Memory, to: &Memory) -> Result<()> {
        self.bind()?;
        // SAFETY: both ranges were allocated for as many bytes, and do not overlap.
        let copied = unsafe { sys::cuMemcpyDtoDAsync_v2(to.at, from.at, from.len.min(to.len), self.stream) };
        checked(copied, "copying on the device")?;
        self.synchronize()
    }

    fn upload(&self, to: u64, bytes: &[u8]) -> Result<()> {
        self.bind()?;
        // SAFETY: the target was allocated for as many bytes, the source is borrowed until the wait is over.
        let copied = unsafe { sys::cuMemcpyHtoDAsync_v2(to, bytes.as_ptr().cast(), bytes.len(), self.stream) };
        checked(copied, "copying to the device")?;
        self.synchronize()
    }

    pub(super) fn download(&self, from: u64, bytes: &mut [u8]) -> Result<()> {
        self.bind()?;
        // SAFETY: the source holds as many bytes, the target is borrowed until the wait is over.
        let copied = unsafe { sys::cuMemcpyDtoHAsync_v2(bytes.as_mut_ptr().cast(), from, bytes.len(), self.stream) };
        checked(copied, "copying from the device")?;
        self.synchronize()
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: nothing that was allocated here is left, since it would hold the context.
        unsafe {
            let _ = sys::cuCtxSetCurrent(self.context);
            let _ = sys::cuStreamDestroy_v2(self.stream);
            let _ = sys::cuDevicePrimaryCtxRelease_v2(self.device);
        }
    }
}

/// Bytes on the device.
#[derive(Debug)]
pub struct Memory {
    context: Arc<Context>,
    at: u64,
    len: usize,
}

impl Memory {
    /// `len` bytes, their values left over from earlier use.
    pub(super) fn new(context: &Arc<Context>, len: usize) -> Result<Self> {
        context.bind()?;
        let mut at = 0;
        // SAFETY: the out parameter is valid for the call.
        let taken = unsafe { sys::cuMemAlloc_v2(&mut at, len.max(1)) };
        if taken == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY {
            let (free, _) = context.memory()?;
            return Err(Error::CudaMemory { needed: len, free });
        }
        checked(taken, "taking memory")?;
        Ok(Self { context: context.clone(), at, len })
    }

    /// Zeros everywhere.
    pub(crate) fn clear(&mut self) -> Result<()> {
        self.context.bind()?;
        // SAFETY: the range is ours.
        checked(unsafe { sys::cuMemsetD8Async(self.at, 0, self.len, self.context.stream) }, "clearing memory")
    }

    /// The address.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    /// Copies from the host; returns when it is done.
    ///
    /// # Panics
    /// Where the bytes do not fit.
    pub(crate) fn put(&mut self, from: usize, bytes: &[u8]) -> Result<()> {
        assert!(from + bytes.len() <= self.len, "cuda: bytes fit");
        self.context.upload(self.at + from as u64, bytes)
    }

    /// All bytes into `out`, which has as many.
    pub(crate) fn get(&self, out: &mut [u8]) -> Result<()> {
        assert_eq!(out.len(), self.len, "cuda: as many bytes");
        self.context.download(self.at, out)
    }

    /// All bytes, on the host.
    #[cfg(test)]
    pub(crate) fn download(&self) -> Result<Vec<u8>> {
        let mut bytes = vec![0; self.len];
        self.get(&mut bytes)?;
        Ok(bytes)
    }

    /// Copies a range of bytes to another place of the same memory; the two do not overlap.
    pub(crate) fn copy_within(&mut self, from: usize, to: usize, len: usize) -> Result<()> {
        assert!(from.max(to) + len <= self.len && from.abs_diff(to) >= len, "cuda: ranges lie inside and apart");
        self.context.bind()?;
        let (from, to) = (self.at + from as u64, self.at + to as u64);
        // SAFETY: both ranges lie in memory that is ours.
        checked(unsafe { sys::cuMemcpyDtoDAsync_v2(to, from, len, self.context.stream) }, "copying a page")
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated in `new`; the stream is waited for, so no kernel still uses it.
        unsafe {
            let _ = self.context.synchronize();
            let _ = sys::cuMemFree_v2(self.at);
        }
    }
}

/// The scratch memory of one model on the device: one range of bytes, lent first-fit, so that equal steps get equal
/// addresses. Cloning shares it.
#[derive(Clone)]
pub(super) struct Scratch(Arc<(Memory, Mutex<Ranges>)>);

/// A run of scratch that nobody else holds. Kernels run in order, so it may be lent again at once.
pub struct Slice {
    scratch: Scratch,
    start: usize,
    len: usize,
}

/// Every slice starts at a multiple of this: what the widest loads need, and a line of the second cache.
const ALIGN: usize = 256;

impl Scratch {
    pub(super) fn new(context: &Arc<Context>, len: usize) -> Result<Self> {
        Ok(Self(Arc::new((Memory::new(context, len)?, Mutex::default()))))
    }

    fn ranges(&self) -> MutexGuard<'_, Ranges> {
        self.0.1.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The most bytes that were lent at once.
    pub(super) fn peak(&self) -> usize {
        self.ranges().peak()
    }

    /// The same at a place where they were lent before.
    ///
    /// # Panics
    /// Where it is not free.
    pub(super) fn take_at(&self, start: usize, len: usize) -> Slice {
        self.ranges().take_at(start, (4 * len).max(1).next_multiple_of(ALIGN));
        Slice { scratch: self.clone(), start, len }
    }

    /// `len` numbers of four bytes, their values left over from earlier use.
    pub(super) fn take(&self, len: usize) -> Result<Slice> {
        let (needed, capacity) = ((4 * len).max(1).next_multiple_of(ALIGN), self.0.0.len);
        let start = self.ranges().take(needed, capacity).ok_or(Error::Scratch { needed, capacity })?;
        Ok(Slice { scratch: self.clone(), start, len })
    }
}

impl Slice {
    /// The address.
    pub(crate) fn at(&self) -> u64 {
        self.scratch.0.0.at + self.start as u64
    }

    /// How many numbers there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Where it lies in the scratch.
    pub(super) fn start(&self) -> usize {
        self.start
    }

    /// The numbers, on the host.
    pub(crate) fn download(&self) -> Result<Vec<f32>> {
        let mut numbers = vec![0.0; self.len];
        self.download_to(&mut numbers)?;
        Ok(numbers)
    }

    /// The numbers into `out`, which has as many.
    pub(crate) fn download_to(&self, out: &mut [f32]) -> Result<()> {
        assert_eq!(out.len(), self.len, "cuda: as many numbers");
        // SAFETY: four bytes a number, any of which is one.
        let bytes = unsafe { std::slice::from_raw_parts_mut(out.as_mut_ptr().cast::<u8>(), 4 * out.len()) };
        self.scratch.0.0.context.download(self.at(), bytes)
    }

    /// Zeros everywhere.
    pub(crate) fn clear(&mut self) -> Result<()> {
        let context = &self.scratch.0.0.context;
        context.bind()?;
        // SAFETY: the range is ours alone.
        let cleared = unsafe { sys::cuMemsetD8Async(self.at(), 0, 4 * self.len, context.stream) };
        checked(cleared, "clearing scratch")
    }

    /// The numbers of another slice, of the same length.
    pub(crate) fn copy_from(&mut self, other: &Self) -> Result<()> {
        assert_eq!(self.len, other.len, "cuda: as many numbers");
        let context = &self.scratch.0.0.context;
        context.bind()?;
        // SAFETY: slices do not overlap, and both are as long.
        let copied = unsafe { sys::cuMemcpyDtoDAsync_v2(self.at(), other.at(), 4 * self.len, context.stream) };
        checked(copied, "copying scratch")
    }

    /// Numbers of four bytes from the host, which must be as many.
    pub(crate) fn upload(&mut self, bytes: &[u8]) -> Result<()> {
        assert_eq!(bytes.len(), 4 * self.len, "cuda: as many numbers");
        self.scratch.0.0.context.upload(self.at(), bytes)
    }
}

impl Drop for Slice {
    fn drop(&mut self) {
        self.scratch.ranges().give_back(self.start);
    }
}

/// A compiled file of kernels, and the bytes of shared memory that a block may have.
pub(super) struct Module(sys::CUmodule, usize);

// SAFETY: a handle; functions are looked up under a lock.
unsafe impl Send for Module {}

/// A kernel.
#[derive(Clone, Copy)]
pub(super) struct Function(sys::CUfunction);

// SAFETY: a handle that never changes.
unsafe impl Send for Function {}

impl Module {
    pub(super) fn load(context: &Context, cubin: &[u8]) -> Result<Self> {
        context.bind()?;
        let mut module = std::ptr::null_mut();
        // SAFETY: the image is a whole cubin, checked by the driver; the out parameter is valid.
        checked(unsafe { sys::cuModuleLoadData(&mut module, cubin.as_ptr().cast()) }, "loading kernels")?;
        Ok(Self(module, context.shared))
    }

    pub(super) fn function(&self, name: &str) -> Result<Function> {
        let mut function = std::ptr::null_mut();
        let name = CString::new(name).expect("kernels' names have no zero");
        // SAFETY: the module is loaded and never unloaded before its context ends.
        unsafe {
            checked(sys::cuModuleGetFunction(&mut function, self.0, name.as_ptr()), "finding a kernel")?;
            use sys::CUfunction_attribute as Attribute;
            let (own, mut fixed) = (Attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES, 0);
            checked(sys::cuFuncGetAttribute(&mut fixed, own, function), "asking for shared memory")?;
            // Both together are what a block may have.
            let left = self.1.saturating_sub(fixed as usize);
            let most = Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            checked(sys::cuFuncSetAttribute(function, most, left as i32), "asking for shared memory")?;
        }
        Ok(Function(function))
    }
}

/// Bytes that a launch may ask for on every GPU, beside what kernels have anyway: from 8.0 on a block is given 99 KB.
pub(crate) const MOST_SHARED: usize = 96 << 10;

/// Blocks and threads of a launch, and bytes of shared memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub grid: (usize, usize, usize),
    pub threads: usize,
    pub shared: usize,
}

impl Context {
    /// Puts a kernel at the end of the stream. `arguments` are the bits of its parameters.
    ///
    /// # Safety
    /// They are those that the kernel declares, in order, and what they point to is as large as the kernel takes it to be.
    pub(super) unsafe fn launch(&self, function: Function, shape: Shape, arguments: &mut [u64]) -> Result<()> {
        let Shape { grid: (x, y, z), threads, shared } = shape;
        assert!(shared <= self.shared && threads <= 1024 && y <= 65535 && z <= 65535, "cuda: {shape:?}");
        self.bind()?;
        let mut pointers: Vec<*mut c_void> = arguments.iter_mut().map(|a| std::ptr::from_mut(a).cast()).collect();
        let (x, y, z, threads, shared) = (x as u32, y as u32, z as u32, threads as u32, shared as u32);
        let (none, pointers) = (std::ptr::null_mut(), pointers.as_mut_ptr());
        if !self.overlaps {
            // SAFETY: promised by the caller; the driver copies the arguments before it returns.
            let launched =
                unsafe { sys::cuLaunchKernel(function.0, x, y, z, threads, 1, 1, shared, self.stream, pointers, none) };
            return checked(launched, "starting a kernel");
        }
        let mut value = sys::CUlaunchAttributeValue { pad: [0; 64] };
        value.programmaticStreamSerializationAllowed = 1;
        let id = sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
        let mut attribute = sys::CUlaunchAttribute { id, pad: [0; 4], value };
        let config = sys::CUlaunchConfig {
            gridDimX: x,
            gridDimY: y,
            gridDimZ: z,
            blockDimX: threads,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: shared,
            hStream: self.stream,
            attrs: &mut attribute,
            numAttrs: 1,
        };
        // SAFETY: as above; every kernel waits for those before it, so what it reads has been written.
        checked(unsafe { sys::cuLaunchKernelEx(&config, function.0, pointers, none) }, "starting a kernel")
    }
}

/// Host memory that the device copies to directly.
pub(super) struct Pinned {
    context: Arc<Context>,
    arena: Arena,
}

impl Pinned {
    pub(super) fn new(context: &Arc<Context>, arena: &Arena) -> Result<Self> {
        context.bind()?;
        // SAFETY: the range is the arena's, which is held until it is let go in `drop`.
        let held = unsafe { sys::cuMemHostRegister_v2(arena.base().cast(), arena.capacity(), 0) };
        checked(held, "holding memory")?;
        Ok(Self { context: context.clone(), arena: arena.clone() })
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let _ = self.context.synchronize();
        // SAFETY: registered in `new`, and no copy is under way.
        let _ = unsafe { sys::cuMemHostUnregister(self.arena.base().cast()) };
    }
}
