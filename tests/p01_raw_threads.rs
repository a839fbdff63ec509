//! Tests threads that no C library has created, and unusual tids (P1, P4).
#![cfg(not(target_arch = "loongarch64"))]
#![allow(unsafe_code)]

mod support;

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use libpsx::{Broadcast, CallOutcome, Sensitivity};
use support::raw::*;
use support::*;

const WATCHDOG: Duration = Duration::from_secs(60);

static STOP: AtomicBool = AtomicBool::new(false);

#[test]
fn raw_threads_are_covered_once() {
    isolated("raw_threads_are_covered_once", WATCHDOG, || {
        sleepers(2);
        raw_threads(4);
        assert!(no_new_privs().unwrap().threads() >= 11);
        all_have("NoNewPrivs", "1");
        for count in 1..=30 {
            assert!(add_filter(LONG).unwrap().threads() >= 11);
            all_have_filters(count);
        }
    });
}

/// A broadcast does not depend on anything that a thread pointer leads to.
#[test]
fn raw_threads_can_call() {
    static DONE: AtomicI32 = AtomicI32::new(0);
    extern "C" fn caller() -> ! {
        let done = no_new_privs().is_ok_and(|report| report.threads() >= 5);
        DONE.store(if done { 1 } else { -1 }, Ordering::SeqCst);
        sleep_for_ever()
    }
    isolated("raw_threads_can_call", WATCHDOG, || {
        sleepers(1);
        raw_threads(1);
        let stack = memory(4 * STACK) + 3 * STACK;
        assert!(raw_thread(stack, Some(memory(4096) + 2048), caller) > 0);
        while DONE.load(Ordering::SeqCst) == 0 {
            std::thread::yield_now();
        }
        assert_eq!(DONE.load(Ordering::SeqCst), 1);
        all_have("NoNewPrivs", "1");
    });
}

/// The second close of a descriptor fails in each thread. The errno of no thread changes.
#[test]
fn errno_is_left_alone() {
    isolated("errno_is_left_alone", WATCHDOG, || {
        static ROUND: AtomicU32 = AtomicU32::new(0);
        const SENTINEL: i32 = 12345;
        raw_threads(4);
        std::thread::spawn(|| {
            loop {
                while ROUND.load(Ordering::SeqCst) % 2 == 0 {
                    std::hint::spin_loop();
                }
                // SAFETY: the call creates a descriptor.
                let fd = unsafe { libc::dup(1) };
                let call = Broadcast::new(libc::SYS_close, [fd as usize, 0, 0, 0, 0, 0]);
                // SAFETY: no other code uses the descriptor.
                let report =
                    unsafe { call.sensitivity(Sensitivity::Ignore).execute_with_report() }.unwrap();
                let failed =
                    |o| matches!(o, CallOutcome::Failed(e) if e.raw_os_error() == libc::EBADF);
                assert!(report.results().iter().all(|r| failed(r.outcome())), "{report:?}");
                assert!(report.results().len() >= 9);
                ROUND.fetch_add(1, Ordering::SeqCst);
            }
        });
        // SAFETY: the function returns the address of this thread's errno.
        let errno = unsafe { libc::__errno_location() };
        for _ in 0..200 {
            // SAFETY: errno is an integer of this thread.
            unsafe { errno.write_volatile(SENTINEL) };
            ROUND.fetch_add(1, Ordering::SeqCst);
            while ROUND.load(Ordering::SeqCst) % 2 == 1 {
                std::hint::spin_loop();
            }
            // SAFETY: errno is an integer of this thread.
            assert_eq!(unsafe { errno.read_volatile() }, SENTINEL);
        }
    });
}

#[test]
fn ten_thousand() {
    isolated("ten_thousand", WATCHDOG, || {
        const MANY: usize = 10_000;
        let stacks = memory(MANY * STACK);
        for index in 0..MANY {
            let made = raw_thread(stacks + index * STACK, None, sleep_for_ever);
            if made < 0 {
                support::skipped(format!("{index} threads, then error {}", -made));
                return;
            }
        }
        let report = no_new_privs().unwrap();
        println!("{} rounds, longest freeze {:?}", report.attempts(), report.max_pause());
        assert!(report.threads() > MANY);
        all_have("NoNewPrivs", "1");
    });
}

