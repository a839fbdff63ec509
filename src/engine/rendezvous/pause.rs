//! The pause between two rounds: a thread that arrives late waits for the next round.

use core::time::Duration;

use super::{Phase, Rendezvous, State};
use crate::sys::futex;
use crate::sys::sync::Ordering::SeqCst;

/// How long a thread waits for the next round, at most: longer than the longest pause with the shortest backoff.
const NEXT_ROUND_WAIT: Duration = Duration::from_millis(150);

impl Rendezvous {
    /// The round that is about to end is followed by another: a thread that arrives in between waits for it.
    pub(crate) fn begin_pause(&self, epoch: u32) {
        self.pause.store(epoch, SeqCst);
    }

    /// The next round is open, or there is none.
    pub(crate) fn end_pause(&self) {
        if self.pause.swap(0, SeqCst) != 0 {
            futex::wake_all(&self.pause);
        }
    }

    /// Waits for the next round, if one is to come. Returns false if none is.
    #[cold]
    #[inline(never)]
    pub(super) fn await_next_round(&self, seen: State) -> bool {
        let word = self.pause.load(SeqCst);
        if word == 0 || seen.phase != Phase::Closed || word != seen.epoch {
            return false;
        }
        if !futex::wait(&self.pause, word, Some(NEXT_ROUND_WAIT)) {
            // The initiator has not come back in time: no thread waits for it any more.
            let _ = self.pause.compare_exchange(word, 0, SeqCst, SeqCst);
        }
        true
    }
}
