//! The errors. Every [`Error`] means that **nothing has changed in any thread**. Only a transaction that fails after its
//! first call ends in between: [`PartialFailure`]. If the result of a thread differs from the caller's, there is no
//! error value: the [`Sensitivity`](crate::Sensitivity) decides what follows.

use core::fmt;
use core::time::Duration;

use crate::errno::Errno;
use crate::sys::mapping::MappedList;

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

/// The `ErrorKind` is that of the error number. `io::Error::get_ref` returns the [`TransactionError`].
#[cfg(feature = "std")]
impl From<TransactionError> for std::io::Error {
    fn from(error: TransactionError) -> Self {
        Self::new(Self::from_raw_os_error(error.raw_os_error()).kind(), error)
    }
}

/// The reason why a [`Transaction`](crate::Transaction) did not perform all of its calls.
///
/// `?` converts an [`Error`] to a `TransactionError`, because "nothing has changed" is one of its cases. The other
/// direction would lose [`PartialFailure`], the one case in which something has changed, so it has no conversion. A function
/// that makes single calls and transactions returns `TransactionError`:
///
/// ```
/// use libpsx::process::set_no_new_privs;
/// use libpsx::{Transaction, TransactionError};
///
/// fn restrict() -> Result<(), TransactionError> {
///     set_no_new_privs().execute()?;
///     Transaction::new().with(set_no_new_privs()).execute()?;
///     Ok(())
/// }
/// # restrict().unwrap();
/// ```
#[derive(Debug)]
pub enum TransactionError {
    /// Nothing has changed in any thread. [`Error::Call`] means that the first call failed.
    NothingChanged(Error),
    /// Every thread has performed the calls before one that failed. The process is consistent.
    Partial(PartialFailure),
}

/// The call of a transaction that failed after others had been performed.
///
/// ```
/// use libpsx::process::{Gid, Uid, set_all_gids, set_all_uids};
/// use libpsx::{Transaction, TransactionError};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (uid, gid) = (65534, 65534);
/// let drop = Transaction::new().with(set_all_gids(Gid::new(gid)?)).with(set_all_uids(Uid::new(uid)?));
/// # if false {
/// if let Err(TransactionError::Partial(failure)) = drop.execute() {
///     // Every thread has performed the calls before this one.
///     eprintln!("call {} failed with error number {}", failure.index(), failure.raw_os_error());
///     if let Some(tid) = failure.tsync_conflict() {
///         eprintln!("thread {tid} has a seccomp filter of its own");
///     }
///     std::process::abort();
/// }
/// # }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartialFailure {
    pub(crate) index: usize,
    pub(crate) name: Option<&'static str>,
    pub(crate) why: CallFailure,
}

/// The way in which a call of the calling thread failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallFailure {
    Errno(Errno),
    TsyncConflict { tid: i32 },
}

impl Error {
    /// Converts the error of a transaction that had one call.
    pub(crate) fn from_single_call(error: TransactionError) -> Self {
        match error {
            TransactionError::NothingChanged(error) => error,
            TransactionError::Partial(partial) => partial.why.into(),
        }
    }
}

impl From<CallFailure> for Error {
    fn from(why: CallFailure) -> Self {
        match why {
            CallFailure::Errno(errno) => Self::Call(errno),
            CallFailure::TsyncConflict { tid } => Self::TsyncConflict { tid },
        }
    }
}

impl PartialFailure {
    /// Replaces the index by the number under which the caller of the transaction knows the call.
    pub(crate) const fn at(self, index: usize) -> Self {
        Self { index, ..self }
    }

    /// Returns the number of the failed call, counted from 0. Every thread has performed that many calls.
    pub const fn index(&self) -> usize {
        self.index
    }

    /// Returns the kernel's error number; see [`Error::raw_os_error`].
    pub const fn raw_os_error(&self) -> i32 {
        match self.why {
            CallFailure::Errno(errno) => errno.raw_os_error(),
            CallFailure::TsyncConflict { .. } => Errno::SRCH.raw_os_error(),
        }
    }

    /// Returns the first thread with a seccomp filter that the calling thread does not have, if that is the reason.
    pub const fn tsync_conflict(&self) -> Option<i32> {
        match self.why {
            CallFailure::Errno(_) => None,
            CallFailure::TsyncConflict { tid } => Some(tid),
        }
    }
}

impl fmt::Display for PartialFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name.unwrap_or("system call");
        write!(f, "call {} ({name}) failed: ", self.index)?;
        match self.why {
            CallFailure::Errno(errno) => write!(f, "{errno}")?,
            CallFailure::TsyncConflict { tid } => {
                write!(f, "thread {tid} has a filter of its own")?
            }
        }
        write!(f, "; every thread has performed the {} before it", self.index)
    }
}

impl TransactionError {
    /// Returns the error number; see [`Error::raw_os_error`].
    pub const fn raw_os_error(&self) -> i32 {
        match self {
            Self::NothingChanged(error) => error.raw_os_error(),
            Self::Partial(partial) => partial.raw_os_error(),
        }
    }
}

impl From<Error> for TransactionError {
    fn from(error: Error) -> Self {
        Self::NothingChanged(error)
    }
}

impl fmt::Display for TransactionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NothingChanged(error) => error.fmt(f),
            Self::Partial(partial) => partial.fmt(f),
        }
    }
}

impl core::error::Error for TransactionError {}

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

/// The threads that could not be stopped before the deadline.
#[derive(Debug)]
pub struct UnreachableThreads {
    pub(crate) deadline: Duration,
    pub(crate) total: usize,
    pub(crate) threads: MappedList<UnreachableThread>,
    pub(crate) emulated: bool,
}

