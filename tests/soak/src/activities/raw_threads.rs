//! Threads of raw clone(2), which no C library knows.

use super::*;

/// Creates threads that no C library knows. They are named as the thread that creates them.
pub(crate) fn raw_threads(board: &'static Board, random: &mut Random) {
    use crate::raw::{STACK, memory, raw_thread};
    use std::cell::RefCell;
    thread_local! { static STACKS: RefCell<Vec<(usize, i32)>> = const { RefCell::new(Vec::new()) } }

    extern "C" fn body() -> ! {
        static TIME: [i64; 2] = [0, 3_000_000];
        raw_call(libc::SYS_nanosleep, [TIME.as_ptr() as usize, 0, 0]);
        loop {
            raw_call(libc::SYS_exit, [0; 3]);
        }
    }
    STACKS.with_borrow_mut(|stacks| {
        if stacks.is_empty() {
            // One page for TLS that is all zero, below each stack.
            stacks.extend((0..16).map(|_| (memory(STACK + 8192), 0)));
        }
        for (place, tid) in stacks.iter_mut() {
            if random.once_in(2) {
                continue;
            }
            if *tid > 0 && lives(*tid) {
                continue;
            }
            let tls = random.once_in(2).then_some(*place + 4096);
            *tid = raw_thread(*place + 8192, tls, body);
            if *tid > 0 {
                board.count(Count::Raw);
            }
        }
        if board.end.load(SeqCst) != 0 {
            for (place, tid) in stacks.drain(..) {
                while tid > 0 && lives(tid) {
                    sleep(Duration::from_millis(1));
                }
                // SAFETY: no thread uses the memory any more.
                unsafe { libc::munmap(place as *mut c_void, STACK + 8192) };
            }
        }
    });
}

/// Whether this process has such a thread.
fn lives(tid: i32) -> bool {
    // SAFETY: signal 0 only asks.
    unsafe { libc::syscall(libc::SYS_tgkill, std::process::id(), tid, 0) == 0 }
}

/// A system call that touches no thread-local storage.
fn raw_call(nr: i64, [a1, a2, a3]: [usize; 3]) -> isize {
    // SAFETY: the callers pass numbers, or addresses of statics.
    unsafe { crate::cpu::call(nr, [a1, a2, a3, 0, 0, 0]) }
}
