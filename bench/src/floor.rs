//! What a stop costs at the least: a signal and two wakes per thread. It checks nothing, so it is no
//! engine; it says how much of the cost is the kernel's.

use std::sync::atomic::{AtomicU32, Ordering};

const SIGNAL: i32 = 40;

/// Rises by one with each stop: the futex that the held threads sleep on.
static GATE: AtomicU32 = AtomicU32::new(0);
/// Threads that have not arrived, and then threads that have not reported.
static MISSING: AtomicU32 = AtomicU32::new(0);

fn wait(word: &AtomicU32, seen: u32) {
    let op = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: the kernel reads the word.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), op, seen, 0usize) };
}

fn wake(word: &AtomicU32) {
    let op = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: FUTEX_WAKE does not touch the word.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), op, i32::MAX) };
}

fn keep_caps() {
    // SAFETY: PR_SET_KEEPCAPS touches no memory.
    unsafe { libc::prctl(libc::PR_SET_KEEPCAPS, 0) };
}

fn one_less() {
    if MISSING.fetch_sub(1, Ordering::SeqCst) == 1 {
        wake(&MISSING);
    }
}

fn await_all() {
    loop {
        let missing = MISSING.load(Ordering::SeqCst);
        if missing == 0 {
            return;
        }
        wait(&MISSING, missing);
    }
}

extern "C" fn on_signal(_: i32) {
    let gate = GATE.load(Ordering::SeqCst);
    one_less();
    while GATE.load(Ordering::SeqCst) == gate {
        wait(&GATE, gate);
    }
    keep_caps();
    one_less();
}

pub(crate) fn install() {
    // SAFETY: all zero is an action.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_signal as *const () as usize;
    action.sa_flags = libc::SA_RESTART | libc::SA_ONSTACK;
    // SAFETY: the handler makes raw calls and changes atomics.
    unsafe { libc::sigaction(SIGNAL, &action, std::ptr::null_mut()) };
}

pub(crate) fn call(tids: &[i32]) {
    let count = tids.len() as u32;
    let pid = std::process::id();
    MISSING.store(count, Ordering::SeqCst);
    for tid in tids {
        // SAFETY: a handler is installed.
        unsafe { libc::syscall(libc::SYS_tgkill, pid, *tid, SIGNAL) };
    }
    await_all();
    keep_caps();
    MISSING.store(count, Ordering::SeqCst);
    GATE.fetch_add(1, Ordering::SeqCst);
    wake(&GATE);
    await_all();
}
