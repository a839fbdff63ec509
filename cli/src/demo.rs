//! `psx demo`: a program of many threads drops its privilege in front of the user's eyes, first by
//! plain calls, which change the calling thread alone, then through libpsx.
//!
//! The plain way is shown in a second process, which runs the same zoo of threads: privilege once
//! dropped cannot be dropped again. What is shown is read from /proc, not from libpsx's report.

use std::env;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::report::{Everywhere, Plain, Report, micros};
use crate::steps::Goal;
use crate::terminal::{ColorChoice, Progress};
use crate::text::render;
use crate::{census, raw, zoo};

const THREADS: std::ops::RangeInclusive<i64> = 1..=20_000;

fn threads() -> impl clap::builder::TypedValueParser<Value = u16> {
    clap::value_parser!(u16).range(THREADS)
}

#[derive(Args)]
pub(crate) struct Demo {
    /// How many worker threads to start (1 to 20000)
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = threads())]
    threads: u16,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
    /// When to use colours
    #[arg(long, value_name = "WHEN", value_enum, default_value = "auto")]
    color: ColorChoice,
}

#[derive(Args)]
pub(crate) struct DemoPlain {
    #[arg(long, value_parser = threads())]
    threads: u16,
}

impl Demo {
    /// Whether every thread has the new state afterwards.
    pub(crate) fn run(self) -> Result<bool> {
        let workers = usize::from(self.threads);
        let goal = Goal::for_this_process()?;
        let mut progress = Progress::new();
        let plain = in_a_copy(self.threads, &mut progress)
            .context("the copy of this program that makes plain calls")?;
        zoo::start(workers, &mut progress)?;
        progress.tick(|| "calling through libpsx".to_owned());
        let all = everywhere(&goal)?;
        drop(progress);

        let report = Report::new(goal, workers, &plain, &all);
        let text = if self.json {
            serde_json::to_string_pretty(&report)? + "\n"
        } else {
            render(&report, self.color.colored())
        };
        std::io::stdout().write_all(text.as_bytes()).context("writing to standard output")?;
        Ok(report.all_changed)
    }
}

/// Makes the calls through libpsx, between two censuses.
fn everywhere(goal: &Goal) -> Result<Everywhere> {
    let before = census::take(goal)?;
    let mut reports = Vec::new();
    let start = Instant::now();
    for step in goal.steps() {
        reports.push(raw::everywhere(step).with_context(|| step.name())?);
    }
    let elapsed = start.elapsed();
    let after = census::take(goal)?;
    Ok(Everywhere {
        before,
        after,
        elapsed,
        longest_freeze: reports.iter().map(|r| r.longest_freeze()).max().unwrap_or_default(),
        performed: reports.iter().map(|r| r.threads()).max().unwrap_or(0),
        sqpoll: reports.last().map_or(0, |r| r.sqpoll()),
    })
}

/// Runs this program again, to make the plain calls, and waits for what it found.
fn in_a_copy(threads: u16, progress: &mut Progress) -> Result<Plain> {
    let program = env::current_exe().context("finding this program")?;
    let mut child = Command::new(program)
        .args(["demo-plain", "--threads", &threads.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting it")?;
    // What it prints fits into the pipe, so it can end before we read.
    let status = loop {
        if let Some(status) = child.try_wait().context("waiting for it")? {
            break status;
        }
        progress.tick(|| format!("{threads} threads in a copy of this program, plain calls"));
        thread::sleep(Duration::from_millis(5));
    };
    if !status.success() {
        bail!("it failed ({status})");
    }
    serde_json::from_str(&output(&mut child)?).context("reading its findings")
}

fn output(child: &mut Child) -> Result<String> {
    let mut text = String::new();
    let mut stdout = child.stdout.take().context("it has no standard output")?;
    stdout.read_to_string(&mut text).context("reading its findings")?;
    Ok(text)
}

impl DemoPlain {
    /// Makes the calls in the calling thread alone, and prints what /proc says then.
    pub(crate) fn run(self) -> Result<bool> {
        let goal = Goal::for_this_process()?;
        // Quiet: the parent shows the progress of both.
        zoo::start(usize::from(self.threads), &mut Progress::silent())?;
        let start = Instant::now();
        for step in goal.steps() {
            raw::plain(step).with_context(|| step.name())?;
        }
        let elapsed_us = micros(start.elapsed());
        let found = Plain { elapsed_us, after: census::take(&goal)? };
        println!("{}", serde_json::to_string(&found)?);
        Ok(true)
    }
}
