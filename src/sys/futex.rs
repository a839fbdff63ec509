//! futex(2) on the protocol's words: sleep while a word has a value, wake who sleeps on it.

#[cfg(not(loom))]
mod kernel {
    use core::time::Duration;

    use crate::sys;
    use crate::sys::sync::AtomicU32;

    /// Sleeps while `word` is `expected`; may return at any time. False: `patience` is over.
    pub(crate) fn wait(word: &AtomicU32, expected: u32, patience: Option<Duration>) -> bool {
        sys::futex_wait(word, expected, patience)
    }

    /// As if to sleep, but returns at once.
    pub(crate) fn rehearse(word: &AtomicU32) {
        sys::futex_rehearse(word);
    }

    pub(crate) fn wake_one(word: &AtomicU32) {
        sys::futex_wake(word, 1);
    }

    pub(crate) fn wake_all(word: &AtomicU32) {
        sys::futex_wake(word, i32::MAX);
    }

    /// How many sleep on `word`, counted up to `most`; None if the kernel does not tell.
    pub(crate) fn sleepers(word: &AtomicU32, most: u32) -> Option<u32> {
        sys::futex_sleepers(word, most).ok().map(|count| count as u32)
    }
}

/// The twin for loom: one lock stands for the kernel's hash bucket, so the comparison and the
/// sleep are one step, as in the kernel. A wake that comes too early leaves the sleeper asleep for
/// good, which loom reports as a deadlock. Time stands still until the model lets it pass.
#[cfg(loom)]
mod kernel {
    use core::time::Duration;

    use crate::sys::sync::{AtomicU32, Ordering};

    loom::lazy_static! {
        static ref BUCKET: (loom::sync::Mutex<bool>, loom::sync::Condvar) =
            (loom::sync::Mutex::new(false), loom::sync::Condvar::new());
    }

    pub(crate) fn wait(word: &AtomicU32, expected: u32, patience: Option<Duration>) -> bool {
        let (lock, sleepers) = &*BUCKET;
        let Ok(mut over) = lock.lock() else { return true };
        let timed = patience.is_some();
        if word.load(Ordering::SeqCst) == expected && !(timed && *over) {
            let Ok(woken) = sleepers.wait(over) else { return true };
            over = woken;
        }
        !(timed && *over)
    }

    /// Every deadline has passed.
    pub(crate) fn expire() {
        let (lock, sleepers) = &*BUCKET;
        if let Ok(mut over) = lock.lock() {
            *over = true;
        }
        sleepers.notify_all();
    }

    pub(crate) fn wake_one(word: &AtomicU32) {
        wake_all(word);
    }

    pub(crate) fn rehearse(_word: &AtomicU32) {}

    /// No model asks.
    pub(crate) fn sleepers(_word: &AtomicU32, _most: u32) -> Option<u32> {
        None
    }

    pub(crate) fn wake_all(_word: &AtomicU32) {
        let (lock, sleepers) = &*BUCKET;
        drop(lock.lock());
        sleepers.notify_all();
    }
}

#[cfg(loom)]
pub(crate) use kernel::expire;
pub(crate) use kernel::{rehearse, sleepers, wait, wake_all, wake_one};
