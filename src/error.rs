//! The errors. Every [`Error`] means that **nothing has changed in any thread**. Only a transaction that fails after its
//! first call ends in between: [`PartialFailure`]. If the result of a thread differs from the caller's, there is no
//! error value: the [`Sensitivity`](crate::Sensitivity) decides what follows.

#[cfg(all(test, not(loom)))]
mod messages;
mod transaction;
mod unreachable;

use core::fmt;

pub(crate) use self::transaction::CallFailure;
pub use self::transaction::{PartialFailure, TransactionError};
pub use self::unreachable::{UnreachableReason, UnreachableThread, UnreachableThreads};
use crate::errno::Errno;

/// The reason why a broadcast was not performed. Nothing has changed in any thread, whichever variant it is.
///
/// ```
/// use libpsx::process::{CapabilitySets, capset};
/// use libpsx::{Error, RefusalReason, Requirement, SharedResource, UnreachableReason};
/// use libpsx::{UnreachableThread, UnreachableThreads};
///
/// match capset(CapabilitySets::EMPTY).execute() {
///     Ok(_) => println!("no thread has a capability"),
///     Err(Error::Unreachable(threads)) => {
///         let threads: UnreachableThreads = threads;
///         println!("{} threads could not be stopped", threads.total());
///         if threads.is_emulated() {
///             println!("an emulator of this CPU runs the program; its own threads cannot be stopped");
///         }
///         let named: &[UnreachableThread] = threads.threads();
///         for thread in named {
///             println!("{} ({}, state {})", thread.tid(), thread.name(), thread.state());
///             if thread.reason() == UnreachableReason::Traced {
///                 println!("detach the debugger from it");
///             }
///         }
///     }
///     Err(Error::Refused(RefusalReason::NotLast)) => unreachable!("it is the only call"),
///     Err(Error::NotShared { tid, resource: SharedResource::Descriptors }) => {
///         println!("thread {tid} has a descriptor table of its own");
///     }
///     Err(Error::Environment { requirement: Requirement::Memory, errno }) => {
///         println!("no memory: error number {}", errno.raw_os_error());
///     }
///     Err(error) => println!("{error} (error number {})", error.raw_os_error()),
/// }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The kernel refused the calling thread's own call; no other thread attempted it.
    Call(Errno),
    /// The kernel could not put the filter on all threads, because this thread has a seccomp filter that the calling
    /// thread does not have (seccomp(2), SECCOMP_FILTER_FLAG_TSYNC).
    TsyncConflict {
        /// The first such thread.
        tid: i32,
    },
    /// Some threads could not be stopped before the deadline.
    Unreachable(UnreachableThreads),
    /// A signal could not be queued before the deadline: `RLIMIT_SIGPENDING` of this user is used
    /// up (setrlimit(2)), by this process or another one.
    SignalQueueFull,
    /// Another thread's broadcast did not finish before the deadline.
    Busy {
        /// The thread whose broadcast is under way.
        tid: i32,
    },
    /// A thread does not share its descriptors or its directories with the calling thread. In that thread the call would
    /// act on something else.
    NotShared {
        /// The first such thread.
        tid: i32,
        /// What the thread has for itself.
        resource: SharedResource,
    },
    /// The call comes from a signal handler that has interrupted a broadcast of this thread, or that runs while this
    /// thread is held for one.
    Reentered,
    /// The call is not made on every thread, because the threads could not go on after it.
    Refused(RefusalReason),
    /// The kernel refused something that a broadcast needs.
    Environment {
        /// What the broadcast needs.
        requirement: Requirement,
        /// The kernel's error number.
        errno: Errno,
    },
}

