//! How an initiator becomes the caller: it takes the lock, or waits for its turn.

use core::time::Duration;

use super::Stop;
use crate::engine::rendezvous::Phase;
use crate::engine::{divergence, handler};
use crate::error::Error;
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

    /// Waits for the lock and takes it. `mask` is the program's. While this thread sleeps, signals are as the program has
    /// them, and ours is open in any case: another initiator must be able to stop it. Ends: the owner ends by its own
    /// deadline or is found dead, or this thread's deadline passes.
    pub(super) fn lock(&mut self, mask: Mask) -> Result<(), Error> {
        let rendezvous = &self.shared.rendezvous;
        let mut slept = false;
        // The owner that was asked whether it has left its call, and the one that this thread waits for.
        let (mut asked, mut waits_for) = (0, 0);
        let mut looked = Duration::ZERO;
        loop {
            self.read_own_ids()?;
            let me = self.tid as u32;
            // P7: callers take turns.
            let Err(owner) = rendezvous.try_lock(me, slept) else { return Ok(()) };
            if owner == me && mask & bit(SIGNAL) == 0 && handler::leave_lock(self.shared, me) {
                continue;
            }
            if owner == me || self.is_held() {
                return Err(Error::Reentered);
            }
            // Asked each time: signals may interrupt every sleep, so that no sleep is a long one.
            let now = self.clock()?;
            if slept && now >= self.until {
                return Err(Error::Busy { tid: owner as i32 });
            }
            if waits_for != owner {
                (waits_for, looked) = (owner, now);
            } else if sys::difference(now, looked) >= OWNER_CHECK_INTERVAL {
                looked = now;
                // P7: an owner that is dead leaves its lock.
                if sys::is_gone(self.pid, owner, self.tid) && rendezvous.inherit_lock(owner, me) {
                    self.end_stop_of_dead_owner();
                    return Ok(());
                }
                // One that has left its call by siglongjmp, before it held a thread that could tell, takes our signal.
                // It is sent once to each owner: where it is blocked, it stays in the queue. Without our handler it would kill.
                if asked != owner && sys::sigsys_is_handled() && handler::is_installed() {
                    let value = self.shared.caller_signal_value();
                    if sys::queue_signal(self.pid, owner as i32, value).is_ok() {
                        asked = owner;
                    }
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
