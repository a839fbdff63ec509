//! `psx demo`: a program with many threads drops its privilege and shows the result. It drops it first by
//! plain calls, which change the calling thread alone, then through libpsx.
//!
//! The plain calls run in a second process, which has the same kinds of threads, because a process can drop
//! its privilege only once. The table is read from /proc, not from libpsx's report.

use std::env;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::AsFd;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::report::{Everywhere, Pids, Plain, Report, micros};
use crate::steps::Goal;
use crate::terminal::{ColorChoice, Progress};
use crate::text::render;
use crate::{demo_threads, output, raw, thread_counts};

const THREADS: std::ops::RangeInclusive<i64> = 1..=20_000;

fn threads() -> impl clap::builder::TypedValueParser<Value = u16> {
    clap::value_parser!(u16).range(THREADS)
}

#[derive(Args)]
pub(crate) struct Demo {
    /// How many worker threads to start (1 to 20000)
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = threads())]
    threads: u16,
    /// Stay when all is done, and so does the copy that made plain calls, for psx audit to look at
    #[arg(long)]
    hold: bool,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
    /// When to use colours
    #[arg(long, value_name = "WHEN", value_enum, default_value = "auto")]
    color: ColorChoice,
}

/// The command that makes the copy of this program perform the plain calls.
pub(crate) const PLAIN: &str = "demo-plain";

#[derive(Parser)]
pub(crate) struct DemoPlain {
    #[arg(long, value_parser = threads())]
    threads: u16,
}

impl Demo {
    /// Runs the demo. Returns whether every thread has the new state afterwards.
    pub(crate) fn run(self) -> Result<bool> {
        raw::default_action_of_sigchld().context("setting the action of SIGCHLD")?;
        let workers = usize::from(self.threads);
        let goal = Goal::for_this_process()?;
        let mut progress = Progress::new();
        let mut copy = Held::start(self.threads)?;
        let plain = copy
            .findings(self.threads, &mut progress)
            .context("the copy of this program that makes plain calls")?;
        if !self.hold {
            copy.end()?;
        }
        demo_threads::start(workers, &mut progress)?;
        progress.tick(|| "calling through libpsx".to_owned());
        let all = everywhere(&goal)?;
        drop(progress);

        let mut report = Report::new(goal, workers, &plain, &all);
        if self.hold {
            report.held = Some(Pids { plain: copy.child.id(), libpsx: std::process::id() });
        }
        let text = if self.json {
            serde_json::to_string_pretty(&report)? + "\n"
        } else {
            render(&report, self.color.colored())
        };
        output::print(&text)?;
        if self.hold {
            // This waits until this process or the copy is ended from outside. wait() would close the copy's
            // standard input, and then the copy would end.
            let _open = copy.child.stdin.take();
            copy.child.wait().context("waiting for the copy")?;
        }
        Ok(report.all_changed)
    }
}

/// Counts the threads, makes the calls through libpsx, and counts the threads again.
fn everywhere(goal: &Goal) -> Result<Everywhere> {
    let before = thread_counts::count(goal)?;
    let mut reports = Vec::new();
    let start = Instant::now();
    for step in goal.steps() {
        reports.push(raw::everywhere(step).with_context(|| step.name())?);
    }
    let elapsed = start.elapsed();
    let after = thread_counts::count(goal)?;
    Ok(Everywhere {
        before,
        after,
        elapsed,
        max_pause: reports.iter().map(|r| r.max_pause()).max().unwrap_or_default(),
        performed: reports.iter().map(|r| r.threads()).max().unwrap_or(0),
        sqpoll: reports.last().map_or(0, |r| r.sqpoll()),
    })
}

/// A second process of this program, which makes the plain calls and stays until its standard input ends. That
/// happens when this process closes it, or when this process has ended for any reason.
struct Held {
    child: Child,
    stdout: ChildStdout,
}

impl Held {
    fn start(threads: u16) -> Result<Self> {
        let program = env::current_exe().context("finding this program")?;
        let mut child = Command::new(program)
            .args([PLAIN, "--threads", &threads.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting a copy of this program")?;
        let stdout = child.stdout.take().context("it has no standard output")?;
        Ok(Self { child, stdout })
    }

    /// Waits for the copy's findings, which are one line.
    fn findings(&mut self, threads: u16, progress: &mut Progress) -> Result<Plain> {
        while poll(
            &mut [PollFd::new(self.stdout.as_fd(), PollFlags::POLLIN)],
            PollTimeout::from(50_u8),
        )? == 0
        {
            progress.tick(|| format!("{threads} threads in a copy of this program, plain calls"));
        }
        let mut line = String::new();
        BufReader::new(&mut self.stdout).read_line(&mut line).context("reading its findings")?;
        if line.is_empty() {
            bail!("it failed ({})", self.child.wait().context("waiting for it")?);
        }
        serde_json::from_str(&line).context("reading its findings")
    }

    fn end(&mut self) -> Result<()> {
        drop(self.child.stdin.take());
        let status = self.child.wait().context("waiting for the copy")?;
        if status.success() { Ok(()) } else { bail!("the copy failed ({status})") }
    }
}

impl DemoPlain {
    /// Makes the calls in the calling thread alone, and prints what /proc says then.
    pub(crate) fn run(self) -> Result<bool> {
        let goal = Goal::for_this_process()?;
        // The copy shows no progress: the parent shows the progress of both.
        demo_threads::start(usize::from(self.threads), &mut Progress::silent())?;
        let start = Instant::now();
        for step in goal.steps() {
            raw::plain(step).with_context(|| step.name())?;
        }
        let elapsed_us = micros(start.elapsed());
        let found = Plain { elapsed_us, after: thread_counts::count(&goal)? };
        output::print(&format!("{}\n", serde_json::to_string(&found)?))?;
        std::io::stdin().read_to_end(&mut Vec::new()).context("waiting for the end")?;
        Ok(true)
    }
}
