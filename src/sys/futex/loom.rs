//! The twin for loom: one lock stands for the kernel's hash bucket, so the comparison and the sleep are one step, as
//! in the kernel. A wake-up goes to the threads that sleep on that word, the first first, and to no more than it is
//! meant for. A lost wake-up leaves a thread asleep for good, which loom reports as a deadlock. Time stands still
//! until the model lets it pass.

extern crate std;

use core::time::Duration;
use std::vec::Vec;

use crate::sys::sync::{AtomicU32, Ordering};

#[derive(Default)]
struct Bucket {
    /// Every time limit has passed.
    over: bool,
    /// Which word each sleeper sleeps on, in the order in which they came, and a number of its own.
    sleepers: Vec<(usize, usize)>,
    last: usize,
}

loom::lazy_static! {
    static ref BUCKET: (loom::sync::Mutex<Bucket>, loom::sync::Condvar) =
        (loom::sync::Mutex::new(Bucket::default()), loom::sync::Condvar::new());
}

fn address(word: &AtomicU32) -> usize {
    core::ptr::from_ref(word) as usize
}

pub(crate) fn wait(word: &AtomicU32, expected: u32, timeout: Option<Duration>) -> bool {
    let (lock, changed) = &*BUCKET;
    let timed = timeout.is_some();
    let mut bucket = lock.lock().unwrap();
    if word.load(Ordering::SeqCst) != expected {
        return true;
    }
    if timed && bucket.over {
        return false;
    }
    bucket.last += 1;
    let me = bucket.last;
    bucket.sleepers.push((address(word), me));
    loop {
        bucket = changed.wait(bucket).unwrap();
        let asleep = bucket.sleepers.iter().any(|&(_, sleeper)| sleeper == me);
        if !asleep {
            return true;
        }
        if timed && bucket.over {
            bucket.sleepers.retain(|&(_, sleeper)| sleeper != me);
            return false;
        }
    }
}

/// Time stands still, and there are no signals.
pub(crate) fn is_interrupted_in_sleep(_: Duration) -> bool {
    false
}

/// Every time limit has passed.
pub(crate) fn expire() {
    let (lock, changed) = &*BUCKET;
    lock.lock().unwrap().over = true;
    changed.notify_all();
}

pub(crate) fn probe(_word: &AtomicU32) {}

pub(crate) fn wake(word: &AtomicU32, count: i32) {
    let (lock, changed) = &*BUCKET;
    let mut left = count;
    lock.lock().unwrap().sleepers.retain(|&(at, _)| {
        let wakes = at == address(word) && left > 0;
        left -= i32::from(wakes);
        !wakes
    });
    changed.notify_all();
}

pub(crate) fn wake_one_and_move(from: &AtomicU32, to: &AtomicU32) -> bool {
    let (lock, changed) = &*BUCKET;
    let mut bucket = lock.lock().unwrap();
    let first = bucket.sleepers.iter().position(|&(at, _)| at == address(from));
    if let Some(first) = first {
        bucket.sleepers.remove(first);
    }
    for (at, _) in &mut bucket.sleepers {
        if *at == address(from) {
            *at = address(to);
        }
    }
    drop(bucket);
    changed.notify_all();
    true
}

/// How many threads sleep on `word`.
pub(crate) fn sleepers(word: &AtomicU32, _most: u32) -> Option<u32> {
    let bucket = BUCKET.0.lock().unwrap();
    Some(bucket.sleepers.iter().filter(|&&(at, _)| at == address(word)).count() as u32)
}
