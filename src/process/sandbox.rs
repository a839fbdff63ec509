//! What a process can never do again: no_new_privs, seccomp(2) filters, Landlock domains.
#![forbid(unsafe_code)]

use core::ffi::c_int;

use linux_raw_sys::general as k;
use linux_raw_sys::prctl as p;

use super::Operation;
use crate::sys;

/// execve(2) gives no privilege any more. PR_SET_NO_NEW_PRIVS(2const): no errors. Threads cannot
/// take it back; children inherit it.
pub const fn no_new_privs() -> Operation<'static> {
    Operation::new(k::__NR_prctl, [p::PR_SET_NO_NEW_PRIVS as usize, 1, 0, 0, 0, 0])
}

/// One instruction of a seccomp program: `struct sock_filter` (include/uapi/linux/filter.h), as
/// `libc::sock_filter` and `seccompiler::sock_filter` are laid out.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Instruction {
    /// The operation.
    pub code: u16,
    /// How many instructions to skip if a comparison holds.
    pub jt: u8,
    /// How many to skip if it does not.
    pub jf: u8,
    /// The operand.
    pub k: u32,
}

/// How a filter comes to all threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Synchronisation {
    /// By the kernel, SECCOMP_FILTER_FLAG_TSYNC, LANDLOCK_RESTRICT_SELF_TSYNC. In a transaction it can
    /// only come last.
    #[default]
    Kernel,
    /// By each thread, as every other call. Threads that have filters of their own get it too. But
    /// from then on no thread's chain of filters is another's, and the kernel cannot synchronise any
    /// more.
    Broadcast,
}

impl Synchronisation {
    /// How a Landlock ruleset comes to all threads on the running kernel: by the kernel from ABI 8 on, else
    /// by each thread. (In a transaction what the kernel does comes last.)
    pub fn of_landlock() -> Self {
        const ABI: usize = 8;
        let has = sys::landlock_abi().is_ok_and(|abi| abi >= ABI);
        if has { Self::Kernel } else { Self::Broadcast }
    }
}

/// Adds a filter that every later system call is asked against. seccomp(2), SECCOMP_SET_MODE_FILTER:
/// EACCES without [`no_new_privs`] or CAP_SYS_ADMIN, EFAULT, EINVAL for a program that the kernel
/// does not take or of more than 4096 instructions, ENOMEM. Children inherit it.
///
/// By [`Synchronisation::Kernel`], [`Error::OutOfSync`](crate::Error::OutOfSync) names a thread that
/// has a filter which the calling thread has not. By [`Synchronisation::Broadcast`] the filter must
/// allow futex, rt_sigreturn and rt_sigprocmask, as CAVEATS.md says; and in a transaction what comes
/// after it.
pub fn seccomp(program: &[Instruction], how: Synchronisation) -> Operation<'_> {
    const SET_MODE_FILTER: usize = linux_raw_sys::ptrace::SECCOMP_SET_MODE_FILTER as usize;
    const TSYNC: usize = linux_raw_sys::ptrace::SECCOMP_FILTER_FLAG_TSYNC as usize;
    let flags = if how == Synchronisation::Kernel { TSYNC } else { 0 };
    // A length that does not fit is one that the kernel refuses.
    let len = u16::try_from(program.len()).unwrap_or(u16::MAX);
    // `struct sock_fprog`: a short number, and after its padding a pointer.
    let [a, b] = len.to_ne_bytes();
    let len = u64::from_ne_bytes([a, b, 0, 0, 0, 0, 0, 0]);
    let words = [len, program.as_ptr() as u64, 0, 0, 0, 0];
    let args = [SET_MODE_FILTER, flags, 0, 0, 0, 0];
    Operation::new(k::__NR_seccomp, args).with(words, [0, 0, 1, 0, 0, 0])
}

/// Puts the process under a Landlock ruleset, whose descriptor this is. landlock_restrict_self(2):
/// E2BIG after 16 of them, EBADF, EBADFD, EOPNOTSUPP, ENOSYS, EPERM without [`no_new_privs`] or
/// CAP_SYS_ADMIN. Children inherit it.
///
/// [`Synchronisation::Kernel`] needs Landlock's ABI 8 (Linux 7.0), before which it is EINVAL:
/// [`Synchronisation::of_landlock`] chooses.
pub const fn landlock_restrict_self(ruleset: c_int, how: Synchronisation) -> Operation<'static> {
    const TSYNC: usize = 1 << 3;
    let flags = match how {
        Synchronisation::Kernel => TSYNC,
        Synchronisation::Broadcast => 0,
    };
    Operation::new(k::__NR_landlock_restrict_self, [ruleset as usize, flags, 0, 0, 0, 0])
}
