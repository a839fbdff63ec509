//! The calls of CPUs with 32-bit registers. Calls with ids have a first form with 16-bit ids, calls with times a first
//! form with 32-bit times; and files have a form with 64-bit sizes.
#![forbid(unsafe_code)]

use linux_raw_sys::general as k;

use super::Timed;

pub(crate) use k::{__NR_fstat64 as FSTAT, __NR_fstatat64 as FSTATAT, __NR_mmap2 as MMAP};
pub(crate) use k::{
    __NR_getgroups32 as GETGROUPS, __NR_getresgid32 as GETRESGID, __NR_getresuid32 as GETRESUID,
    __NR_setfsgid32 as SETFSGID, __NR_setfsuid32 as SETFSUID, __NR_setgid32 as SETGID,
    __NR_setgroups32 as SETGROUPS, __NR_setregid32 as SETREGID, __NR_setresgid32 as SETRESGID,
    __NR_setresuid32 as SETRESUID, __NR_setreuid32 as SETREUID, __NR_setuid32 as SETUID,
};

/// What [`FSTAT`] and [`FSTATAT`] write.
pub(crate) type Stat = k::stat64;

pub(crate) const CLOCK_GETTIME: Timed =
    Timed { plain: k::__NR_clock_gettime, wide: k::__NR_clock_gettime64 };
pub(crate) const FUTEX: Timed = Timed { plain: k::__NR_futex, wide: k::__NR_futex_time64 };
pub(crate) const PPOLL: Timed = Timed { plain: k::__NR_ppoll, wide: k::__NR_ppoll_time64 };
pub(crate) const PSELECT6: Timed = Timed { plain: k::__NR_pselect6, wide: k::__NR_pselect6_time64 };
pub(crate) const IO_PGETEVENTS: Timed =
    Timed { plain: k::__NR_io_pgetevents, wide: k::__NR_io_pgetevents_time64 };
pub(crate) const RT_SIGTIMEDWAIT: Timed =
    Timed { plain: k::__NR_rt_sigtimedwait, wide: k::__NR_rt_sigtimedwait_time64 };
pub(crate) const TIMER_SETTIME: Timed =
    Timed { plain: k::__NR_timer_settime, wide: k::__NR_timer_settime64 };
