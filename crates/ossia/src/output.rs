//! Results on stdout. `println!` panics where stdout takes no more; here a full disk is a failure like every other, and
//! a reader that has seen enough (`| head -1`) is none.

use std::fmt::Display;
use std::io::{ErrorKind, Write};
use std::ops::ControlFlow;
use std::path::Path;

use crate::error::Failure;

/// Writes `text` and the end of its line.
pub fn line(text: impl Display) -> Result<(), Failure> {
    part(format_args!("{text}\n")).map(drop)
}

/// Writes `text` and does not wait for the end of a line. Breaks where nobody reads any more.
pub fn part(text: impl Display) -> Result<ControlFlow<()>, Failure> {
    let mut out = std::io::stdout().lock();
    match write!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(ControlFlow::Break(())),
        Err(error) => Err(Failure::io("stdout", "write", error)),
        Ok(()) => Ok(ControlFlow::Continue(())),
    }
}

/// Fails where `folder` holds a model, unless it may be replaced: a name mistyped should not cost one.
pub fn no_model_in(folder: &Path, force: bool) -> Result<(), Failure> {
    let there =
        ["config.json", "model.safetensors", "model.safetensors.index.json"].iter().find(|f| folder.join(f).exists());
    match there {
        Some(file) if !force => Err(Failure::Message(format!(
            "{} holds a model already ({file}): name another folder, or add --force to replace it",
            folder.display()
        ))),
        _ => Ok(()),
    }
}
