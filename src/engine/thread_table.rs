//! The table of the threads that a stop is about. Its memory stays where it is for ever, because a signal carries the
//! address of its thread's entry and may arrive late. The table grows by mappings that double in size, before any
//! thread is held; it is written by the thread that holds the lock, and costs at most 40 bytes per thread and two
//! pages. A child of fork begins anew with an empty table. The mappings stay there, empty (MADV_WIPEONFORK): a handler of
//! SIGSYS may have forked out of a held thread, which goes on in the child and looks at its entry.

// # Safety
//
// Each mapping is filled with entries, whose all-zero form is a value (no thread, idle), is never given back, and is
// published once, by a release store of its address.
#![allow(unsafe_code)]

use core::iter;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use crate::engine::entry::{Entry, ThreadState};
use crate::errno::Errno;
use crate::sys::mapping::Mapping;

/// Entries in the first mapping, or what was adopted for it; the second has as many, each later one
/// twice as many.
pub(crate) const FIRST: usize = 256;
/// Enough for the 2^22 tasks that Linux can have (PID_MAX_LIMIT).
const MAPPINGS: usize = 15;

/// All zero is the empty table.
pub(crate) struct ThreadTable {
    mappings: [AtomicUsize; MAPPINGS],
    /// Entries in use, some of them free. Written and read under the lock only.
    len: AtomicU32,
    /// Where the last look-up ended: sweeps go in the order of the table.
    cursor: AtomicU32,
    /// So many entries, from the first on, are in the order of their ids.
    ascending: AtomicU32,
    /// Entries are worth keeping: a signal may be on its way, or a task is exempt.
    keep: AtomicU32,
}

/// Which mapping the entry is in, and where.
fn locate(index: usize) -> (usize, usize) {
    match index.checked_div(FIRST).and_then(usize::checked_ilog2) {
        None => (0, index),
        Some(log) => (log as usize + 1, index - (FIRST << log)),
    }
}

/// How many entries a mapping has.
fn capacity(mapping: usize) -> usize {
    FIRST << mapping.saturating_sub(1)
}

impl ThreadTable {
    /// A table that has these entries, all in use, and no room for more.
    #[cfg(loom)]
    pub(crate) fn of(entries: &[Entry]) -> Self {
        let mappings = [const { AtomicUsize::new(0) }; MAPPINGS];
        if let Some(first) = mappings.first() {
            first.store(entries.as_ptr() as usize, Ordering::Release);
        }
        let word = |value| AtomicU32::new(value);
        let (len, cursor, ascending, keep) =
            (word(entries.len() as u32), word(0), word(0), word(0));
        Self { mappings, len, cursor, ascending, keep }
    }

    fn get(&self, index: usize) -> Option<&Entry> {
        let (mapping, offset) = locate(index);
        let base = NonNull::new(self.mappings.get(mapping)?.load(Ordering::Acquire) as *mut Entry)?;
        // SAFETY: `offset` is below the mapping's capacity.
        let entry = unsafe { base.add(offset) };
        // SAFETY: it points to an entry, for ever; see above.
        Some(unsafe { entry.as_ref() })
    }

    /// The entry whose address a signal carries, if it is one of ours. Called in handlers.
    pub(crate) fn entry_at(&self, address: usize) -> Option<&Entry> {
        for (number, mapping) in self.mappings.iter().enumerate() {
            let base = mapping.load(Ordering::Acquire);
            if base == 0 {
                return None;
            }
            let offset = address.wrapping_sub(base);
            let size = capacity(number).saturating_mul(size_of::<Entry>());
            if offset < size && offset % size_of::<Entry>() == 0 {
                let at = NonNull::new(address as *mut Entry)?;
                // SAFETY: it lies within a mapping and on an entry's boundary.
                return Some(unsafe { at.as_ref() });
            }
        }
        None
    }

