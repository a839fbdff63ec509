//! A library that a program loads, that starts threads, and that the program unloads.

// # Safety
//
// The function has the C ABI and takes a plain number.
#![allow(unsafe_code)]

/// Starts this many threads, and waits until they have ended. Returns how many there were.
// SAFETY: no other library of the program has a function of this name.
#[unsafe(no_mangle)]
pub extern "C" fn soak_plugin_run(count: u32) -> u32 {
    let body = || {
        std::thread::yield_now();
        1
    };
    let threads = (0..count).map(|_| std::thread::Builder::new().spawn(body));
    let threads: Vec<_> = threads.flatten().collect();
    threads.into_iter().filter_map(|thread| thread.join().ok()).sum()
}
