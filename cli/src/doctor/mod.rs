//! `psx doctor`: what this kernel, C library and sandbox give to a broadcast, and whether one works here.
//!
//! Each question is asked in a child process of its own, because a sandbox may kill for it. The last one
//! is no question: a broadcast is made, in threads of a child, and each of them is asked whether it took
//! part.
//!
//! Exit status: 0 it works, 1 it would fail.

mod checks;
mod proof;

use std::fmt::Write as _;
use std::io::Write as _;

use anyhow::{Context, Result};
use clap::Args;
use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table, presets};
use nix::poll::PollTimeout;
use serde::{Deserialize, Serialize};

use crate::raw::{self, Fate};
use crate::terminal::{self, ColorChoice};

#[derive(Args)]
pub(crate) struct Arguments {
    /// When to use colours
    #[arg(long, value_name = "WHEN", value_enum, default_value = "auto")]
    color: ColorChoice,
}

/// How long a child may take, in milliseconds; the broadcast's own deadline is shorter.
const PATIENCE: u16 = 15_000;

/// Columns where there is no terminal.
const PIPED: u16 = 100;

/// What a check comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Verdict {
    Good,
    /// It works, at a price.
    Limited,
    /// A broadcast fails.
    Fails,
}

/// What was found, and what follows from it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Finding {
    verdict: Verdict,
    found: String,
    consequence: String,
}

impl Finding {
    fn new(verdict: Verdict, found: impl Into<String>, consequence: impl Into<String>) -> Self {
        Self { verdict, found: found.into(), consequence: consequence.into() }
    }
}

/// Finds one thing out.
type Check = fn() -> Finding;

/// What is looked at, in order.
const CHECKS: [(&str, Check); 11] = [
    ("CPU", checks::cpu),
    ("kernel", checks::kernel),
    ("C library", checks::libc),
    ("sandbox", checks::sandbox),
    ("/proc", checks::proc),
    ("signal 33", checks::signal),
    ("signal queue", checks::queue),
    ("alone?", checks::alone),
    ("seccomp TSYNC", checks::tsync),
    ("Landlock", checks::landlock),
    ("io_uring", checks::io_uring),
];

impl Arguments {
    /// Whether a broadcast works here.
    pub(crate) fn run(self) -> Result<bool> {
        let mut findings = Vec::new();
        for (name, check) in CHECKS {
            findings.push((name, ask(check)?));
        }
        findings.push(("a broadcast", ask(proof::broadcast)?));
        let works = findings.iter().all(|(_, finding)| finding.verdict != Verdict::Fails);
        let mut text = format!("{}\n", table(&findings, self.color.colored()));
        let last = if works { "works" } else { "would fail" };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "a broadcast {last} here");
        std::io::stdout().write_all(text.as_bytes()).context("writing to standard output")?;
        Ok(works)
    }
}

/// Has a child find out.
fn ask(check: Check) -> Result<Finding> {
    let fate = raw::in_a_child(PollTimeout::from(PATIENCE), move || {
        serde_json::to_string(&check()).unwrap_or_default()
    });
    let consequence = "a sandbox forbids what has to be done, or what was asked";
    Ok(match fate.context("making a child process")? {
        Fate::Said(said) => serde_json::from_str(&said).context("reading what a child found")?,
        Fate::Killed(signal) => {
            Finding::new(Verdict::Fails, format!("killed by {signal}"), consequence)
        }
        Fate::Lost(how) => Finding::new(Verdict::Fails, how, consequence),
    })
}

fn table(findings: &[(&str, Finding)], colored: bool) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_width(terminal::size().map_or(PIPED, |(width, _)| width));
    if colored {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    for (name, finding) in findings {
        let (word, color) = match finding.verdict {
            Verdict::Good => ("ok", Color::Green),
            Verdict::Limited => ("limited", Color::Yellow),
            Verdict::Fails => ("fails", Color::Red),
        };
        table.add_row([
            Cell::new(word).fg(color).add_attribute(Attribute::Bold),
            Cell::new(name),
            Cell::new(format!("{}\n{}", finding.found, finding.consequence)),
        ]);
    }
    table
}
