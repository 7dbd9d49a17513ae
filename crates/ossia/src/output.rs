//! Results on stdout. `println!` panics where stdout takes no more; here a full disk is a failure like every other, and
//! a reader that has seen enough (`| head -1`) is none.

use std::fmt::Display;
use std::io::{ErrorKind, Write};
use std::path::Path;

use crate::error::Failure;

/// Writes `text` and the end of its line.
pub fn line(text: impl Display) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Failure::io("stdout", "write", error)),
        _ => Ok(()),
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
