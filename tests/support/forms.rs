//! The forms of a call. CPUs with 32-bit registers have a second form of some calls: with 32-bit ids, 64-bit times or 64-bit
//! sizes. The tests name a call by its first form, and mean all of them.

use libc::c_long;

/// Calls with both forms. The numbers of calls with 64-bit times are the same on every CPU with 32-bit registers.
#[cfg(target_pointer_width = "32")]
const FORMS: &[(c_long, c_long)] = &[
    (libc::SYS_clock_gettime, 403),
    (libc::SYS_clock_nanosleep, 407),
    (libc::SYS_timer_settime, 409),
    (libc::SYS_pselect6, 413),
    (libc::SYS_ppoll, 414),
    (IO_PGETEVENTS, 416),
    (libc::SYS_rt_sigtimedwait, 421),
    (libc::SYS_futex, 422),
    (libc::SYS_fstat, libc::SYS_fstat64),
    (libc::SYS_statfs, libc::SYS_statfs64),
    (libc::SYS_fstatfs, libc::SYS_fstatfs64),
    (libc::SYS_fcntl, libc::SYS_fcntl64),
    (libc::SYS_lseek, libc::SYS__llseek),
    (MMAP, libc::SYS_mmap2),
    (libc::SYS_getgroups, libc::SYS_getgroups32),
    (libc::SYS_getresgid, libc::SYS_getresgid32),
    (libc::SYS_getresuid, libc::SYS_getresuid32),
    (libc::SYS_setfsgid, libc::SYS_setfsgid32),
    (libc::SYS_setfsuid, libc::SYS_setfsuid32),
    (libc::SYS_setgroups, libc::SYS_setgroups32),
    (libc::SYS_setresgid, libc::SYS_setresgid32),
    (libc::SYS_setresuid, libc::SYS_setresuid32),
];
#[cfg(target_pointer_width = "64")]
const FORMS: &[(c_long, c_long)] = &[];

/// The call that examines a file by its name. It has one form.
#[cfg(target_pointer_width = "32")]
pub const NEWFSTATAT: c_long = libc::SYS_fstatat64;
#[cfg(target_pointer_width = "64")]
pub const NEWFSTATAT: c_long = libc::SYS_newfstatat;

/// The call that maps memory. arm has its second form only.
#[cfg(target_arch = "arm")]
pub const MMAP: c_long = libc::SYS_mmap2;
#[cfg(not(target_arch = "arm"))]
pub const MMAP: c_long = libc::SYS_mmap;

#[cfg(target_arch = "x86")]
const IO_PGETEVENTS: c_long = 385;
#[cfg(target_arch = "arm")]
const IO_PGETEVENTS: c_long = 399;

/// Returns the first form of a call, whose name the tests use.
pub fn first_form(call: c_long) -> c_long {
    FORMS.iter().find(|&&(_, second)| second == call).map_or(call, |&(first, _)| first)
}

/// Returns the last form of a call, which takes ids of 32 bits.
pub fn last_form(call: c_long) -> c_long {
    every_form(&[call]).pop().unwrap_or(call)
}

/// Returns every form of each of these calls.
pub fn every_form(calls: &[c_long]) -> Vec<c_long> {
    let second = |call| FORMS.iter().find(|&&(first, _)| first == call).map(|&(_, second)| second);
    calls.iter().flat_map(|&call| [Some(call), second(call)]).flatten().collect()
}
