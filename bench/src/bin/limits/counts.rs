//! The rows that count over many calls: threads and children that were seen in the old state.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use super::engines::Engine;
use super::situations::sleepers;
use super::{UID, reap};

/// A row that counts over many calls.
pub(super) struct Count {
    pub(super) name: &'static str,
    pub(super) count: fn(&Engine) -> String,
    pub(super) go: &'static CStr,
}

pub(super) const COUNTS: [Count; 2] = [
    Count {
        name: "times a thread was seen running in the old state after another had the new one",
        count: old_after_new,
        go: c"look",
    },
    Count {
        name: "calls that left a child which was forked after the change and keeps the old id",
        count: old_children,
        go: c"children",
    },
];

pub(super) fn own_uid() -> u32 {
    // SAFETY: getuid touches no memory.
    unsafe { libc::getuid() }
}

/// The caller's status file, in which other threads read the caller's id.
pub(super) fn callers_status() -> File {
    // SAFETY: gettid touches no memory.
    let caller = unsafe { libc::gettid() };
    File::open(format!("/proc/self/task/{caller}/status")).expect("/proc")
}

/// Reads the real user id from a status file. It does not allocate.
pub(super) fn uid_in(status: &File) -> u32 {
    let mut text = [0; 512];
    let length = status.read_at(&mut text, 0).unwrap_or(0);
    let text = std::str::from_utf8(&text[..length]).unwrap_or("");
    let ids = text.split_once("Uid:\t").map_or("", |(_, rest)| rest);
    ids.split('\t').next().and_then(|id| id.parse().ok()).unwrap_or(0)
}

/// Counts the times that a thread runs with an id lower than one that was seen before. Each of four
/// threads reads the caller's id, then the highest id that any of them has seen, then its own id.
/// The process makes a hundred calls, and has two hundred more threads, which sleep.
pub(super) fn old_after_new(engine: &Engine) -> String {
    static HIGHEST: AtomicU32 = AtomicU32::new(0);
    static BEHIND: AtomicU32 = AtomicU32::new(0);
    static STATUS: OnceLock<File> = OnceLock::new();
    let status = STATUS.get_or_init(callers_status);
    let look = move || {
        let highest = HIGHEST.load(Ordering::SeqCst).max(uid_in(status));
        let own = own_uid();
        HIGHEST.fetch_max(own.max(highest), Ordering::SeqCst);
        if own < highest {
            BEHIND.fetch_add(1, Ordering::SeqCst);
        }
    };
    let lookers = || {
        for _ in 0..2 {
            std::thread::spawn(move || {
                loop {
                    look();
                }
            });
        }
    };
    lookers();
    sleepers(200);
    lookers();
    for uid in UID..UID + 100 {
        if let Err(error) = (engine.call)(uid) {
            return format!("error: {error}");
        }
    }
    format!("{} in 100 calls", BEHIND.load(Ordering::SeqCst))
}

/// Counts the calls that left a child with the old id, although another thread had the new id
/// before fork(2) was called. One of nine threads looks at the caller's id and at the highest id
/// that the others have published, and forks, in a loop. Each of the others publishes its id when
/// it leaves a handler.
pub(super) fn old_children(engine: &Engine) -> String {
    const CALLS: usize = 1000;
    static FORKS: AtomicBool = AtomicBool::new(false);
    static PUBLISHED: AtomicU32 = AtomicU32::new(0);
    let length = CALLS * size_of::<AtomicBool>();
    let (access, flags) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
    // SAFETY: the kernel chooses the address.
    let memory = unsafe { libc::mmap(std::ptr::null_mut(), length, access, flags, -1, 0) };
    assert_ne!(memory, libc::MAP_FAILED);
    // SAFETY: the memory is zero, which is a valid AtomicBool, and stays mapped.
    let left = unsafe { std::slice::from_raw_parts(memory.cast::<AtomicBool>(), CALLS) };
    let status = callers_status();
    let publishers = |count| {
        for _ in 0..count {
            std::thread::spawn(|| {
                loop {
                    // SAFETY: sleep takes no pointer. A handler ends it.
                    unsafe { libc::sleep(1) };
                    PUBLISHED.fetch_max(own_uid(), Ordering::SeqCst);
                }
            });
        }
    };
    publishers(4);
    std::thread::spawn(move || {
        loop {
            let seen = uid_in(&status).max(PUBLISHED.load(Ordering::SeqCst));
            // SAFETY: the child makes no call but getuid and _exit.
            let pid = unsafe { libc::fork() };
            if pid == 0 {
                let call = seen.checked_sub(UID).and_then(|call| left.get(call as usize));
                if let Some(call) = call.filter(|_| own_uid() < seen) {
                    call.store(true, Ordering::Relaxed);
                }
                // SAFETY: _exit touches no memory.
                unsafe { libc::_exit(0) };
            }
            reap(pid);
            FORKS.store(true, Ordering::Relaxed);
        }
    });
    publishers(3);
    while !FORKS.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(1));
    }
    for uid in (UID..).take(CALLS) {
        if let Err(error) = (engine.call)(uid) {
            return format!("error: {error}");
        }
    }
    let count = left.iter().filter(|call| call.load(Ordering::Relaxed)).count();
    format!("{count} of {CALLS} calls")
}
