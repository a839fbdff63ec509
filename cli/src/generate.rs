//! Shell completions and man pages, from the definitions that the command line is parsed by.

use std::io::{self, Write as _};
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, CommandFactory};
use clap_complete::Shell;

#[derive(Args)]
pub(crate) struct Completions {
    /// The shell to complete for
    #[arg(value_name = "SHELL", value_enum)]
    shell: Shell,
}

#[derive(Args)]
pub(crate) struct Man {
    /// Where to write psx.1, psx-audit.1 and so on; without it psx(1) goes to standard output
    #[arg(value_name = "DIR")]
    directory: Option<PathBuf>,
}

impl Completions {
    pub(crate) fn run(self) -> Result<bool> {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut crate::Cli::command(), "psx", &mut text);
        io::stdout().write_all(&text).context("writing to standard output")?;
        Ok(true)
    }
}

impl Man {
    pub(crate) fn run(self) -> Result<bool> {
        let command = crate::Cli::command();
        if let Some(directory) = self.directory {
            clap_mangen::generate_to(command, &directory)
                .with_context(|| format!("writing to {}", directory.display()))?;
        } else {
            clap_mangen::Man::new(command)
                .render(&mut io::stdout())
                .context("writing to standard output")?;
        }
        Ok(true)
    }
}
