//! `cargo xtask cuda-check` compiles all CUDA kernels without a GPU and prints what they take of one; `cargo xtask cuda-emulate`
//! runs the GPU's tests with the kernels compiled for this processor, under a driver that is our own (`xtask/cuda/`);
//! `cargo xtask cuda-sanitize` runs the kernels' tests on a card, watched.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Architectures that must compile: Ampere, Ada, Hopper, and the two Blackwells.
const ARCHITECTURES: &[&str] = &["sm_80", "sm_89", "sm_90", "sm_100", "sm_120"];

/// The ops' files of kernels, by op and file.
fn sources(root: &Path) -> Result<Vec<(String, PathBuf)>, String> {
    let ops = root.join("crates/ossia-kernels/src/ops");
    let entries = std::fs::read_dir(&ops).map_err(|e| format!("{}: {e}", ops.display()))?;
    let files = |folder: PathBuf| {
        let op = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        ["hopper", "kernel", "train"].map(|file| (format!("{op}.{file}"), folder.join(format!("{file}.cu"))))
    };
    let mut found: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .flat_map(files)
        .filter(|(_, source)| source.is_file())
        .collect();
    found.sort();
    if found.is_empty() { Err(format!("{}: no kernel.cu", ops.display())) } else { Ok(found) }
}

/// The one architecture of files for Hopper, whose instructions no other has.
const HOPPER: &[&str] = &["sm_90a"];

/// Compiles every kernel for its architectures; one line for each kernel on Hopper. An error where one spills anywhere, or where
/// the compiler waits for each product of a warpgroup.
pub fn check(root: &Path) -> Result<(), String> {
    let nvcc = std::env::var("NVCC").unwrap_or_else(|_| "nvcc".to_owned());
    let out = root.join("target/cuda");
    std::fs::create_dir_all(&out).map_err(|e| format!("{}: {e}", out.display()))?;
    println!("{:<24} {:>9} {:>12} {:>13}", "sm_90", "registers", "shared bytes", "spilled bytes");
    for (op, source) in sources(root)? {
        for architecture in if op.ends_with(".hopper") { HOPPER } else { ARCHITECTURES } {
            let mut command = Command::new(&nvcc);
            command.args(["-cubin", "-std=c++17", "-Xptxas", "-v", "-arch", architecture, "-o"]);
            command.arg(out.join(format!("{op}.{architecture}.cubin"))).arg(&source).stdin(Stdio::null());
            let output = command.output().map_err(|e| {
                format!(
                    "{nvcc}: {e}: wanted NVIDIA's compiler in PATH or in NVCC; the Python package nvidia-cuda-nvcc has it"
                )
            })?;
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            if !output.status.success() {
                return Err(format!("{} for {architecture}:\n{said}", source.display()));
            }
            if let Some(line) = said.lines().find(|line| line.contains("wgmma.mma_async instructions are serialized")) {
                return Err(format!("{} for {architecture}:\n{line}", source.display()));
            }
            let kernels = kernels(&said);
            if architecture.starts_with("sm_90") {
                kernels.iter().for_each(|(line, _)| println!("{line}"));
            }
            if let Some((line, _)) = kernels.iter().find(|(_, spilled)| *spilled > 0) {
                return Err(format!("{} for {architecture} spills:\n{line}", source.display()));
            }
        }
    }
    println!("all kernels compile for {}, and none spills", ARCHITECTURES.join(", "));
    Ok(())
}

/// A line for each kernel from what ptxas says, and the bytes that it spills.
fn kernels(said: &str) -> Vec<(String, usize)> {
    let number = |line: &str, before: &str| -> usize {
        let at = line.find(before).map(|at| &line[..at]);
        at.and_then(|line| line.trim_end().rsplit([' ', ',']).next()?.parse().ok()).unwrap_or(0)
    };
    let (mut lines, mut name, mut spilled) = (Vec::new(), String::new(), 0);
    for line in said.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            name = rest.split('\'').next().unwrap_or_default().to_owned();
        } else if line.contains("bytes spill stores") {
            spilled = number(line, "bytes spill stores");
        } else if line.contains("registers") {
            let (registers, shared) = (number(line, "registers"), number(line, "bytes smem"));
            lines.push((format!("{name:<24} {registers:>9} {shared:>12} {spilled:>13}"), spilled));
        }
    }
    lines
}

