//! One system call of a broadcast: what it is, whether every thread can make it, and its name for
//! messages.

use linux_raw_sys::general as k;
use linux_raw_sys::prctl as p;

use crate::errno::Errno;
use crate::error::{CallFailure, RefusalReason};
use crate::sys;
use crate::sys::arch::{self, Timed};
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
    /// The arguments that are offsets into the thread's own slot for answers: bit `n` stands for
    /// argument `n`.
    pub(crate) slot_offsets: u8,
    /// The call only asks something, and an error is an answer.
    pub(crate) is_query: bool,
    /// What the threads must share with the caller, so that the call means the same in each.
    pub(crate) shares: Shares,
    /// The call changes the root or working directory and nothing else. If all threads share these, the caller alone
    /// makes it: repeated by each thread, chroot(".") could come after another thread's next chdir.
    pub(crate) sets_directory: bool,
    pub(crate) result_check: ResultCheck,
    /// The only value that the call may return, beside 0. If it returns another one, it has done something else, which cannot be
    /// taken back.
    pub(crate) required: Option<isize>,
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
        let (slot_offsets, is_query, sets_directory, expected) = (0, false, false, 0);
        let required = None;
        Self {
            nr,
            args,
            slot_offsets,
            is_query,
            shares,
            sets_directory,
            result_check,
            required,
            expected,
        }
    }

    /// Returns the arguments for a thread whose slot for answers is at `slot`.
    pub(crate) fn args_for(&self, slot: usize) -> [usize; 6] {
        let mut args = self.args;
        for (index, arg) in args.iter_mut().enumerate() {
            if self.slot_offsets >> index & 1 != 0 {
                *arg = arg.wrapping_add(slot);
            }
        }
        args
    }

    /// Returns the number as the kernel reads it.
    const fn number(&self) -> u32 {
        arch::call_number(self.nr)
    }

    /// Returns the name in the kernel's table, for a message.
    pub(crate) fn name(&self) -> Option<&'static str> {
        names::call(self.number())
    }

    /// Returns whether a thread's result agrees with the caller's.
    pub(crate) fn agrees(&self, result: isize) -> bool {
        match self.result_check {
            _ if self.required.is_some() => self.is_as_required(result),
            ResultCheck::SameResult => result == self.expected,
            ResultCheck::AnySuccess => Errno::check(result).is_ok(),
            ResultCheck::AnyResult => true,
        }
    }

    /// Returns whether the kernel performs the call in all threads when one thread makes it:
    /// SECCOMP_FILTER_FLAG_TSYNC (seccomp(2)), LANDLOCK_RESTRICT_SELF_TSYNC
    /// (landlock_restrict_self(2), since Linux 7.0).
    pub(crate) fn is_synchronized_by_kernel(&self) -> bool {
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
    pub(crate) fn is_tsync_filter(&self) -> bool {
        self.number() == k::__NR_seccomp && self.is_synchronized_by_kernel()
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
    fn returns_conflicting_tid(&self) -> bool {
        let [_, flags, ..] = self.args;
        let esrch = flags as u32 & SECCOMP_FILTER_FLAG_TSYNC_ESRCH != 0;
        self.number() == k::__NR_seccomp && self.is_synchronized_by_kernel() && !esrch
    }

    /// Returns whether the call succeeded in the calling thread, and did something else than what it is for.
    pub(crate) fn went_wrong(&self) -> bool {
        Errno::check(self.expected).is_ok() && !self.is_as_required(self.expected)
    }

    /// Returns whether the call returned what it has to. A thread that has joined the keyring before gets 0
    /// (join_session_keyring, security/keys/process_keys.c).
    fn is_as_required(&self, result: isize) -> bool {
        self.required.is_none_or(|required| [required, 0].contains(&result))
    }

    /// Returns the result in the calling thread, or why the call failed there.
    pub(crate) fn caller_result(&self) -> Result<usize, CallFailure> {
        match Errno::check(self.expected) {
            Err(_) if self.is_query => Ok(0),
            // "a thread ID ... that caused the synchronization failure", seccomp(2).
            Ok(tid) if tid != 0 && self.returns_conflicting_tid() => {
                Err(CallFailure::TsyncConflict { tid: tid as i32 })
            }
            other => other.map_err(CallFailure::Errno),
        }
    }

    /// Returns why the call is refused in a process of several threads, though a single thread may
    /// make it. Runs before any thread is stopped.
    pub(crate) fn refusal_if_multithreaded(&self) -> Option<RefusalReason> {
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

    /// Returns whether the call can give each thread root and working directories of its own (unshare(2), CLONE_FS).
    pub(crate) fn may_unshare_directories(&self) -> bool {
        self.number() == k::__NR_unshare
    }

    /// Returns whether the call sets the timer slack, by which a timed sleep may end late.
    pub(crate) fn sets_timer_slack(&self) -> bool {
        let [option, ..] = self.args;
        self.number() == k::__NR_prctl && option as u32 == p::PR_SET_TIMERSLACK
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

    /// Returns whether the call may install a handler for SIGSYS.
    pub(crate) fn may_handle_sigsys(&self) -> bool {
        let [signal, action, ..] = self.args;
        let installs =
            self.number() == k::__NR_rt_sigaction || arch::OLD_SIGACTIONS.contains(&self.number());
        installs && signal as i32 == sys::SIGSYS && action != 0
    }

    /// Returns why the call is refused, if it is refused in every process.
    pub(crate) fn refusal(&self) -> Option<RefusalReason> {
        let [first, second, third, fourth, fifth, sixth] = self.args;
        if arch::is_other_abi(self.nr) {
            return Some(RefusalReason::LeavesHandler);
        }
        let number = self.number();
        let is = |call: Timed| number == call.plain || number == call.wide;
        Some(match number {
            k::__NR_clone | k::__NR_clone3 => RefusalReason::CreatesTask,
            _ if arch::FORKS.contains(&number) => RefusalReason::CreatesTask,
            k::__NR_execve | k::__NR_execveat | k::__NR_exit | k::__NR_exit_group => {
                RefusalReason::EndsThread
            }
            k::__NR_rt_sigreturn | k::__NR_restart_syscall => RefusalReason::LeavesHandler,
            _ if arch::LEAVES_HANDLER.contains(&number) => RefusalReason::LeavesHandler,
            k::__NR_rt_sigprocmask | k::__NR_sigaltstack => RefusalReason::ChangesSignalState,
            _ if arch::CHANGES_SIGNALS.contains(&number) => RefusalReason::ChangesSignalState,
            k::__NR_rt_sigaction if first as i32 == sys::SIGNAL => {
                RefusalReason::ChangesSignalState
            }
            _ if arch::OLD_SIGACTIONS.contains(&number) && first as i32 == sys::SIGNAL => {
                RefusalReason::ChangesSignalState
            }
            // With a mask of its own such a call lets handlers run in a held thread, ours among them.
            k::__NR_epoll_pwait | k::__NR_epoll_pwait2 | k::__NR_io_uring_enter if fifth != 0 => {
                RefusalReason::ChangesSignalState
            }
            _ if is(arch::PPOLL) && fourth != 0 => RefusalReason::ChangesSignalState,
            _ if (is(arch::PSELECT6) || is(arch::IO_PGETEVENTS)) && sixth != 0 => {
                RefusalReason::ChangesSignalState
            }
            k::__NR_rt_sigsuspend => RefusalReason::WaitsForSignal,
            _ if arch::PAUSES.contains(&number) => RefusalReason::WaitsForSignal,
            _ if is(arch::RT_SIGTIMEDWAIT) && third == 0 => RefusalReason::WaitsForSignal,
            // Without descriptors and without a timeout these wait for a signal, as pause(2) does.
            _ if arch::POLL == Some(number) && second as u32 == 0 && (third as i32) < 0 => {
                RefusalReason::WaitsForSignal
            }
            _ if is(arch::PPOLL) && second as u32 == 0 && third == 0 => {
                RefusalReason::WaitsForSignal
            }
            _ if (arch::SELECT == Some(number) || is(arch::PSELECT6))
                && first as i32 == 0
                && fifth == 0 =>
            {
                RefusalReason::WaitsForSignal
            }
            k::__NR_set_tid_address | k::__NR_set_robust_list | k::__NR_rseq => {
                RefusalReason::ReplacesThreadState
            }
            _ if arch::replaces_thread_state(number, self.args) => {
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
