//! From the ops' CUDA sources to machine code for one device, by the run-time compiler that comes with CUDA.

use std::ffi::{CStr, CString};
use std::sync::Mutex;

use cudarc::nvrtc::sys;

use super::Cubins;
use crate::{Error, Result};

/// A file of kernels.
pub(super) struct Source {
    /// The op.
    pub name: &'static str,
    text: &'static str,
    /// Whether it is for Hopper alone, with instructions that no other card has.
    hopper: bool,
}

/// The compute capability of Hopper.
pub(super) const HOPPER: (i32, i32) = (9, 0);

impl Source {
    /// Whether a card has a use for it.
    pub(super) fn is_for(&self, capability: (i32, i32)) -> bool {
        !self.hopper || capability == HOPPER
    }
}

macro_rules! source {
    ($name:literal) => {
        Source { name: $name, text: include_str!(concat!("../ops/", $name, "/kernel.cu")), hopper: false }
    };
}

macro_rules! hopper {
    ($name:literal) => {
        Source {
            name: concat!($name, ".hopper"),
            text: include_str!(concat!("../ops/", $name, "/hopper.cu")),
            hopper: true,
        }
    };
}

macro_rules! training {
    ($name:literal) => {
        Source {
            name: concat!($name, ".train"),
            text: include_str!(concat!("../ops/", $name, "/train.cu")),
            hopper: false,
        }
    };
}

/// Every file of kernels for inference.
pub(super) const SOURCES: &[Source] = &[
    source!("attention"),
    source!("embed"),
    source!("experts"),
    hopper!("experts"),
    source!("linear"),
    hopper!("linear"),
    source!("low_rank"),
    source!("rms_norm"),
    source!("rope"),
    hopper!("rope"),
    source!("router"),
    source!("rows"),
    source!("sample"),
];

/// Those that training needs besides.
pub(super) const TRAINING: &[Source] = &[
    training!("adamw"),
    training!("attention"),
    training!("cross_entropy"),
    training!("embed"),
    training!("experts"),
    training!("linear"),
    training!("muon"),
    training!("rms_norm"),
    training!("rope"),
    training!("router"),
    training!("squares"),
    training!("stored"),
];

/// What they include, by the names by which they do.
const HEADERS: &[(&CStr, &str)] = &[
    (c"../../cuda/common.cuh", include_str!("common.cuh")),
    (c"../../cuda/columns.cuh", include_str!("columns.cuh")),
    (c"../../cuda/gemm.cuh", include_str!("gemm.cuh")),
    (c"../../cuda/hopper.cuh", include_str!("hopper.cuh")),
    (c"../../cuda/low_rank.cuh", include_str!("low_rank.cuh")),
    (c"../../cuda/pack.cuh", include_str!("pack.cuh")),
    (c"../../cuda/prompt.cuh", include_str!("prompt.cuh")),
    (c"../../cuda/products.cuh", include_str!("products.cuh")),
    (c"common.cuh", include_str!("common.cuh")),
    (c"experts.cuh", include_str!("../ops/experts/experts.cuh")),
    (c"linear.cuh", include_str!("../ops/linear/linear.cuh")),
    (c"prompt.cuh", include_str!("prompt.cuh")),
    (c"products.cuh", include_str!("products.cuh")),
    (c"rope.cuh", include_str!("../ops/rope/rope.cuh")),
    (c"wgmma.cuh", include_str!("wgmma.cuh")),
];

/// Machine code of all `sources` for a compute capability, by name. The compiler takes each file on one core, so all are begun
/// at once, by one who opens a device after the other: what one has compiled, the next finds.
pub(super) fn cubins(
    sources: &[&Source],
    capability: (i32, i32),
    cubins: &dyn Cubins,
) -> Vec<(&'static str, Result<Vec<u8>>)> {
    static OPENING: Mutex<()> = Mutex::new(());
    let _guard = super::lock(&OPENING);
    std::thread::scope(|scope| {
        let begun = sources.iter().map(|source| scope.spawn(move || cubin(source, capability, cubins)));
        let begun = begun.collect::<Vec<_>>();
        let ended = begun.into_iter().map(|thread| thread.join().unwrap_or_else(|p| std::panic::resume_unwind(p)));
        sources.iter().map(|source| source.name).zip(ended).collect()
    })
}

