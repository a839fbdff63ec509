//! One system call of a broadcast: what it is, whether it can be made on every thread, and its
//! name for people.

use linux_raw_sys::general as k;
use linux_raw_sys::prctl as p;

use crate::errno::Errno;
use crate::error::{CallFailure, Refusal};
use crate::sys;
use crate::sys::arch;
use crate::sys::names;

/// What counts as the same result in another thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Agreement {
    /// The value that the caller got.
    #[default]
    SameResult,
    /// Any value that is no error: for calls that return an old value, or a fresh id.
    AnySuccess,
    /// Anything at all.
    Anything,
}

/// A call, and what it returned in the calling thread once that has made it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    pub(crate) nr: usize,
    pub(crate) args: [usize; 6],
    /// Which arguments are offsets into the thread's own place for answers: bit `n` is argument `n`.
    pub(crate) own: u8,
    /// It asks something, and failing is an answer.
    pub(crate) asks: bool,
    pub(crate) agreement: Agreement,
    pub(crate) expected: isize,
}

impl Call {
    pub(crate) const fn new(nr: usize, args: [usize; 6]) -> Self {
        Self { nr, args, own: 0, asks: false, agreement: Agreement::SameResult, expected: 0 }
    }

    /// The arguments, in a thread whose place for answers is there.
    pub(crate) fn args_at(&self, place: usize) -> [usize; 6] {
        let mut args = self.args;
        for (index, arg) in args.iter_mut().enumerate() {
            if self.own >> index & 1 != 0 {
                *arg = arg.wrapping_add(place);
            }
        }
        args
    }

    /// The number as the kernel reads it (`do_syscall_64` takes an int), without the x32 bit.
    fn number(&self) -> u32 {
        self.nr as u32 & !arch::X32_BIT
    }

    /// The name in the kernel's table, for a message.
    pub(crate) fn name(&self) -> Option<&'static str> {
        names::call(self.number())
    }

    pub(crate) fn agrees(&self, result: isize) -> bool {
        match self.agreement {
            Agreement::SameResult => result == self.expected,
            Agreement::AnySuccess => Errno::check(result).is_ok(),
            Agreement::Anything => true,
        }
    }

    /// Whether the kernel performs it in all threads when one makes it: SECCOMP_FILTER_FLAG_TSYNC
    /// (seccomp(2)), LANDLOCK_RESTRICT_SELF_TSYNC (landlock_restrict_self(2), since Linux 7.0).
    pub(crate) fn synchronises(&self) -> bool {
        const LANDLOCK_RESTRICT_SELF_TSYNC: u32 = 1 << 3;
        let [operation, flags, ..] = self.args;
        match self.number() {
            k::__NR_seccomp => {
                operation as u32 == SECCOMP_SET_MODE_FILTER
                    && flags as u32 & SECCOMP_FILTER_FLAG_TSYNC != 0
            }
            k::__NR_landlock_restrict_self => flags as u32 & LANDLOCK_RESTRICT_SELF_TSYNC != 0,
            _ => false,
        }
    }

    /// Whether a value other than 0 names a thread. (With SECCOMP_FILTER_FLAG_TSYNC_ESRCH it is a
    /// descriptor, if anything.)
    fn tells_offender(&self) -> bool {
        let [_, flags, ..] = self.args;
        let esrch = flags as u32 & SECCOMP_FILTER_FLAG_TSYNC_ESRCH != 0;
        self.number() == k::__NR_seccomp && self.synchronises() && !esrch
    }

    /// What the call came to in the calling thread.
    pub(crate) fn outcome(&self) -> Result<usize, CallFailure> {
        match Errno::check(self.expected) {
            Err(_) if self.asks => Ok(0),
            // "a thread ID ... that caused the synchronization failure", seccomp(2).
            Ok(tid) if tid != 0 && self.tells_offender() => {
                Err(CallFailure::OutOfSync { tid: tid as i32 })
            }
            other => other.map_err(CallFailure::Errno),
        }
    }

    /// Why the call is refused among several threads, though one alone may make it.
    pub(crate) fn refusal_in_company(&self) -> Option<Refusal> {
        const NAMESPACES: u32 = k::CLONE_NEWNS
            | k::CLONE_NEWUTS
            | k::CLONE_NEWIPC
            | k::CLONE_NEWUSER
            | k::CLONE_NEWPID
            | k::CLONE_NEWNET
            | k::CLONE_NEWCGROUP
            | k::CLONE_NEWTIME;
        let [flags, ..] = self.args;
        let unshares = self.number() == k::__NR_unshare && flags as u32 & NAMESPACES != 0;
        unshares.then_some(Refusal::Namespaces)
    }

    /// Whether threads go on under a seccomp filter that the call itself brings.
    pub(crate) fn installs_filter(&self) -> bool {
        let [option, ..] = self.args;
        match self.number() {
            k::__NR_seccomp => true,
            k::__NR_prctl => option as u32 == p::PR_SET_SECCOMP,
            _ => false,
        }
    }

    /// Why the call is refused, if it is.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        let [first, second, ..] = self.args;
        if self.nr as u32 & arch::X32_BIT != 0 && (512..=547).contains(&self.number()) {
            // x32's own variants: among them execve, rt_sigaction, rt_sigreturn, sigaltstack.
            return Some(Refusal::LeavesHandler);
        }
        Some(match self.number() {
            k::__NR_fork | k::__NR_vfork | k::__NR_clone | k::__NR_clone3 => Refusal::Forks,
            k::__NR_execve | k::__NR_execveat | k::__NR_exit | k::__NR_exit_group => Refusal::Ends,
            k::__NR_rt_sigreturn | k::__NR_restart_syscall => Refusal::LeavesHandler,
            k::__NR_rt_sigprocmask | k::__NR_sigaltstack => Refusal::Signals,
            k::__NR_rt_sigaction if first as i32 == sys::SIGNAL => Refusal::Signals,
            k::__NR_rt_sigsuspend | k::__NR_pause => Refusal::Blocks,
            k::__NR_set_tid_address | k::__NR_set_robust_list | k::__NR_rseq => {
                Refusal::ThreadState
            }
            k::__NR_arch_prctl if arch_prctl_unhinges(first as u32) => Refusal::ThreadState,
            k::__NR_seccomp if first as u32 == SECCOMP_SET_MODE_STRICT => Refusal::Forbids,
            k::__NR_prctl => match first as u32 {
                p::PR_SET_SECCOMP if second as u32 == SECCOMP_MODE_STRICT => Refusal::Forbids,
                p::PR_SET_SYSCALL_USER_DISPATCH if second as u32 != 0 => Refusal::Forbids,
                _ => return None,
            },
            _ => return None,
        })
    }
}

const SECCOMP_SET_MODE_STRICT: u32 = 0;
const SECCOMP_SET_MODE_FILTER: u32 = 1;
const SECCOMP_FILTER_FLAG_TSYNC: u32 = 1 << 0;
const SECCOMP_FILTER_FLAG_TSYNC_ESRCH: u32 = 1 << 4;
const SECCOMP_MODE_STRICT: u32 = 1;

/// arch_prctl(2): ARCH_SET_GS, ARCH_SET_FS, and the ARCH_SHSTK_* family but ARCH_SHSTK_STATUS
/// (arch/x86/include/uapi/asm/prctl.h).
fn arch_prctl_unhinges(code: u32) -> bool {
    matches!(code, 0x1001 | 0x1002 | 0x5001..=0x5004)
}
