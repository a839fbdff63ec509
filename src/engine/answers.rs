//! What each thread answers to calls that ask something: a slot of its own for every thread that takes
//! part, for the values of the calls and for what the kernel writes.
//!
//! The memory is there before the first thread performs a call. Each thread takes the next slot, by counting.

// # Safety
//
// A slot belongs to the thread that has taken its number, until that thread reports. The caller reads when all have
// reported.
#![allow(unsafe_code)]

use core::sync::atomic::{AtomicUsize, Ordering};

use crate::errno::Errno;
use crate::sys::mapping::Mapping;

/// What is asked: so many calls, whose arguments point to so many bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct AnswerLayout {
    pub(crate) calls: usize,
    pub(crate) bytes: usize,
}

impl AnswerLayout {
    /// Values of the calls first, then what they write. Places are whole words.
    const fn size(self) -> usize {
        let words = self.bytes.div_ceil(WORD);
        WORD.saturating_mul(1usize.saturating_add(self.calls).saturating_add(words))
    }
}

const WORD: usize = size_of::<usize>();

/// The last page of all addresses, which belongs to no process: EFAULT.
const INVALID_ADDRESS: usize = !0xfff;

/// The value of a call that was not made. No call returns it.
const NOT_EXECUTED: isize = isize::MIN;

#[derive(Debug)]
pub(crate) struct Answers {
    memory: Option<Mapping>,
    layout: AnswerLayout,
    capacity: usize,
    taken: AtomicUsize,
}

/// Where one thread answers: its memory, and how many calls are asked. A null one takes nothing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct AnswerSlot {
    at: *mut u8,
    calls: usize,
}

impl AnswerSlot {
    pub(crate) const NONE: Self = Self { at: core::ptr::null_mut(), calls: 0 };

    /// Where the kernel is to write to.
    pub(crate) fn buffer_address(self) -> usize {
        if self.at.is_null() {
            return INVALID_ADDRESS;
        }
        (self.at as usize).wrapping_add(WORD.wrapping_mul(self.calls.wrapping_add(1)))
    }

    /// Keeps the value of a call.
    pub(crate) fn store(self, call: usize, value: isize) {
        if !self.at.is_null() && call < self.calls {
            // SAFETY: within the slot, which is this thread's.
            let word = unsafe { self.at.cast::<isize>().add(call.wrapping_add(1)) };
            // SAFETY: slots are whole words in a mapping.
            unsafe { word.write(value) };
        }
    }
}

impl Answers {
    pub(crate) const fn empty() -> Self {
        let layout = AnswerLayout { calls: 0, bytes: 0 };
        Self { memory: None, layout, capacity: 0, taken: AtomicUsize::new(0) }
    }

    /// Room for so many threads.
    pub(crate) fn new(layout: AnswerLayout, threads: usize) -> Result<Self, Errno> {
        let bytes = layout.size().saturating_mul(threads);
        let memory = Some(Mapping::new(bytes)?);
        Ok(Self { memory, layout, capacity: threads, taken: AtomicUsize::new(0) })
    }

    /// The next slot, for this thread.
    pub(crate) fn claim_slot(&self, tid: i32) -> AnswerSlot {
        let Some(memory) = &self.memory else { return AnswerSlot::NONE };
        let number = self.taken.fetch_add(1, Ordering::Relaxed);
        if number >= self.capacity {
            return AnswerSlot::NONE;
        }
        // SAFETY: the mapping has `capacity` slots.
        let at = unsafe { memory.address().add(self.layout.size().wrapping_mul(number)) };
        // SAFETY: a slot begins with a word of its own.
        unsafe { at.cast::<usize>().write(tid as usize) };
        let slot = AnswerSlot { at: at.as_ptr(), calls: self.layout.calls };
        // A thread that is not asked, because an earlier call differs, has not answered 0.
        (0..self.layout.calls).for_each(|call| slot.store(call, NOT_EXECUTED));
        slot
    }

    /// Each thread's tid, the values of its calls, and what they wrote.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (i32, &[isize], &[u8])> {
        let count = self.taken.load(Ordering::Acquire).min(self.capacity);
        let size = self.layout.size();
        (0..count).filter_map(move |number| {
            // SAFETY: within the mapping.
            let at = unsafe { self.memory.as_ref()?.address().add(size.wrapping_mul(number)) };
            // SAFETY: no thread writes any more; a mapping is zero where nothing was written.
            let words =
                unsafe { core::slice::from_raw_parts(at.cast::<isize>().as_ptr(), size / WORD) };
            let (tid, rest) = words.split_first()?;
            let (values, written) = rest.split_at_checked(self.layout.calls)?;
            // SAFETY: the same memory, as bytes.
            let bytes =
                unsafe { core::slice::from_raw_parts(written.as_ptr().cast(), self.layout.bytes) };
            Some((*tid as i32, values, bytes))
        })
    }
}
