//! The calls that x86-64 has beside those of every CPU.

use libpsx::RefusalReason;

use super::{ALWAYS, Row, int};

pub(super) const IO_PGETEVENTS: libc::c_long = 333;
const URETPROBE: libc::c_long = 335;
const UPROBE: libc::c_long = 336;

/// ARCH_SET_GS, ARCH_SET_FS, ARCH_SHSTK_ENABLE, _DISABLE, _LOCK, _UNLOCK.
pub(super) const CODES: &[u32] = &[0x1001, 0x1002, 0x5001, 0x5002, 0x5003, 0x5004];

/// A call that takes one of these codes.
pub(super) const TAKES_CODE: libc::c_long = libc::SYS_arch_prctl;

pub(super) const ROWS: &[Row] = &[
    Row(libc::SYS_fork, ALWAYS, RefusalReason::CreatesTask),
    Row(libc::SYS_vfork, ALWAYS, RefusalReason::CreatesTask),
    Row(URETPROBE, ALWAYS, RefusalReason::LeavesHandler),
    Row(UPROBE, ALWAYS, RefusalReason::LeavesHandler),
    Row(libc::SYS_pause, ALWAYS, RefusalReason::WaitsForSignal),
    Row(
        libc::SYS_poll,
        |args| int(args[1]) == 0 && int(args[2]) >> 31 == 1,
        RefusalReason::WaitsForSignal,
    ),
    Row(libc::SYS_select, |args| int(args[0]) == 0 && args[4] == 0, RefusalReason::WaitsForSignal),
    Row(TAKES_CODE, |args| CODES.contains(&int(args[0])), RefusalReason::ReplacesThreadState),
];

/// Returns the number as the kernel reads it, and whether it is a call of x32 with arguments of another size.
pub(super) fn number(nr: usize) -> (u32, bool) {
    const X32_BIT: u32 = 0x4000_0000;
    let number = nr as u32 & !X32_BIT;
    (number, nr as u32 & X32_BIT != 0 && (512..=547).contains(&number))
}
