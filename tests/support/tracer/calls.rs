//! The calls that are watched: which half of libpsx makes them, in which phase, and their names.

use crate::support::{MMAP, NEWFSTATAT};

/// The part that a thread had when it made a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    Caller,
    /// A thread in the handler of signal 33.
    Held,
}

impl Role {
    pub fn name(self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::Held => "held thread",
        }
    }
}

/// When a call was made, as far as a tracer can see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// The process has one thread.
    Alone,
    /// Before another thread was signalled.
    Open,
    /// Before the caller has performed the call.
    Gather,
    /// Before the return to the caller.
    Commit,
    /// After a timer was created that kills the process, or a line was written to standard error.
    Kill,
    /// After the return, while the caller drops the result.
    Report,
}

impl Phase {
    pub const ALL: [Self; 6] =
        [Self::Alone, Self::Open, Self::Gather, Self::Commit, Self::Kill, Self::Report];

    pub fn name(self) -> &'static str {
        match self {
            Self::Alone => "alone",
            Self::Open => "open",
            Self::Gather => "gather",
            Self::Commit => "commit",
            Self::Kill => "kill",
            Self::Report => "report",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Made {
    pub role: Role,
    pub phase: Phase,
    pub call: &'static str,
}

/// Which occurrences of a call are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum When {
    /// The occurrence with this number, counted from 1.
    Nth(u32),
    /// The occurrence with this number, and all later ones: a resource is used up.
    From(u32),
    /// Every occurrence in the first thread that makes the call.
    OneThread,
    /// Every occurrence.
    Always,
}

#[derive(Debug, Clone, Copy)]
pub struct Fault {
    pub role: Role,
    /// A name as in [`name`], or the part before the blank; or several, with `+` between them.
    pub call: &'static str,
    /// If set, only calls of this phase are refused.
    pub phase: Option<Phase>,
    pub errno: i32,
    pub when: When,
}

/// The name of a call that is not in the list below begins with this and ends with its number.
const UNNAMED: &str = "call-";

macro_rules! names {
    ($($call:ident $name:ident)*) => { &[$((libc::$call, stringify!($name)),)*] };
}

const NAMES: &[(libc::c_long, &str)] = names! {
    SYS_read read SYS_write write SYS_close close SYS_fstat fstat SYS_lseek lseek
    SYS_mprotect mprotect SYS_munmap munmap SYS_brk brk SYS_rt_sigaction rt_sigaction
    SYS_rt_sigprocmask rt_sigprocmask SYS_rt_sigreturn rt_sigreturn SYS_pread64 pread64
    SYS_sched_yield sched_yield SYS_madvise madvise SYS_dup dup SYS_nanosleep nanosleep
    SYS_getpid getpid SYS_clone clone SYS_clone3 clone3
    SYS_exit exit SYS_kill kill SYS_uname uname SYS_fcntl fcntl SYS_ppoll ppoll
    SYS_getppid getppid SYS_prctl prctl SYS_gettid gettid SYS_futex futex SYS_tgkill tgkill
    SYS_getdents64 getdents64 SYS_restart_syscall restart_syscall SYS_clock_gettime clock_gettime
    SYS_clock_nanosleep clock_nanosleep SYS_exit_group exit_group SYS_openat openat
    SYS_openat2 openat2 SYS_statx statx SYS_fstatfs fstatfs SYS_unshare unshare
    SYS_rt_tgsigqueueinfo rt_tgsigqueueinfo SYS_rt_sigqueueinfo rt_sigqueueinfo
    SYS_rt_sigtimedwait rt_sigtimedwait SYS_rt_sigpending rt_sigpending
    SYS_process_vm_readv process_vm_readv SYS_getrandom getrandom SYS_mlock mlock SYS_sysinfo sysinfo
    SYS_pidfd_open pidfd_open SYS_pidfd_send_signal pidfd_send_signal SYS_fsopen fsopen
    SYS_fsconfig fsconfig SYS_fsmount fsmount SYS_capget capget SYS_setns setns SYS_setresuid setresuid
    SYS_setresgid setresgid SYS_setgroups setgroups SYS_seccomp seccomp SYS_sigaltstack sigaltstack
    SYS_getpriority getpriority SYS_sched_getscheduler sched_getscheduler SYS_sched_setscheduler sched_setscheduler
    SYS_sched_getaffinity sched_getaffinity SYS_getcpu getcpu SYS_membarrier membarrier
    SYS_faccessat faccessat SYS_readlinkat readlinkat
    SYS_epoll_pwait epoll_pwait SYS_timerfd_create timerfd_create SYS_eventfd2 eventfd2 SYS_getsid getsid
    SYS_getrusage getrusage SYS_times times SYS_rseq rseq
    SYS_pwritev2 pwritev2 SYS_ioctl ioctl SYS_kcmp kcmp SYS_prlimit64 prlimit64 SYS_keyctl keyctl SYS_add_key add_key
    SYS_timer_create timer_create SYS_timer_settime timer_settime SYS_fchdir fchdir SYS_chdir chdir SYS_capset capset
    SYS_landlock_create_ruleset landlock_create_ruleset
    SYS_getresuid getresuid SYS_getresgid getresgid SYS_getgroups getgroups SYS_setfsuid setfsuid SYS_setfsgid setfsgid
};

/// Calls that newer CPUs do not have.
#[cfg(target_arch = "x86_64")]
const OLD_NAMES: &[(libc::c_long, &str)] = names! {
    SYS_pause pause SYS_fork fork SYS_vfork vfork SYS_poll poll SYS_open open SYS_stat stat SYS_arch_prctl arch_prctl
};
#[cfg(any(
    target_arch = "s390x",
    target_arch = "powerpc64",
    target_arch = "arm",
    target_arch = "x86"
))]
const OLD_NAMES: &[(libc::c_long, &str)] = names! {
    SYS_pause pause SYS_fork fork SYS_vfork vfork SYS_poll poll SYS_open open SYS_stat stat
};
#[cfg(any(target_arch = "aarch64", target_arch = "riscv64"))]
const OLD_NAMES: &[(libc::c_long, &str)] = &[];

