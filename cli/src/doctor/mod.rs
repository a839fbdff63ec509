//! `psx doctor`: whether a broadcast works here, and which parts of it this kernel, C library and sandbox allow.
//!
//! Each question is asked in a child process of its own, because a sandbox may kill a process that asks it. The last
//! check makes a broadcast among the threads of a child, and asks each of them whether it took part.
//!
//! Exit status: 0 if a broadcast works, 1 if it would fail.

mod checks;
mod proof;

use anyhow::{Context, Result};
use clap::Args;
use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table, presets};
use nix::poll::PollTimeout;
use serde::{Deserialize, Serialize};

use crate::output;
use crate::raw::{self, Fate};
use crate::terminal::{self, ColorChoice};
use crate::wrap;

#[derive(Args)]
pub(crate) struct Arguments {
    /// Print JSON in place of a table
    #[arg(long)]
    json: bool,
    /// When to use colours
    #[arg(long, value_name = "WHEN", value_enum, default_value = "auto")]
    color: ColorChoice,
}

/// How long a child may take, in milliseconds; the broadcast's own deadline is shorter.
const PATIENCE: u16 = 15_000;

/// The number of the JSON's shape. Members may be added under the same number.
const SCHEMA: u32 = 1;

/// The result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    #[serde(rename = "ok")]
    Good,
    /// A broadcast works, with the limitation that the consequence names.
    Limited,
    /// A broadcast fails.
    Fails,
}

/// The finding of a check, and its consequence.
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

/// Answers one question.
type Check = fn() -> Finding;

/// The checks, in order.
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
    /// Returns whether a broadcast works here.
    pub(crate) fn run(self) -> Result<bool> {
        raw::default_action_of_sigchld().context("setting the action of SIGCHLD")?;
        let mut findings = Vec::new();
        for (name, check) in CHECKS {
            findings.push((name, ask(check)?));
        }
        findings.push(("a broadcast", ask(proof::broadcast)?));
        let works = findings.iter().all(|(_, finding)| finding.verdict != Verdict::Fails);
        let text = if self.json {
            let named = findings.iter().map(|(name, finding)| Named { name, finding });
            let checks: Vec<_> = named.collect();
            let report = serde_json::json!({ "schema": SCHEMA, "works": works, "checks": checks });
            serde_json::to_string_pretty(&report)? + "\n"
        } else {
            let last = if works { "works" } else { "would fail" };
            let table = table(&findings, self.color.colored());
            format!("{table}a broadcast {last} here\n")
        };
        output::print(&text)?;
        Ok(works)
    }
}

/// A check in the form of the JSON.
#[derive(Serialize)]
struct Named<'a> {
    name: &'a str,
    #[serde(flatten)]
    finding: &'a Finding,
}

/// Runs a check in a child process.
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

fn table(findings: &[(&str, Finding)], colored: bool) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    if colored {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    let words = |finding: &Finding| match finding.verdict {
        Verdict::Good => ("ok", Color::Green),
        Verdict::Limited => ("limited", Color::Yellow),
        Verdict::Fails => ("fails", Color::Red),
    };
    let text = |finding: &Finding| format!("{}\n{}", finding.found, finding.consequence);
    let cells = |(name, finding): &(&str, Finding)| {
        vec![words(finding).0.to_owned(), (*name).to_owned(), text(finding)]
    };
    let all: Vec<_> = findings.iter().map(cells).collect();
    // Two spaces in each of the columns, and one between them.
    let room = terminal::size().map_or(wrap::PIPED, |(width, _)| usize::from(width));
    let widths = wrap::columns(&all, room.saturating_sub(3 * 2 + 2));
    let last = widths.last().copied().unwrap_or(room);
    for (name, finding) in findings {
        let (word, color) = words(finding);
        table.add_row([
            Cell::new(word).fg(color).add_attribute(Attribute::Bold),
            Cell::new(name),
            Cell::new(wrap::wrap(&text(finding), last).join("\n")),
        ]);
    }
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}