/// Runs `body` as the init process of a PID namespace, where tids can be chosen. /proc is that of the namespace or that
/// of the outer one.
fn where_tids_are_chosen(own_proc: bool, body: fn(last: i32)) {
    if !support::unshared(libc::CLONE_NEWPID) || !support::private_mounts() {
        return;
    }
    // This process has one thread.
    let pid = support::fork();
    if pid == 0 {
        let null = std::ptr::null::<libc::c_char>();
        let (proc, at) = (c"proc".as_ptr(), c"/proc".as_ptr());
        // SAFETY: the kernel reads the strings.
        let mounted = unsafe { libc::mount(proc, at, proc, 0, null.cast()) } == 0;
        if mounted && !own_proc {
            // SAFETY: see the comment above.
            unsafe { libc::umount(at) };
        }
        let max = std::fs::read_to_string("/proc/sys/kernel/pid_max").unwrap_or_default();
        match max.trim().parse::<i32>() {
            Ok(max) if mounted && next_tid(max / 2) => body(max - 1),
            _ => support::skipped("tids cannot be chosen"),
        }
        support::end(0);
    }
    assert_eq!(reap(pid), 0);
}

/// Makes the next task get this tid, if it is free.
fn next_tid(tid: i32) -> bool {
    std::fs::write("/proc/sys/kernel/ns_last_pid", (tid - 1).to_string()).is_ok()
}

fn resident_kilobytes() -> usize {
    let line = proc::status(std::process::id() as i32).remove("VmRSS").unwrap();
    line.trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn with_far_apart_tids() {
    isolated("with_far_apart_tids", WATCHDOG, || {
        where_tids_are_chosen(true, |last| {
            no_new_privs().unwrap();
            let count = 100;
            for n in 1..=count {
                next_tid(last / count * n);
                sleepers(1);
            }
            next_tid(last);
            sleepers(1);
            assert_eq!(proc::tids().into_iter().max(), Some(last));
            let before = resident_kilobytes();
            for _ in 0..20 {
                assert_eq!(add_filter(LONG).unwrap().threads(), count as usize + 2);
            }
            let after = resident_kilobytes();
            println!("{before} kB resident before, {after} kB after");
            assert!(after < before + (8 << 10), "{before} kB before, {after} kB after");
            all_have_filters(20);
        });
    });
}

#[test]
fn with_reused_tids() {
    isolated("with_reused_tids", WATCHDOG, || {
        where_tids_are_chosen(true, |last| {
            static AGAIN: AtomicU32 = AtomicU32::new(0);
            static LAST: AtomicI32 = AtomicI32::new(0);
            LAST.store(last, Ordering::SeqCst);
            no_new_privs().unwrap();
            sleepers(3);
            let make = || {
                next_tid(LAST.load(Ordering::SeqCst));
                // SAFETY: gettid touches no memory.
                let tid = std::thread::spawn(|| unsafe { libc::gettid() }).join().unwrap();
                AGAIN.fetch_add(u32::from(tid == LAST.load(Ordering::SeqCst)), Ordering::SeqCst);
            };
            // A maker that was created while another one makes threads could get that tid itself, and keep it.
            let ready = Arc::new(Barrier::new(2));
            let makers = [(); 2].map(|()| {
                let ready = ready.clone();
                std::thread::spawn(move || {
                    ready.wait();
                    while !STOP.load(Ordering::Relaxed) {
                        make();
                    }
                })
            });
            let calls = 300;
            for _ in 0..calls {
                add_filter(LONG).unwrap();
            }
            // Without another filter: each one makes every call of every thread slower.
            while AGAIN.load(Ordering::SeqCst) <= 1 {
                no_new_privs().unwrap();
            }
            STOP.store(true, Ordering::Relaxed);
            makers.into_iter().for_each(|maker| maker.join().unwrap());
            println!("{} threads had the same tid", AGAIN.load(Ordering::SeqCst));
            assert!(AGAIN.load(Ordering::SeqCst) > 1);
            all_have_filters(calls);
        });
    });
}

/// /proc is that of another PID namespace. There, the caller's number belongs to another thread.
#[test]
fn with_a_number_of_another_thread_outside() {
    isolated("with_a_number_of_another_thread_outside", WATCHDOG, || {
        where_tids_are_chosen(false, |_| {
            sleepers(2);
            let outside = std::fs::read_link("/proc/self").unwrap();
            let outside: i32 = outside.to_str().unwrap().parse().unwrap();
            let other = proc::tids().into_iter().find(|&tid| tid != outside).unwrap();
            next_tid(other);
            let call = move || {
                // SAFETY: gettid touches no memory.
                assert_eq!(unsafe { libc::gettid() }, other);
                assert_eq!(no_new_privs().unwrap().threads(), 4);
                all_have("NoNewPrivs", "1");
                for count in 1..=20 {
                    add_filter(LONG).unwrap();
                    all_have_filters(count);
                }
            };
            std::thread::spawn(call).join().unwrap();
        });
    });
}