fn names() -> impl Iterator<Item = &'static (libc::c_long, &'static str)> {
    NAMES.iter().chain(OLD_NAMES).chain(&[(NEWFSTATAT, "newfstatat"), (MMAP, "mmap")])
}

pub fn plain_name(nr: libc::c_long) -> Option<&'static str> {
    names().find(|call| call.0 == nr).map(|call| call.1)
}

/// Returns the number of a call, whose name may be followed by an operation.
pub fn number(name: &str) -> libc::c_long {
    let plain = name.split(' ').next().unwrap_or_default();
    let unnamed = || plain.strip_prefix(UNNAMED)?.parse().ok();
    let number = names().find(|call| call.1 == plain).map(|call| call.0).or_else(unnamed);
    number.unwrap_or_else(|| panic!("{name} has no number here"))
}

/// Returns the name of a call. For futex(2), fcntl(2) and prctl(2), the operation follows the name.
pub fn name(nr: libc::c_long, args: &[u64; 6]) -> &'static str {
    let operation = args[1] as i32 & libc::FUTEX_CMD_MASK;
    match (nr, operation, args[0] as i32, args[1] as i32) {
        (libc::SYS_futex, libc::FUTEX_WAIT, ..) => "futex WAIT",
        (libc::SYS_futex, libc::FUTEX_WAKE, ..) => "futex WAKE",
        (libc::SYS_futex, libc::FUTEX_REQUEUE, ..) => "futex REQUEUE",
        (libc::SYS_futex, libc::FUTEX_CMP_REQUEUE, ..) => "futex CMP_REQUEUE",
        (libc::SYS_futex, libc::FUTEX_TRYLOCK_PI, ..) => "futex TRYLOCK_PI",
        (libc::SYS_futex, libc::FUTEX_WAIT_BITSET, ..) => "futex WAIT_BITSET",
        (libc::SYS_futex, libc::FUTEX_WAKE_BITSET, ..) => "futex WAKE_BITSET",
        (libc::SYS_fcntl, _, _, libc::F_DUPFD_CLOEXEC) => "fcntl F_DUPFD_CLOEXEC",
        (libc::SYS_prctl, _, libc::PR_GET_SECCOMP, _) => "prctl PR_GET_SECCOMP",
        (libc::SYS_prctl, _, libc::PR_GET_TIMERSLACK, _) => "prctl PR_GET_TIMERSLACK",
        (libc::SYS_prctl, _, libc::PR_SET_NO_NEW_PRIVS, _) => "prctl PR_SET_NO_NEW_PRIVS",
        (libc::SYS_prctl, _, libc::PR_GET_NO_NEW_PRIVS, _) => "prctl PR_GET_NO_NEW_PRIVS",
        _ => plain_name(nr).unwrap_or_else(|| Box::leak(format!("{UNNAMED}{nr}").into_boxed_str())),
    }
}

/// Returns whether the fault `fault` is about the call `made`.
pub fn means(fault: &str, made: &str) -> bool {
    fault.split('+').any(|fault| {
        fault == made || made.strip_prefix(fault).is_some_and(|rest| rest.starts_with(' '))
    })
}
