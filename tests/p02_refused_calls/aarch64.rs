//! The prctl(2) options that aarch64 has beside those of every CPU.

use libpsx::RefusalReason;

use super::{Row, int};

pub(super) const IO_PGETEVENTS: libc::c_long = 292;

/// PR_SVE_SET_VL, PR_PAC_RESET_KEYS, PR_PAC_SET_ENABLED_KEYS, PR_SME_SET_VL, PR_SET_SHADOW_STACK_STATUS.
pub(super) const CODES: &[u32] = &[50, 54, 60, 63, 75];

/// A call that takes one of these codes.
pub(super) const TAKES_CODE: libc::c_long = libc::SYS_prctl;

pub(super) const ROWS: &[Row] =
    &[Row(TAKES_CODE, |args| CODES.contains(&int(args[0])), RefusalReason::ReplacesThreadState)];

/// Returns the number as the kernel reads it. There is no other convention.
pub(super) fn number(nr: usize) -> (u32, bool) {
    (nr as u32, false)
}
