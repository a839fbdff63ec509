//! A broadcast, and each thread's own answer whether it took part.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use libpsx::Transaction;
use libpsx::process::set_timer_slack;
use nix::sys::prctl::get_timerslack;

use super::{Finding, Verdict};
use crate::raw;

/// The number of threads that the C library starts. The process has two more: the caller, and one thread that the C
/// library does not know.
const THREADS: usize = 8;

const DEADLINE: Duration = Duration::from_secs(3);

/// A timer slack that no thread starts with, in nanoseconds. A thread starts with 50,000 or its parent's value.
const SLACK: i32 = 54_321;

/// A thread that reports its timer slack when it is asked.
struct Witness {
    ask: Sender<()>,
    answer: Receiver<nix::Result<i32>>,
}

impl Witness {
    fn start() -> Result<Self> {
        let (ask, asked) = channel();
        let (answers, answer) = channel();
        thread::Builder::new().spawn(move || {
            while asked.recv().is_ok() && answers.send(get_timerslack()).is_ok() {}
        })?;
        Ok(Self { ask, answer })
    }

    fn slack(&self) -> Result<i32> {
        self.ask.send(())?;
        Ok(self.answer.recv()??)
    }
}

/// Sets the timer slack of all threads of this process, which is made for it.
pub(super) fn broadcast() -> Finding {
    match attempt() {
        Ok(found) => {
            Finding::new(Verdict::Good, found, "performed by every thread, and each says so")
        }
        Err(error) => {
            Finding::new(Verdict::Fails, format!("{error:#}"), "calls through libpsx fail")
        }
    }
}

fn attempt() -> Result<String> {
    let witnesses = (0..THREADS).map(|_| Witness::start()).collect::<Result<Vec<_>>>();
    let witnesses = witnesses.context("starting threads")?;
    raw::spawn_sleeper().context("starting a thread by clone(2)")?;
    let slack = set_timer_slack(Duration::from_nanos(SLACK.unsigned_abs().into()));
    let start = Instant::now();
    let report = Transaction::new().with(slack).deadline(DEADLINE).execute_with_report()?;
    let elapsed = start.elapsed();
    let wanted = THREADS + 2;
    ensure!(report.threads() == wanted, "{} threads in place of {wanted}", report.threads());
    for witness in &witnesses {
        let found = witness.slack().context("asking a thread")?;
        ensure!(found == SLACK, "a thread has not performed the call: {found} in place of {SLACK}");
    }
    Ok(format!("{wanted} threads in {} us", elapsed.as_micros()))
}
