//! The calls that arm has beside those of every CPU.

use libpsx::RefusalReason;

use super::{ALWAYS, Row, int};

pub(super) const IO_PGETEVENTS: libc::c_long = 399;

/// arch/arm/include/uapi/asm/unistd.h.
const SET_TLS: libc::c_long = 0x0f_0005;

pub(super) const CODES: &[u32] = &[];

/// No other call than prctl(2) takes a code.
pub(super) const TAKES_CODE: libc::c_long = libc::SYS_prctl;

pub(super) const ROWS: &[Row] = &[
    Row(libc::SYS_fork, ALWAYS, RefusalReason::CreatesTask),
    Row(libc::SYS_vfork, ALWAYS, RefusalReason::CreatesTask),
    Row(libc::SYS_sigreturn, ALWAYS, RefusalReason::LeavesHandler),
    Row(libc::SYS_sigprocmask, ALWAYS, RefusalReason::ChangesSignalState),
    Row(libc::SYS_sigaction, |args| int(args[0]) == 33, RefusalReason::ChangesSignalState),
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
    Row(SET_TLS, ALWAYS, RefusalReason::ReplacesThreadState),
];

/// Returns the number as the kernel reads it. There is no other convention.
pub(super) fn number(nr: usize) -> (u32, bool) {
    (nr as u32, false)
}
