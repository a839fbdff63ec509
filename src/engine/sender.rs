//! Sends signal 33 to one thread, and remembers what the kernel refused.

use core::ptr;

use super::entry::{Entry, ThreadState};
use super::shared::Shared;
use crate::errno::Errno;
use crate::sys;

/// `Entry::value` of a thread that could not be signalled: the kernel answered EPERM.
pub(super) const NOT_PERMITTED: usize = 1 << 17;

/// What became of a signal.
pub(super) enum Signalled {
    /// The thread is held, or will be.
    Expected,
    /// There is no such thread.
    NoSuchThread,
    /// The thread is exempt, or could not be signalled.
    Skipped,
}

/// Sends the signals of one round.
pub(super) struct Sender {
    pub(super) shared: &'static Shared,
    /// This process and thread.
    pub(super) pid: i32,
    pub(super) tid: i32,
    pub(super) epoch: u32,
    /// The kernel had no room for a signal in its queue.
    pub(super) queue_full: bool,
    /// The table has no room for another thread.
    pub(super) capacity_exceeded: bool,
    /// The kernel, or a filter, refuses to signal any thread.
    pub(super) refused: Option<Errno>,
}

impl Sender {
    pub(super) const fn new(shared: &'static Shared, pid: i32, tid: i32) -> Self {
        let (queue_full, capacity_exceeded, refused) = (false, false, None);
        Self { shared, pid, tid, epoch: 0, queue_full, capacity_exceeded, refused }
    }

    /// Signals a thread, unless it has a signal on its way, is held, or is exempt. `known` is its entry; without one it
    /// gets a new entry.
    pub(super) fn insert_and_signal(&mut self, known: Option<&Entry>, tid: i32) -> Signalled {
        let id = tid as u32;
        let Some(entry) = known.or_else(|| self.shared.threads.insert(id)) else {
            self.capacity_exceeded = true;
            return Signalled::Skipped;
        };
        let state = entry.state();
        match state {
            ThreadState::Sent => return Signalled::Expected,
            ThreadState::Exempt(_) => return Signalled::Skipped,
            _ if entry.is_held(self.epoch) => return Signalled::Expected,
            _ => {}
        }
        // P10: in a child that a handler of SIGSYS has forked, the memory is zero and the lock is free. The pid is the
        // parent's there.
        if !self.shared.rendezvous.is_locked_by(self.tid as u32) {
            self.refused = Some(Errno::PERM);
            return Signalled::Skipped;
        }
        if !entry.exchange(id, state, ThreadState::Sent) {
            // An earlier signal has brought it here at this moment.
            return Signalled::Expected;
        }
        let Err(errno) = sys::queue_signal(self.pid, tid, ptr::from_ref(entry) as usize) else {
            return Signalled::Expected;
        };
        entry.exchange(id, ThreadState::Sent, ThreadState::Idle);
        match errno {
            Errno::SRCH => return Signalled::NoSuchThread,
            Errno::AGAIN => {
                self.queue_full = true;
                if sys::signal_queue_limit() == Some(0) {
                    self.refused = Some(errno);
                }
            }
            errno => {
                entry.set_value(NOT_PERMITTED);
                // A security module may protect this one thread. No module protects a thread from itself, so if
                // that is refused too, a filter forbids the call.
                if sys::may_queue_signal(self.pid, self.tid) == Err(errno) {
                    self.refused = Some(errno);
                }
            }
        }
        Signalled::Skipped
    }
}
