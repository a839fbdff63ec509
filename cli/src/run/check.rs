//! `psx run --check`: the program is a child process. It is stopped at the end of execve(2) and inspected from outside.

use std::fs::File;
use std::process::Command;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::ptrace;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill};
use nix::sys::signalfd::SignalFd;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
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

/// Starts the program, compares it with the plan before its first instruction, lets it go on, and waits for its end.
/// `file` is the program's file, if it was found.
pub(super) fn run(launch: &Launch, mut command: Command, file: Option<File>) -> Result<u8> {
    let sigchld = raw::default_action_of_sigchld().context("setting the action of SIGCHLD")?;
    let mut waited = SigSet::empty();
    waited.add(Signal::SIGCHLD);
    PASSED_ON.into_iter().for_each(|signal| waited.add(signal));
    let mask = waited.thread_swap_mask(SigmaskHow::SIG_BLOCK).context("blocking signals")?;
    raw::trace_me(&mut command, mask, sigchld);
    let child = launch.spawn(command)?;
    let pid = Pid::from_raw(i32::try_from(child.id()).context("its number")?);
    match waitpid(pid, None).context("waiting for the program")? {
        WaitStatus::Stopped(_, Signal::SIGTRAP) => {}
        other => return ended(other).context("the program ended before it could be checked"),
    }
    let withheld = program::withheld(file, pid.as_raw());
    let why = match (launch.check(child.id()), withheld) {
        (Ok(wrong), Ok(None)) if wrong.is_empty() => {
            ptrace::detach(pid, None).context("letting the program go on")?;
            return follow(pid, &waited);
        }
        (Ok(wrong), Ok(Some(what))) if wrong.is_empty() => format!(
            "the executed file has {what}, and the kernel ignores that because --check traces the program \
             without CAP_SYS_PTRACE; the program was killed before its first instruction; leave out --check if it needs \
             that, or add --no-new-privs if not"
        ),
        (Ok(wrong), Err(error)) if wrong.is_empty() => format!(
            "what the executed file gives is unknown: {error:#}; the program was killed before its first instruction; \
             leave out --check or add --no-new-privs"
        ),
        (wrong, _) => {
            let lines = match wrong {
                Ok(wrong) => wrong.iter().map(|one| format!("\n  {one}")).collect(),
                Err(error) => format!("\n  /proc does not show it: {error}"),
            };
            format!(
                "the program has not what the plan says, and was killed before its first instruction:{lines}"
            )
        }
    };
    let _ = kill(pid, Signal::SIGKILL);
    let _ = waitpid(pid, None);
    output::say(why);
    Ok(FAILED)
}

/// Waits for the program's end, and passes signals on. Signals of the terminal reach the program without that.
fn follow(pid: Pid, waited: &SigSet) -> Result<u8> {
    let signals = SignalFd::new(waited).context("waiting for signals")?;
    loop {
        match waitpid(pid, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(Errno::EINTR) => {}
            other => {
                if let Some(status) = ended(other.context("waiting for the program")?) {
                    return Ok(status);
                }
            }
        }
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

/// Returns the exit status for the end of the program, as a shell computes it.
fn ended(status: WaitStatus) -> Option<u8> {
    match status {
        WaitStatus::Exited(_, code) => u8::try_from(code & 0xff).ok(),
        WaitStatus::Signaled(_, signal, _) => u8::try_from(128 + signal as i32).ok(),
        _ => None,
    }
}