impl UnreachableThreads {
    /// Returns how many threads there were. 0 means that each of them was gone when it was to be named, because threads
    /// come and go faster than they can be stopped; or that the deadline passed while the threads were looked for.
    pub const fn total(&self) -> usize {
        self.total
    }

    /// Returns whether an emulator of this CPU (qemu-user and the like) runs the program: the executable file of this
    /// process, as the kernel has it, is for another CPU. Threads of the emulator itself cannot be stopped, and cannot be
    /// told from threads of the program; see [`docs::limitations`](crate::docs::limitations).
    pub const fn is_emulated(&self) -> bool {
        self.emulated
    }

    /// Returns the threads, as they were found when the last attempt ended. The list is empty, with a `total` above 0,
    /// only if the kernel had no memory for it.
    pub fn threads(&self) -> &[UnreachableThread] {
        self.threads.as_slice()
    }
}

impl fmt::Display for UnreachableThreads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMED: usize = 8;
        let time = Seconds(self.deadline);
        if self.total == 0 {
            return write!(f, "not all threads could be found and stopped within {time}");
        }
        let plural = if self.total == 1 { "thread" } else { "threads" };
        write!(f, "{} {plural} could not be stopped within {time}", self.total)?;
        for (i, thread) in self.threads().iter().take(NAMED).enumerate() {
            write!(f, "{} {thread}", if i == 0 { ":" } else { "," })?;
        }
        if self.total > NAMED {
            f.write_str(", ...")?;
        }
        if self.emulated {
            f.write_str(
                "; an emulator of this CPU runs the program, and no signal reaches a thread of the emulator itself",
            )?;
        }
        Ok(())
    }
}

/// Formats as `10 s` or `0.250 s`. (The linker cannot rule out that Duration's own Debug panics.)
struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.subsec_millis() {
            0 => write!(f, "{} s", self.0.as_secs()),
            millis => write!(f, "{}.{millis:03} s", self.0.as_secs()),
        }
    }
}

/// One thread that could not be stopped.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct UnreachableThread {
    pub(crate) tid: i32,
    pub(crate) name: [u8; 16],
    pub(crate) state: u8,
    pub(crate) reason: UnreachableReason,
}

impl UnreachableThread {
    /// Returns its thread id (gettid(2)).
    pub const fn tid(&self) -> i32 {
        self.tid
    }

    /// Returns its name (PR_SET_NAME(2const)), up to the first byte that is not UTF-8. The name is empty if /proc could
    /// not be read.
    pub fn name(&self) -> &str {
        let bytes = self.name_bytes();
        match core::str::from_utf8(bytes) {
            Ok(name) => name,
            Err(e) => bytes
                .get(..e.valid_up_to())
                .and_then(|b| core::str::from_utf8(b).ok())
                .unwrap_or_default(),
        }
    }

    /// Returns the name without the zeros that follow it.
    fn name_bytes(&self) -> &[u8] {
        self.name.split(|&byte| byte == 0).next().unwrap_or_default()
    }

    /// Returns its state as in proc_pid_stat(5) (`R`, `S`, `D`, `T`, `t` ...), or `?` if /proc could not be read.
    pub const fn state(&self) -> char {
        self.state as char
    }

    /// Returns why it could not be stopped.
    pub const fn reason(&self) -> UnreachableReason {
        self.reason
    }
}

impl fmt::Debug for UnreachableThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnreachableThread")
            .field("tid", &self.tid)
            .field("name", &format_args!("\"{}\"", self.name_bytes().escape_ascii()))
            .field("state", &self.state())
            .field("reason", &self.reason)
            .finish()
    }
}

impl fmt::Display for UnreachableThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} ({}, state {}) {}",
            self.tid,
            self.name_bytes().escape_ascii(),
            self.state(),
            self.reason
        )
    }
}

/// The reason why a thread could not be stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum UnreachableReason {
    /// It blocks signal 33.
    SignalBlocked,
    /// It is stopped by a signal (SIGSTOP, SIGTSTP ...).
    Stopped,
    /// It is stopped by a tracer, ptrace(2).
    Traced,
    /// Its cgroup is frozen, cgroups(7).
    Frozen,
    /// It waits in vfork(2) for its child to execute or exit.
    Vfork,
    /// It is in the middle of execve(2).
    Exec,
    /// It is in uninterruptible sleep.
    Uninterruptible,
    /// The kernel, or a security module, did not let us signal it.
    Forbidden,
    /// Its seccomp filter refuses gettid(2). The thread needs gettid(2) to tell whether a signal is meant for it.
    Filtered,
    /// It has the signal and did not run the handler. Most likely it got no CPU time.
    Unresponsive,
    /// The reason is not known, because /proc cannot be read.
    Unknown,
}

impl fmt::Display for UnreachableReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SignalBlocked => "blocks signal 33",
            Self::Stopped => "is stopped by a signal",
            Self::Traced => "is stopped by a tracer",
            Self::Frozen => "is frozen by its cgroup",
            Self::Vfork => "waits for its vfork child",
            Self::Exec => "is in execve",
            Self::Uninterruptible => "is in uninterruptible sleep",
            Self::Forbidden => "may not be signalled",
            Self::Filtered => "has a filter that refuses gettid(2)",
            Self::Unresponsive => "did not answer",
            Self::Unknown => "did not answer (and /proc cannot be read)",
        })
    }
}
