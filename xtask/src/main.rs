//! The project's own tools: `cargo xtask tidy` keeps the rules that a program can keep, `cargo xtask check` runs
//! everything that must pass before a change is shared, `cargo xtask kill` kills training runs. No dependencies, so that it builds in a moment.
#![forbid(unsafe_code)]

mod check;
mod client;
mod cuda;
mod fuzz;
mod gpu_report;
mod json;
mod kill;
mod kill_server;
mod load;
mod rng;
mod served;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask tidy | check | kill | load | fuzz-server | kill-server | cuda-check | cuda-emulate | gpu-report

  tidy    the house's rules: lengths, openings, unsafe, crate arrows, op folders, banned words, dead files, links
  check   cargo fmt --check, cargo clippy, tidy, cargo test
  kill    [finetune] [KILLS [SEED]] training runs that are killed at random times leave the bytes of an unbroken one; minutes
  load    many clients against a server; `cargo xtask load` says more
  fuzz-server    [--requests N] [--seed N] [--from N] requests that mean harm: no fault, no hang, nothing told; minutes
  kill-server    [KILLS [SEED]] a server that is killed at random times has kept what it said that it has; minutes
  cuda-check     all CUDA kernels compile, without a GPU (NVIDIA's compiler in PATH or NVCC); what they take of one
  cuda-emulate   the GPU's tests with the kernels compiled for this processor; minutes
  gpu-report     on a machine with a GPU: the tests there, then speeds beside published ones; `cargo xtask gpu-report help` says more";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let root = workspace_root();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["tidy"] => outcome(tidy::run(&root)),
        ["check"] => outcome(check::run(&root)),
        ["kill", ref args @ ..] => outcome(kill::run(&root, args)),
        ["load", ref args @ ..] => outcome(load::run(&root, args)),
        ["fuzz-server", ref args @ ..] => outcome(fuzz::run(&root, args)),
        ["kill-server", ref args @ ..] => outcome(kill_server::run(&root, args)),
        ["cuda-check"] => outcome(cuda::check(&root)),
        ["cuda-emulate"] => outcome(cuda::emulate(&root)),
        ["gpu-report", ref args @ ..] => outcome(gpu_report::run(&root, args)),
        ["help" | "-h" | "--help"] => {
            println!("{USAGE}");
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn outcome(result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

/// The folder above xtask's own: Cargo sets the variable both for `cargo xtask` and for tests.
fn workspace_root() -> PathBuf {
    let own = std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from("xtask"), PathBuf::from);
    own.parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}
