//! The lock: one initiator at a time.

use core::time::Duration;

use super::Rendezvous;
use crate::sys::futex;
use crate::sys::sync::Ordering::SeqCst;

/// In `lock`: an initiator sleeps there. Tids have 22 bits.
const SLEEPERS: u32 = 1 << 31;

impl Rendezvous {
    /// Takes the lock if it is free; otherwise returns the owner's tid. Pass `slept` so that the SLEEPERS bit stays
    /// set for other waiters.
    pub(crate) fn try_lock(&self, me: u32, slept: bool) -> Result<(), u32> {
        let mine = if slept { me | SLEEPERS } else { me };
        match self.lock.compare_exchange(0, mine, SeqCst, SeqCst) {
            Ok(_) => Ok(()),
            Err(seen) => Err(seen & !SLEEPERS),
        }
    }

    /// Sleeps until the lock was free for a moment, at most for `timeout`. Returns false if that time is over.
    pub(crate) fn sleep_on_lock(&self, timeout: Option<Duration>) -> bool {
        let seen = self.lock.load(SeqCst);
        if seen == 0 {
            return true;
        }
        let marked = seen | SLEEPERS;
        if seen != marked && self.lock.compare_exchange(seen, marked, SeqCst, SeqCst).is_err() {
            return true;
        }
        futex::wait(&self.lock, marked, timeout)
    }

    /// Takes the lock of a thread that is dead, and its place as the thread whose death ends the stop. Returns false if
    /// another thread was faster.
    pub(crate) fn inherit_lock(&self, from: u32, me: u32) -> bool {
        // The SLEEPERS bit is set: the dead thread may have been woken for it, and other initiators may sleep.
        let mine = me | SLEEPERS;
        let inherited = self.lock.compare_exchange(from, mine, SeqCst, SeqCst).is_ok()
            || self.lock.compare_exchange(from | SLEEPERS, mine, SeqCst, SeqCst).is_ok();
        if inherited {
            self.caller.store(me, SeqCst);
        }
        inherited
    }

    /// Whether this thread owns the lock.
    pub(crate) fn is_locked_by(&self, me: u32) -> bool {
        self.lock.load(SeqCst) & !SLEEPERS == me
    }

    /// Gives the lock of this thread back. Without effect if another thread has taken it over.
    pub(crate) fn unlock(&self, me: u32) {
        if self.lock.compare_exchange(me, 0, SeqCst, SeqCst).is_err()
            && self.lock.compare_exchange(me | SLEEPERS, 0, SeqCst, SeqCst).is_ok()
        {
            futex::wake_one(&self.lock);
        }
    }
}
