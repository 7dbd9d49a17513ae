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

const USAGE: &str = "usage: cargo xtask tidy | check | kill | load | fuzz-server | kill-server | cuda-check | cuda-emulate | cuda-sanitize | gpu-report

  tidy    the house's rules: lengths, openings, unsafe, crate arrows, op folders, banned words, dead files, links
  check   cargo fmt --check, cargo clippy, tidy, cargo test
  kill    [finetune] [KILLS [SEED]] training runs that are killed at random times leave the bytes of an unbroken one; minutes
  load    many clients against a server; `cargo xtask load` says more
  fuzz-server    [--requests N] [--seed N] [--from N] requests that mean harm: no fault, no hang, nothing told; minutes
  kill-server    [KILLS [SEED]] a server that is killed at random times has kept what it said that it has; minutes
  cuda-check     all CUDA kernels compile, without a GPU (NVIDIA's compiler in PATH or NVCC); what they take of one
  cuda-emulate   the GPU's tests with the kernels compiled for this processor; minutes
  cuda-sanitize  on a machine with a GPU: the kernels' tests under NVIDIA's compute-sanitizer (in PATH or COMPUTE_SANITIZER)
  gpu-report     on a machine with a GPU: the tests there, then speeds beside published ones; `cargo xtask gpu-report help` says more";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let root = match workspace_root() {
        Ok(root) => root,
        Err(message) => return outcome(Err(message)),
    };
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["tidy"] => outcome(tidy::run(&root)),
        ["check"] => outcome(check::run(&root)),
        ["kill", ref args @ ..] => outcome(kill::run(&root, args)),
        ["load", ref args @ ..] => outcome(load::run(&root, args)),
        ["fuzz-server", ref args @ ..] => outcome(fuzz::run(&root, args)),
        ["kill-server", ref args @ ..] => outcome(kill_server::run(&root, args)),
        ["cuda-check"] => outcome(cuda::check(&root)),
        ["cuda-emulate"] => outcome(cuda::emulate(&root)),
        ["cuda-sanitize"] => outcome(cuda::sanitize(&root)),
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

/// The repository. Cargo says where it is, both for `cargo xtask` and for tests; without Cargo it is here or above.
fn workspace_root() -> Result<PathBuf, String> {
    if let Some(own) = std::env::var_os("CARGO_MANIFEST_DIR") {
        return Ok(Path::new(&own).parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf));
    }
    let here = std::env::current_dir().map_err(|error| format!("xtask: the working folder cannot be read: {error}"))?;
    root_above(&here).map(Path::to_path_buf).ok_or_else(|| {
        let wanted = "wanted a folder of the repository, which has xtask/Cargo.toml";
        format!("xtask: {wanted}, found {}: run `cargo xtask` inside the repository", here.display())
    })
}

/// The nearest folder that has this program's sources.
fn root_above(folder: &Path) -> Option<&Path> {
    folder.ancestors().find(|folder| folder.join("xtask/Cargo.toml").is_file())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{root_above, workspace_root};

    #[test]
    fn the_repository_is_found_without_cargo() {
        let root = workspace_root().unwrap();
        assert_eq!(root_above(&root.join("xtask/src")), Some(&*root));
        assert_eq!(root_above(&root), Some(&*root));
        assert_eq!(root_above(Path::new("/")), None);
    }
}
