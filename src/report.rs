//! The report of a broadcast that was performed.

#![forbid(unsafe_code)]

use core::fmt;
use core::time::Duration;

use crate::engine::answers::Answers;
use crate::errno::Errno;
use crate::sys::mapping::MappedList;

/// What a broadcast did: the result of each thread, the tasks that were skipped, and how long the threads were held.
///
/// [`Operation::execute_with_report`](crate::process::Operation::execute_with_report),
/// [`Transaction::execute_with_report`](crate::Transaction::execute_with_report) and
/// [`Broadcast::execute_with_report`](crate::Broadcast::execute_with_report) return it.
///
/// ```
/// use libpsx::process::set_no_new_privs;
/// use libpsx::{CallOutcome, SkipReason, SkippedTask, ThreadResult};
///
/// let report = set_no_new_privs().execute_with_report()?;
/// println!("returned {} in {} threads", report.value(), report.threads());
/// println!("{} attempts, at most {:?} each", report.attempts(), report.max_pause());
/// assert_eq!(report.divergent(), 0);
/// let results: &[ThreadResult] = report.results();
/// for result in results {
///     match result.outcome() {
///         CallOutcome::Returned(_) => {}
///         other => println!("thread {}, call {}: {other}", result.tid(), result.call()),
///     }
/// }
/// let skipped: &[SkippedTask] = report.skipped();
/// for task in skipped {
///     println!("task {} was skipped: {:?}", task.tid(), task.reason());
///     assert_ne!(task.reason(), SkipReason::UserWorker);
/// }
/// if report.sqpoll() > 0 {
///     println!("close the io_uring first: its thread keeps the old privilege");
/// }
/// # Ok::<(), libpsx::Error>(())
/// ```
pub struct Report {
    pub(crate) value: usize,
    pub(crate) results: MappedList<ThreadResult>,
    pub(crate) skipped: MappedList<SkippedTask>,
    pub(crate) divergent: usize,
    pub(crate) attempts: u32,
    pub(crate) max_pause: Duration,
    pub(crate) answers: Answers,
    pub(crate) first_question: usize,
}

impl Report {
    pub(crate) const fn new() -> Self {
        Self {
            value: 0,
            results: MappedList::EMPTY,
            skipped: MappedList::EMPTY,
            divergent: 0,
            attempts: 0,
            max_pause: Duration::ZERO,
            answers: Answers::empty(),
            first_question: 0,
        }
    }

    /// Returns what the call returned in the calling thread.
    pub const fn value(&self) -> usize {
        self.value
    }

    /// Returns how many threads performed the call, the calling thread included.
    pub fn threads(&self) -> usize {
        self.results().len().saturating_add(1)
    }

    /// Returns the result of every other thread that took part.
    pub fn results(&self) -> &[ThreadResult] {
        self.results.as_slice()
    }

    /// Returns the tasks that took no part because they can run no user code.
    pub fn skipped(&self) -> &[SkippedTask] {
        self.skipped.as_slice()
    }

    /// Returns how many results did not agree with the caller's, by the rule of [`ResultCheck`](crate::ResultCheck).
    pub const fn divergent(&self) -> usize {
        self.divergent
    }

    /// Returns how many io_uring SQPOLL threads may be in this process.
    ///
    /// **Warning**: if this is not 0, dropped privilege is still in use until those rings are closed. A SQPOLL thread
    /// performs the operations of its ring with the credentials with which the ring was created (io_uring_setup(2),
    /// IORING_SETUP_SQPOLL), and no call from outside can change them. Every io_uring worker counts that is not certainly
    /// an io-wq worker: names prove nothing, because any thread of the process can change them.
    pub fn sqpoll(&self) -> usize {
        self.skipped().iter().filter(|e| e.reason == SkipReason::SqPoll).count()
    }

    /// Returns the answers: each thread's tid, the values of the calls that asked, and what they wrote.
    pub(crate) fn answers(&self) -> impl Iterator<Item = (i32, &[isize], &[u8])> {
        self.answers.iter().filter_map(|(tid, values, bytes)| {
            Some((tid, values.get(self.first_question..)?, bytes))
        })
    }

