//! What a broadcast that happened tells about itself, readable when the stop is over.

#![forbid(unsafe_code)]

use core::fmt;
use core::time::Duration;

use crate::engine::answers::Answers;
use crate::engine::records::Records;
use crate::errno::Errno;

/// What a broadcast did. Returned by [`Broadcast::execute_with_report`](crate::Broadcast::execute_with_report).
pub struct Report {
    pub(crate) value: usize,
    pub(crate) results: Records<ThreadResult>,
    pub(crate) skipped: Records<SkippedTask>,
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
            results: Records::EMPTY,
            skipped: Records::EMPTY,
            divergent: 0,
            attempts: 0,
            max_pause: Duration::ZERO,
            answers: Answers::none(),
            first_question: 0,
        }
    }

    /// What the call returned in the calling thread.
    pub const fn value(&self) -> usize {
        self.value
    }

    /// How many threads performed the call, the calling one included.
    pub fn threads(&self) -> usize {
        self.results().len().saturating_add(1)
    }

    /// Every other thread that took part, and what the call returned there.
    pub fn results(&self) -> &[ThreadResult] {
        self.results.as_slice()
    }

    /// The tasks that took no part because they can run no user code.
    pub fn skipped(&self) -> &[SkippedTask] {
        self.skipped.as_slice()
    }

    /// How many results did not agree with the caller's, as [`ResultCheck`](crate::ResultCheck) has it.
    pub const fn divergent(&self) -> usize {
        self.divergent
    }

    /// **Warning**: how many io_uring SQPOLL threads live on in this process, at most. (Their names prove nothing,
    /// because any thread of the process can change them. A worker that is certainly an io-wq worker does not count.) Such a thread goes
    /// on performing the operations of its ring with the credentials that the ring was created
    /// with (io_uring_setup(2), IORING_SETUP_SQPOLL), and nothing can change them from outside. If
    /// this is not 0, privilege that was dropped is still at work until those rings are closed.
    pub fn sqpoll(&self) -> usize {
        self.skipped().iter().filter(|e| e.reason == SkipReason::SqPoll).count()
    }

    /// What was asked: each thread's tid, the values of the calls that asked, and what they wrote.
    pub(crate) fn answers(&self) -> impl Iterator<Item = (i32, &[isize], &[u8])> {
        self.answers.iter().filter_map(|(tid, values, bytes)| {
            Some((tid, values.get(self.first_question..)?, bytes))
        })
    }

    /// How many times the threads were gathered before all of them were held at once.
    pub const fn attempts(&self) -> u32 {
        self.attempts
    }

    /// The longest time for which threads were held, over all rounds.
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

/// What the call did in one other thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThreadResult {
    pub(crate) tid: i32,
    pub(crate) call: usize,
    pub(crate) outcome: CallOutcome,
}

impl ThreadResult {
    /// The thread, gettid(2).
    pub const fn tid(&self) -> i32 {
        self.tid
    }

    /// Which call of a transaction this is about, counted from 0: the first whose result differs, or
    /// the last of all. If the last of all is a question of
    /// [`Transaction::query_identities`](crate::Transaction::query_identities), this is the number of the transaction's calls, which no call has.
    pub const fn call(&self) -> usize {
        self.call
    }

    /// What that call returned there.
    pub const fn outcome(&self) -> CallOutcome {
        self.outcome
    }
}

/// What one thread's call came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallOutcome {
    /// It returned this value.
    Returned(usize),
    /// The kernel refused it.
    Failed(Errno),
    /// The thread died in the call (a seccomp filter with SECCOMP_RET_KILL_THREAD, seccomp(2)).
    Died,
    /// The program's handler for SIGSYS left the call by siglongjmp(3): what the call did is unknown.
    Siglongjmp,
}

impl fmt::Display for CallOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Returned(value) => write!(f, "{value:#x}"),
            Self::Failed(errno) => write!(f, "{errno:?}"),
            Self::Died => f.write_str("died"),
            Self::Siglongjmp => f.write_str("left by a jump"),
        }
    }
}

/// A task of the process that took no part, and may not have to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SkippedTask {
    pub(crate) tid: i32,
    pub(crate) reason: SkipReason,
}

impl SkippedTask {
    /// The task's id.
    pub const fn tid(&self) -> i32 {
        self.tid
    }

    /// Why it cannot run user code.
    pub const fn reason(&self) -> SkipReason {
        self.reason
    }
}

/// Why a task cannot run user code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SkipReason {
    /// It is dead or dying: state Z or X, or PF_EXITING (proc_pid_stat(5), `flags`).
    Exiting,
    /// An io-wq worker of an io_uring, for certain: it waits for work in the kernel's io_wq_worker.
    IoWorker,
    /// The submission-queue thread of an io_uring, or a worker that could be one; see [`Report::sqpoll`].
    SqPoll,
    /// Another kernel worker that lives in this process (vhost).
    UserWorker,
}

impl SkipReason {
    const ALL: [Self; 4] = [Self::Exiting, Self::IoWorker, Self::SqPoll, Self::UserWorker];

    /// The reason and when the task started, in one word.
    pub(crate) fn with_start(self, start: usize) -> usize {
        let code = Self::ALL.iter().position(|&reason| reason == self).unwrap_or(0);
        start << 2 | code
    }

    /// Whether two such words are about the same task. The reason may change: a worker may be busy or idle.
    pub(crate) const fn is_same_task(a: usize, b: usize) -> bool {
        a >> 2 == b >> 2
    }

    pub(crate) fn of(word: usize) -> Self {
        Self::ALL.get(word & 3).copied().unwrap_or(Self::Exiting)
    }
}
