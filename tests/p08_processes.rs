//! Tests forks, dying threads and re-entry: calls in every state of a process (P5, P7, P8).
#![allow(unsafe_code)]

mod support;

use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::Duration;

use libpsx::{Broadcast, CallOutcome, Error, Sensitivity};
use support::{
    block_all, filter, forked, isolated, killed_asleep_beside_a_thread_that_blocks_the_signal,
    prepared, proc, reap, set_slack, slack, sleepers, watchdog,
};

const WATCHDOG: Duration = Duration::from_secs(60);

#[test]
fn fork_child_calls_while_the_parent_is_calling() {
    isolated("fork_child_calls_while_the_parent_is_calling", WATCHDOG, || {
        sleepers(4);
        std::thread::spawn(|| {
            for value in 1.. {
                set_slack(value).unwrap();
            }
        });
        for round in 0..300 {
            forked(|| {
                if round % 3 == 0 {
                    sleepers(2);
                }
                set_slack(77).unwrap();
            });
        }
    });
}

/// A handler forks while its thread waits. The child continues in the middle of the call, and must address its own
/// threads.
/// One thread of the parent never answers.
#[test]
fn fork_in_the_middle_of_a_wait() {
    isolated("fork_in_the_middle_of_a_wait", WATCHDOG, || {
        static CHILD: AtomicI32 = AtomicI32::new(-1);
        static DEAF: AtomicBool = AtomicBool::new(false);
        extern "C" fn fork_here(_: i32) {
            // SAFETY: fork may be called in a handler; the child makes raw calls alone.
            CHILD.store(unsafe { libc::fork() }, Ordering::SeqCst);
        }
        // SAFETY: the handler forks and stores to an atomic.
        unsafe { libc::signal(libc::SIGUSR1, fork_here as *const () as usize) };
        // Any filter: without one, a lost child could find its threads in a /proc that it mounts itself.
        filter(libc::SYS_getpriority, libc::SECCOMP_RET_KILL_THREAD);
        std::thread::spawn(|| {
            block_all();
            DEAF.store(true, Ordering::SeqCst);
            loop {
                std::thread::park();
            }
        });
        while !DEAF.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        // SAFETY: gettid touches no memory.
        let (pid, caller) = (std::process::id(), unsafe { libc::gettid() });
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(300));
            // SAFETY: tgkill touches no memory.
            unsafe { libc::syscall(libc::SYS_tgkill, pid, caller, libc::SIGUSR1) };
        });
        // SAFETY: PR_SET_TIMERSLACK touches no memory.
        let done =
            unsafe { slack(7).deadline(watchdog(Duration::from_secs(2))).execute_with_report() };
        match CHILD.load(Ordering::SeqCst) {
            // SAFETY: the call ends the child.
            0 => unsafe { libc::_exit(i32::from(done.is_err())) },
            child => assert_eq!(reap(child), 0),
        }
        done.unwrap_err();
    });
}

#[test]
fn zombie_leader() {
    isolated("zombie_leader", WATCHDOG, || {
        forked(|| {
            sleepers(3);
            std::thread::spawn(|| {
                let leader = std::process::id() as i32;
                while !proc::status(leader).get("State").is_some_and(|s| s.starts_with('Z')) {
                    std::thread::yield_now();
                }
                let mut code = 0;
                for value in 1..200 {
                    match set_slack(value) {
                        Ok(report) if report.skipped().iter().any(|e| e.tid() == leader) => {}
                        other => {
                            println!("{other:?}");
                            code = 1;
                        }
                    }
                }
                support::end(code);
            });
            // SAFETY: the call ends only the leader.
            unsafe { libc::syscall(libc::SYS_exit, 0) };
        });
    });
}

/// The caller dies in its own call. The other threads of the process continue and can call.
#[test]
fn caller_killed_by_its_filter() {
    isolated("caller_killed_by_its_filter", WATCHDOG, || {
        sleepers(4);
        for _ in 0..3 {
            std::thread::spawn(|| {
                filter(libc::SYS_getpriority, libc::SECCOMP_RET_KILL_THREAD);
                let call = Broadcast::new(libc::SYS_getpriority, [0; 6]);
                // SAFETY: getpriority touches no memory.
                let _ = unsafe { call.execute_with_report() };
                unreachable!("the filter kills the thread");
            });
        }
        set_slack(1234).unwrap();
        while proc::tids().len() > 6 {
            std::thread::yield_now();
        }
        let report = set_slack(1235).unwrap();
        assert!(report.threads() >= 5);
    });
}

/// The same with the leader, which stays as a zombie and keeps its tid.
#[test]
fn leader_killed_by_its_filter() {
    isolated("leader_killed_by_its_filter", WATCHDOG, || {
        forked(|| {
            sleepers(2);
            std::thread::spawn(|| {
                let leader = std::process::id() as i32;
                while !proc::status(leader).get("State").is_some_and(|s| s.starts_with('Z')) {
                    std::thread::sleep(Duration::from_millis(1));
                }
                let done = set_slack(4321);
                support::end(i32::from(done.is_err()));
            });
            filter(libc::SYS_getpriority, libc::SECCOMP_RET_KILL_THREAD);
            let call = Broadcast::new(libc::SYS_getpriority, [0; 6]);
            // SAFETY: getpriority touches no memory.
            let _ = unsafe { call.execute_with_report() };
        });
    });
}

