//! The engine: one stop of all threads, in the order of its events.
//!
//! [`execute`] is the entry. A call passes through `caller` (lock, rounds, its own calls, commit, judgement), `gather`
//! (until all threads are held), `rendezvous` (how caller and threads meet, both halves in order), `handler` (what
//! the signal means to a thread and what a held thread performs), and back. Nothing here allocates, takes a lock of
//! the program, formats with the standard machinery, or touches libc or TLS.
//!
//! # Words
//!
//! | word | meaning |
//! |---|---|
//! | held | a thread is in our handler and stays there until the caller releases it |
//! | gate | the futex word on which held threads wait for the plan |
//! | round | one attempt to hold all threads; it ends with a stop, or is given up and followed by a pause |
//! | exempt | a task that can run no user code: it is dead or dying, or is a kernel worker |
//!
//! # The promises, and how each is kept
//!
//! - **P1, coverage.** Threads are signalled until a *proof* says that all are held (`Gather::prove`). The link
//!   count of the task directory, minus two, is one atomic look at the number of threads, and `held + 1` of them
//!   are accounted for. Held threads create no new ones. That each of them is alive is asked after the count,
//!   because a dead thread would offset one that never arrived. If some tasks are exempt, the sweep must name every
//!   task, and the exempt ones are looked at again after the count was taken. Each thread performs the calls once,
//!   because it is counted once in a stop.
//! - **P2, nothing on failure.** Before `publish`, every way out releases the threads untouched. Memory and
//!   descriptors are there before the first thread is held.
//! - **P3, simultaneous.** The caller acts only when the gate is closed over a proof. Between the first and the last
//!   execution of a call no thread runs a user instruction, and all threads leave after the judgement: a held thread
//!   has one way out, which is that the caller closes the stop. A call that blocks in one thread (a tracer has
//!   stopped it, its cgroup is frozen, a file server is dead) keeps every thread held: to let the others go would
//!   let them run with a change that is not complete, which is what an attacker needs. (The exception is a handler
//!   of SIGSYS, see P11.)
//! - **P4.** Between the first signal and the release: raw calls, and memory mapped before.
//! - **P5, it ends.** A gather without progress is given up after 4 ms (60 ms if it only waits for CPU time). The
//!   threads then run for at least as long as they were held, and it is tried again until the deadline. Threads that
//!   wait for something that a held thread owns get it in between, and wait for the next round when they have it. A
//!   refusal that waiting cannot change ends the call at once.
//! - **P6** is kept in `sys::signal::disposition`. **P7**: initiators take turns by the lock, and sleep with our signal open. A
//!   handler that interrupts the owner, or a held thread, gets an error.
//! - **P8.** The memory that the threads share reads zero in a child of fork. Which process and thread this is is
//!   asked again after every sleep, because a handler may have forked. A child that shares the memory (vfork) is
//!   single-threaded and does not look at it, unless it cannot ask whether it is; what it has claimed then is free
//!   again when it is over.
//! - **P9.** The handler has no effect but that of the calls. Descriptors are O_CLOEXEC.
//! - **P10** is kept in `sys::proc` and `Gather::full_pass_by_tid`.
//! - **P11.** A slice of calls is performed in one stop. A call that the kernel performs in all threads by itself is
//!   made by the caller alone, when the others have reported; only questions may follow it. A handler of SIGSYS is
//!   the one piece of user code that can run in a held thread, because SIGSYS stays open for programs that emulate
//!   their own system calls. If it leaves by siglongjmp, the thread is brought back, and its result is a divergence
//!   if it had begun.
//! - **P12.** A thread that is alone asks whether it is, and performs its calls: several with signals blocked.
//!
//! # Interleavings
//!
//! ```text
//! clone   sweep lists A   A: clone -> B   A arrives   held = 1, count = 3 (A, B, caller): no proof
//!         sweep lists B   B arrives       held = 2, count = 3: proof. B cannot have cloned since.
//! exit    signal to A     A exits         no thread arrives for a slice; count = 1 + held: proof
//! fork    A forks, then arrives: the child has the old state, but no thread had the new one yet.
//!         A held thread cannot fork, unless a handler of SIGSYS does so in it; it leaves with the new state.
//! exec    A: execve kills all other threads, the caller among them; nothing is left to be inconsistent.
//! late    a signal of a call that gave up arrives: if no gather is open, the thread goes on; in the pause
//!         between two rounds it waits for the next one; if a gather is open, it is held for that.
//! next    a stop opens while threads still sleep on `exit`: they block our signal until they have left, so
//!         they are counted only then. Each has woken others before it left, so all of them leave.
//! ```

// # Safety
//
// `execute` passes on what its caller promises.
#![allow(unsafe_code)]

pub(crate) mod answers;
pub(crate) mod call;
mod caller;
pub(crate) mod divergence;
mod entry;
mod gather;
mod handler;
mod rendezvous;
pub(crate) mod report_buffers;
mod sender;
mod shared;
mod thread_table;
mod trace;
#[cfg(all(test, any(miri, psx_twin)))]
mod twin;
mod unreachable;

use core::time::Duration;

