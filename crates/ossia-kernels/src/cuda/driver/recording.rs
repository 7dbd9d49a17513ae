//! Kernels that are recorded on the stream and started again by one call.

use cudarc::driver::sys;

use super::{Context, checked};
use crate::Result;

/// Kernels that were recorded, with their arguments.
pub(in crate::cuda) struct Graph(sys::CUgraphExec);

// SAFETY: a handle; it is launched under a lock.
unsafe impl Send for Graph {}

impl Context {
    /// What `compute` starts, not run but recorded, and what it returns.
    pub(in crate::cuda) fn record<T>(&self, compute: impl FnOnce() -> Result<T>) -> Result<(Graph, T)> {
        self.bind()?;
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream lives as long as `self`.
        checked(unsafe { sys::cuStreamBeginCapture_v2(self.stream, mode) }, "recording a step")?;
        let result = compute();
        let (mut graph, mut ready) = (std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: out parameters are valid for the calls; the graph is not used after it was destroyed.
        unsafe {
            let ended = checked(sys::cuStreamEndCapture(self.stream, &mut graph), "recording a step");
            // What went wrong inside says more.
            let result = result?;
            ended?;
            let made = sys::cuGraphInstantiateWithFlags(&mut ready, graph, 0);
            let _ = sys::cuGraphDestroy(graph);
            checked(made, "recording a step")?;
            Ok((Graph(ready), result))
        }
    }
}

impl Graph {
    /// Puts all of it at the end of the stream.
    pub(in crate::cuda) fn launch(&self, context: &Context) -> Result<()> {
        context.bind()?;
        // SAFETY: what it reads and writes is scratch, pages and weights of the same model, all of them still held.
        checked(unsafe { sys::cuGraphLaunch(self.0, context.stream) }, "starting a step")
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: made by `record`, destroyed once; the driver waits for what still runs.
        let _ = unsafe { sys::cuGraphExecDestroy(self.0) };
    }
}