impl Error {
    /// Returns the error number that a C caller finds in `errno`.
    ///
    /// | error | number |
    /// |---|---|
    /// | [`Call`](Self::Call), [`Environment`](Self::Environment) | the kernel's |
    /// | [`Unreachable`](Self::Unreachable), [`Busy`](Self::Busy) | ETIMEDOUT |
    /// | [`SignalQueueFull`](Self::SignalQueueFull) | EAGAIN |
    /// | [`Reentered`](Self::Reentered) | EDEADLK |
    /// | [`Refused`](Self::Refused), [`NotShared`](Self::NotShared) | EINVAL |
    /// | [`TsyncConflict`](Self::TsyncConflict) | ESRCH |
    pub const fn raw_os_error(&self) -> i32 {
        match self {
            Self::Call(errno) | Self::Environment { errno, .. } => errno.raw_os_error(),
            Self::Unreachable(_) | Self::Busy { .. } => Errno::TIMEDOUT.raw_os_error(),
            Self::TsyncConflict { .. } => Errno::SRCH.raw_os_error(),
            Self::SignalQueueFull => Errno::AGAIN.raw_os_error(),
            Self::Reentered => Errno::DEADLK.raw_os_error(),
            Self::Refused(_) | Self::NotShared { .. } => Errno::INVAL.raw_os_error(),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call(errno) => write!(f, "the kernel refused the call: {errno}"),
            Self::TsyncConflict { tid } => {
                write!(f, "thread {tid} has a seccomp filter that the calling thread does not have")
            }
            Self::Unreachable(threads) => write!(f, "{threads}"),
            Self::SignalQueueFull => {
                f.write_str("no signal could be queued: this user's RLIMIT_SIGPENDING is used up")
            }
            Self::Busy { tid } => write!(f, "the broadcast of thread {tid} did not end in time"),
            Self::NotShared { tid, resource } => {
                write!(f, "thread {tid} has {resource} of its own")
            }
            Self::Reentered => f.write_str("called from a handler that interrupted a broadcast"),
            Self::Refused(why) => write!(f, "the call is refused: {why}"),
            Self::Environment { requirement, errno } => write!(f, "{requirement}: {errno}"),
        }?;
        f.write_str("; nothing changed in any thread")
    }
}

impl core::error::Error for Error {}

/// The `ErrorKind` is that of the error number. `io::Error::get_ref` returns the [`Error`].
#[cfg(feature = "std")]
impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        Self::new(Self::from_raw_os_error(error.raw_os_error()).kind(), error)
    }
}

/// The reason why a call is refused before anything is done. The number of the call is compared as the kernel reads it:
/// the upper half of the register and the x32 bit are ignored.
///
/// ```
/// use libpsx::{Error, RefusalReason, syscall3};
///
/// // SAFETY: the call is refused.
/// let refused = unsafe { syscall3(libc::SYS_exit, 0, 0, 0) };
/// assert!(matches!(refused, Err(Error::Refused(RefusalReason::EndsThread))));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RefusalReason {
    /// It creates a process or a thread (fork, vfork, clone, clone3). Each thread would create one of its own.
    CreatesTask,
    /// It ends the thread or the process, or replaces the program (exit, execve).
    EndsThread,
    /// It takes a held thread out of the signal handler (rt_sigreturn, restart_syscall), or kills it there, because only
    /// the kernel's own code may make it (uretprobe, uprobe).
    LeavesHandler,
    /// It changes the signal state that a broadcast needs (masks, alternate stacks, signal 33). A call that sets a mask
    /// for as long as it waits is one of these (ppoll, pselect6, epoll_pwait, io_pgetevents, io_uring_enter).
    ChangesSignalState,
    /// It replaces what the thread's run-time needs (FS and GS bases, shadow stack, rseq, robust list,
    /// clear_child_tid).
    ReplacesThreadState,
    /// It forbids the calls that a thread needs to go on (strict seccomp, syscall user dispatch).
    ForbidsCalls,
    /// It waits for a signal, and all are blocked (pause, rt_sigsuspend; rt_sigtimedwait without a
    /// timeout; poll, ppoll, select and pselect6 without a descriptor and without a timeout).
    WaitsForSignal,
    /// It is unshare(2) of a namespace, in a process of several threads: each would make a namespace of its own.
    /// [`process::unshare`](crate::process::unshare) makes one for all threads. (For user and time namespaces the kernel
    /// allows neither, and for PID and mount namespaces it would be useless; see
    /// [`Namespace`](crate::process::Namespace).)
    CreatesNamespace,
    /// It is setns(2) of a PID namespace, in a process of several threads. After it no thread could create another
    /// thread, because the children of such a thread belong to another PID namespace than the thread itself (clone(2),
    /// EINVAL). Join the namespace in a process of one thread, or in a child.
    JoinsPidNamespace,
    /// The kernel itself performs it in all threads (SECCOMP_FILTER_FLAG_TSYNC, LANDLOCK_RESTRICT_SELF_TSYNC). In a
    /// transaction only the last call may do that.
    NotLast,
}

