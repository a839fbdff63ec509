//! Names the threads that could not be stopped, and why, after a round has ended.
#![forbid(unsafe_code)]

use core::time::Duration;

use super::entry::{Entry, ThreadState};
use super::handler::is_refused;
use super::sender::NOT_PERMITTED;
use super::shared::Shared;
use crate::error::{UnreachableReason, UnreachableThread, UnreachableThreads};
use crate::sys::mapping::MappedList;
use crate::sys::proc::{LiveTask, TaskStatus, Tasks};

/// Whether a thread has said itself that it cannot be held: waiting does not change that.
pub(super) fn is_certain(shared: &Shared, epoch: u32) -> bool {
    let mut missing = shared.threads.iter().filter(|e| e.tid() != 0 && !e.is_held(epoch));
    missing.any(|entry| is_refused(reason(entry)))
}

/// What [`Entry::value`] says of a thread that was not held. Refusals are told by values that nothing else writes there.
fn reason(entry: &Entry) -> usize {
    if matches!(entry.state(), ThreadState::Idle | ThreadState::Sent) { entry.value() } else { 0 }
}

/// The threads could not be listed within the deadline, so none can be named.
pub(super) const fn unknown(deadline: Duration) -> UnreachableThreads {
    UnreachableThreads { deadline, total: 0, threads: MappedList::EMPTY, emulated: false }
}

/// The threads that were not held when the last round ended, and still would not be; none if all of them are gone.
/// Threads that wait for a CPU, or have answered since, are named only if there is no other.
pub(super) fn report(
    shared: &Shared,
    tasks: &Tasks,
    scratch: &mut [u8],
    me: i32,
    epoch: u32,
    deadline: Duration,
) -> UnreachableThreads {
    let hindered = |live: &LiveTask, answered: bool| {
        !answered && !live.wants_cpu() && (live.blocks_signal_33() || live.has_signal_33_pending())
    };
    let named = report_matching(shared, tasks, scratch, me, epoch, deadline, hindered);
    if named.total > 0 {
        return named;
    }
    report_matching(shared, tasks, scratch, me, epoch, deadline, |_, _| true)
}

fn report_matching(
    shared: &Shared,
    tasks: &Tasks,
    scratch: &mut [u8],
    me: i32,
    epoch: u32,
    deadline: Duration,
    matches: impl Fn(&LiveTask, bool) -> bool,
) -> UnreachableThreads {
    let room = shared.threads.iter().filter(|entry| !entry.is_held(epoch)).count();
    let mut threads = MappedList::with_capacity(room).unwrap_or(MappedList::EMPTY);
    let mut total = 0usize;
    let _ = tasks.sweep_or(scratch, shared.threads.iter().map(|entry| entry.tid()), &mut |task| {
        let entry = shared.threads.find(task.tid as u32);
        if task.tid == me || entry.is_some_and(|entry| entry.is_held(epoch)) {
            return Ok(());
        }
        let told = match entry.map_or(0, reason) {
            NOT_PERMITTED => Some(UnreachableReason::Forbidden),
            why if is_refused(why) => Some(UnreachableReason::Filtered),
            _ => None,
        };
        let (state, name, reason) = match tasks.status(task) {
            TaskStatus::NotFound | TaskStatus::Exempt { .. } => return Ok(()),
            TaskStatus::Unknown => (b'?', [0; 16], told.unwrap_or(UnreachableReason::Unknown)),
            TaskStatus::Live(live) => {
                // A thread that has taken its signal is in our handler, or was, and blocks the signal there.
                let answered = !live.has_signal_33_pending()
                    && entry.is_some_and(|entry| entry.state() == ThreadState::Sent);
                if told.is_none() && !matches(&live, answered) {
                    return Ok(());
                }
                let reason = told.unwrap_or_else(|| tasks.unreachable_reason(task, &live));
                (live.state, live.name, reason)
            }
        };
        total = total.saturating_add(1);
        threads.push(UnreachableThread { tid: task.tid, name, state, reason });
        Ok(())
    });
    UnreachableThreads { deadline, total, threads, emulated: tasks.is_emulated() }
}
