//! The plan: the calls in the only possible order, and their execution.
//!
//! 1. The calls that need privilege come first: the session keyring, the root directory, the bounding set, groups. Before
//!    them, the capabilities that the plan needs become effective in every thread.
//! 2. The user ids follow. If they change from 0, the kernel clears the effective and ambient sets. It clears the
//!    permitted set too, unless the "keep capabilities" flag is set before.
//! 3. The capability sets follow, with CAP_SETPCAP as long as it is needed; then the ambient set, which has to be
//!    permitted and inheritable; then the securebits, which may forbid raising it; then the final sets.
//! 4. The state that the kernel clears if ids change follows: dumpable, the parent-death signal.
//! 5. The restrictions follow: no_new_privs, Landlock. Then every thread is asked for its credentials. The filter is
//!    the last call.
//!
//! Whether a call is needed does not depend on what the calling thread has already: another thread may differ. A call is
//! left out only if the calling thread could not make it, or if no thread needs it.

// # Safety
//
// Each block makes one call, with numbers or with memory of its function.
#![allow(unsafe_code)]

mod files;
mod idmap;
mod ids;
mod making;

use std::fmt;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::Duration;

use libpsx::{PartialFailureAction, Sensitivity, TransactionError};

pub(crate) use self::ids::Now;
pub(crate) use self::making::limits_of;
#[cfg(doc)]
use crate::Privileges;
use crate::expected::Expected;
use crate::status;
use crate::step::{Calls, PrepareError, Prepared, Step};
use crate::tasks::Tasks;
use crate::verify::{self, Verification};
use crate::{Error, Problem, kill};

/// The deadline of a transaction, unless it is set.
const USUAL_DEADLINE: Duration = Duration::from_secs(10);

/// The number of groups that a thread reports if it should have none but its group id.
const SHOWN_GROUPS: usize = 32;

/// The calls that drop the privileges, in their order. [`Plan::apply`] performs them.
#[derive(Debug)]
#[must_use = "a plan does nothing until it is applied"]
pub struct Plan {
    steps: Arc<Vec<Step>>,
    /// Each step in words, made before a filter may forbid it.
    shown: Vec<String>,
    expected: Expected,
    /// What the process keeps, in words.
    stays: Vec<String>,
    /// What the process loses, in words.
    goes: Vec<String>,
    /// How /proc is read after the stop, in words.
    looks: &'static str,
    /// Whether a child process reads /proc.
    outside: bool,
    deadline: Option<Duration>,
    report_failure: bool,
}

/// The result of a plan that was applied.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Applied {
    /// The number of threads that were changed and asked.
    pub threads: usize,
    /// The number of those threads that were verified in /proc too. It is 0 if there is no /proc of this process, if
    /// the process that reads /proc could not be made or did not answer before the stop, or if the new filter does not
    /// let this process ask it.
    pub verified: usize,
    /// The number of kernel threads of an io_uring that keep the old privileges ([`libpsx::Report::sqpoll`]). If it is
    /// not 0, close those rings.
    pub sqpoll: usize,
}

impl Plan {
    /// Performs the calls in all threads, and verifies the result.
    ///
    /// The process is killed, with a line on standard error, if a call fails after another call has changed the
    /// process, or if the verification finds a difference.
    ///
    /// If the plan brings a root directory, a Landlock ruleset or a filter, this makes a child process by clone(2). The
    /// child reads /proc while this process cannot, or must not hold a descriptor of it. The child ends before this
    /// returns, unless a thread of the program keeps it busy on purpose. The program gets no SIGCHLD for it. What it shows
    /// is no evidence against code of this process, which can write to the memory that the two share.
    ///
    /// # Errors
    /// Nothing has changed. With [`Privileges::report_failure`] there are two exceptions: [`Error::Partial`] and
    /// [`Error::NotDropped`].
    pub fn apply(self) -> Result<Applied, Error> {
        let mut tasks = Tasks::open();
        let filters = tasks.as_mut().filter(|_| self.expected.filtered).and_then(own_filters);
        let tasks = match (self.outside, self.expected.filtered) {
            (true, _) => tasks.and_then(|tasks| {
                let deadline = self.deadline.unwrap_or(USUAL_DEADLINE);
                tasks.outside(self.expected.sets.permitted, deadline)
            }),
            (false, true) => None,
            (false, false) => tasks,
        };
        let named = self.expected.groups.as_ref().map_or(0, Vec::len);
        // A thread may have more than the plan expects, and the report says which.
        let groups = if self.expected.staying.no_more_groups { SHOWN_GROUPS } else { named };
        // This replaces the program's settings for its own calls.
        let (on_partial_failure, sensitivity) = match self.report_failure {
            true => (PartialFailureAction::Report, Sensitivity::Ignore),
            false => (PartialFailureAction::Kill, Sensitivity::Error),
        };
        let made = Prepared::new(&self.steps).map_err(|PrepareError { kind, error }| {
            Error::Plan(vec![match kind {
                Some(kind) => Problem::CreateNamespace { kind, error },
                None => Problem::CreateKeyring(error),
            }])
        })?;
        let mut calls =
            Calls::new().on_partial_failure(on_partial_failure).sensitivity(sensitivity);
        if let Some(deadline) = self.deadline {
            calls = calls.deadline(deadline);
        }
        let filter = |step: &&Step| matches!(step, Step::Seccomp(_));
        for step in self.steps.iter().filter(|step| !filter(step)) {
            calls = step.add(calls, &made);
        }
        // This comes before the filter, because the filter may deny it.
        calls = calls.query_identities(groups);
        for step in self.steps.iter().filter(filter) {
            calls = step.add(calls, &made);
        }
        let done = calls.execute_with_report();
        drop(calls);
        if self.expected.filtered {
            made.forget_keyring();
        }
        let report = done.map_err(|error| Error::of(error, |index| self.call(index)))?;
        let verification =
            Verification::new(&self.expected, &report, filters.map(|before| before + 1));
        let numbered = |index| self.steps.get(index).map(|_| self.call(index));
        let (wrong, verified) = verification.run(tasks, numbered);
        if wrong.is_empty() {
            let threads = report.identities().count();
            return Ok(Applied { threads, verified, sqpoll: report.sqpoll() });
        }
        if self.report_failure {
            return Err(Error::NotDropped(wrong));
        }
        kill::kill(&verify::in_one_line(&wrong))
    }

