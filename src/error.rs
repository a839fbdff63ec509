//! What can go wrong, told apart by type. Every [`Error`] means the same thing for the process:
//! **nothing changed, in any thread**. The one way to end in between is a [`PartialFailure`] transaction.
//! (A thread whose result differs from its caller's is no `Error`: that is divergence, and
//! [`Sensitivity`](crate::Sensitivity) judges it.)

use core::fmt;
use core::time::Duration;

use crate::engine::records::Records;
use crate::errno::Errno;

/// Why a broadcast did not happen. Nothing has changed in any thread, whichever variant it is.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The kernel refused the calling thread's own call; no other thread attempted it.
    Call(Errno),
    /// The kernel could not synchronise the threads by itself, because this one has a seccomp
    /// filter that the calling thread has not (seccomp(2), SECCOMP_FILTER_FLAG_TSYNC).
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
    /// A thread does not share something with the calling thread that the call stands on: in that thread the call would
    /// act on something else.
    NotShared {
        /// The first such thread.
        tid: i32,
        /// What it has for itself.
        resource: SharedResource,
    },
    /// The calling thread is in the middle of a broadcast already, its own or as one of those that
    /// are held, and a signal handler that interrupted it called again.
    Reentered,
    /// We do not make this call on every thread, because no thread could go on after it.
    Refused(RefusalReason),
    /// The kernel did not give what a broadcast needs.
    Environment {
        /// What was asked for.
        requirement: Requirement,
        /// What the kernel said.
        errno: Errno,
    },
}

impl Error {
    /// The error number a C caller would find in `errno`: the call's own for [`Error::Call`];
    /// ETIMEDOUT for [`Error::Unreachable`] and [`Error::Busy`]; EAGAIN, EDEADLK and EINVAL for a
    /// full signal queue, re-entry and a refused call; ESRCH for [`Error::TsyncConflict`]; the kernel's
    /// own for [`Error::Environment`].
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
                write!(f, "thread {tid} has a seccomp filter that the calling thread has not")
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

/// The kind is that of the error number; the [`Error`] is inside (`io::Error::get_ref`).
#[cfg(feature = "std")]
impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        Self::new(Self::from_raw_os_error(error.raw_os_error()).kind(), error)
    }
}

/// The kind is that of the error number; the [`TransactionError`] is inside (`io::Error::get_ref`).
#[cfg(feature = "std")]
impl From<TransactionError> for std::io::Error {
    fn from(error: TransactionError) -> Self {
        Self::new(Self::from_raw_os_error(error.raw_os_error()).kind(), error)
    }
}

/// Why a [`Transaction`](crate::Transaction) did not do all of what it was to do.
///
/// `?` makes a `TransactionError` of an [`Error`], because "nothing has changed" is one of its cases. The other
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
    /// Nothing has changed in any thread. ([`Error::Call`]: it was the first call.)
    NothingChanged(Error),
    /// Every thread has performed the calls before one that failed. The process is consistent.
    Partial(PartialFailure),
}

/// Which call of a transaction failed after others had been performed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartialFailure {
    pub(crate) index: usize,
    pub(crate) name: Option<&'static str>,
    pub(crate) why: CallFailure,
}

/// How a call of the calling thread failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallFailure {
    Errno(Errno),
    TsyncConflict { tid: i32 },
}

