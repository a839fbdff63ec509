//! The operations of the protocol on its words.

use core::time::Duration;

use linux_raw_sys::general as k;

use super::futex;
use crate::errno::Errno;
use crate::sys::sync::{AtomicU32, Ordering};

/// Sleeps while `word` is `expected`, at most for `timeout`. May return at any time; the caller looks again. Returns
/// false if the time is over, or if the kernel refuses to let it sleep: a loop that waits for a condition must then
/// look at the clock, or at what it waits for. It does not ask for the time: a filter that lets programs sleep need not
/// let them do that by a system call.
pub(crate) fn wait(word: &AtomicU32, expected: u32, timeout: Option<Duration>) -> bool {
    let time = timeout.map(|t| [t.as_secs() as i64, i64::from(t.subsec_nanos())]);
    let op = (k::FUTEX_WAIT | k::FUTEX_PRIVATE_FLAG) as usize;
    match futex([word.as_ptr() as usize, op, expected as usize, 0, 0, 0], time) {
        Ok(_) => true,
        // The word has changed. If it has not, a filter answers.
        Err(Errno::AGAIN) => word.load(Ordering::SeqCst) != expected,
        // The caller looks at the clock rather than to sleep anew, over and over.
        Err(Errno::INTR) => timeout.is_none(),
        Err(_) => false,
    }
}

/// Sleeps for `time`. Returns true if a signal has ended the sleep before.
pub(crate) fn is_interrupted_in_sleep(time: Duration) -> bool {
    let never = AtomicU32::new(0);
    let op = (k::FUTEX_WAIT | k::FUTEX_PRIVATE_FLAG) as usize;
    let time = [time.as_secs() as i64, i64::from(time.subsec_nanos())];
    futex([never.as_ptr() as usize, op, 0, 0, 0, 0], Some(time)) == Err(Errno::INTR)
}

/// Makes the system calls of a sleep on `word` and of a wake-up, for a filter to see, and returns at once. The address is
/// one too high and therefore invalid: EINVAL comes before the kernel looks for anything (get_futex_key,
/// kernel/futex/core.c).
pub(crate) fn probe(word: &AtomicU32) {
    for op in [k::FUTEX_WAIT, k::FUTEX_WAKE] {
        let op = (op | k::FUTEX_PRIVATE_FLAG) as usize;
        let _ = futex([word.as_ptr() as usize + 1, op, 0, 0, 0, 0], None);
    }
}

pub(crate) fn wake(word: &AtomicU32, count: i32) {
    let op = (k::FUTEX_WAKE | k::FUTEX_PRIVATE_FLAG) as usize;
    let _ = futex([word.as_ptr() as usize, op, count as usize, 0, 0, 0], None);
}

/// futex(2), FUTEX_REQUEUE: wakes up to `wake` threads that sleep on `from`, and has up to `most` others sleep on
/// `to` instead. Returns how many threads both are.
fn requeue(from: &AtomicU32, wake: i32, most: i32, to: &AtomicU32) -> Result<usize, Errno> {
    let op = (k::FUTEX_REQUEUE | k::FUTEX_PRIVATE_FLAG) as usize;
    let (from, to) = (from.as_ptr() as usize, to.as_ptr() as usize);
    futex([from, op, wake as usize, most as usize, to, 0], None)
}

/// Wakes one thread that sleeps on `from`, and moves the others to `to` without waking them. Returns false if the kernel
/// refuses.
pub(crate) fn wake_one_and_move(from: &AtomicU32, to: &AtomicU32) -> bool {
    requeue(from, 1, i32::MAX, to).is_ok()
}

/// Returns how many threads sleep on `word`, counted up to `most`, or None if the kernel does not tell. It "requeues" the
/// threads to where they are.
pub(crate) fn sleepers(word: &AtomicU32, most: u32) -> Option<u32> {
    requeue(word, 0, most as i32, word).ok().map(|count| count as u32)
}
