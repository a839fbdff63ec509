//! One thread's place in the thread table: its tid, how far it has come, and what its calls returned. The rendezvous
//! has the order in which both sides write it.
#![forbid(unsafe_code)]

use crate::sys::sync::{AtomicU64, AtomicUsize, Ordering::SeqCst};

/// What is known of one thread: the upper half of [`Entry::word`] is its tid, the lower half this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ThreadState {
    /// Known, and no signal of ours is on its way.
    Idle,
    /// A signal of ours is on its way, or has arrived, and the thread waits for the next round.
    Sent,
    /// Arrived in this epoch. The thread stays while that stop lasts.
    Held(u32),
    /// Cannot run user code, as seen in this epoch.
    Exempt(u32),
    /// Performed the calls up to and including this one, all in agreement.
    Agreed(u32),
    /// This call's result differs.
    Differs(u32),
    /// Died in this call, before it reported.
    Died(u32),
    /// Left the handler in this call, and came back: its result is unknown.
    Siglongjmp(u32),
}

impl ThreadState {
    /// Epochs and indices have 29 bits here.
    pub(crate) const NUMBER_MASK: u32 = u32::MAX >> 3;

    const fn pack(self) -> u32 {
        match self {
            Self::Idle => 0,
            Self::Sent => 1,
            Self::Held(epoch) => 2 | epoch << 3,
            Self::Exempt(epoch) => 3 | epoch << 3,
            Self::Agreed(index) => 4 | index << 3,
            Self::Differs(index) => 5 | index << 3,
            Self::Died(index) => 6 | index << 3,
            Self::Siglongjmp(index) => 7 | index << 3,
        }
    }

    const fn unpack(word: u32) -> Self {
        let number = word >> 3;
        match word & 7 {
            0 => Self::Idle,
            1 => Self::Sent,
            2 => Self::Held(number),
            3 => Self::Exempt(number),
            4 => Self::Agreed(number),
            5 => Self::Differs(number),
            6 => Self::Died(number),
            _ => Self::Siglongjmp(number),
        }
    }

    pub(crate) const fn held(epoch: u32) -> Self {
        Self::Held(epoch & Self::NUMBER_MASK)
    }

    pub(crate) const fn exempt(epoch: u32) -> Self {
        Self::Exempt(epoch & Self::NUMBER_MASK)
    }

    /// Whether the thread has performed the calls with another result than the caller's, or none that is known.
    pub(crate) const fn is_divergent(self) -> bool {
        matches!(self, Self::Differs(_) | Self::Died(_) | Self::Siglongjmp(_))
    }

    /// Returns the last call that the thread made, and whether its result is known. Returns None for a thread that has not
    /// reported.
    pub(crate) fn last_call(self) -> Option<(usize, bool)> {
        // A thread that had not begun died in front of the first call.
        let index =
            |index: u32| Some(index as usize).filter(|&index| index != NOT_BEGUN).unwrap_or(0);
        match self {
            Self::Agreed(at) | Self::Differs(at) => Some((index(at), true)),
            Self::Died(at) | Self::Siglongjmp(at) => Some((index(at), false)),
            _ => None,
        }
    }

    /// Whether the thread takes part in the stop that is open.
    pub(crate) const fn takes_part(self) -> bool {
        self.is_divergent() || matches!(self, Self::Held(_) | Self::Agreed(_))
    }
}

/// `Entry::value` of a held thread that has not begun to perform the calls.
pub(crate) const NOT_BEGUN: usize = ThreadState::NUMBER_MASK as usize;

/// One thread's place. The signal carries its address. It is 16 bytes. The tid lies in the same word as the state, so
/// that a thread can only mark the entry that is still its own.
pub(crate) struct Entry {
    word: AtomicU64,
    value: AtomicUsize,
}

impl Entry {
    #[cfg(loom)]
    pub(crate) fn new(tid: u32, state: ThreadState) -> Self {
        Self { word: AtomicU64::new(Self::pack(tid, state)), value: AtomicUsize::new(0) }
    }

    const fn pack(tid: u32, state: ThreadState) -> u64 {
        (tid as u64) << 32 | state.pack() as u64
    }

    /// Caller: gives the place to a thread, or frees it (tid 0). Forgets what was known of another thread.
    pub(crate) fn assign(&self, tid: u32, state: ThreadState) {
        self.value.store(0, SeqCst);
        self.word.store(Self::pack(tid, state), SeqCst);
    }

    pub(crate) fn tid(&self) -> u32 {
        (self.word.load(SeqCst) >> 32) as u32
    }

    pub(crate) fn state(&self) -> ThreadState {
        ThreadState::unpack(self.word.load(SeqCst) as u32)
    }

    /// Changes the state, if it is still `from` and the place still belongs to `tid`.
    pub(crate) fn exchange(&self, tid: u32, from: ThreadState, to: ThreadState) -> bool {
        let (from, to) = (Self::pack(tid, from), Self::pack(tid, to));
        self.word.compare_exchange(from, to, SeqCst, SeqCst).is_ok()
    }

    /// Thread: marks its own place. Returns false if the place is no longer its own.
    pub(crate) fn set(&self, tid: u32, state: ThreadState) -> bool {
        let mut seen = self.word.load(SeqCst);
        while (seen >> 32) as u32 == tid {
            match self.word.compare_exchange(seen, Self::pack(tid, state), SeqCst, SeqCst) {
                Ok(_) => return true,
                Err(now) => seen = now,
            }
        }
        false
    }

    pub(crate) fn is_held(&self, epoch: u32) -> bool {
        self.state() == ThreadState::held(epoch)
    }

    /// Held: the number of the call that the thread performs. Reported: the result. Exempt: when the task started.
    /// Idle: why it could not be signalled.
    pub(crate) fn value(&self) -> usize {
        self.value.load(SeqCst)
    }

    pub(crate) fn set_value(&self, value: usize) {
        self.value.store(value, SeqCst);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn every_state_is_unpacked_as_it_was_packed() {
        let all: [fn(u32) -> ThreadState; 8] = [
            |_| ThreadState::Idle,
            |_| ThreadState::Sent,
            ThreadState::Held,
            ThreadState::Exempt,
            ThreadState::Agreed,
            ThreadState::Differs,
            ThreadState::Died,
            ThreadState::Siglongjmp,
        ];
        for number in [0, 1, 5, 0x0aaa_aaaa, ThreadState::NUMBER_MASK] {
            for state in all {
                let state = state(number);
                assert_eq!(ThreadState::unpack(state.pack()), state);
            }
        }
    }
}
