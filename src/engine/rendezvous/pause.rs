//! The pause between two rounds: a thread that arrives late waits for the next round.

use core::time::Duration;

use super::{Phase, Rendezvous, State};
use crate::engine::entry::{Entry, ThreadState};
use crate::sys::futex;
use crate::sys::sync::Ordering::SeqCst;

/// How long a thread waits for the next round, at most: longer than the longest pause, unless the threads were held for
/// longer.
const NEXT_ROUND_WAIT: Duration = Duration::from_millis(150);

impl Rendezvous {
    /// The round that is about to end is followed by another: a thread that arrives in between waits for it. Without this
    /// call, it runs on.
    pub(crate) fn begin_pause(&self, epoch: u32) {
        self.pause.store(epoch, SeqCst);
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
