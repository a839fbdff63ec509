//! The pause between two rounds: a thread that arrives late waits for the next round.

use core::time::Duration;

use super::{Phase, Rendezvous, State};
use crate::engine::entry::{Entry, ThreadState};
use crate::sys::futex;
use crate::sys::sync::Ordering::SeqCst;

/// How long a thread waits for the next round, at most: longer than the longest pause, unless the threads were held for
/// longer.
const NEXT_ROUND_WAIT: Duration = Duration::from_millis(150);

/// Of so many pauses in a row, of all initiators together, the last keeps no late thread. (With a free pause after every sixth round,
/// a call beside 12 threads that read slow pages takes up to 2.8 s, and 1.2 s with this.)
pub(super) const PAUSES_TO_A_FREE_ONE: u32 = 8;

impl Rendezvous {
    /// Owner of the lock: the round that is about to end is followed by another. A thread that arrives in between waits for
    /// that one, and stays for those after it: this collects threads that wait unkillably, one after the other. But a late
    /// thread may own what threads wait for with our signal blocked, so again and again a pause keeps none, and all run.
    pub(crate) fn begin_pause(&self, epoch: u32) {
        let pauses = self.pauses.load(SeqCst).wrapping_add(1);
        self.pauses.store(pauses, SeqCst);
        if pauses % PAUSES_TO_A_FREE_ONE != 0 {
            self.pause.store(epoch, SeqCst);
        }
    }

    /// The next round of any initiator is open: the pauses of all are over.
    pub(super) fn end_every_pause(&self) {
        if self.pause.swap(0, SeqCst) != 0 {
            futex::wake_all(&self.pause);
        }
    }

    /// There is no next round of the initiator whose last round this was. Another initiator may be in its own pause.
    pub(crate) fn end_pause(&self, epoch: u32) {
        if self.pause.compare_exchange(epoch, 0, SeqCst, SeqCst).is_ok() {
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

    /// The round that held this thread was given up. Returns whether the thread waits for the next one in place of running
    /// on: it was late for this one, and could be late again. It is marked as if its signal were still on its way. A thread
    /// of a call that has ended keeps its mark: the error's list of threads is made of the marks.
    #[cold]
    #[inline(never)]
    pub(super) fn stays_for_next_round(&self, entry: &Entry, tid: u32, epoch: u32) -> bool {
        self.pause.load(SeqCst) == epoch
            && entry.exchange(tid, ThreadState::held(epoch), ThreadState::Sent)
    }
}
