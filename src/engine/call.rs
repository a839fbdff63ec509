//! One system call of a broadcast: what it is, whether every thread can make it, and its name for
//! messages.

use linux_raw_sys::general as k;
use linux_raw_sys::prctl as p;

use crate::errno::Errno;
use crate::error::{CallFailure, RefusalReason};
use crate::sys;
use crate::sys::arch;
use crate::sys::names;

/// What counts as the same result in another thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ResultCheck {
    /// The value that the caller got.
    #[default]
    SameResult,
    /// Any value that is not an error: for calls that return an old value, or a new id.
    AnySuccess,
    /// Any value, errors included.
    AnyResult,
}

/// A call, and its result in the calling thread, once that thread has made it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    pub(crate) nr: usize,
    pub(crate) args: [usize; 6],
    /// The arguments that are offsets into the thread's own place for answers: bit `n` stands for
    /// argument `n`.
    pub(crate) own: u8,
    /// The call only asks something, and an error is an answer.
    pub(crate) asks: bool,
    /// What the threads must share with the caller, so that the call means the same in each.
    pub(crate) shares: Shares,
    pub(crate) result_check: ResultCheck,
    pub(crate) expected: isize,
}

/// What a thread can have for itself by unshare(2) or clone(2), though it belongs to the process. A call that takes a
/// descriptor acts on something else, or on nothing, in a thread with a table of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shares {
    /// The descriptor table (CLONE_FILES).
    pub(crate) files: bool,
    /// The root and working directories and the umask (CLONE_FS).
    pub(crate) fs: bool,
}

impl Shares {
    pub(crate) const NOTHING: Self = Self { files: false, fs: false };
    pub(crate) const FILES: Self = Self { files: true, fs: false };
    pub(crate) const FS: Self = Self { files: false, fs: true };
}

impl Call {
    pub(crate) const fn new(nr: usize, args: [usize; 6]) -> Self {
        let (shares, result_check) = (Shares::NOTHING, ResultCheck::SameResult);
        Self { nr, args, own: 0, asks: false, shares, result_check, expected: 0 }
    }

    /// Returns the arguments for a thread whose place for answers is at `place`.
    pub(crate) fn args_at(&self, place: usize) -> [usize; 6] {
        let mut args = self.args;
        for (index, arg) in args.iter_mut().enumerate() {
            if self.own >> index & 1 != 0 {
                *arg = arg.wrapping_add(place);
            }
        }
        args
    }

    /// Returns the number as the kernel reads it (`do_syscall_64` takes an int), without the x32 bit.
    fn number(&self) -> u32 {
        self.nr as u32 & !arch::X32_BIT
    }