#[test]
fn held_thread_killed_by_its_filter() {
    isolated("held_thread_killed_by_its_filter", WATCHDOG, || {
        sleepers(2);
        prepared(|| filter(libc::SYS_getpriority, libc::SECCOMP_RET_KILL_THREAD));
        let call = Broadcast::new(libc::SYS_getpriority, [0; 6]);
        // SAFETY: getpriority touches no memory.
        let report =
            unsafe { call.sensitivity(Sensitivity::Ignore).execute_with_report() }.unwrap();
        assert_eq!(report.divergent(), 1);
        assert_eq!(report.results().iter().filter(|r| r.outcome() == CallOutcome::Died).count(), 1);
        set_slack(99).unwrap();
    });
}

/// A filter kills a thread as it falls asleep among the held threads. The dead thread must not hide another one that
/// never arrives.
#[test]
fn killed_while_held_beside_a_thread_that_blocks_the_signal() {
    isolated("killed_while_held_beside_a_thread_that_blocks_the_signal", WATCHDOG, || {
        sleepers(2);
        killed_asleep_beside_a_thread_that_blocks_the_signal();
    });
}

/// A thread that its filter kills as it falls asleep is not held, however few threads there are and however long the
/// call takes. The call is made without it, and no result differs.
#[test]
fn killed_as_it_falls_asleep() {
    isolated("killed_as_it_falls_asleep", Duration::from_secs(120), || {
        for others in [0, 1, 2, 5].repeat(25) {
            forked(move || {
                sleepers(others);
                prepared(|| filter(libc::SYS_futex, libc::SECCOMP_RET_KILL_THREAD));
                let time = libc::timespec { tv_sec: 0, tv_nsec: 1_000_000 };
                let arguments = [&raw const time as usize, 0, 0, 0, 0, 0];
                let call = Broadcast::new(libc::SYS_nanosleep, arguments);
                // SAFETY: nanosleep reads the time, which outlives the call.
                let report = unsafe { call.execute_with_report() }.unwrap();
                assert_eq!((report.threads(), report.divergent()), (others + 1, 0), "{report:?}");
            });
        }
    });
}

/// The same for the leader, which stays in the task list when it is dead.
#[test]
fn leader_killed_as_it_falls_asleep() {
    isolated("leader_killed_as_it_falls_asleep", Duration::from_secs(120), || {
        for others in [0, 1, 5].repeat(25) {
            forked(move || {
                static READY: AtomicBool = AtomicBool::new(false);
                sleepers(others);
                std::thread::spawn(|| {
                    while !READY.load(Ordering::SeqCst) {
                        std::thread::yield_now();
                    }
                    let nothing_differs =
                        set_slack(4321).is_ok_and(|report| report.divergent() == 0);
                    // SAFETY: the call ends the process with the result of the test.
                    unsafe { libc::_exit(i32::from(!nothing_differs)) };
                });
                filter(libc::SYS_futex, libc::SECCOMP_RET_KILL_THREAD);
                READY.store(true, Ordering::SeqCst);
                loop {
                    // SAFETY: pause touches no memory.
                    unsafe { libc::pause() };
                }
            });
        }
    });
}

/// A filter gives the call itself to a SIGSYS handler, which makes another call in the same thread.
#[test]
fn reentry_from_a_handler_is_an_error() {
    isolated("reentry_from_a_handler_is_an_error", WATCHDOG, || {
        static REENTERED: AtomicBool = AtomicBool::new(false);
        extern "C" fn on_sigsys(_: i32) {
            if matches!(set_slack(1), Err(Error::Reentered)) {
                REENTERED.store(true, Ordering::SeqCst);
            }
        }
        // SAFETY: the handler makes raw calls and stores to an atomic.
        unsafe { libc::signal(libc::SIGSYS, on_sigsys as *const () as usize) };
        sleepers(2);
        filter(libc::SYS_getpriority, libc::SECCOMP_RET_TRAP);
        let call = Broadcast::new(libc::SYS_getpriority, [0; 6]);
        // SAFETY: getpriority touches no memory.
        let _ = unsafe { call.sensitivity(Sensitivity::Ignore).execute_with_report() };
        assert!(REENTERED.load(Ordering::SeqCst));
        set_slack(2).unwrap();
    });
}

#[test]
fn initiators_take_turns() {
    isolated("initiators_take_turns", WATCHDOG, || {
        let callers: Vec<_> = (0..8)
            .map(|_| {
                std::thread::spawn(|| {
                    for value in 1..300 {
                        set_slack(value).unwrap();
                    }
                })
            })
            .collect();
        callers.into_iter().for_each(|caller| caller.join().unwrap());
    });
}
