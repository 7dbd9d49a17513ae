//! `--device`: from a word to a GPU, and where its compiled kernels are kept from one start to the next.

use std::path::PathBuf;
use std::str::FromStr;

use ossia_kernels::cuda::{Cubins, Device, Gpu};
use sha2::{Digest, Sha256};

use crate::error::Failure;

/// Where a model runs, as the user says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceArg {
    /// A GPU where there is one, else the processor.
    Auto,
    /// The processor.
    Cpu,
    /// This GPU.
    Cuda(usize),
}

impl FromStr for DeviceArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => {
                let ordinal = text.strip_prefix("cuda:").and_then(|n| n.parse().ok());
                ordinal.map(Self::Cuda).ok_or_else(|| "wanted auto, cpu, cuda or cuda:N".to_owned())
            }
        }
    }
}

impl DeviceArg {
    /// Opens the device. Where any will do and a GPU cannot be had, the reason is said and the processor is taken.
    pub fn open(self) -> Result<Device, Failure> {
        self.open_by(Gpu::open)
    }

    /// The same with the kernels of training.
    pub fn open_for_training(self) -> Result<Device, Failure> {
        self.open_by(Gpu::open_for_training)
    }

    fn open_by(
        self,
        open: fn(usize, &dyn Cubins) -> ossia_kernels::Result<std::sync::Arc<Gpu>>,
    ) -> Result<Device, Failure> {
        let ordinal = match self {
            Self::Cpu => return Ok(Device::Cpu),
            Self::Auto => 0,
            Self::Cuda(ordinal) => ordinal,
        };
        match open(ordinal, &Kept::in_cache()) {
            Ok(gpu) => {
                let (free, all) = gpu.memory().unwrap_or((0, 0));
                let [free, all] = [free, all].map(|bytes| indicatif::BinaryBytes(bytes as u64));
                eprintln!("device: {}, {free} of {all} free", gpu.about().name);
                Ok(Device::Cuda(gpu))
            }
            Err(error) if self == Self::Auto => {
                eprintln!("device: cpu ({error})");
                Ok(Device::Cpu)
            }
            Err(error) => Err(Failure::Message(error.to_string())),
        }
    }
}

/// Kernels in the user's cache folder, each under a hash of everything that it was made from.
struct Kept {
    folder: Option<PathBuf>,
}

impl Kept {
    fn in_cache() -> Self {
        let path = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let cache = path("XDG_CACHE_HOME").or_else(|| path("HOME").map(|home| home.join(".cache")));
        Self { folder: cache.map(|cache| cache.join("ossia/kernels")) }
    }

    fn file(&self, op: &str, identity: &str) -> Option<PathBuf> {
        let hash = Sha256::digest(identity.as_bytes());
        let name: String = hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        self.folder.as_ref().map(|folder| folder.join(format!("{op}-{name}.cubin")))
    }
}

impl Cubins for Kept {
    fn get(&self, op: &str, identity: &str) -> Option<Vec<u8>> {
        std::fs::read(self.file(op, identity)?).ok()
    }

    /// Under another name first, so that a file that is there is whole. What cannot be kept is compiled again next time.
    fn put(&self, op: &str, identity: &str, cubin: &[u8]) {
        let (Some(file), Some(folder)) = (self.file(op, identity), &self.folder) else { return };
        let half = file.with_extension(format!("{}.part", std::process::id()));
        let kept = std::fs::create_dir_all(folder)
            .and_then(|()| std::fs::write(&half, cubin))
            .and_then(|()| std::fs::rename(&half, &file));
        if kept.is_err() {
            let _ = std::fs::remove_file(&half);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_for_devices() {
        let words = [("auto", DeviceArg::Auto), ("cpu", DeviceArg::Cpu), ("cuda", DeviceArg::Cuda(0))];
        for (word, wanted) in words.into_iter().chain([("cuda:3", DeviceArg::Cuda(3))]) {
            assert_eq!(word.parse(), Ok(wanted));
        }
        for word in ["", "gpu", "cuda:", "cuda:-1", "cuda:x"] {
            assert!(word.parse::<DeviceArg>().is_err(), "{word}");
        }
    }

    /// Kernels are found under what they were made from and under nothing else; a folder that cannot be written is no error.
    #[test]
    fn kernels_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept { folder: Some(folder.path().join("kernels")) };
        assert_eq!(kept.get("rope", "a"), None);
        kept.put("rope", "a", b"code");
        assert_eq!(kept.get("rope", "a"), Some(b"code".to_vec()));
        assert_eq!((kept.get("rope", "b"), kept.get("embed", "a")), (None, None));
        assert_eq!(std::fs::read_dir(folder.path().join("kernels")).unwrap().count(), 1);
        let nowhere = Kept { folder: Some(PathBuf::from("/proc/nowhere")) };
        nowhere.put("rope", "a", b"code");
        assert_eq!(nowhere.get("rope", "a"), None);
    }
}
