//! Why a thread's latest call failed, for `psx_strerror`. What errno is too narrow for is kept here,
//! for as long as no [`SLOTS`] later failures have taken its place.
//!
//! A slot is taken by the thread whose failure is in it, to tell it, and by one that has a failure to
//! put there; nobody else, so those who ask do not get into each other's way. Whoever finds it taken
//! goes on without it: nobody waits, so a signal handler may fail in the middle of it, and fork at any
//! time costs a child one slot.

// # Safety
//
// What is in a slot is touched by the one who has taken it.
#![allow(unsafe_code)]

use core::cell::UnsafeCell;
use core::ffi::c_int;
use core::fmt::{self, Write};
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use libpsx::Error;

const SLOTS: usize = 8;

/// A thread's name for itself. The address is there for the day when the kernel gives its id to another.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Thread {
    pub(crate) tid: usize,
    /// Where its errno lies.
    pub(crate) errno: usize,
}

pub(crate) enum Why {
    Broadcast(Error),
    /// `__psx_syscall` was given a number of arguments that no call has.
    Arguments,
    /// There is no such sensitivity.
    Level,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broadcast(error) => error.fmt(f),
            Self::Arguments => {
                f.write_str("a call has up to six arguments; nothing changed in any thread")
            }
            Self::Level => f.write_str("there is no such sensitivity; it is as before"),
        }
    }
}

struct Failure {
    whose: Thread,
    number: usize,
    why: Why,
}

struct Slot {
    taken: AtomicBool,
    /// The tid in `latest`, 0 if there is none: for threads to know whether to look. Relaxed, because
    /// a thread's own is never new to it, and who has taken the slot makes sure.
    tid: AtomicUsize,
    latest: UnsafeCell<Option<Failure>>,
}

// SAFETY: see `look`, the only one who touches what is inside.
unsafe impl Sync for Slot {}

static LATEST: [Slot; SLOTS] = [const {
    Slot { taken: AtomicBool::new(false), tid: AtomicUsize::new(0), latest: UnsafeCell::new(None) }
}; SLOTS];

static FAILURES: AtomicUsize = AtomicUsize::new(0);

impl Slot {
    /// None if somebody else has taken it.
    fn look<R>(&self, what: impl FnOnce(&mut Option<Failure>) -> R) -> Option<R> {
        if self.taken.swap(true, Ordering::Acquire) {
            return None;
        }
        // SAFETY: it was not taken, and now it is.
        let result = what(unsafe { &mut *self.latest.get() });
        self.taken.store(false, Ordering::Release);
        Some(result)
    }

    /// Looks at the thread's own failure, if it is that.
    fn own<R>(&self, whose: Thread, what: impl FnOnce(&Failure) -> R) -> Option<R> {
        if self.tid.load(Ordering::Relaxed) != whose.tid {
            return None;
        }
        self.look(|failure| failure.as_ref().filter(|f| f.whose == whose).map(what)).flatten()
    }
}

pub(crate) fn remember(whose: Thread, why: Why) {
    let number = FAILURES.fetch_add(1, Ordering::Relaxed);
    let mut failure = Some(Failure { whose, number, why });
    for slot in LATEST.iter().cycle().skip(number % SLOTS).take(SLOTS) {
        let exchanged = slot.look(|latest| {
            slot.tid.store(whose.tid, Ordering::Relaxed);
            core::mem::swap(latest, &mut failure);
        });
        // What was there before is given back here, when nobody can find the slot taken for it.
        if exchanged.is_some() {
            return;
        }
    }
}

/// Writes what is known of this thread's latest failure: a text with a zero at its end, cut to fit,
/// and the ids of the threads that could not be stopped. Returns how many those were.
pub(crate) fn explain(
    whose: Thread,
    text: &mut [MaybeUninit<u8>],
    tids: &mut [MaybeUninit<c_int>],
) -> usize {
    let number = |slot: &&Slot| slot.own(whose, |failure| failure.number);
    let latest = LATEST.iter().max_by_key(number);
    let mut text = Text { rest: text };
    let told = latest.and_then(|slot| {
        slot.own(whose, |failure| {
            let _ = write!(text, "{}", failure.why);
            let Why::Broadcast(Error::Unreachable(threads)) = &failure.why else { return 0 };
            for (place, thread) in tids.iter_mut().zip(threads.threads()) {
                place.write(thread.tid());
            }
            threads.total()
        })
    });
    if told.is_none() {
        let _ = text.write_str("nothing is known of a failure in this thread");
    }
    text.end();
    told.unwrap_or(0)
}

/// What is left to be written of a C string.
struct Text<'a> {
    rest: &'a mut [MaybeUninit<u8>],
}

impl Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // One place is kept for the zero.
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
