//! Why a thread's latest call failed, for `psx_strerror`. What errno is too narrow for is kept here,
//! for as long as no [`SLOTS`] later failures have taken its place.
//!
//! A slot is taken by whoever looks into it, and whoever finds it taken goes on to the next one: nobody
//! waits, so a signal handler may fail in the middle of it, and fork at any time costs a child one slot.

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

struct Slot {
    taken: AtomicBool,
    latest: UnsafeCell<Option<Failure>>,
}

struct Failure {
    /// The address of the `errno` that it explains: a thread's name for itself.
    whose: usize,
    number: usize,
    error: Error,
}

// SAFETY: see `look`, the only one who touches what is inside.
unsafe impl Sync for Slot {}

static LATEST: [Slot; SLOTS] =
    [const { Slot { taken: AtomicBool::new(false), latest: UnsafeCell::new(None) } }; SLOTS];

static FAILURES: AtomicUsize = AtomicUsize::new(0);

impl Slot {
    /// None if somebody else is looking.
    fn look<R>(&self, what: impl FnOnce(&mut Option<Failure>) -> R) -> Option<R> {
        if self.taken.swap(true, Ordering::Acquire) {
            return None;
        }
        // SAFETY: it was not taken, and now it is.
        let result = what(unsafe { &mut *self.latest.get() });
        self.taken.store(false, Ordering::Release);
        Some(result)
    }
}

pub(crate) fn remember(whose: usize, error: Error) {
    let number = FAILURES.fetch_add(1, Ordering::Relaxed);
    let mut failure = Some(Failure { whose, number, error });
    for slot in LATEST.iter().cycle().skip(number % SLOTS).take(SLOTS) {
        if slot.look(|latest| *latest = failure.take()).is_some() {
            return;
        }
    }
}

/// Writes what is known of this thread's latest failure: a text with a zero at its end, cut to fit,
/// and the ids of the threads that could not be stopped. Returns how many those were.
pub(crate) fn explain(
    whose: usize,
    text: &mut [MaybeUninit<u8>],
    tids: &mut [MaybeUninit<c_int>],
) -> usize {
    let own = |failure: &Failure| failure.whose == whose;
    let number = |slot: &Slot| slot.look(|f| f.as_ref().filter(|f| own(f)).map(|f| f.number));
    let latest = LATEST.iter().max_by_key(|slot| number(slot).flatten().map_or(0, |n| n + 1));
    let mut text = Text { rest: text };
    let told = latest.and_then(|slot| {
        slot.look(|failure| {
            let failure = failure.as_ref().filter(|f| own(f))?;
            let _ = write!(text, "{}", failure.error);
            let Error::Unreachable(threads) = &failure.error else { return Some(0) };
            for (place, thread) in tids.iter_mut().zip(threads.threads()) {
                place.write(thread.tid());
            }
            Some(threads.total())
        })
    });
    let told = told.flatten();
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
