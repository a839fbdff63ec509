//! What a thread is and has: its ids, its relation to the other threads, its attributes.

// # Safety
//
// The unsafe operation reads a structure of characters that the kernel has filled in.
#![allow(unsafe_code)]

use core::mem::MaybeUninit;
use core::ptr;

use linux_raw_sys::errno as e;
use linux_raw_sys::general as k;

use super::{call, futex, signal};
use crate::errno::Errno;

/// Returns this thread's id, gettid(2). Only a filter refuses it.
pub(crate) fn thread_id() -> Result<i32, Errno> {
    call(k::__NR_gettid, [0; 6]).map(|tid| tid as i32)
}

/// Returns this process's id, getpid(2). Only a filter refuses it.
pub(crate) fn process_id() -> Result<i32, Errno> {
    call(k::__NR_getpid, [0; 6]).map(|pid| pid as i32)
}

pub(crate) fn gettid() -> i32 {
    thread_id().unwrap_or(0)
}

pub(crate) fn getpid() -> i32 {
    process_id().unwrap_or(0)
}

/// Returns whether this thread is the only one of its process, by unshare(CLONE_THREAD), which changes nothing. Returns
/// None if a filter answers in the kernel's place.
pub(crate) fn is_single_threaded() -> Option<bool> {
    // Linux knows no such flag. If the call succeeds, a filter has answered, or another kernel that ignores unknown flags. (The
    // bit is one of the signal of clone(2).)
    const UNKNOWN_FLAG: usize = 1;
    match unshare(k::CLONE_THREAD as usize) {
        Ok(()) => (unshare(UNKNOWN_FLAG) == Err(Errno::INVAL)).then_some(true),
        Err(Errno::INVAL) => Some(false),
        Err(_) => None,
    }
}

/// Makes a new namespace of this kind for this thread, unshare(2).
pub(crate) fn unshare(flag: usize) -> Result<(), Errno> {
    call(k::__NR_unshare, [flag, 0, 0, 0, 0, 0]).map(|_| ())
}

/// Joins a namespace, setns(2).
pub(crate) fn setns(fd: i32, flag: usize) -> Result<(), Errno> {
    call(k::__NR_setns, [fd as usize, flag, 0, 0, 0, 0]).map(|_| ())
}

/// Returns whether a descriptor may stand for a PID namespace (ioctl_ns(2), NS_GET_NSTYPE, since Linux
/// 4.11). Returns false only if the kernel says that it stands for something else.
pub(crate) fn may_be_pid_namespace(fd: i32) -> bool {
    const NS_GET_NSTYPE: usize = linux_raw_sys::ioctl::NS_GET_NSTYPE as usize;
    match call(k::__NR_ioctl, [fd as usize, NS_GET_NSTYPE, 0, 0, 0, 0]) {
        Ok(kind) => kind == k::CLONE_NEWPID as usize,
        // It is not open, or it is not a namespace. Any other error may be a filter's.
        Err(errno) => ![e::EBADF, e::ENOTTY, e::EINVAL].contains(&(errno.raw_os_error() as u32)),
    }
}

/// Returns the version of Landlock that the kernel has, landlock_create_ruleset(2).
pub(crate) fn landlock_abi() -> Result<usize, Errno> {
    const LANDLOCK_CREATE_RULESET_VERSION: usize = 1;
    call(k::__NR_landlock_create_ruleset, [0, 0, LANDLOCK_CREATE_RULESET_VERSION, 0, 0, 0])
}

/// Returns whether this thread has a seccomp filter, prctl(2), PR_GET_SECCOMP.
pub(crate) fn has_seccomp_filter() -> bool {
    prctl(linux_raw_sys::prctl::PR_GET_SECCOMP, [0; 3]) != Ok(0)
}

/// Returns whether this thread has no_new_privs, prctl(2), PR_GET_NO_NEW_PRIVS.
pub(crate) fn has_no_new_privs() -> bool {
    prctl(linux_raw_sys::prctl::PR_GET_NO_NEW_PRIVS, [0; 3]) == Ok(1)
}

/// While this value lives, this thread wakes up in time: its timer slack (prctl(2), PR_SET_TIMERSLACK) is short. A timed
/// sleep lasts longer by up to that slack, which may be any time.
pub(crate) struct PromptWakeUps {
    /// The program's own slack.
    slack: usize,
}

