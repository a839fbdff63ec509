//! The calls of CPUs with 64-bit registers whose numbers have another name on 32-bit CPUs.
#![forbid(unsafe_code)]

use linux_raw_sys::general as k;

use super::Timed;

pub(crate) use k::{__NR_fstat as FSTAT, __NR_mmap as MMAP, __NR_newfstatat as FSTATAT};
pub(crate) use k::{
    __NR_getgroups as GETGROUPS, __NR_getresgid as GETRESGID, __NR_getresuid as GETRESUID,
    __NR_setfsgid as SETFSGID, __NR_setfsuid as SETFSUID, __NR_setgid as SETGID,
    __NR_setgroups as SETGROUPS, __NR_setregid as SETREGID, __NR_setresgid as SETRESGID,
    __NR_setresuid as SETRESUID, __NR_setreuid as SETREUID, __NR_setuid as SETUID,
};

/// What [`FSTAT`] and [`FSTATAT`] write.
pub(crate) type Stat = k::stat;

const fn timed(number: u32) -> Timed {
    Timed { plain: number, wide: number }
}

pub(crate) const CLOCK_GETTIME: Timed = timed(k::__NR_clock_gettime);
pub(crate) const FUTEX: Timed = timed(k::__NR_futex);
pub(crate) const PPOLL: Timed = timed(k::__NR_ppoll);
pub(crate) const PSELECT6: Timed = timed(k::__NR_pselect6);
pub(crate) const IO_PGETEVENTS: Timed = timed(k::__NR_io_pgetevents);
pub(crate) const RT_SIGTIMEDWAIT: Timed = timed(k::__NR_rt_sigtimedwait);
pub(crate) const TIMER_SETTIME: Timed = timed(k::__NR_timer_settime);
