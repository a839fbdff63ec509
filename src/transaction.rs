//! Several calls in one stop.

// # Safety
//
// A transaction hands to the kernel what its operations were made of; see `operation`.
#![allow(unsafe_code)]

use core::ffi::c_long;
use core::fmt;
use core::time::Duration;

use crate::broadcast::{DEADLINE, sensitivity};
use crate::engine::answers::Form;
use crate::engine::call::{Call, ResultCheck};
use crate::engine::divergence::Sensitivity;
use crate::engine::{self, Settings};
use crate::errno::Errno;
use crate::error::{Error, Requirement, TransactionError};
use crate::list::List;
use crate::process::{Operation, QUESTIONS, question};
use crate::report::Report;

/// What is done when a call fails after others have been performed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum PartialFailureAction {
    /// Every thread performs the calls before it, and [`TransactionError::Partial`] tells.
    #[default]
    Report,
    /// The process is killed by signal 33, with a line on standard error, before any other thread
    /// goes on.
    Kill,
}

/// Several calls, performed by every thread in one stop: no thread runs in a state between them.
///
/// A transaction has room for any number of calls. The first sixteen lie in the value itself, more of them in memory
/// that is mapped for them (mmap(2)) as they are appended, before any thread is stopped.
///
/// The calling thread performs the calls one after the other, when all other threads are held. If the first
/// call fails, nothing has changed. If a later one fails, every thread performs those before it, and the
/// error says which call it was ([`PartialFailureAction`] can have the process killed instead). A thread whose
/// result differs performs no further call, and is judged as a
/// [`Broadcast`](crate::Broadcast)'s.
///
/// ```
/// use libpsx::Transaction;
/// use libpsx::process::{Gid, Uid, set_no_new_privs, set_all_gids, set_all_uids, setgroups};
///
/// # fn drop_root() -> Result<(), Box<dyn std::error::Error>> {
/// Transaction::new()
///     .with(setgroups(&[]))
///     .with(set_all_gids(Gid::new(65534)?))
///     .with(set_all_uids(Uid::new(65534)?))
///     .with(set_no_new_privs())
///     .execute()?;
/// # Ok(())
/// # }
/// ```
#[must_use = "a transaction does nothing until it is performed"]
pub struct Transaction<'a> {
    operations: List<Operation<'a>>,
    /// An operation could not be appended: how many there would have been, and why.
    lacks: Option<(usize, Errno)>,
    deadline: Duration,
    sensitivity: Option<Sensitivity>,
    on_partial_failure: PartialFailureAction,
    asked: Option<Asked>,
}

/// The questions of [`Transaction::query_identities`]. They are not stored: [`Transaction::execute`] writes them between the calls.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    /// How many operations come before them.
    pub(crate) at: usize,
    /// How many supplementary groups there is room for.
    pub(crate) groups: usize,
}

impl<'a> Transaction<'a> {
    /// No call yet, a deadline of 10 seconds, the process-wide sensitivity, [`PartialFailureAction::Report`].
    pub const fn new() -> Self {
        Self {
            operations: List::new(Operation::NOTHING),
            lacks: None,
            deadline: DEADLINE,
            sensitivity: None,
            on_partial_failure: PartialFailureAction::Report,
            asked: None,
        }
    }

    /// Appends an operation. If the kernel has no memory for it, [`execute`](Self::execute) returns
    /// [`Error::Environment`] with [`Requirement::TransactionMemory`], and nothing has changed.
    pub fn with(mut self, operation: Operation<'a>) -> Self {
        self.append(operation);
        self
    }

    /// Appends operations.
    ///
    /// ```
    /// use libpsx::Transaction;
    /// use libpsx::process::{CapabilitySet, capbset_drop};
    ///
    /// // As many calls as the kernel has capabilities.
    /// let drops = CapabilitySet::all().iter().map(capbset_drop);
    /// let transaction = Transaction::new().with_all(drops);
    /// assert!(transaction.len() > 40);
    /// ```
    pub fn with_all(mut self, operations: impl IntoIterator<Item = Operation<'a>>) -> Self {
        operations.into_iter().for_each(|operation| self.append(operation));
        self
    }

    fn append(&mut self, operation: Operation<'a>) {
        if self.lacks.is_none() {
            let appended = self.operations.push(operation);
            let count = self.operations.len().saturating_add(1);
            self.lacks = appended.err().map(|errno| (count, errno));
        }
    }

    /// Appends any system call.
    ///
    /// # Safety
    /// See [`syscall6`](crate::syscall6): until the transaction is over.
    pub unsafe fn with_call(self, nr: c_long, args: [usize; 6], result_check: ResultCheck) -> Self {
        self.with(Operation::of(Call { result_check, ..Call::new(nr as usize, args) }))
    }

