//! Standard output and standard error. A reader may close a pipe, and a device may be full. `print!` and `eprint!` would
//! end the process then, with a status of their own.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write as _};

use anyhow::{Context, Result};

/// Writes to standard output. Returns whether more can be written. A closed pipe is not an error: the reader, for example
/// head(1), needs no more text.
pub(crate) fn print(text: &str) -> Result<bool> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error).context("writing to standard output"),
    }
}

/// Writes a message to standard error. If that fails, the exit status alone tells of the failure.
pub(crate) fn say(message: impl Display) {
    let _ = io::stderr().write_all(format!("psx: {message}\n").as_bytes());
}
