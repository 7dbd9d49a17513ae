//! The way of weights to the device: two buffers that take turns, one filled by the host while the other is being copied and
//! its rows put in order; and that of a step's few numbers.

use std::sync::Arc;

use cudarc::driver::sys;

use super::{Context, Memory, checked};
use crate::Result;

/// Bytes of a buffer, here and there.
pub(crate) const STAGE: usize = 16 << 20;

/// The two, held by a device while it loads weights.
pub(crate) struct Staging {
    buffers: [Buffer; 2],
    turn: usize,
}

struct Buffer {
    /// Host memory that the device copies from directly, STAGE bytes.
    host: *mut u8,
    device: Memory,
    /// Reached when what was sent has left the host's memory.
    sent: sys::CUevent,
}

// SAFETY: the host's memory is the buffer's own, and is reached through `&mut` alone; events may be used from any thread.
unsafe impl Send for Buffer {}

impl Staging {
    pub(crate) fn new(context: &Arc<Context>) -> Result<Self> {
        Ok(Self { buffers: [Buffer::new(context)?, Buffer::new(context)?], turn: 0 })
    }

    /// The buffer whose turn it is, once it may be filled, and where its bytes will be on the device.
    pub(crate) fn next(&mut self) -> Result<(&mut [u8], u64)> {
        self.turn = 1 - self.turn;
        let buffer = &mut self.buffers[self.turn];
        buffer.device.context.bind()?;
        // SAFETY: the event lives as long as the buffer; one that was never recorded is reached.
        checked(unsafe { sys::cuEventSynchronize(buffer.sent) }, "copying weights")?;
        // SAFETY: STAGE bytes that are ours and were cleared, and no copy reads them.
        Ok((unsafe { std::slice::from_raw_parts_mut(buffer.host, STAGE) }, buffer.device.at()))
    }

    /// Begins to copy the first `len` bytes of the buffer that was filled last; kernels that are started later find them.
    pub(crate) fn send(&mut self, len: usize) -> Result<()> {
        assert!(len <= STAGE, "cuda: a buffer holds what it was given");
        let buffer = &mut self.buffers[self.turn];
        let (stream, to) = (buffer.device.context.stream, buffer.device.at());
        // SAFETY: both sides have `len` bytes; the host's are not touched before `next` has waited for the event.
        unsafe {
            let copied = sys::cuMemcpyHtoDAsync_v2(to, buffer.host.cast(), len, stream);
            checked(copied, "copying weights")?;
            checked(sys::cuEventRecord(buffer.sent, stream), "copying weights")
        }
    }
}

/// A few numbers on their way there or back: memory that the device copies from and to directly, so that nobody waits for
/// what was sent.
pub(crate) struct Notes {
    context: Arc<Context>,
    host: *mut u8,
    sent: sys::CUevent,
}

// SAFETY: as for `Buffer`.
unsafe impl Send for Notes {}

impl Notes {
    /// Bytes of the largest; what is larger is copied from where it lies.
    const MOST: usize = 1 << 20;

    pub(crate) fn new(context: &Arc<Context>) -> Result<Self> {
        let (host, sent) = host_memory(context, Self::MOST)?;
        Ok(Self { context: context.clone(), host, sent })
    }

    /// Kernels that are started later find `bytes` at address `to`, which has room for them.
    pub(crate) fn send(&mut self, to: u64, bytes: &[u8]) -> Result<()> {
        if bytes.len() > Self::MOST {
            return self.context.upload(to, bytes);
        }
        self.context.bind()?;
        let stream = self.context.stream;
        // SAFETY: the event lives as long as `self`; once it is reached no copy reads the host's memory, which has MOST bytes,
        // and the source is borrowed while it is copied.
        unsafe {
            checked(sys::cuEventSynchronize(self.sent), "copying to the device")?;
            self.host.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
            let copied = sys::cuMemcpyHtoDAsync_v2(to, self.host.cast(), bytes.len(), stream);
            checked(copied, "copying to the device")?;
            checked(sys::cuEventRecord(self.sent, stream), "copying to the device")
        }
    }

    /// What lies at address `from` once everything that was started is done.
    pub(crate) fn fetch(&mut self, from: u64, bytes: &mut [u8]) -> Result<()> {
        if bytes.len() > Self::MOST {
            return self.context.download(from, bytes);
        }
        self.context.bind()?;
        // SAFETY: the host's memory has MOST bytes; what was sent from it has left it before, since the stream keeps its order.
        let copied = unsafe { sys::cuMemcpyDtoHAsync_v2(self.host.cast(), from, bytes.len(), self.context.stream) };
        checked(copied, "copying from the device")?;
        self.context.synchronize()?;
        // SAFETY: as many bytes were copied there.
        bytes.copy_from_slice(unsafe { std::slice::from_raw_parts(self.host, bytes.len()) });
        Ok(())
    }
}

impl Drop for Notes {
    fn drop(&mut self) {
        // SAFETY: made in `new`, given back once; the stream is waited for, so no copy uses them.
        unsafe {
            let _ = self.context.synchronize();
            let _ = sys::cuMemFreeHost(self.host.cast());
            let _ = sys::cuEventDestroy_v2(self.sent);
        }
    }
}

/// `len` bytes that the device copies from directly, and an event.
fn host_memory(context: &Context, len: usize) -> Result<(*mut u8, sys::CUevent)> {
    context.bind()?;
    let (mut host, mut sent) = (std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: out parameters are valid for the calls; what was taken is `len` bytes long.
    unsafe {
        checked(sys::cuEventCreate(&mut sent, 0), "making an event")?;
        let taken = checked(sys::cuMemAllocHost_v2(&mut host, len), "taking memory that is held in its place");
        if let Err(error) = taken {
            let _ = sys::cuEventDestroy_v2(sent);
            return Err(error);
        }
        host.cast::<u8>().write_bytes(0, len);
    }
    Ok((host.cast(), sent))
}

impl Buffer {
    fn new(context: &Arc<Context>) -> Result<Self> {
        let device = Memory::new(context, STAGE)?;
        let (host, sent) = host_memory(context, STAGE)?;
        Ok(Self { host, device, sent })
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: made in `new`, given back once; the stream is waited for, so no copy reads them.
        unsafe {
            let _ = self.device.context.synchronize();
            let _ = sys::cuMemFreeHost(self.host.cast());
            let _ = sys::cuEventDestroy_v2(self.sent);
        }
    }
}
