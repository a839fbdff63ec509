//! The calls that 32-bit x86 has beside those of every CPU.

use libpsx::RefusalReason;

use super::{ALWAYS, Row, int};

pub(super) const IO_PGETEVENTS: libc::c_long = 385;

pub(super) const CODES: &[u32] = &[];

/// No other call than prctl(2) takes a code.
pub(super) const TAKES_CODE: libc::c_long = libc::SYS_prctl;

pub(super) const ROWS: &[Row] = &[
    Row(libc::SYS_fork, ALWAYS, RefusalReason::CreatesTask),
    Row(libc::SYS_vfork, ALWAYS, RefusalReason::CreatesTask),
    Row(libc::SYS_sigreturn, ALWAYS, RefusalReason::LeavesHandler),
    Row(libc::SYS_vm86, ALWAYS, RefusalReason::LeavesHandler),
    Row(libc::SYS_vm86old, ALWAYS, RefusalReason::LeavesHandler),
    Row(libc::SYS_sigprocmask, ALWAYS, RefusalReason::ChangesSignalState),
    Row(libc::SYS_ssetmask, ALWAYS, RefusalReason::ChangesSignalState),
    Row(libc::SYS_sigaction, |args| int(args[0]) == 33, RefusalReason::ChangesSignalState),
    Row(libc::SYS_signal, |args| int(args[0]) == 33, RefusalReason::ChangesSignalState),
    Row(libc::SYS_pause, ALWAYS, RefusalReason::WaitsForSignal),
    Row(libc::SYS_sigsuspend, ALWAYS, RefusalReason::WaitsForSignal),
    // Its arguments are in memory.
    Row(libc::SYS_select, ALWAYS, RefusalReason::WaitsForSignal),
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
    Row(libc::SYS_set_thread_area, ALWAYS, RefusalReason::ReplacesThreadState),
];

/// Returns the number as the kernel reads it. There is no other convention.
pub(super) fn number(nr: usize) -> (u32, bool) {
    (nr as u32, false)
}