    /// Starts a program with the privileges of the plan. The privileges of this process stay.
    ///
    /// The child process performs the calls between fork(2) and execve(2), and nothing else: it neither allocates nor
    /// locks, so this is safe beside other threads. If one call fails, the program is not executed. Only the results of
    /// the calls are verified. execve(2) changes the capabilities by the rules of capabilities(7). A filter has to
    /// allow execve(2).
    ///
    /// ```no_run
    /// use std::process::Command;
    /// use privileges::Privileges;
    ///
    /// let plan = Privileges::new().user("nobody").no_new_privs().plan()?;
    /// plan.spawn(Command::new("worker"))?.wait()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The errors of [`Command::spawn`], and the error of the call that failed.
    pub fn spawn(self, mut command: Command) -> io::Result<Child> {
        self.before_exec(&mut command, |_| {});
        command.spawn()
    }

    /// Lets a command perform the calls before execve(2). If a call fails, `failed` gets its number, in the child. It must
    /// make system calls only.
    pub(crate) fn before_exec(
        &self,
        command: &mut Command,
        failed: impl Fn(usize) + Send + Sync + 'static,
    ) {
        let steps = self.steps.clone();
        let hook = move || {
            Self::perform_in_child(&steps).map_err(|(at, error)| {
                failed(at);
                error
            })
        };
        // SAFETY: the hook makes system calls only.
        unsafe { command.pre_exec(hook) };
    }

    /// Performs the calls in a process of one thread, before execve(2). It does not allocate. The error has the number
    /// of the call that failed.
    ///
    /// A filter is installed by itself after the other calls, and no call comes after it. It need not allow the calls
    /// that end a transaction.
    fn perform_in_child(steps: &[Step]) -> Result<(), (usize, io::Error)> {
        let error = |number: i32| io::Error::from_raw_os_error(number);
        let made = Prepared::new(steps);
        let made = made.map_err(|failed| {
            let place = steps.iter().position(|step| step.is_made(failed.kind));
            (place.unwrap_or_default(), error(failed.error.raw_os_error()))
        })?;
        let filters =
            steps.iter().rev().take_while(|step| matches!(step, Step::Seccomp(_))).count();
        let (first, filter) =
            steps.split_at_checked(steps.len().saturating_sub(filters)).unwrap_or_default();
        let mut before = 0;
        for part in [first, filter] {
            let mut calls = Calls::new()
                .on_partial_failure(PartialFailureAction::Report)
                .sensitivity(Sensitivity::Ignore);
            for step in part {
                calls = step.add(calls, &made);
            }
            let done = calls.execute();
            drop(calls);
            done.map_err(|failed| {
                let index = match &failed {
                    TransactionError::Partial(partial) => partial.index(),
                    TransactionError::NothingChanged(_) => 0,
                };
                (index.saturating_add(before), error(failed.raw_os_error()))
            })?;
            before = part.len();
        }
        made.forget_keyring();
        Ok(())
    }

    pub(crate) fn steps(&self) -> &[Step] {
        &self.steps
    }

    pub(crate) fn expected(&self) -> &Expected {
        &self.expected
    }

    /// Describes the call with this number, counted from 0, as the plan shows it.
    pub(crate) fn call(&self, index: usize) -> String {
        match self.shown.get(index) {
            Some(shown) => format!("{} of {} ({shown})", index + 1, self.shown.len()),
            None => (index + 1).to_string(),
        }
    }
}

/// Returns how many filters the calling thread has.
pub(crate) fn own_filters(tasks: &mut Tasks) -> Option<usize> {
    status::filters(&tasks.own_status().ok()?)
}

impl Plan {
    /// Writes a line for each call, in order, then what stays, and what goes.
    pub(crate) fn show_calls(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, step) in self.shown.iter().enumerate() {
            writeln!(f, "{:3} {step}", index + 1)?;
        }
        writeln!(f, "goes: {}", or_nothing(&self.goes))?;
        writeln!(f, "stays: {}", or_nothing(&self.stays))
    }
}

impl fmt::Display for Plan {
    /// Writes a line for each call, in order, then what stays, what goes, and what is verified.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.show_calls(f)?;
        write!(
            f,
            "all in one stop of all threads; then every thread is asked, and {}: {}",
            self.looks, self.expected
        )
    }
}

fn or_nothing(lines: &[String]) -> String {
    if lines.is_empty() { "nothing".to_owned() } else { lines.join("; ") }
}
