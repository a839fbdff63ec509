//! The word `state`: epoch, phase and count in one.

use crate::engine::entry::ThreadState;

/// What the process is doing. Two bits of [`Rendezvous::state`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// No stop: a thread that takes our signal leaves at once.
    Closed,
    /// Threads arrive and stay.
    Gathering,
    /// All threads are held; the caller performs its own calls.
    Full,
    /// Every held thread performs the calls, and then waits.
    Committing,
}

/// [`Rendezvous::state`], unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) epoch: u32,
    pub(crate) phase: Phase,
    /// GATHERING, FULL: threads held. COMMITTING: threads that have not reported.
    pub(crate) count: u32,
}

/// In `state`: count below, phase above it, and then the epoch.
const COUNT_BITS: u32 = 30;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;

impl State {
    pub(super) const fn pack(self) -> u64 {
        let phase = match self.phase {
            Phase::Closed => 0,
            Phase::Gathering => 1,
            Phase::Full => 2,
            Phase::Committing => 3,
        };
        (self.epoch as u64) << 32 | phase << COUNT_BITS | self.count as u64 & COUNT_MASK
    }

    pub(super) const fn unpack(word: u64) -> Self {
        let phase = match word >> COUNT_BITS & 3 {
            0 => Phase::Closed,
            1 => Phase::Gathering,
            2 => Phase::Full,
            _ => Phase::Committing,
        };
        Self { epoch: (word >> 32) as u32, phase, count: (word & COUNT_MASK) as u32 }
    }
}

pub(super) const fn next(epoch: u32) -> u32 {
    epoch.wrapping_add(1) & ThreadState::NUMBER_MASK
}