impl fmt::Display for RefusalReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CreatesTask => "every thread would create a process or thread of its own",
            Self::EndsThread => "it ends or replaces the thread that makes it",
            Self::LeavesHandler => "it takes a held thread out of the signal handler, or kills it there",
            Self::ChangesSignalState => "it changes the signal state that a broadcast needs",
            Self::ReplacesThreadState => "it replaces state that the thread's run-time needs",
            Self::ForbidsCalls => "it forbids the calls that a thread needs to go on",
            Self::WaitsForSignal => "it waits for a signal while all are blocked",
            Self::CreatesNamespace => "every thread would make a namespace of its own",
            Self::JoinsPidNamespace => {
                "no thread could create another one afterwards; join a PID namespace in a process of \
                 one thread, or in a child"
            }
            Self::NotLast => {
                "the kernel performs it in all threads, which only the last call may do"
            }
        })
    }
}

/// A table that threads normally share, and that a thread can have for itself (unshare(2), clone(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SharedResource {
    /// The table of descriptors (CLONE_FILES). The same number may be another file in that thread.
    Descriptors,
    /// The root directory, the working directory and the umask (CLONE_FS).
    Directories,
}

impl fmt::Display for SharedResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Descriptors => "a descriptor table",
            Self::Directories => "a root or working directory",
        })
    }
}

/// What a broadcast needs from the kernel before it can begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Requirement {
    /// Memory for the list of threads (mmap(2), madvise(2)).
    Memory,
    /// The list of threads (getdents64(2), or tgkill(2) for every tid; mmap(2) for the memory of the list).
    ThreadList,
    /// A handler for signal 33 (rt_sigaction(2)).
    SignalHandler,
    /// Sending signal 33 to a thread (rt_tgsigqueueinfo(2)). A filter refuses it for every thread.
    SendSignal,
    /// The ids of this process and thread (getpid(2), gettid(2)). A filter refuses them.
    ThreadId,
    /// A signal mask that blocks signals for the time of the call (rt_sigprocmask(2)).
    SignalMask,
    /// The time (clock_gettime(2)). Without it no wait would end.
    Clock,
    /// Memory that no other process uses for broadcasts. Another one does (CLONE_VM without CLONE_THREAD).
    ExclusiveMemory,
    /// The namespace of this thread (/proc/thread-self/ns).
    Namespace,
    /// The comparison of the threads' descriptor tables or directories (kcmp(2), or /proc/self/task).
    SharingCheck,
    /// Memory for so many calls of a transaction, the questions included (mmap(2)).
    TransactionMemory(usize),
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Memory => "no memory for the list of threads",
            Self::ThreadList => "the threads could not be listed",
            Self::SignalHandler => "no handler could be installed for signal 33",
            Self::SendSignal => {
                "no thread can be signalled, because rt_tgsigqueueinfo(2) is refused"
            }
            Self::ThreadId => "getpid(2) or gettid(2) is refused",
            Self::SignalMask => "the signal mask could not be changed",
            Self::Clock => "the time could not be read",
            Self::ExclusiveMemory => "another process that shares this memory uses it",
            Self::Namespace => "the thread's namespace could not be opened",
            Self::SharingCheck => "the threads' descriptor tables could not be compared",
            Self::TransactionMemory(count) => {
                return write!(f, "no memory for the {count} calls of the transaction");
            }
        };
        f.write_str(text)
    }
}
