//! `psx run --check`: the program is a child process. It is stopped at the end of execve(2) and inspected from outside.
//!
//! The program never runs unchecked:
//!
//! - The child is traced before its first call of the plan, with PTRACE_O_EXITKILL: the kernel kills it if this process
//!   ends before the check.
//! - The end of execve(2) is an event of its own (PTRACE_O_TRACEEXEC), which no signal can imitate.
//! - Every way out of [`run`] before that, except [`Tracee::release`], kills the child.
//!
//! A traced process stops for each signal that it does not block, also for one that it ignores. Therefore the child blocks
//! all signals, and this process answers each stop: SIGSTOP cannot be blocked. The program gets the mask that it shall have
//! after execve(2). Signals that came before wait until then.

use std::fs::File;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::ptrace;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use privileges::Launch;

use super::{FAILED, program};
use crate::{output, raw};

/// Signals that end or instruct a program, and that its parent passes on.
const PASSED_ON: [Signal; 7] = [
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGWINCH,
];

/// A child that this process traces. It is killed when this is dropped.
struct Tracee(Pid);

impl Drop for Tracee {
    fn drop(&mut self) {
        // If it has ended, there is nothing to kill and nothing to wait for.
        let _ = kill(self.0, Signal::SIGKILL);
        let _ = waitpid(self.0, None);
    }
}

impl Tracee {
    /// Lets the child run without a tracer. If that fails, the child is killed.
    fn release(self) -> Result<Pid> {
        ptrace::detach(self.0, None).context("letting the program go on")?;
        let pid = self.0;
        std::mem::forget(self);
        Ok(pid)
    }
}

/// Starts the program, compares it with the plan before its first instruction, lets it go on, and waits for its end.
/// `file` is the program's file, if it was found. `execute` executes the program in the place of the child, and returns the
/// exit status if that fails.
pub(super) fn run(launch: &Launch, execute: impl FnOnce() -> u8, file: Option<File>) -> Result<u8> {
    let sigchld = raw::default_action_of_sigchld().context("setting the action of SIGCHLD")?;
    let mut waited = SigSet::empty();
    waited.add(Signal::SIGCHLD);
    PASSED_ON.into_iter().for_each(|signal| waited.add(signal));
    let mask = waited.thread_swap_mask(SigmaskHow::SIG_BLOCK).context("blocking signals")?;
    let signals =
        SignalFd::with_flags(&waited, SfdFlags::SFD_CLOEXEC).context("waiting for signals")?;
    let tracee = raw::traced_child(sigchld, execute).context("starting a child process")?;
    let tracee = Tracee(tracee);
    let pid = tracee.0;
    if let Some(end) = until_executed(pid, &signals)? {
        // The child has said why. Its number can belong to another process now.
        std::mem::forget(tracee);
        return Ok(end);
    }
    raw::set_mask_of(pid, &mask).context("setting the program's signal mask")?;
    let withheld = program::withheld(file, pid.as_raw());
    let number = u32::try_from(pid.as_raw()).context("the number of the child")?;
    let why = match (launch.check(number), withheld) {
        (Ok(wrong), Ok(None)) if wrong.is_empty() => return follow(tracee.release()?, &signals),
        (Ok(wrong), Ok(Some(what))) if wrong.is_empty() => format!(
            "the executed file has {what}, and the kernel ignores that because --check traces the program \
             without CAP_SYS_PTRACE; the program was killed before its first instruction; leave out --check if it needs \
             that, or add --no-new-privs if not"
        ),
        (Ok(wrong), Err(error)) if wrong.is_empty() => format!(
            "what the executed file gives is unknown: {error:#}; the program was killed before its first instruction; \
             leave out --check or add --no-new-privs"
        ),
        (Ok(wrong), _) => {
            let lines: String = wrong.iter().map(|one| format!("\n  {one}")).collect();
            format!(
                "the program has not what the plan says, and was killed before its first instruction:{lines}"
            )
        }
        (Err(error), _) => format!(
            "the program cannot be compared with the plan: {error}; the program was killed before its first instruction"
        ),
    };
    drop(tracee);
    output::say(why);
    Ok(FAILED)
}