    /// Gives it the first entries, unless it has them already.
    pub(crate) fn set_first_entries(&self, first: &[Entry; FIRST]) {
        if let Some(mapping) = self.mappings.first() {
            mapping.store(first.as_ptr() as usize, Ordering::Release);
        }
    }

    /// Forgets the threads of the last round. If some of their entries are worth keeping, it forgets only those that
    /// are not `alive`: a table as long as before with most of it forgotten would be searched to its end for every
    /// thread. An entry whose address a pending signal may carry stays in its place; the others close the gaps.
    pub(crate) fn begin(&self, alive: impl Fn(u32) -> bool) {
        self.cursor.store(0, Ordering::Relaxed);
        self.ascending.store(0, Ordering::Relaxed);
        let all = self.keep.swap(0, Ordering::Relaxed) == 0;
        let (mut gap, mut end) = (0, 0);
        for (index, entry) in self.iter().enumerate() {
            let tid = entry.tid();
            let living = !all && tid != 0 && alive(tid);
            if living && matches!(entry.state(), ThreadState::Sent | ThreadState::Exempt(_)) {
                self.keep();
                end = index.wrapping_add(1);
                continue;
            }
            entry.assign(0, ThreadState::Idle);
            while living && gap <= index {
                let free = self.get(gap).filter(|place| place.tid() == 0);
                gap = gap.wrapping_add(1);
                if let Some(place) = free {
                    place.assign(tid, ThreadState::Idle);
                    end = end.max(gap);
                    break;
                }
            }
        }
        self.len.store(end as u32, Ordering::Relaxed);
    }

