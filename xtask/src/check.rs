//! Everything that must pass before a change is shared, in the order in which a mistake is cheapest to find.
//! This is the only list of the steps: continuous integration runs this command.

use std::path::Path;
use std::process::{Command, Stdio};

const FORMAT: &[&str] = &["fmt", "--all", "--check"];
const LINT: &[&str] = &["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];
const TEST: &[&str] = &["test", "--workspace", "--locked"];

/// Formatting, lints, the house's rules, tests; stops at the first that fails and names it.
pub fn run(root: &Path) -> Result<(), String> {
    cargo(root, FORMAT)?;
    cargo(root, LINT)?;
    println!("== cargo xtask tidy");
    crate::tidy::run(root)?;
    cargo(root, TEST)
}

fn cargo(root: &Path, args: &[&str]) -> Result<(), String> {
    let line = format!("cargo {}", args.join(" "));
    println!("== {line}");
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(program).args(args).current_dir(root).stdin(Stdio::null()).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => {
            Err(format!("`{line}` failed ({status}): mend what it reports, then run `cargo xtask check` again"))
        }
        Err(error) => Err(format!("`{line}` did not start: {error}")),
    }
}
