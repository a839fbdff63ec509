//! How an initiator becomes the caller: it takes the lock, or waits for its turn.

use core::time::Duration;

use super::Stop;
use crate::engine::divergence;
use crate::engine::rendezvous::Phase;
use crate::error::{Error, Requirement};
use crate::sys::{self, Mask, SIGNAL, bit};

/// How long an initiator sleeps before it looks whether the owner of the lock is alive.
const OWNER_CHECK_INTERVAL: Duration = Duration::from_millis(50);

impl Stop<'_> {
    /// Whether this thread is held, and a handler of SIGSYS has interrupted it: the owner of the lock waits for it.
    fn is_held(&self) -> bool {
        let me = self.tid as u32;
        self.shared.rendezvous.state().phase != Phase::Closed
            && self.shared.threads.iter().any(|e| e.tid() == me && e.state().takes_part())
    }

    /// Takes the lock, with all signals blocked from then on but SIGSYS, which stays as the interrupted code has it,
    /// for programs that emulate system calls. Returns the mask from before.
    pub(super) fn lock(&mut self) -> Result<Mask, Error> {
        let environment =
            |errno| Error::Environment { requirement: Requirement::SignalMask, errno };
        let mask = sys::block_all_but_sigsys().map_err(environment)?;
        let locked = self.wait_for_lock(mask);
        if locked.is_err() {
            let _ = sys::set_mask(mask);
        }
        locked.map(|()| mask)
    }

    /// Waits for the lock and takes it. While this thread sleeps, signals are as the program has them, and ours is
    /// open in any case: another initiator must be able to stop it. Ends: the owner ends by its own deadline or is
    /// found dead, or this thread's deadline passes.
    fn wait_for_lock(&mut self, mask: Mask) -> Result<(), Error> {
        let rendezvous = &self.shared.rendezvous;
        let mut slept = false;
        let mut looked = Duration::ZERO;
        loop {
            self.read_own_ids()?;
            let me = self.tid as u32;
            // P7: callers take turns.
            let Err(owner) = rendezvous.try_lock(me, slept) else { return Ok(()) };
            if owner == me || self.is_held() {
                return Err(Error::Reentered);
            }
            // Asked each time: signals may interrupt every sleep, so that no sleep is a long one.
            let now = self.clock()?;
            if slept && now >= self.until {
                return Err(Error::Busy { tid: owner as i32 });
            }
            if !slept {
                looked = now;
            } else if sys::difference(now, looked) >= OWNER_CHECK_INTERVAL {
                looked = now;
                // P7: an owner that is dead leaves its lock.
                if sys::is_gone(self.pid, owner, self.tid) && rendezvous.inherit_lock(owner, me) {
                    self.end_stop_of_dead_owner();
                    return Ok(());
                }
            }
            let _ = sys::set_mask(mask & !bit(SIGNAL));
            slept = true;
            let _ = rendezvous.sleep_on_lock(Some(OWNER_CHECK_INTERVAL));
            let _ = sys::block_all_but_sigsys();
        }
    }

    /// Ends the stop that a dead owner of the lock has left behind. Where threads are held, a watchdog among them does
    /// it; so none is, or the owner died as it released them, or before it had opened the gate.
    fn end_stop_of_dead_owner(&self) {
        let rendezvous = &self.shared.rendezvous;
        let state = rendezvous.state();
        if state.phase == Phase::Committing && state.count != 0 {
            divergence::abort("a thread died in the middle of a broadcast");
        }
        rendezvous.abandon();
    }
}
