//! Tests failures while threads are gathered (P5): the clock fails, threads multiply, memory may not be locked.
#![cfg(not(target_arch = "loongarch64"))]
#![allow(unsafe_code)]

mod support;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use support::emulator::{
    EMULATED_CALLS, TRAPPED, emulate_trapped_calls, trapping, without_alternate_stack,
};
use support::{
    all_have, block_all, counting, forked, install, isolated, isolated_as_root, no_new_privs,
    prepared, proc, set_slack, slack, slack_here,
};

const WATCHDOG: Duration = Duration::from_secs(60);

/// The clock works this many times, and then fails. A thread that cannot be stopped keeps the gather from ending. The
/// call fails, and all threads are released.
#[test]
fn the_clock_fails_in_the_middle() {
    isolated("the_clock_fails_in_the_middle", WATCHDOG, || {
        for times in [1, 2, 3, 4, 5, 8, 13, 21] {
            forked(|| {
                counting(3, |_| {});
                prepared(block_all);
                emulate_trapped_calls();
                without_alternate_stack();
                install(&trapping(&[libc::SYS_clock_gettime]));
                EMULATED_CALLS.store(times, SeqCst);
                let before = slack_here();
                let call = slack(4321).deadline(Duration::from_secs(3));
                // SAFETY: PR_SET_TIMERSLACK touches no memory.
                let error = unsafe { call.execute_with_report() }.unwrap_err();
                println!("{times}: {error}; {} calls", TRAPPED.load(SeqCst));
                assert_eq!(slack_here(), before);
                // Only the thread that blocked all signals still blocks them.
                support::until(|| {
                    let masks = proc::field_in_every_thread("SigBlk");
                    masks.values().filter(|mask| *mask != "0000000000000000").count() == 1
                });
            });
        }
    });
}

/// Threads appear faster than the library reserves room for them.
#[test]
fn many_threads_that_are_created_and_exit() {
    isolated("many_threads_that_are_created_and_exit", WATCHDOG, || {
        const EACH: usize = 700;
        // In a slow guest the later ones, with all threads, take seconds each.
        const CALLS: usize = 100;
        static STORMY: AtomicBool = AtomicBool::new(false);
        static OVER: AtomicBool = AtomicBool::new(false);
        static MADE: AtomicUsize = AtomicUsize::new(0);
        for _ in 0..4 {
            std::thread::spawn(|| {
                support::until(|| STORMY.load(SeqCst));
                for _ in (0..EACH).take_while(|_| !OVER.load(SeqCst)) {
                    let builder = std::thread::Builder::new().stack_size(64 << 10);
                    let made = builder.spawn(|| {
                        loop {
                            std::thread::park();
                        }
                    });
                    MADE.fetch_add(usize::from(made.is_ok()), SeqCst);
                }
                STORMY.store(false, SeqCst);
                loop {
                    std::thread::park();
                }
            });
        }
        STORMY.store(true, SeqCst);
        no_new_privs().unwrap();
        let at_the_first = MADE.load(SeqCst);
        let mut calls = 1;
        while STORMY.load(SeqCst) && calls < CALLS {
            assert_eq!(set_slack(1000 + calls).unwrap().divergent(), 0);
            calls += 1;
        }
        OVER.store(true, SeqCst);
        println!(
            "{at_the_first} threads at the first call, {} at the end, {calls} calls",
            MADE.load(SeqCst)
        );
        all_have("NoNewPrivs", "1");
    });
}

/// All memory is locked, the limit allows no more, and the process has made no call before.
#[test]
fn no_memory_may_be_locked() {
    isolated_as_root("no_memory_may_be_locked", WATCHDOG, || {
        forked(|| {
            for _ in 0..3 {
                prepared(|| {});
            }
            // SAFETY: mlockall changes no content of memory.
            let locked = unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE) };
            if locked != 0 {
                support::skipped(format!("mlockall: {}", std::io::Error::last_os_error()));
                return;
            }
            let little = libc::rlimit { rlim_cur: 65536, rlim_max: 65536 };
            // SAFETY: the kernel reads the structure.
            assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &little) }, 0);
            // Only in this thread: the limit applies to it from now on.
            // SAFETY: the ids are numbers.
            let done = unsafe { libc::syscall(libc::SYS_setresuid, 65534, 65534, 65534) };
            assert_eq!(done, 0);
            let args = [libc::PR_SET_NO_NEW_PRIVS as usize, 1, 0, 0, 0, 0];
            let call = libpsx::Broadcast::new(libc::SYS_prctl, args);
            // SAFETY: PR_SET_NO_NEW_PRIVS touches no memory.
            unsafe { call.execute() }.unwrap();
            // The test itself needs memory.
            // SAFETY: munlockall changes no content of memory.
            assert_eq!(unsafe { libc::munlockall() }, 0);
            all_have("NoNewPrivs", "1");
        });
    });
}