    /// Returns how many rounds it took until all threads were held at once.
    pub const fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Returns the longest time for which threads were held, over all rounds. A thread that took its signal between two
    /// rounds, because it waited for another thread before, stands still from then on: for seven pauses (of up to some
    /// 100 ms each) and the rounds between them at most. That time is not included.
    pub const fn max_pause(&self) -> Duration {
        self.max_pause
    }
}

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Report")
            .field("value", &self.value)
            .field("results", &self.results)
            .field("skipped", &self.skipped)
            .field("divergent", &self.divergent)
            .field("attempts", &self.attempts)
            .field("max_pause", &self.max_pause)
            .finish_non_exhaustive()
    }
}

/// The result of the call in one other thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThreadResult {
    pub(crate) tid: i32,
    pub(crate) call: usize,
    pub(crate) outcome: CallOutcome,
}

impl ThreadResult {
    /// Returns the id of the thread (gettid(2)).
    pub const fn tid(&self) -> i32 {
        self.tid
    }

    /// Returns the number of the call in its transaction, counted from 0: the first call whose result differs, or the
    /// last of all. For a question of [`Transaction::query_identities`](crate::Transaction::query_identities) it is the
    /// number of the transaction's calls.
    pub const fn call(&self) -> usize {
        self.call
    }

    /// Returns what that call returned in the thread.
    pub const fn outcome(&self) -> CallOutcome {
        self.outcome
    }
}

/// The outcome of a call in one thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallOutcome {
    /// It returned this value.
    Returned(usize),
    /// The kernel refused it.
    Failed(Errno),
    /// The thread died in the call (a seccomp filter with SECCOMP_RET_KILL_THREAD, seccomp(2)).
    Died,
    /// The program's handler of SIGSYS left the call by siglongjmp(3). It is not known what the call did.
    Siglongjmp,
}

impl fmt::Display for CallOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Returned(value) => write!(f, "{value:#x}"),
            Self::Failed(errno) => write!(f, "{errno:?}"),
            Self::Died => f.write_str("died"),
            Self::Siglongjmp => f.write_str("left by siglongjmp"),
        }
    }
}

/// A task of the process that took no part because it can run no user code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SkippedTask {
    pub(crate) tid: i32,
    pub(crate) reason: SkipReason,
}

impl SkippedTask {
    /// Returns the id of the task.
    pub const fn tid(&self) -> i32 {
        self.tid
    }

    /// Returns why it cannot run user code.
    pub const fn reason(&self) -> SkipReason {
        self.reason
    }
}

/// The reason why a task cannot run user code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SkipReason {
    /// It is dead or dying: state Z or X, or PF_EXITING (proc_pid_stat(5), `flags`).
    Exiting,
    /// It is certainly an io-wq worker of an io_uring: it waits for work in the kernel's io_wq_worker.
    IoWorker,
    /// It is the submission-queue thread of an io_uring, or a worker that could be one; see [`Report::sqpoll`].
    SqPoll,
    /// It is another worker of the kernel in this process (vhost, KVM).
    UserWorker,
}

impl SkipReason {
    const ALL: [Self; 4] = [Self::Exiting, Self::IoWorker, Self::SqPoll, Self::UserWorker];

    /// Packs the reason and the start time of the task into one word.
    pub(crate) fn with_start(self, start: usize) -> usize {
        let code = Self::ALL.iter().position(|&reason| reason == self).unwrap_or(0);
        start << 2 | code
    }

    /// Returns whether two such words are about the same task. The reason may change: a worker is busy or idle.
    pub(crate) const fn is_same_task(a: usize, b: usize) -> bool {
        a >> 2 == b >> 2
    }

    pub(crate) fn of(word: usize) -> Self {
        Self::ALL.get(word & 3).copied().unwrap_or(Self::Exiting)
    }
}
