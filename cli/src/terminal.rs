//! The terminal: whether to use colours, how the name of another process is shown, and a progress line.

use std::env;
use std::io::{self, IsTerminal, Write as _};
use std::time::{Duration, Instant};

use clap::ValueEnum;

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ColorChoice {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    Always,
    Never,
}

impl ColorChoice {
    /// Decides for standard output.
    pub(crate) fn colored(self) -> bool {
        let set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => io::stdout().is_terminal() && !set("NO_COLOR") && !dumb,
        }
    }
}

/// Returns the columns and lines of the terminal, if standard output is one.
pub(crate) fn size() -> Option<(u16, u16)> {
    let (width, height) = terminal_size::terminal_size_of(io::stdout())?;
    Some((width.0, height.0))
}

/// Escapes a name that another process may have chosen, so that it cannot control a terminal or imitate other text. Every
/// byte that is not printable ASCII is escaped, and so is the backslash.
pub(crate) fn printable(name: &[u8]) -> String {
    let mut text = String::new();
    for &byte in name {
        match byte {
            b' '..=b'[' | b']'..=b'~' => text.push(char::from(byte)),
            _ => text.extend(std::ascii::escape_default(byte).map(char::from)),
        }
    }
    text
}

/// One line on standard error, rewritten in place. It appears if something takes longer than a second.
pub(crate) struct Progress {
    next: Instant,
    terminal: bool,
    shown: bool,
}

impl Progress {
    const PATIENCE: Duration = Duration::from_secs(1);
    const INTERVAL: Duration = Duration::from_millis(100);

    pub(crate) fn new() -> Self {
        let next = Instant::now() + Self::PATIENCE;
        Self { next, terminal: io::stderr().is_terminal(), shown: false }
    }

    /// Returns a progress line that never appears.
    pub(crate) fn silent() -> Self {
        Self { terminal: false, ..Self::new() }
    }

    /// Shows the present progress, if enough time has passed.
    pub(crate) fn tick(&mut self, what: impl FnOnce() -> String) {
        let now = Instant::now();
        if !self.terminal || now < self.next {
            return;
        }
        // A progress line that cannot be written does not matter.
        let _ = write!(io::stderr(), "\r\x1b[Kpsx: {}", what());
        self.next = now + Self::INTERVAL;
        self.shown = true;
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