/// Tests that run on a GPU: cargo's arguments. The emulated driver knows one thread.
const TESTS: &[&[&str]] = &[
    &["test", "--locked", "-p", "ossia-kernels", "--lib", "cuda::", "--", "--test-threads", "1"],
    &["test", "--locked", "-p", "ossia-model", "--test", "cuda", "--", "--nocapture", "--test-threads", "1"],
    &["test", "--locked", "-p", "ossia-train", "--test", "cuda", "--", "--nocapture", "--test-threads", "1"],
];

/// What watches kernels: reads and writes outside of what was taken, threads that meet wrongly at barriers or in warps, shared
/// memory that is used without a barrier between.
const TOOLS: &[&str] = &["memcheck", "synccheck", "racecheck"];

/// Runs the kernels' tests, whose shapes are small, on the machine's GPU under each of NVIDIA's tools.
pub fn sanitize(root: &Path) -> Result<(), String> {
    let sanitizer = std::env::var("COMPUTE_SANITIZER").unwrap_or_else(|_| "compute-sanitizer".to_owned());
    for tool in TOOLS {
        println!("== {tool}");
        let runner = format!("{sanitizer} --tool {tool} --error-exitcode 1 --print-limit 20");
        let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(program);
        command.args(["--config", &format!("target.'cfg(unix)'.runner = {runner:?}")]);
        command.args(TESTS[0]).current_dir(root).stdin(Stdio::null());
        command.env("OSSIA_CUDA_TESTS", "required");
        run(command, "cargo under NVIDIA's compute-sanitizer (in PATH or COMPUTE_SANITIZER)")?;
    }
    Ok(())
}

/// Builds the emulated driver and runs the GPU's tests under it.
pub fn emulate(root: &Path) -> Result<(), String> {
    let library = build_emulated(root)?;
    let folder = library.parent().unwrap_or(root);
    for arguments in TESTS {
        println!("== cargo {}", arguments.join(" "));
        let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(program);
        command.args(*arguments).current_dir(root).stdin(Stdio::null());
        command.env("LD_LIBRARY_PATH", folder).env("OSSIA_CUDA_TESTS", "required");
        run(command, "cargo")?;
    }
    Ok(())
}

/// The library that is both driver and run-time compiler, with all kernels in it.
fn build_emulated(root: &Path) -> Result<PathBuf, String> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return Err("the emulated driver switches stacks as x86-64 Linux does: run this there".to_owned());
    }
    let out = root.join("target/cuda");
    std::fs::create_dir_all(&out).map_err(|e| format!("{}: {e}", out.display()))?;
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "g++".to_owned());
    let home = root.join("xtask/cuda");
    let mut objects = Vec::new();
    for (op, source) in sources(root)? {
        let object = out.join(format!("{op}.o"));
        let mut command = Command::new(&compiler);
        command.args(["-x", "c++", "-std=c++20", "-O2", "-fPIC", "-DOSSIA_EMULATED", "-c", "-I"]);
        command.arg(&home).arg(source).arg("-o").arg(&object);
        run(command, &compiler)?;
        objects.push(object);
    }
    let library = out.join("libcuda.so");
    let mut command = Command::new(&compiler);
    command.args(["-std=c++20", "-O2", "-fPIC", "-shared", "-I"]).arg(&home);
    command.arg(home.join("driver.cpp")).args(objects).arg("-o").arg(&library);
    run(command, &compiler)?;
    std::fs::copy(&library, out.join("libnvrtc.so")).map_err(|e| format!("{}: {e}", out.display()))?;
    Ok(library)
}

fn run(mut command: Command, what: &str) -> Result<(), String> {
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{what} failed ({status}); see above")),
        Err(error) => Err(format!("{what} did not start: {error}")),
    }
}
