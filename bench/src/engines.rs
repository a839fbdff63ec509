//! The programs: built by `bench/engines/build`, run under a watchdog.

use std::collections::BTreeMap;
use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::{Context, Result};

/// What became of each program: built, or why it is not there.
pub(crate) type Built = BTreeMap<&'static str, Result<(), String>>;

pub(crate) const BESIDE_RECENT: &str = "scripts/with-recent-libcap";

/// What a command prints, trimmed; None if it fails.
pub(crate) fn output_of(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    output.status.success().then_some(text)
}

fn build_one(program: &str) -> Result<(), String> {
    let output = Command::new("bench/engines/build").arg(program).stdin(Stdio::null()).output();
    match output {
        Err(error) => Err(format!("bench/engines/build: {error}")),
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let errors = String::from_utf8_lossy(&output.stderr);
            Err(errors.lines().last().unwrap_or("it does not build").trim().to_owned())
        }
    }
}

pub(crate) fn build(programs: &[&'static str]) -> Built {
    let built: Built = programs.iter().map(|&program| (program, build_one(program))).collect();
    for (program, result) in &built {
        if let Err(why) = result {
            eprintln!("SKIPPED {program}: {why}");
        }
    }
    built
}

/// What a program printed, or that it did not end.
#[derive(Debug)]
pub(crate) enum Ended {
    Well(String),
    Badly(String),
    Hung,
}

/// Runs it to its end, or kills it when the time is over.
pub(crate) fn watch(command: &mut Command, limit: Duration) -> Result<Ended> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("{command:?}"))?;
    let (mut out, mut err) =
        (child.stdout.take().context("no pipe")?, child.stderr.take().context("no pipe")?);
    let (over, is_over) = channel();
    let printed = std::thread::spawn(move || {
        let mut text = String::new();
        // Cut short, the text lacks lines that are asked for.
        let _ = out.read_to_string(&mut text);
        let _ = over.send(());
        text
    });
    let errors = std::thread::spawn(move || {
        let mut text = String::new();
        let _ = err.read_to_string(&mut text);
        text
    });
    if is_over.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
        child.kill()?;
        child.wait()?;
        return Ok(Ended::Hung);
    }
    let status = child.wait()?;
    let text = printed.join().unwrap_or_default();
    let errors = errors.join().unwrap_or_default();
    let last = errors.lines().last().unwrap_or_default();
    Ok(if status.success() {
        Ended::Well(text)
    } else {
        Ended::Badly(format!("{status} {last}").trim().to_owned())
    })
}