    /// Returns the name in the kernel's table, for a message.
    pub(crate) fn name(&self) -> Option<&'static str> {
        names::call(self.number())
    }

    /// Returns whether a thread's result agrees with the caller's.
    pub(crate) fn agrees(&self, result: isize) -> bool {
        match self.result_check {
            ResultCheck::SameResult => result == self.expected,
            ResultCheck::AnySuccess => Errno::check(result).is_ok(),
            ResultCheck::AnyResult => true,
        }
    }

    /// Returns whether the kernel performs the call in all threads when one thread makes it:
    /// SECCOMP_FILTER_FLAG_TSYNC (seccomp(2)), LANDLOCK_RESTRICT_SELF_TSYNC
    /// (landlock_restrict_self(2), since Linux 7.0).
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

    /// Returns whether it is a seccomp filter that the kernel gives to all threads.
    pub(crate) fn is_synchronised_filter(&self) -> bool {
        self.number() == k::__NR_seccomp && self.synchronises()
    }

    /// Returns whether it is prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0).
    pub(crate) fn is_no_new_privs(&self) -> bool {
        let [option, one, zeros @ ..] = self.args;
        self.number() == k::__NR_prctl
            && option as u32 == p::PR_SET_NO_NEW_PRIVS
            && one == 1
            && zeros.iter().take(3).all(|&zero| zero == 0)
    }

    /// Returns whether a result other than 0 is the tid of a thread. (With
    /// SECCOMP_FILTER_FLAG_TSYNC_ESRCH such a result is a descriptor.)
    fn tells_offender(&self) -> bool {
        let [_, flags, ..] = self.args;
        let esrch = flags as u32 & SECCOMP_FILTER_FLAG_TSYNC_ESRCH != 0;
        self.number() == k::__NR_seccomp && self.synchronises() && !esrch
    }

    /// Returns the result in the calling thread, or why the call failed there.
    pub(crate) fn outcome(&self) -> Result<usize, CallFailure> {
        match Errno::check(self.expected) {
            Err(_) if self.asks => Ok(0),
            // "a thread ID ... that caused the synchronization failure", seccomp(2).
            Ok(tid) if tid != 0 && self.tells_offender() => {
                Err(CallFailure::TsyncConflict { tid: tid as i32 })
            }
            other => other.map_err(CallFailure::Errno),
        }
    }

    /// Returns why the call is refused in a process of several threads, though a single thread may
    /// make it. Runs before any thread is stopped.
    pub(crate) fn refusal_in_company(&self) -> Option<RefusalReason> {
        let [first, second, ..] = self.args;
        match self.number() {
            k::__NR_unshare if first as u32 & NAMESPACES != 0 => {
                Some(RefusalReason::CreatesNamespace)
            }
            k::__NR_setns if joins_pid_namespace(first as i32, second as u32) => {
                Some(RefusalReason::JoinsPidNamespace)
            }
            _ => None,
        }
    }

    /// Returns whether the call installs a seccomp filter, under which the threads go on.
    pub(crate) fn installs_filter(&self) -> bool {
        let [option, ..] = self.args;
        match self.number() {
            k::__NR_seccomp => true,
            k::__NR_prctl => option as u32 == p::PR_SET_SECCOMP,
            _ => false,
        }
    }

    /// Returns why the call is refused, if it is refused in every process.
    pub(crate) fn refusal(&self) -> Option<RefusalReason> {
        let [first, second, third, fourth, fifth, sixth] = self.args;
        if self.nr as u32 & arch::X32_BIT != 0 && (512..=547).contains(&self.number()) {
            // x32's own variants: among them execve, rt_sigaction, rt_sigreturn, sigaltstack.
            return Some(RefusalReason::LeavesHandler);
        }
        Some(match self.number() {
            k::__NR_fork | k::__NR_vfork | k::__NR_clone | k::__NR_clone3 => {
                RefusalReason::CreatesTask
            }
            k::__NR_execve | k::__NR_execveat | k::__NR_exit | k::__NR_exit_group => {
                RefusalReason::EndsThread
            }
            k::__NR_rt_sigreturn | k::__NR_restart_syscall => RefusalReason::LeavesHandler,
            // Outside the kernel's own code uretprobe raises SIGILL, and uprobe fails.
            k::__NR_uretprobe | NR_UPROBE => RefusalReason::LeavesHandler,
            k::__NR_rt_sigprocmask | k::__NR_sigaltstack => RefusalReason::ChangesSignalState,
            k::__NR_rt_sigaction if first as i32 == sys::SIGNAL => {
                RefusalReason::ChangesSignalState
            }
            // With a mask of its own such a call lets handlers run in a held thread, ours among them.
            k::__NR_ppoll if fourth != 0 => RefusalReason::ChangesSignalState,
            k::__NR_epoll_pwait | k::__NR_epoll_pwait2 | k::__NR_io_uring_enter if fifth != 0 => {
                RefusalReason::ChangesSignalState
            }
            k::__NR_pselect6 | k::__NR_io_pgetevents if sixth != 0 => {
                RefusalReason::ChangesSignalState
            }
            k::__NR_rt_sigsuspend | k::__NR_pause => RefusalReason::WaitsForSignal,
            k::__NR_rt_sigtimedwait if third == 0 => RefusalReason::WaitsForSignal,
            // Without descriptors and without a timeout these wait for a signal, as pause(2) does.
            k::__NR_poll if second as u32 == 0 && (third as i32) < 0 => {
                RefusalReason::WaitsForSignal
            }
            k::__NR_ppoll if second as u32 == 0 && third == 0 => RefusalReason::WaitsForSignal,
            k::__NR_select | k::__NR_pselect6 if first as i32 == 0 && fifth == 0 => {
                RefusalReason::WaitsForSignal
            }
            k::__NR_set_tid_address | k::__NR_set_robust_list | k::__NR_rseq => {
                RefusalReason::ReplacesThreadState
            }
            k::__NR_arch_prctl if replaces_thread_state(first as u32) => {
                RefusalReason::ReplacesThreadState
            }
            k::__NR_seccomp if first as u32 == SECCOMP_SET_MODE_STRICT => {
                RefusalReason::ForbidsCalls
            }
            k::__NR_prctl => match first as u32 {
                p::PR_SET_SECCOMP if second as u32 == SECCOMP_MODE_STRICT => {
                    RefusalReason::ForbidsCalls
                }
                p::PR_SET_SYSCALL_USER_DISPATCH if second as u32 != 0 => {
                    RefusalReason::ForbidsCalls
                }
                _ => return None,
            },
            _ => return None,
        })
    }
}

/// The system call that the kernel's own code for a probe makes (arch/x86/entry/syscalls/syscall_64.tbl,
/// since Linux 6.18).
const NR_UPROBE: u32 = 336;
const SECCOMP_SET_MODE_STRICT: u32 = 0;
const SECCOMP_SET_MODE_FILTER: u32 = 1;
const SECCOMP_FILTER_FLAG_TSYNC: u32 = 1 << 0;
const SECCOMP_FILTER_FLAG_TSYNC_ESRCH: u32 = 1 << 4;
const SECCOMP_MODE_STRICT: u32 = 1;

const NAMESPACES: u32 = k::CLONE_NEWNS
    | k::CLONE_NEWUTS
    | k::CLONE_NEWIPC
    | k::CLONE_NEWUSER
    | k::CLONE_NEWPID
    | k::CLONE_NEWNET
    | k::CLONE_NEWCGROUP
    | k::CLONE_NEWTIME;

/// Returns whether setns(2) joins a PID namespace. `kinds` names one kind for a descriptor of
/// /proc/PID/ns/, and any number of kinds for a pidfd. If it is 0, the descriptor alone decides.
fn joins_pid_namespace(fd: i32, kinds: u32) -> bool {
    kinds & k::CLONE_NEWPID != 0 || kinds == 0 && sys::may_be_pid_namespace(fd)
}

/// Codes of arch_prctl(2): ARCH_SET_GS, ARCH_SET_FS, and the ARCH_SHSTK_* family except
/// ARCH_SHSTK_STATUS (arch/x86/include/uapi/asm/prctl.h).
fn replaces_thread_state(code: u32) -> bool {
    matches!(code, 0x1001 | 0x1002 | 0x5001..=0x5004)
}
