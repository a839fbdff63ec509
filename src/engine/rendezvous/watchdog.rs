//! The death of the caller: how a watchdog notices it, and how the stop ends without the caller.

use super::{Phase, Rendezvous, Thread};
use crate::sys::futex;
use crate::sys::sync::Ordering::SeqCst;

impl Rendezvous {
    /// The wait of a watchdog has expired while a stop is open.
    #[cold]
    #[inline(never)]
    pub(super) fn watchdog_expired(&self, thread: &impl Thread, reported: bool) {
        // Read once: an initiator may inherit the lock meanwhile and open a stop of its own.
        let caller = self.caller();
        if !thread.is_dead_thread(caller) {
            thread.check_on_caller();
        } else if reported || self.state().phase != Phase::Committing {
            // Otherwise the caller published before it died, and this thread performs the calls first.
            thread.take_over(caller);
        }
    }

    /// A watchdog leaves a stop that ended before `publish`. If the caller dies after it has closed the state and before it
    /// has woken a thread, no watchdog is left for the threads that sleep on the gate, or are about to.
    #[cold]
    #[inline(never)]
    pub(super) fn leave_gate(&self) {
        self.gate.fetch_add(1, SeqCst);
        futex::wake_all(&self.gate);
    }

    /// Ends the stop in the place of a caller that is gone. It may have died between two steps of `release`, so every
    /// word that a thread can sleep on is changed, and every thread is woken.
    pub(crate) fn abandon(&self) {
        let state = self.close();
        // No thread needs to wait for the return of a caller that is gone.
        self.note_return(state.epoch);
        for word in [&self.gate, &self.exit] {
            word.fetch_add(1, SeqCst);
            futex::wake_all(word);
        }
    }
}
