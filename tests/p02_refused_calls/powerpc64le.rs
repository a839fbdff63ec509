//! The calls that powerpc64 has beside those of every CPU.

use libpsx::RefusalReason;

use super::{ALWAYS, Row, int};

pub(super) const IO_PGETEVENTS: libc::c_long = 388;

/// PR_SET_ENDIAN.
pub(super) const CODES: &[u32] = &[20];

/// No other call than prctl(2) takes a code.
pub(super) const TAKES_CODE: libc::c_long = libc::SYS_prctl;

pub(super) const ROWS: &[Row] = &[
    Row(libc::SYS_fork, ALWAYS, RefusalReason::CreatesTask),
    Row(libc::SYS_vfork, ALWAYS, RefusalReason::CreatesTask),
    Row(libc::SYS_sigreturn, ALWAYS, RefusalReason::LeavesHandler),
    Row(libc::SYS_swapcontext, ALWAYS, RefusalReason::LeavesHandler),
    Row(libc::SYS_sigprocmask, ALWAYS, RefusalReason::ChangesSignalState),
    Row(libc::SYS_ssetmask, ALWAYS, RefusalReason::ChangesSignalState),
    Row(libc::SYS_sigaction, |args| int(args[0]) == 33, RefusalReason::ChangesSignalState),
    Row(libc::SYS_signal, |args| int(args[0]) == 33, RefusalReason::ChangesSignalState),
    Row(libc::SYS_pause, ALWAYS, RefusalReason::WaitsForSignal),
    Row(libc::SYS_sigsuspend, ALWAYS, RefusalReason::WaitsForSignal),
    Row(
        libc::SYS_poll,
        |args| int(args[1]) == 0 && int(args[2]) >> 31 == 1,
        RefusalReason::WaitsForSignal,
    ),
    Row(
        libc::SYS__newselect,
        |args| int(args[0]) == 0 && args[4] == 0,
        RefusalReason::WaitsForSignal,
    ),
    Row(libc::SYS_switch_endian, ALWAYS, RefusalReason::ReplacesThreadState),
    Row(libc::SYS_prctl, |args| int(args[0]) == 20, RefusalReason::ReplacesThreadState),
];

/// Returns the number as the kernel reads it. There is no other convention.
pub(super) fn number(nr: usize) -> (u32, bool) {
    (nr as u32, false)
}
