//! Results on stdout. `println!` panics where stdout takes no more; here a full disk is a failure like every other, and
//! a reader that has seen enough (`| head -1`) is none.

use std::fmt::Display;
use std::io::{ErrorKind, Write};

use crate::error::Failure;

/// Writes `text` and the end of its line.
pub fn line(text: impl Display) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Failure::io("stdout", "write", error)),
        _ => Ok(()),
    }
}