    /// After the operations of now, each thread is asked; see `query_identities`.
    pub(crate) fn asking(mut self, groups: usize) -> Self {
        self.asked = Some(Asked { at: self.operations.len(), groups });
        self
    }

    /// How long to try to bring all threads to a stop.
    pub const fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// The sensitivity for this transaction alone.
    pub const fn sensitivity(mut self, level: Sensitivity) -> Self {
        self.sensitivity = Some(level);
        self
    }

    /// What is done when a call fails after others have been performed.
    pub const fn on_partial_failure(mut self, what: PartialFailureAction) -> Self {
        self.on_partial_failure = what;
        self
    }

    /// Returns how many calls it has. The questions of [`query_identities`](Self::query_identities) do not count, here and in the numbers of
    /// errors and reports.
    pub const fn len(&self) -> usize {
        self.operations.len()
    }

    /// Returns whether it has no call.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Performs the calls on every thread. Returns what the last one returned in the calling thread.
    ///
    /// # Errors
    /// [`TransactionError::NothingChanged`]: nothing has changed in any thread.
    /// [`TransactionError::Partial`]: every thread has performed the calls before the failed one.
    pub fn execute(&self) -> Result<usize, TransactionError> {
        self.go(None)
    }

    /// Performs the calls as [`execute`](Self::execute) does, and reports.
    ///
    /// # Errors
    /// As [`execute`](Self::execute).
    pub fn execute_with_report(&self) -> Result<Report, TransactionError> {
        let mut report = Report::new();
        self.go(Some(&mut report))?;
        report.first_question = self.asked.map_or(0, |asked| asked.at);
        for result in report.results.as_mut_slice() {
            result.call = self.number(result.call);
        }
        Ok(report)
    }

    fn go(&self, report: Option<&mut Report>) -> Result<usize, TransactionError> {
        let lacks = |(count, errno)| Error::Environment {
            requirement: Requirement::TransactionMemory(count),
            errno,
        };
        if let Some(lack) = self.lacks {
            return Err(lacks(lack).into());
        }
        let mut calls = List::new(Call::new(0, [0; 6]));
        let questions = self.asked.map_or(0, |_| QUESTIONS);
        let count = self.operations.len().saturating_add(questions);
        self.write_calls(count, &mut calls).map_err(|errno| lacks((count, errno)))?;
        let settings = Settings {
            deadline: self.deadline,
            sensitivity: self.sensitivity.unwrap_or_else(sensitivity),
            whole_or_dead: self.on_partial_failure == PartialFailureAction::Kill,
            form: self.asked.map_or(Form::default(), Asked::form),
        };
        // SAFETY: those who made the operations have promised it; `self` keeps their memory.
        let done = unsafe { engine::perform(calls.as_mut_slice(), &settings, report) };
        done.map_err(|error| match error {
            TransactionError::Partial(partial) => {
                TransactionError::Partial(partial.at(self.number(partial.index())))
            }
            unchanged => unchanged,
        })
    }

    /// The calls as the engine performs them, with the questions where they were asked.
    fn write_calls(&self, count: usize, calls: &mut List<Call>) -> Result<(), Errno> {
        calls.reserve(count)?;
        let at = self.asked.map_or(0, |asked| asked.at);
        let (before, after) = self.operations.as_slice().split_at_checked(at).unwrap_or_default();
        before.iter().try_for_each(|operation| calls.push(operation.call()))?;
        if let Some(asked) = self.asked {
            (0..QUESTIONS).try_for_each(|number| calls.push(question(number, asked.groups)))?;
        }
        after.iter().try_for_each(|operation| calls.push(operation.call()))
    }

    /// The number that the caller knows a call of the engine by. A question has the one after all calls.
    fn number(&self, call: usize) -> usize {
        let Some(Asked { at, .. }) = self.asked else { return call };
        match call.checked_sub(at) {
            None => call,
            Some(from) if from < QUESTIONS => self.len(),
            Some(_) => call.wrapping_sub(QUESTIONS),
        }
    }
}

impl Clone for Transaction<'_> {
    /// If the kernel has no memory for the copy, the copy says so when it is performed.
    fn clone(&self) -> Self {
        let (operations, lacks) = match self.operations.copy() {
            Ok(operations) => (operations, self.lacks),
            Err(errno) => (List::new(Operation::NOTHING), Some((self.operations.len(), errno))),
        };
        Self { operations, lacks, ..*self }
    }
}

impl fmt::Debug for Transaction<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transaction")
            .field("operations", &self.operations.as_slice())
            .field("asks", &self.asked.is_some())
            .field("deadline", &self.deadline)
            .field("sensitivity", &self.sensitivity)
            .field("on_partial_failure", &self.on_partial_failure)
            .finish()
    }
}

impl Default for Transaction<'_> {
    fn default() -> Self {
        Self::new()
    }
}
