//! The memory of a report: lists of a fixed size in mappings, made before a thread is held.

// # Safety
//
// `ReportBuffer` owns an anonymous mapping and hands out the initialised part of it as a slice. The
// mapping is made and given back here and nowhere else.
#![allow(unsafe_code)]

use core::fmt;
use core::marker::PhantomData;
use core::mem::size_of;
use core::ptr::NonNull;

use super::answers::{AnswerLayout, Answers};
use super::entry::ThreadState;
use super::handler::call_of;
use super::shared::Shared;
use crate::errno::Errno;
use crate::report::{CallOutcome, SkipReason, SkippedTask, ThreadResult};
use crate::sys;

/// A fixed number of records in memory of their own, which no allocator knows of. It is there
/// before the stop begins and can be read when the stop is over.
pub(crate) struct ReportBuffer<T: Copy> {
    memory: Option<NonNull<T>>,
    bytes: usize,
    len: usize,
    owns: PhantomData<T>,
}

// SAFETY: it owns its mapping as a Box<[T]> would; nothing in it belongs to a thread.
unsafe impl<T: Copy + Send> Send for ReportBuffer<T> {}
// SAFETY: shared access only reads.
unsafe impl<T: Copy + Sync> Sync for ReportBuffer<T> {}

impl<T: Copy> ReportBuffer<T> {
    pub(crate) const EMPTY: Self = Self { memory: None, bytes: 0, len: 0, owns: PhantomData };

    /// Room for `capacity` records, every page of it present.
    pub(crate) fn with_capacity(capacity: usize) -> Result<Self, Errno> {
        if capacity == 0 {
            return Ok(Self::EMPTY);
        }
        let bytes = capacity.saturating_mul(size_of::<T>());
        let memory = sys::mapping::map_anonymous(bytes)?;
        Ok(Self { memory: Some(memory.cast()), bytes, len: 0, owns: PhantomData })
    }

    /// Appends, and says whether there was room.
    pub(crate) fn push(&mut self, record: T) -> bool {
        let Some(memory) = self.memory else { return false };
        let used = self.len.saturating_add(1).saturating_mul(size_of::<T>());
        if used > self.bytes {
            return false;
        }
        // SAFETY: record `len` ends within the mapping, as `used` says; mappings are page-aligned.
        let end = unsafe { memory.add(self.len) };
        // SAFETY: `end` lies in memory that is ours alone.
        unsafe { end.write(record) };
        self.len = self.len.wrapping_add(1);
        true
    }

    pub(crate) fn as_slice(&self) -> &[T] {
        match self.memory {
            // SAFETY: the first `len` records were written by `push`, and the mapping is ours.
            Some(memory) => unsafe { core::slice::from_raw_parts(memory.as_ptr(), self.len) },
            None => &[],
        }
    }
}

impl<T: Copy> ReportBuffer<T> {
    pub(crate) fn as_mut_slice(&mut self) -> &mut [T] {
        match self.memory {
            // SAFETY: as above, and `self` is borrowed for as long as the slice.
            Some(memory) => unsafe { core::slice::from_raw_parts_mut(memory.as_ptr(), self.len) },
            None => &mut [],
        }
    }
}

impl<T: Copy> Drop for ReportBuffer<T> {
    fn drop(&mut self) {
        if let Some(memory) = self.memory {
            // SAFETY: the mapping is ours, and no code can hold a slice of what is dropped.
            unsafe { sys::mapping::unmap(memory.cast(), self.bytes) };
        }
    }
}

impl<T: Copy + fmt::Debug> fmt::Debug for ReportBuffer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.as_slice()).finish()
    }
}

/// The memory of a report, which is there before a thread is held.
pub(super) struct ReportBuffers {
    /// How many threads there is room for.
    pub(super) capacity: usize,
    pub(super) results: ReportBuffer<ThreadResult>,
    pub(super) exempt: ReportBuffer<SkippedTask>,
    pub(super) answers: Answers,
}

impl ReportBuffers {
    pub(super) fn new(capacity: usize, layout: AnswerLayout) -> Result<Self, Errno> {
        let answers = match layout.calls {
            0 => Answers::empty(),
            _ => Answers::new(layout, capacity.saturating_add(1))?,
        };
        let (results, exempt) =
            (ReportBuffer::with_capacity(capacity)?, ReportBuffer::with_capacity(capacity)?);
        Ok(Self { capacity, results, exempt, answers })
    }

    /// Writes what each thread returned, and which tasks were exempt. All threads have reported.
    pub(super) fn fill(&mut self, shared: &Shared) {
        for entry in shared.threads.iter().filter(|entry| entry.tid() != 0) {
            let (tid, state) = (entry.tid() as i32, entry.state());
            if let ThreadState::Exempt(_) = state {
                self.exempt.push(SkippedTask { tid, reason: SkipReason::of(entry.value()) });
                continue;
            }
            let Some((call, _)) = call_of(state) else { continue };
            let outcome = match state {
                ThreadState::Died(_) => CallOutcome::Died,
                ThreadState::Siglongjmp(_) => CallOutcome::Siglongjmp,
                _ => match Errno::check(entry.value() as isize) {
                    Ok(value) => CallOutcome::Returned(value),
                    Err(errno) => CallOutcome::Failed(errno),
                },
            };
            self.results.push(ThreadResult { tid, call, outcome });
        }
    }
}