use answers::{AnswerLayout, AnswerSlot, Answers};
use call::Call;
use divergence::Sensitivity;
use shared::Shared;

use crate::error::{Error, RefusalReason, Requirement, TransactionError};
use crate::report::Report;
use crate::sys;
use crate::sys::proc::Tasks;

/// What the caller has set.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) deadline: Duration,
    pub(crate) sensitivity: Sensitivity,
    /// Kill the process if a call fails after others were performed.
    pub(crate) kill_on_partial_failure: bool,
    /// What the calls ask of each thread, for a report.
    pub(crate) layout: AnswerLayout,
}

/// Performs `calls` on every thread of the process, in one stop. Returns what the last one returned in the calling
/// thread.
///
/// # Safety
/// Each call is sound when every thread makes it; see [`crate::syscall6`].
pub(crate) unsafe fn execute(
    calls: &mut [Call],
    settings: &Settings,
    report: Option<&mut Report>,
) -> Result<usize, TransactionError> {
    // P2: nothing has been done yet.
    check_refusals(calls)?;
    let alone = || sys::is_single_threaded().unwrap_or_else(|| Tasks::count_threads() == Some(1));
    let first_for_all = calls.first().is_none_or(Call::is_synchronized_by_kernel);
    if first_for_all && calls.len() <= 1 {
        return run_in_this_thread(calls, settings, report);
    }
    if let Some(filter) = only_tsync_filter_remains(calls) {
        return run_in_this_thread(filter, settings, report);
    }
    // P1: a handler that ran between the question and the call could make a thread in the old state; between two calls, a
    // child or a thread in the state between them.
    let blocked = |errno| Error::Environment { requirement: Requirement::SignalMask, errno };
    // A filter that the one call installs may forbid to set the mask again.
    if matches!(&*calls, [call] if call.installs_filter()) && alone() {
        return run_in_this_thread(calls, settings, report);
    }
    let mask = sys::block_all_but_sigsys().map_err(blocked)?;
    // P12: a thread that is alone takes no lock and installs no handler.
    if alone() {
        let done = run_in_this_thread(calls, settings, report);
        let _ = sys::set_mask(mask);
        return done;
    }
    match prepare_stop(calls, settings) {
        Ok(mut stop) => stop.run(mask, calls, report),
        Err(error) => {
            let _ = sys::set_mask(mask);
            Err(error.into())
        }
    }
}

/// What a stop needs before the lock is taken.
fn prepare_stop<'a>(calls: &[Call], settings: &'a Settings) -> Result<caller::Stop<'a>, Error> {
    if let Some(why) = calls.iter().find_map(Call::refusal_if_multithreaded) {
        return Err(Error::Refused(why));
    }
    let need = |requirement| move |errno| Error::Environment { requirement, errno };
    let shared = Shared::get_or_init().map_err(need(Requirement::Memory))?;
    let now = sys::clock().map_err(need(Requirement::Clock))?;
    Ok(caller::Stop::new(shared, settings, sys::sum(now, settings.deadline)))
}

/// Refuses calls that no thread could make and go on, and a call that the kernel performs in all threads if it is not
/// the last but for questions.
fn check_refusals(calls: &[Call]) -> Result<(), Error> {
    let last = calls.iter().rposition(|call| !call.is_query);
    for (index, call) in calls.iter().enumerate() {
        let not_last = call.is_synchronized_by_kernel() && Some(index) != last;
        if let Some(why) = call.refusal().or(not_last.then_some(RefusalReason::NotLast)) {
            return Err(Error::Refused(why));
        }
    }
    Ok(())
}

/// If the calls are no_new_privs and then a filter with SECCOMP_FILTER_FLAG_TSYNC, and this thread has no_new_privs
/// already: the filter. The kernel gives both to every thread in one step (seccomp_sync_threads, kernel/seccomp.c, copies
/// no_new_privs), and if it refuses, nothing has changed, so no stop is needed. A caller without no_new_privs would have
/// to set it first, and would keep it if the kernel then refused the filter.
fn only_tsync_filter_remains(calls: &mut [Call]) -> Option<&mut [Call]> {
    let (filter, before) = calls.split_last()?;
    let does = filter.is_tsync_filter()
        && !before.is_empty()
        && before.iter().all(Call::is_no_new_privs)
        && sys::has_no_new_privs();
    let last = before.len();
    if does { calls.get_mut(last..) } else { None }
}

/// Performs the calls in this thread, and nowhere else.
fn run_in_this_thread(
    calls: &mut [Call],
    settings: &Settings,
    report: Option<&mut Report>,
) -> Result<usize, TransactionError> {
    let (mut answers, mut slot) = (Answers::empty(), AnswerSlot::NONE);
    if report.is_some() && settings.layout.calls > 0 {
        let memory = |errno| Error::Environment { requirement: Requirement::Memory, errno };
        answers = Answers::new(settings.layout, 1).map_err(memory)?;
        slot = answers.claim_slot(sys::gettid());
    }
    let value = caller::execute_calls(calls, 0..calls.len(), slot, settings, |_| {})?;
    if let Some(report) = report {
        report.value = value;
        report.answers = answers;
    }
    Ok(value)
}