impl Error {
    /// The first call of all is the only one.
    pub(crate) fn of_a_single_call(error: TransactionError) -> Self {
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
    /// The same, by the number that the caller of a transaction knows the call by.
    pub(crate) const fn at(self, index: usize) -> Self {
        Self { index, ..self }
    }

    /// The failed call, counted from 0: so many calls every thread has performed.
    pub const fn index(&self) -> usize {
        self.index
    }

    /// What the kernel said; see [`Error::raw_os_error`].
    pub const fn raw_os_error(&self) -> i32 {
        match self.why {
            CallFailure::Errno(errno) => errno.raw_os_error(),
            CallFailure::TsyncConflict { .. } => Errno::SRCH.raw_os_error(),
        }
    }

    /// The first thread with a seccomp filter that the calling thread has not, if that is why.
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
    /// The error number; see [`Error::raw_os_error`].
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

/// Why a call is refused before anything is done. The number is compared as the kernel reads it:
/// the upper half of the register and the x32 bit do not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RefusalReason {
    /// It makes a process or a thread (fork, vfork, clone, clone3): each thread would make its own.
    CreatesTask,
    /// It ends the thread or the process, or puts another program in its place.
    EndsThread,
    /// It takes the thread out of the handler it is held in (rt_sigreturn, restart_syscall), or kills it
    /// there, because it is for the kernel's own code (uretprobe, uprobe).
    LeavesHandler,
    /// It changes the signal state a broadcast stands on (masks, alternate stacks, signal 33). A call that
    /// takes a mask for as long as it waits is one of these (ppoll, pselect6, epoll_pwait, io_pgetevents,
    /// io_uring_enter).
    ChangesSignalState,
    /// It takes away what the thread's own run-time stands on (FS and GS bases, shadow stack,
    /// rseq, robust list, clear_child_tid).
    ReplacesThreadState,
    /// It would forbid the thread the calls it needs to go on (strict seccomp, user dispatch).
    ForbidsCalls,
    /// It waits for a signal, and all are blocked (pause, rt_sigsuspend; rt_sigtimedwait without a
    /// timeout; poll, ppoll, select and pselect6 without a descriptor and without a timeout).
    WaitsForSignal,
    /// It is unshare(2) of a namespace, in a process of several threads: each would make one of its
    /// own. [`process::unshare`](crate::process::unshare) makes one for all of them. (Of user and time
    /// namespaces the kernel allows neither, and of PID and mount namespaces it makes no sense; see
    /// [`Namespace`](crate::process::Namespace).)
    CreatesNamespace,
    /// It is setns(2) of a PID namespace, in a process of several threads. After it no thread could create
    /// another thread: a thread whose children belong into another PID namespace than itself may not
    /// (clone(2), EINVAL). Join the namespace in a process of one thread, or in a child.
    JoinsPidNamespace,
    /// The kernel itself performs it in all threads (SECCOMP_FILTER_FLAG_TSYNC,
    /// LANDLOCK_RESTRICT_SELF_TSYNC), which in a transaction only the last call may do.
    NotLast,
}

impl fmt::Display for RefusalReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CreatesTask => "every thread would make a process or thread of its own",
            Self::EndsThread => "it ends or replaces the thread that makes it",
            Self::LeavesHandler => "it takes a thread out of the handler it is held in, or kills it there",
            Self::ChangesSignalState => "it changes the signal state that the broadcast stands on",
            Self::ReplacesThreadState => "it replaces state that the thread's run-time stands on",
            Self::ForbidsCalls => "it would forbid the calls a thread needs to go on",
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

/// What a thread can have for itself though it belongs to the process (unshare(2), clone(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SharedResource {
    /// The table of descriptors: the same number may be another file there (CLONE_FILES).
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

/// What a broadcast asks of the kernel before it can begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Requirement {
    /// Memory for the list of threads (mmap(2), madvise(2)).
    Memory,
    /// The list of threads (getdents64(2), or tgkill(2) for every number; mmap(2) to keep it in).
    ThreadList,
    /// A handler for signal 33 (rt_sigaction(2)).
    SignalHandler,
    /// To send signal 33 to a thread (rt_tgsigqueueinfo(2)), which a filter refuses for every thread.
    SendSignal,
    /// The ids of this process and thread (getpid(2), gettid(2)), which a filter refuses.
    ThreadId,
    /// A mask that keeps signals out meanwhile (rt_sigprocmask(2)).
    SignalMask,
    /// The time (clock_gettime(2)), without which no wait would end.
    Clock,
    /// A process of its own: this one shares its memory with another that is using it
    /// (CLONE_VM without CLONE_THREAD).
    ExclusiveMemory,
    /// A namespace of this thread (/proc/thread-self/ns).
    Namespace,
    /// Whether a thread shares descriptors or directories with this one (kcmp(2), or /proc/self/task).
    SharingCheck,
    /// Memory for so many calls of a transaction, those that ask included (mmap(2)).
    TransactionMemory(usize),
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Memory => "no memory for the list of threads",
            Self::ThreadList => "the threads could not be listed",
            Self::SignalHandler => "no handler could be installed for signal 33",
            Self::SendSignal => "no thread can be signalled: rt_tgsigqueueinfo(2) is refused",
            Self::ThreadId => "getpid(2) or gettid(2) is refused",
            Self::SignalMask => "the signal mask could not be changed",
            Self::Clock => "the time could not be told",
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
    pub(crate) threads: Records<UnreachableThread>,
}

impl UnreachableThreads {
    /// Returns how many there were. 0: each of them was gone when it was to be named, time after time, because threads
    /// come and go faster than they can be stopped; or the deadline passed while the threads were looked for.
    pub const fn total(&self) -> usize {
        self.total
    }

    /// Each of them, as it was found when the last attempt ended. (Empty, with a `total`, only if
    /// the kernel had no memory for the list.)
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
        if self.total > NAMED { f.write_str(", ...") } else { Ok(()) }
    }
}

/// `10 s`, `0.25 s`. (Duration's own Debug can panic as far as a linker can tell.)
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
    /// Its thread id, gettid(2).
    pub const fn tid(&self) -> i32 {
        self.tid
    }

    /// Its name (PR_SET_NAME(2const)) up to the first byte that is not UTF-8; empty where /proc
    /// could not be read.
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

    /// The name up to its end.
    fn name_bytes(&self) -> &[u8] {
        self.name.split(|&byte| byte == 0).next().unwrap_or_default()
    }

    /// Its state as proc_pid_stat(5) spells it (`R`, `S`, `D`, `T`, `t` ...); `?` where /proc
    /// could not be read.
    pub const fn state(&self) -> char {
        self.state as char
    }

    /// Why it could not be stopped.
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

/// Why a thread could not be stopped.
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
    /// Its seccomp filter refuses gettid(2), without which it cannot tell whether a signal is meant for it.
    Filtered,
    /// It has the signal and did not get to it: starved of CPU time, most likely.
    Unresponsive,
    /// Nothing could be learnt of it, because /proc cannot be read.
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