/// Answers each stop of the child until it has executed the program. Returns the exit status if the child ends before.
fn until_executed(pid: Pid, signals: &SignalFd) -> Result<Option<u8>> {
    // The status of the first stop is taken only afterwards. With it the kernel forgets the SIGTRAP that kills the child if
    // this process ends.
    until(signals, pid, || raw::has_changed(pid))?;
    let options = ptrace::Options::PTRACE_O_EXITKILL | ptrace::Options::PTRACE_O_TRACEEXEC;
    let traced = ptrace::setoptions(pid, options);
    loop {
        let status = next(pid, signals)?;
        if let Some(signal) = status.signal() {
            output::say(format_args!(
                "signal {signal} ended the child process before it executed the program"
            ));
            return Ok(Some(FAILED));
        }
        if let Some(end) = ended(status) {
            return Ok(Some(end));
        }
        // A child with these options goes on. Without them it may only have ended.
        traced.context("tracing the program")?;
        // The event is in the bits above those of the signal (ptrace(2), PTRACE_O_TRACEEXEC).
        if status.into_raw() >> 16 == ptrace::Event::PTRACE_EVENT_EXEC as i32 {
            return Ok(None);
        }
        // By SIGTRAP the child waits for this process. A SIGSTOP takes effect when the program is not traced any more,
        // unless SIGCONT comes before: the kernel remembers that once the signal has been delivered. The stop that follows
        // the delivery ends in the same way, and ignores the signal.
        let signal = status.stopped_signal().and_then(|number| Signal::try_from(number).ok());
        let signal = signal.filter(|&signal| signal != Signal::SIGTRAP);
        or_killed(ptrace::cont(pid, signal)).context("starting the program")?;
    }
}

/// Takes the error for no error by which the kernel says that the child is not stopped any more: SIGKILL ends each stop,
/// and the next status is that of the end.
fn or_killed(result: nix::Result<()>) -> nix::Result<()> {
    if result == Err(Errno::ESRCH) { Ok(()) } else { result }
}

/// Waits until the child stops or ends, and takes its status.
fn next(pid: Pid, signals: &SignalFd) -> Result<ExitStatus> {
    until(signals, pid, || raw::changed(pid))
}

/// Waits until `asked` has an answer, and passes signals on to the child. Signals of the terminal reach the child without
/// that. Takes the status of each other child that has ended.
fn until<T>(signals: &SignalFd, pid: Pid, asked: impl Fn() -> nix::Result<Option<T>>) -> Result<T> {
    loop {
        match asked() {
            Ok(None) | Err(Errno::EINTR) => {}
            Ok(Some(status)) => return Ok(status),
            Err(error) => return Err(error).context("waiting for the program"),
        }
        reap_others(pid);
        let Some(info) = signals.read_signal().context("waiting for signals")? else { continue };
        let from_kernel = info.ssi_code > 0;
        let signal =
            i32::try_from(info.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok());
        match signal {
            Some(signal) if signal != Signal::SIGCHLD && !from_kernel => {
                let _ = kill(pid, signal);
            }
            _ => {}
        }
    }
}

/// Takes the status of each child that has ended and is not the program. As process 1 of a PID namespace or as a child
/// subreaper, psx is the parent of each process there whose parent has ended.
///
/// The kernel can name the program and thereby hide another child. It then names that one at a later call, because the
/// caller takes the program's status first.
fn reap_others(program: Pid) {
    while let Ok(Some(other)) = raw::ended_child() {
        if other == program || !matches!(raw::changed(other), Ok(Some(_))) {
            return;
        }
    }
}

/// Waits for the program's end.
fn follow(pid: Pid, signals: &SignalFd) -> Result<u8> {
    loop {
        if let Some(status) = ended(next(pid, signals)?) {
            return Ok(status);
        }
    }
}

/// Returns the exit status for the end of the program, as a shell computes it.
fn ended(status: ExitStatus) -> Option<u8> {
    match (status.code(), status.signal()) {
        (Some(code), _) => u8::try_from(code & 0xff).ok(),
        (None, Some(signal)) => u8::try_from(signal.saturating_add(128)).ok(),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_names_the_signals_that_are_passed_on() {
        let help = super::super::AFTER;
        let sentence = help.split("It passes on ").nth(1).and_then(|rest| rest.split('.').next());
        let sentence = sentence.unwrap();
        for signal in PASSED_ON {
            assert!(sentence.contains(signal.as_str()), "{signal}: {sentence}");
        }
        assert_eq!(sentence.matches("SIG").count(), PASSED_ON.len(), "{sentence}");
    }
}
