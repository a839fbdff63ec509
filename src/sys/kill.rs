//! Ends the process, in every situation.

// # Safety
//
// The unsafe operation sets the default action of signal 33, which runs no code of the process.
#![allow(unsafe_code)]

use linux_raw_sys::general as k;

use super::arch::{self, KernelSigaction};
use super::signal::{ALL, SIGNAL, bit, set_mask, set_sigaction, tgkill};
use super::{call, getpid, gettid, process_id};

/// Ends the process by signal 33, in every situation. No call here waits.
///
/// 1. The default action of signal 33, sent to this thread. If the action cannot be set, the signal would run the
///    handler of another library, so it is not sent.
/// 2. SIGKILL, if that did not end the process.
/// 3. Both leave the init process of a PID namespace alone (pid_namespaces(7)). It ends with an exit
///    status that tells the signal.
/// 4. If a filter refuses all of these, the thread executes an instruction that traps.
pub(crate) fn kill_process() -> ! {
    // SAFETY: the default action runs no code of the process.
    if unsafe { set_sigaction(&KernelSigaction::DEFAULT) }.is_ok() {
        let _ = tgkill(getpid(), gettid(), SIGNAL);
        let _ = set_mask(ALL & !bit(SIGNAL));
    }
    kill_process_without_signal_33()
}

/// Does the same without the first step, for a thread that has seen another thread die in it.
pub(crate) fn kill_process_without_signal_33() -> ! {
    const SIGKILL: i32 = 9;
    kill_self(SIGKILL);
    exit_group(128 + SIGNAL);
    arch::trap()
}

/// Sends this process a signal, kill(2). A filter may answer for getpid(2). Without a pid the call is not made, because 0
/// stands for the process group, and a negative number for more.
fn kill_self(signal: i32) {
    if let Some(pid) = process_id().ok().filter(|&pid| pid > 0) {
        let _ = call(k::__NR_kill, [pid as usize, signal as usize, 0, 0, 0, 0]);
    }
}

fn exit_group(status: i32) {
    let _ = call(k::__NR_exit_group, [status as usize, 0, 0, 0, 0, 0]);
}
