//! Keeps the reasons of recent failures for `psx_strerror`: errno cannot express them. A failure is kept until
//! [`SLOTS`] later failures have replaced it.
//!
//! Two kinds of threads take a slot: the thread whose failure the slot contains, to read it, and a thread that
//! stores a new failure. No other thread takes it, so threads that read do not block each other. A thread that
//! finds a slot taken continues without it. No thread waits, so a signal handler may fail while its thread has a
//! slot. A fork(2) at any time costs the child at most one slot.

// # Safety
//
// Only the thread that has taken a slot accesses its content.
#![allow(unsafe_code)]

use core::cell::UnsafeCell;
use core::ffi::c_int;
use core::fmt::{self, Write};
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use libpsx::Error;

const SLOTS: usize = 8;

/// Identifies a thread. The address of errno is a second mark, because the kernel may reuse the tid.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Thread {
    pub(crate) tid: usize,
    /// The address of the thread's errno.
    pub(crate) errno: usize,
}

pub(crate) enum Why {
    Broadcast(Error),
    /// `__psx_syscall` got an invalid number of arguments.
    Arguments,
    /// `psx_set_sensitivity` got an invalid level.
    Level,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broadcast(error) => error.fmt(f),
            Self::Arguments => {
                f.write_str("a call has up to six arguments; nothing changed in any thread")
            }
            Self::Level => f.write_str("invalid sensitivity level; the level is unchanged"),
        }
    }
}

struct Failure {
    thread: Thread,
    number: usize,
    why: Why,
}

struct Slot {
    taken: AtomicBool,
    /// The tid in `latest`, or 0 if there is none. Threads read it to decide whether to take the slot. Relaxed is
    /// enough: a thread always sees its own stores, and the check is repeated once the slot is taken.
    tid: AtomicUsize,
    latest: UnsafeCell<Option<Failure>>,
}

// SAFETY: only `look` accesses the content, and it does so only while it has the slot.
unsafe impl Sync for Slot {}

static LATEST: [Slot; SLOTS] = [const {
    Slot { taken: AtomicBool::new(false), tid: AtomicUsize::new(0), latest: UnsafeCell::new(None) }
}; SLOTS];

static FAILURES: AtomicUsize = AtomicUsize::new(0);

impl Slot {
    /// Returns `None` if another thread has taken the slot.
    fn look<R>(&self, what: impl FnOnce(&mut Option<Failure>) -> R) -> Option<R> {
        if self.taken.swap(true, Ordering::Acquire) {
            return None;
        }
        // SAFETY: the exchange above has just taken the slot for this thread.
        let result = what(unsafe { &mut *self.latest.get() });
        self.taken.store(false, Ordering::Release);
        Some(result)
    }

    /// Calls `what` with the failure in this slot, if it is the failure of `thread`.
    fn own<R>(&self, thread: Thread, what: impl FnOnce(&Failure) -> R) -> Option<R> {
        if self.tid.load(Ordering::Relaxed) != thread.tid {
            return None;
        }
        self.look(|failure| failure.as_ref().filter(|f| f.thread == thread).map(what)).flatten()
    }
}

pub(crate) fn remember(thread: Thread, why: Why) {
    let number = FAILURES.fetch_add(1, Ordering::Relaxed);
    let mut failure = Some(Failure { thread, number, why });
    for slot in LATEST.iter().cycle().skip(number % SLOTS).take(SLOTS) {
        let exchanged = slot.look(|latest| {
            slot.tid.store(thread.tid, Ordering::Relaxed);
            core::mem::swap(latest, &mut failure);
        });
        // The old failure is dropped here, after the slot is free again.
        if exchanged.is_some() {
            return;
        }
    }
}

/// Writes the explanation of this thread's most recent failure as a null-terminated text, truncated to fit, and
/// the ids of the threads that could not be stopped. Returns the number of those threads.
pub(crate) fn explain(
    thread: Thread,
    text: &mut [MaybeUninit<u8>],
    tids: &mut [MaybeUninit<c_int>],
) -> usize {
    let number = |slot: &&Slot| slot.own(thread, |failure| failure.number);
    let latest = LATEST.iter().max_by_key(number);
    let mut text = Text { rest: text };
    let found = latest.and_then(|slot| {
        slot.own(thread, |failure| {
            let _ = write!(text, "{}", failure.why);
            let Why::Broadcast(Error::Unreachable(threads)) = &failure.why else { return 0 };
            for (place, thread) in tids.iter_mut().zip(threads.threads()) {
                place.write(thread.tid());
            }
            threads.total()
        })
    });
    if found.is_none() {
        let _ = text.write_str("no recent failure of this thread is recorded");
    }
    text.end();
    found.unwrap_or(0)
}

/// The rest of the buffer for a C string.
struct Text<'a> {
    rest: &'a mut [MaybeUninit<u8>],
}

impl Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // One byte is reserved for the terminating zero.
        let room = self.rest.len().saturating_sub(1).min(text.len());
        let Some((places, rest)) = core::mem::take(&mut self.rest).split_at_mut_checked(room)
        else {
            return Err(fmt::Error);
        };
        for (place, &byte) in places.iter_mut().zip(text.as_bytes()) {
            place.write(byte);
        }
        self.rest = rest;
        Ok(())
    }
}

impl Text<'_> {
    fn end(self) {
        if let Some(place) = self.rest.first_mut() {
            place.write(0);
        }
    }
}
