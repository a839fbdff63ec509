//! What a run does, for a comparison with the model (`model/traces`). `--cfg psx_trace` compiles it in; in every other
//! build the functions here are empty.
//!
//! Each change of `Rendezvous::state` is recorded with the value before and the value after. A value never comes back
//! (the epoch rises, the phase of an epoch rises, the count rises and then falls), so the changes of a run form one chain,
//! whatever the order in which they were recorded. What a thread does between its changes is recorded in its own order.

/// A held thread has made its calls.
pub(super) const PERFORMED: u64 = 1;
/// A held thread leaves the handler.
pub(super) const LEFT: u64 = 2;

#[cfg(not(psx_trace))]
mod sink {
    #[inline(always)]
    pub(in crate::engine) const fn change(_before: u64, _after: u64) {}

    #[inline(always)]
    pub(in crate::engine) const fn step(_what: u64) {}
}

#[cfg(psx_trace)]
mod sink {
    use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

    use crate::sys;

    const ROOM: usize = 1 << 20;

    /// Tid, and the change: before and after. Or tid, all ones, and the step.
    static RECORDS: [[AtomicU64; 3]; ROOM] = [const { [const { AtomicU64::new(0) }; 3] }; ROOM];
    static NEXT: AtomicUsize = AtomicUsize::new(0);

    fn record(before: u64, after: u64) {
        let at = NEXT.fetch_add(1, Ordering::SeqCst);
        if let Some([tid, first, second]) = RECORDS.get(at) {
            first.store(before, Ordering::SeqCst);
            second.store(after, Ordering::SeqCst);
            tid.store(sys::gettid() as u64, Ordering::SeqCst);
        }
    }

    pub(in crate::engine) fn change(before: u64, after: u64) {
        record(before, after);
    }

    pub(in crate::engine) fn step(what: u64) {
        record(u64::MAX, what);
    }

    /// What was recorded, in the order of each thread: tid, before, after.
    #[cfg(test)]
    pub(in crate::engine) fn records() -> impl Iterator<Item = (u64, u64, u64)> {
        let len = NEXT.load(Ordering::SeqCst).min(ROOM);
        RECORDS.iter().take(len).map(|[tid, before, after]| {
            let [tid, before, after] = [tid, before, after].map(|word| word.load(Ordering::SeqCst));
            (tid, before, after)
        })
    }
}

pub(super) use sink::{change, step};

#[cfg(all(test, psx_trace))]
mod tests;