    /// Whether no thread is enlisted: then a sweep need not look threads up.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many entries are in use.
    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed) as usize
    }

    /// The entries are looked at again, not forgotten, when the next round begins.
    pub(crate) fn keep(&self) {
        self.keep.store(1, Ordering::Relaxed);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry> {
        let len = self.len.load(Ordering::Relaxed) as usize;
        (0..len).map_while(|index| self.get(index))
    }

    /// The thread's entry. A sweep in the order of the last one finds each at the first look; otherwise the entries
    /// in order are bisected, and the rest is searched.
    pub(crate) fn find(&self, tid: u32) -> Option<&Entry> {
        let len = self.len.load(Ordering::Relaxed) as usize;
        let start = self.cursor.load(Ordering::Relaxed) as usize;
        let sorted = self.ascending.load(Ordering::Relaxed) as usize;
        let is_it =
            |&index: &usize| index < len && self.get(index).is_some_and(|entry| entry.tid() == tid);
        let found = iter::once(start)
            .chain(iter::once_with(|| self.first_from(tid, sorted)))
            .chain(start.max(sorted)..len)
            .chain(sorted..start.min(len))
            .find(is_it)?;
        self.cursor.store(found as u32 + 1, Ordering::Relaxed);
        self.get(found)
    }

    /// The first of the `sorted` entries whose id is not below this one.
    fn first_from(&self, tid: u32, sorted: usize) -> usize {
        let (mut low, mut high) = (0, sorted);
        while low < high {
            let middle = low.midpoint(high);
            match self.get(middle) {
                Some(entry) if entry.tid() < tid => low = middle.saturating_add(1),
                _ => high = middle,
            }
        }
        low
    }

    /// A place for a thread that has none; None if the reserve is used up.
    pub(crate) fn insert(&self, tid: u32) -> Option<&Entry> {
        let index = self.len();
        let entry = self.get(index)?;
        entry.assign(tid, ThreadState::Idle);
        let before = index.checked_sub(1).and_then(|before| self.get(before));
        if self.ascending.load(Ordering::Relaxed) as usize == index
            && before.is_none_or(|before| before.tid() < tid)
        {
            self.ascending.store(index as u32 + 1, Ordering::Relaxed);
        }
        self.len.store(index as u32 + 1, Ordering::Relaxed);
        Some(entry)
    }

    /// Takes the latest entry back, whose address no signal carries.
    pub(crate) fn remove_last(&self) {
        let len = self.len.load(Ordering::Relaxed).saturating_sub(1);
        self.len.store(len, Ordering::Relaxed);
        self.ascending.fetch_min(len, Ordering::Relaxed);
    }

    /// Frees the place of a thread that is gone. The ids are then in no order any more: a bisection that meets the free
    /// place would miss a thread.
    pub(crate) fn forget(&self, entry: &Entry) {
        entry.assign(0, ThreadState::Idle);
        self.ascending.store(0, Ordering::Relaxed);
    }

    /// Makes room for so many threads, with every page present. Called while no thread is held.
    pub(crate) fn reserve(&self, threads: usize) -> Result<(), Errno> {
        let (last, _) = locate(threads.saturating_sub(1));
        for (number, mapping) in self.mappings.iter().enumerate().take(last + 1) {
            if mapping.load(Ordering::Relaxed) == 0 {
                let bytes = capacity(number).saturating_mul(size_of::<Entry>());
                let memory = Mapping::new(bytes)?;
                memory.wipe_on_fork()?;
                mapping.store(memory.leak().as_ptr() as usize, Ordering::Release);
            }
        }
        Ok(())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn every_thread_is_found_and_no_other() {
        // SAFETY: all zero is the empty table.
        let table = unsafe { core::mem::zeroed::<ThreadTable>() };
        // In order, with gaps, and a tid of no thread taken back; then from the first again; one in between.
        let tids = (5000..7000).step_by(2).chain([9001]).chain((300..900).step_by(3)).chain([5001]);
        table.reserve(2000).unwrap();
        for tid in tids.clone() {
            table.insert(1 << 20).unwrap();
            table.remove_last();
            table.insert(tid).unwrap();
        }
        for tid in tids.clone().chain(tids.clone().rev().step_by(7)) {
            assert_eq!(table.find(tid).map(Entry::tid), Some(tid));
        }
        for tid in (0..10_000).filter(|tid| !tids.clone().any(|known| known == *tid)) {
            assert!(table.find(tid).is_none(), "{tid}");
        }
    }

    /// The free place lies where a bisection looks.
    #[test]
    fn a_forgotten_thread_hides_no_other() {
        for forgotten in 1..=9 {
            // SAFETY: all zero is the empty table.
            let table = unsafe { core::mem::zeroed::<ThreadTable>() };
            table.reserve(10).unwrap();
            for tid in 1..=9 {
                table.insert(tid).unwrap();
            }
            table.forget(table.find(forgotten).unwrap());
            for tid in (1..=9).filter(|&tid| tid != forgotten) {
                // The cursor is at the end, as after a sweep.
                table.cursor.store(9, Ordering::Relaxed);
                assert_eq!(table.find(tid).map(Entry::tid), Some(tid), "without {forgotten}");
            }
        }
    }

    #[test]
    fn entries_of_pending_signals_stay_and_the_others_close_up() {
        // SAFETY: all zero is the empty table.
        let table = unsafe { core::mem::zeroed::<ThreadTable>() };
        table.reserve(1000).unwrap();
        for tid in 1..=1000 {
            table.insert(tid).unwrap();
        }
        let sent = core::ptr::from_ref(table.find(700).unwrap());
        table.find(700).unwrap().assign(700, ThreadState::Sent);
        table.keep();
        table.begin(|tid| tid > 100 && tid <= 900);
        assert_eq!(core::ptr::from_ref(table.find(700).unwrap()), sent);
        assert_eq!(table.iter().filter(|entry| entry.tid() != 0).count(), 800);
        assert_eq!(table.iter().count(), 800);
        assert!(table.find(100).is_none() && table.find(901).is_none());
        table.find(700).unwrap().assign(700, ThreadState::Idle);
        table.begin(|tid| tid <= 200);
        assert_eq!(table.iter().count(), 100);
        table.begin(|_| true);
        assert!(table.is_empty() && table.get(0).is_some_and(|entry| entry.tid() == 0));
    }
}
