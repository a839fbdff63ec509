//! Builds the programs by `bench/engines/build`, and runs them under a watchdog.

use std::collections::BTreeMap;
use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::{Context, Result};

/// For each program: it is built, or the reason why it is not available here.
pub(crate) type Built = BTreeMap<&'static str, Result<(), String>>;

pub(crate) const BESIDE_RECENT: &str = "scripts/with-recent-libcap";

/// Returns the trimmed output of a command, or `None` if it fails.
pub(crate) fn output_of(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    output.status.success().then_some(text)
}

/// The exit status of `bench/engines/build` if something that the engine needs is not available.
const NOT_TO_BE_HAD: i32 = 77;

/// The programs that are built from a git revision, which is an argument of the build.
const OF_A_REVISION: [&str; 2] = ["baseline", "baseline-server"];

fn build_one(program: &str, baseline: Option<&str>) -> Result<Result<(), String>> {
    let mut build = Command::new("bench/engines/build");
    let revision = baseline.filter(|_| OF_A_REVISION.contains(&program));
    let output = build
        .arg(program)
        .args(revision)
        .stdin(Stdio::null())
        .output()
        .context("bench/engines/build")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    let why = errors.lines().last().unwrap_or_default().trim().to_owned();
    match output.status.code() {
        Some(0) => Ok(Ok(())),
        Some(NOT_TO_BE_HAD) => Ok(Err(why)),
        _ => anyhow::bail!("{program} does not build: {errors}"),
    }
}

/// Builds the programs; `baseline` is the git revision of the baseline engine.
pub(crate) fn build(programs: &[&'static str], baseline: Option<&str>) -> Result<Built> {
    let mut built = Built::new();
    for &program in programs {
        let result = build_one(program, baseline)?;
        if let Err(why) = &result {
            eprintln!("SKIPPED {program}: {why}");
        }
        built.insert(program, result);
    }
    Ok(built)
}

/// The output of a program that ended, or the fact that it did not end.
#[derive(Debug)]
pub(crate) enum Ended {
    Well(String),
    Badly(String),
    Hung,
}

/// Runs the command to its end, or kills it when the time is over.
pub(crate) fn watch(command: &mut Command, limit: Duration) -> Result<Ended> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("{command:?}"))?;
    let (mut out, mut err) =
        (child.stdout.take().context("no pipe")?, child.stderr.take().context("no pipe")?);
    let (over, is_over) = channel();
    let printed = std::thread::spawn(move || {
        let mut text = String::new();
        // A truncated text lacks lines that the parser requires, so the error shows there.
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