impl PromptWakeUps {
    /// A slack up to 1 ms, in nanoseconds, changes little in a wait of some milliseconds, and stays.
    const LONG: usize = 1_000_000;
    /// About Linux's default. No program sets this one, so that it tells whether the slack is still ours.
    const SHORT: usize = 49_999;

    /// Returns None if the slack is short enough, or a filter refuses the question.
    pub(crate) fn begin() -> Option<Self> {
        let slack = own_slack()?;
        (slack > Self::LONG && set_slack(Self::SHORT).is_ok()).then(|| Self { slack })
    }
}

impl Drop for PromptWakeUps {
    fn drop(&mut self) {
        // While this thread slept with open signals, a handler or the call of another initiator may have set another one.
        if own_slack() == Some(Self::SHORT) {
            let _ = set_slack(self.slack);
        }
    }
}

/// Returns None if a filter refuses the question. A value near the largest one, which looks like an error, counts as refused.
fn own_slack() -> Option<usize> {
    prctl(linux_raw_sys::prctl::PR_GET_TIMERSLACK, [0; 3]).ok()
}

fn set_slack(slack: usize) -> Result<(), Errno> {
    prctl(linux_raw_sys::prctl::PR_SET_TIMERSLACK, [slack, 0, 0]).map(|_| ())
}

/// Makes a prctl(2) whose arguments are numbers.
pub(crate) fn prctl(option: u32, [a, b, c]: [usize; 3]) -> Result<usize, Errno> {
    call(k::__NR_prctl, [option as usize, a, b, c, 0, 0])
}

/// Reads this thread's capabilities, capget(2): effective, permitted, inheritable; the lower halves of all three come
/// first.
pub(crate) fn capget(version: u32, data: &mut [u32; 6]) -> Result<(), Errno> {
    capget_of(0, version, data)
}

/// Reads another thread's capabilities, as [`capget`] does.
pub(crate) fn capget_of(pid: i32, version: u32, data: &mut [u32; 6]) -> Result<(), Errno> {
    let header = [version, pid as u32];
    let (header, data) = (ptr::from_ref(&header) as usize, ptr::from_mut(data) as usize);
    call(k::__NR_capget, [header, data, 0, 0, 0, 0]).map(|_| ())
}

/// Returns the running kernel's version, major and minor, uname(2).
pub(crate) fn kernel_version() -> Option<(u32, u32)> {
    let mut names = MaybeUninit::<linux_raw_sys::system::new_utsname>::zeroed();
    call(k::__NR_uname, [names.as_mut_ptr() as usize, 0, 0, 0, 0, 0]).ok()?;
    // SAFETY: all its fields are arrays of characters.
    let release = unsafe { names.assume_init() }.release;
    // A character is an i8 or an u8, as the CPU's C has it.
    let release = release.map(|c| u8::from_ne_bytes(c.to_ne_bytes()));
    let mut numbers = release.split(|c| !c.is_ascii_digit()).map(|digits| {
        digits.iter().fold(0u32, |n, c| n.wrapping_mul(10).wrapping_add(u32::from(*c - b'0')))
    });
    Some((numbers.next()?, numbers.next()?))
}

/// Returns whether a thread of this process is certainly dead: the task does not exist, or is a zombie. `me` is the calling
/// thread.
pub(crate) fn is_gone(pid: i32, tid: u32, me: i32) -> bool {
    !exists(pid, tid, me) || futex::is_dead(tid as i32, me)
}

/// Returns whether the process has such a task, which may be a zombie. `me` is the calling thread: if it does not exist
/// either, a filter answers in the kernel's place, and is not believed.
pub(crate) fn exists(pid: i32, tid: u32, me: i32) -> bool {
    let missing = |tid| signal::tgkill(pid, tid, 0) == Err(Errno::SRCH);
    !missing(tid as i32) || missing(me)
}

/// Returns whether this thread and another one share their descriptor table, kcmp(2).
pub(crate) fn shares_files(me: i32, tid: i32) -> Result<bool, Errno> {
    const KCMP_FILES: usize = 2;
    call(k::__NR_kcmp, [me as usize, tid as usize, KCMP_FILES, 0, 0, 0]).map(|order| order == 0)
}

/// Returns whether this thread and another one share root directory, working directory and umask, kcmp(2).
pub(crate) fn shares_fs(me: i32, tid: i32) -> Result<bool, Errno> {
    const KCMP_FS: usize = 3;
    call(k::__NR_kcmp, [me as usize, tid as usize, KCMP_FS, 0, 0, 0]).map(|order| order == 0)
}
