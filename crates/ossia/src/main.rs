//! The `ossia` program: arguments in, exit status out (0 done, 1 failed, 2 wrong usage).
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use ossia::commands::Command;

/// The whole of gpt-oss on your own machine: chat, run, measure. Nothing you type leaves it.
#[derive(Parser)]
#[command(version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    match Cli::parse().command.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("ossia: {failure}");
            ExitCode::from(failure.status())
        }
    }
}
