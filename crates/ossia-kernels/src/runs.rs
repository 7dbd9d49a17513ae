//! Runs of numbers that training changes, where a runtime computes: on the processor they are the host's own, on a device they
//! are copies that are found by where the host's lie, and the host's are touched only when they are sent or fetched.

use crate::Result;
use crate::cuda::Device;
use crate::step::Runtime;

impl Runtime {
    /// Takes a run: from now on ops find its parts. A device has zeros for it. The run stays in its place as long as the runtime.
    pub fn hold(&self, run: &[f32]) -> Result<()> {
        match &self.device {
            Device::Cpu => Ok(()),
            Device::Cuda(gpu) => gpu.hold(run),
        }
    }

    /// The host has changed a run that is held.
    pub fn send(&self, run: &[f32]) -> Result<()> {
        match &self.device {
            Device::Cpu => Ok(()),
            Device::Cuda(gpu) => gpu.send(run),
        }
    }

    /// The host is to have a run as it is now.
    pub fn fetch(&self, run: &mut [f32]) -> Result<()> {
        match &self.device {
            Device::Cpu => Ok(()),
            Device::Cuda(gpu) => gpu.fetch(run),
        }
    }

    /// Zeros everywhere in a run.
    pub fn clear(&self, run: &mut [f32]) -> Result<()> {
        match &self.device {
            Device::Cpu => {
                run.fill(0.0);
                Ok(())
            }
            Device::Cuda(gpu) => gpu.clear(run),
        }
    }

    /// Names what a model has copied out of the run that its weights are seen in: pairs of a copy and its place there.
    pub fn name(&self, names: &[(&[f32], &[f32])]) {
        if let Device::Cuda(gpu) = &self.device {
            gpu.name(names);
        }
    }
}