/// Kept code where there is some, else compiled and kept.
fn cubin(source: &Source, capability: (i32, i32), cubins: &dyn Cubins) -> Result<Vec<u8>> {
    let own = if source.hopper { "a" } else { "" };
    let options = [format!("--gpu-architecture=sm_{}{}{own}", capability.0, capability.1), "--std=c++17".to_owned()];
    let parts = options.iter().map(String::as_str).chain([source.text]).chain(HEADERS.iter().map(|h| h.1));
    let identity = parts.collect::<Vec<_>>().join("\0");
    if let Some(kept) = cubins.get(source.name, &identity) {
        return Ok(kept);
    }
    let made = compile(source, &options)?;
    cubins.put(source.name, &identity, &made);
    Ok(made)
}

fn compile(source: &Source, options: &[String]) -> Result<Vec<u8>> {
    let failed = |reason: String| Error::Cuda { what: "compiling kernels", reason };
    // SAFETY: loads the library and lets it go again.
    if !unsafe { sys::is_culib_present() } {
        let reason = "the run-time compiler (libnvrtc) is not on this machine: install the CUDA toolkit, or its package \
                      cuda-nvrtc alone";
        return Err(failed(reason.to_owned()));
    }
    let text = |text: &str| CString::new(text).expect("sources have no zero");
    let (source_text, name) = (text(source.text), text(source.name));
    let bodies: Vec<CString> = HEADERS.iter().map(|header| text(header.1)).collect();
    let bodies: Vec<_> = bodies.iter().map(|body| body.as_ptr()).collect();
    let names: Vec<_> = HEADERS.iter().map(|header| header.0.as_ptr()).collect();
    let options: Vec<CString> = options.iter().map(|option| text(option)).collect();
    let options: Vec<_> = options.iter().map(|option| option.as_ptr()).collect();
    let mut program = std::ptr::null_mut();
    // SAFETY: all texts end in zero and live until the program is destroyed; sizes are asked before buffers are filled.
    unsafe {
        let made = sys::nvrtcCreateProgram(
            &mut program,
            source_text.as_ptr(),
            name.as_ptr(),
            names.len() as i32,
            bodies.as_ptr(),
            names.as_ptr(),
        );
        made.result().map_err(|e| failed(e.to_string()))?;
        let compiled = sys::nvrtcCompileProgram(program, options.len() as i32, options.as_ptr()).result();
        let result = match compiled {
            Ok(()) => read(|size| sys::nvrtcGetCUBINSize(program, size), |to| sys::nvrtcGetCUBIN(program, to)),
            Err(error) => {
                let log =
                    read(|size| sys::nvrtcGetProgramLogSize(program, size), |to| sys::nvrtcGetProgramLog(program, to))?;
                let log = String::from_utf8_lossy(&log);
                let first = log.lines().find(|line| line.contains("error")).unwrap_or_default();
                Err(failed(format!("{}: {error} {first}", source.name)))
            }
        };
        let _ = sys::nvrtcDestroyProgram(&mut program);
        result
    }
}

/// Bytes whose number is asked first.
fn read(
    size: impl Fn(*mut usize) -> sys::nvrtcResult,
    fill: impl Fn(*mut std::ffi::c_char) -> sys::nvrtcResult,
) -> Result<Vec<u8>> {
    let failed =
        |e: cudarc::nvrtc::result::NvrtcError| Error::Cuda { what: "compiling kernels", reason: e.to_string() };
    let mut len = 0;
    size(&mut len).result().map_err(failed)?;
    let mut bytes = vec![0u8; len];
    fill(bytes.as_mut_ptr().cast()).result().map_err(failed)?;
    Ok(bytes)
}
