//! The way of weights to the device: two buffers that take turns, one filled by the host while the other is being copied and
//! its rows put in order.

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

impl Buffer {
    fn new(context: &Arc<Context>) -> Result<Self> {
        let device = Memory::new(context, STAGE)?;
        let (mut host, mut sent) = (std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: out parameters are valid for the calls; what was taken is STAGE bytes long.
        unsafe {
            checked(sys::cuEventCreate(&mut sent, 0), "making an event")?;
            let taken = checked(sys::cuMemAllocHost_v2(&mut host, STAGE), "taking memory that is held in its place");
            if let Err(error) = taken {
                let _ = sys::cuEventDestroy_v2(sent);
                return Err(error);
            }
            host.cast::<u8>().write_bytes(0, STAGE);
        }
        Ok(Self { host: host.cast(), device, sent })
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
