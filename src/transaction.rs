//! Several calls in one stop.

// # Safety
//
// A transaction hands to the kernel what its operations were made of; see `operation`.
#![allow(unsafe_code)]

use core::ffi::c_long;
use core::time::Duration;

use crate::broadcast::{DEADLINE, sensitivity};
use crate::engine::answers::Form;
use crate::engine::call::{Agreement, Call};
use crate::engine::divergence::Sensitivity;
use crate::engine::{self, Settings};
use crate::error::{Error, Refusal, TransactionError};
use crate::process::Operation;
use crate::report::Report;

/// What is done when a call fails after others have been performed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum OnPartial {
    /// Every thread performs the calls before it, and [`TransactionError::Partial`] tells.
    #[default]
    Report,
    /// The process is killed by signal 33, with a line on standard error, before any other thread
    /// goes on.
    Kill,
}

/// Up to `N` calls, performed by every thread in one stop: no thread runs in a state between them.
///
/// The calling thread performs them one after the other, when all others are held. If the first
/// fails, nothing has changed. If a later one fails, every thread performs those before it, and the
/// error says which it was ([`OnPartial`] can have the process killed instead). A thread whose
/// result differs performs no further call, and is judged as a
/// [`Broadcast`](crate::Broadcast)'s.
///
/// ```
/// use libpsx::Transaction;
/// use libpsx::process::{Gid, Uid, no_new_privs, set_all_gids, set_all_uids, setgroups};
///
/// # fn drop_root() -> Result<(), Box<dyn std::error::Error>> {
/// Transaction::<4>::new()
///     .with(setgroups(&[]))
///     .with(set_all_gids(Gid::new(65534)?))
///     .with(set_all_uids(Uid::new(65534)?))
///     .with(no_new_privs())
///     .perform()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "a transaction does nothing until it is performed"]
pub struct Transaction<'a, const N: usize> {
    operations: [Operation<'a>; N],
    len: usize,
    full: bool,
    deadline: Duration,
    sensitivity: Option<Sensitivity>,
    on_partial: OnPartial,
    first_question: usize,
    form: Form,
}

impl<'a, const N: usize> Transaction<'a, N> {
    /// No call yet, a deadline of 10 seconds, the process-wide sensitivity, [`OnPartial::Report`].
    pub const fn new() -> Self {
        Self {
            operations: [const { Operation::NOTHING }; N],
            len: 0,
            full: false,
            deadline: DEADLINE,
            sensitivity: None,
            on_partial: OnPartial::Report,
            first_question: 0,
            form: Form { calls: 0, bytes: 0 },
        }
    }

    /// Appends an operation. If there is no room, that is what the transaction ends with, with
    /// nothing changed ([`Refusal::Full`]).
    pub fn with(mut self, operation: Operation<'a>) -> Self {
        match self.operations.get_mut(self.len) {
            Some(place) => {
                *place = operation;
                self.len = self.len.wrapping_add(1);
            }
            None => self.full = true,
        }
        self
    }

    /// Appends any system call.
    ///
    /// # Safety
    /// See [`syscall6`](crate::syscall6): until the transaction is over.
    pub unsafe fn with_call(self, nr: c_long, args: [usize; 6], agreement: Agreement) -> Self {
        self.with(Operation::of(Call { agreement, ..Call::new(nr as usize, args) }))
    }

    /// The calls from this one on ask something, and write so many bytes.
    pub(crate) const fn asking(mut self, first: usize, bytes: usize) -> Self {
        self.first_question = first;
        // Questions of before still write as much as they were to.
        let bytes = if bytes > self.form.bytes { bytes } else { self.form.bytes };
        self.form = Form { calls: self.len, bytes };
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
    pub const fn on_partial(mut self, what: OnPartial) -> Self {
        self.on_partial = what;
        self
    }

    /// How many calls it has.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether it has none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Performs the calls on every thread. Returns what the last one returned in the calling thread.
    ///
    /// # Errors
    /// [`TransactionError::Unchanged`]: nothing has changed in any thread.
    /// [`TransactionError::Partial`]: every thread has performed the calls before the failed one.
    pub fn perform(&self) -> Result<usize, TransactionError> {
        self.go(None)
    }

    /// As [`perform`](Self::perform), with a report.
    ///
    /// # Errors
    /// As there.
    pub fn run(&self) -> Result<Report, TransactionError> {
        let mut report = Report::new();
        self.go(Some(&mut report))?;
        report.first_question = self.first_question;
        Ok(report)
    }

    fn go(&self, report: Option<&mut Report>) -> Result<usize, TransactionError> {
        if self.full {
            return Err(Error::Refused(Refusal::Full).into());
        }
        let mut calls = [const { Call::new(0, [0; 6]) }; N];
        for (place, operation) in calls.iter_mut().zip(&self.operations) {
            *place = operation.call();
        }
        let calls = calls.get_mut(..self.len).unwrap_or_default();
        let settings = Settings {
            deadline: self.deadline,
            sensitivity: self.sensitivity.unwrap_or_else(sensitivity),
            whole_or_dead: self.on_partial == OnPartial::Kill,
            form: self.form,
        };
        // SAFETY: those who made the operations have promised it; `self` keeps their memory.
        unsafe { engine::perform(calls, &settings, report) }
    }
}

impl<const N: usize> Default for Transaction<'_, N> {
    fn default() -> Self {
        Self::new()
    }
}
