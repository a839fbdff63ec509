//! Names the threads that could not be stopped, and why, after a round has ended.
#![forbid(unsafe_code)]

use core::time::Duration;

use super::entry::{Entry, Mark};
use super::gather::FORBIDDEN;
use super::handler::is_refused;
use super::records::Records;
use super::shared::Shared;
use crate::error::{UnreachableReason, UnreachableThread, UnreachableThreads};
use crate::sys::proc::{Living, Look, Tasks};

/// Whether a thread has said itself that it cannot be held: waiting does not change that.
pub(super) fn is_certain(shared: &Shared, epoch: u32) -> bool {
    let mut missing = shared.threads.iter().filter(|e| e.tid() != 0 && !e.is_held(epoch));
    missing.any(|entry| is_refused(reason(entry)))
}

/// What [`Entry::value`] says of a thread that was not held: it is 0 unless the thread could not be signalled.
fn reason(entry: &Entry) -> usize {
    if matches!(entry.mark(), Mark::Idle | Mark::Sent) { entry.value() } else { 0 }
}

/// The threads could not be listed within the deadline, so none can be named.
pub(super) const fn unknown(deadline: Duration) -> UnreachableThreads {
    UnreachableThreads { deadline, total: 0, threads: Records::EMPTY }
}

/// The threads that were not held when the last round ended, and still would not be; none if all of them are gone.
/// Threads that wait for a CPU, or have answered since, are named only if there is no other.
pub(super) fn name(
    shared: &Shared,
    tasks: &Tasks,
    scratch: &mut [u8],
    me: i32,
    epoch: u32,
    deadline: Duration,
) -> UnreachableThreads {
    let hindered = |living: &Living, answered: bool| {
        !answered && !living.wants_cpu() && (living.blocks_signal() || living.signal_pending())
    };
    let named = name_those(shared, tasks, scratch, me, epoch, deadline, hindered);
    if named.total > 0 {
        return named;
    }
    name_those(shared, tasks, scratch, me, epoch, deadline, |_, _| true)
}

fn name_those(
    shared: &Shared,
    tasks: &Tasks,
    scratch: &mut [u8],
    me: i32,
    epoch: u32,
    deadline: Duration,
    is_meant: impl Fn(&Living, bool) -> bool,
) -> UnreachableThreads {
    let room = shared.threads.iter().filter(|entry| !entry.is_held(epoch)).count();
    let mut threads = Records::with_capacity(room).unwrap_or(Records::EMPTY);
    let mut total = 0usize;
    let _ = tasks.sweep_or(scratch, shared.threads.iter().map(|entry| entry.tid()), &mut |task| {
        let entry = shared.threads.find(task.tid as u32);
        if task.tid == me || entry.is_some_and(|entry| entry.is_held(epoch)) {
            return Ok(());
        }
        let told = match entry.map_or(0, reason) {
            FORBIDDEN => Some(UnreachableReason::Forbidden),
            why if is_refused(why) => Some(UnreachableReason::Filtered),
            _ => None,
        };
        let (state, name, obstacle) = match tasks.look(task) {
            Look::Gone | Look::Exempt { .. } => return Ok(()),
            Look::Unknown => (b'?', [0; 16], told.unwrap_or(UnreachableReason::Unknown)),
            Look::Living(living) => {
                // A thread that has taken its signal is in our handler, or was, and blocks the signal there.
                let answered = !living.signal_pending()
                    && entry.is_some_and(|entry| entry.mark() == Mark::Sent);
                if told.is_none() && !is_meant(&living, answered) {
                    return Ok(());
                }
                let obstacle = told.unwrap_or_else(|| tasks.obstacle(task, &living));
                (living.state, living.name, obstacle)
            }
        };
        total = total.saturating_add(1);
        threads.push(UnreachableThread { tid: task.tid, name, state, reason: obstacle });
        Ok(())
    });
    UnreachableThreads { deadline, total, threads }
}
