//! Forks, dying threads, re-entry: calls from wherever a process may be (P5, P7, P8).
#![allow(unsafe_code)]

mod support;

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};
use std::time::Duration;

use libpsx::{Broadcast, Error, Outcome, Sensitivity};
use support::{isolated, proc};

const WATCHDOG: Duration = Duration::from_secs(60);

fn slack(value: usize) -> Broadcast {
    Broadcast::new(libc::SYS_prctl, [libc::PR_SET_TIMERSLACK as usize, value, 0, 0, 0, 0])
}

fn sleepers(count: usize) {
    for _ in 0..count {
        std::thread::spawn(|| {
            loop {
                std::thread::park();
            }
        });
    }
}

fn block_all_signals() {
    let all = !0u64;
    let set = libc::SIG_SETMASK;
    // SAFETY: the kernel reads eight bytes of the mask.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, set, &all, 0usize, 8) };
}

/// Waits for a child and gives its status as waitpid(2) does.
fn reap(pid: i32) -> i32 {
    let mut status = 0;
    // SAFETY: the kernel writes the status.
    assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
    status
}

#[test]
fn fork_child_calls_while_the_parent_is_calling() {
    isolated("fork_child_calls_while_the_parent_is_calling", WATCHDOG, || {
        sleepers(4);
        std::thread::spawn(|| {
            for value in 1.. {
                // SAFETY: PR_SET_TIMERSLACK touches no memory.
                unsafe { slack(value).run() }.unwrap();
            }
        });
        for round in 0..300 {
            // SAFETY: the child makes raw calls, and threads only where glibc's fork allows it.
            let pid = unsafe { libc::fork() };
            if pid == 0 {
                if round % 3 == 0 {
                    sleepers(2);
                }
                // SAFETY: PR_SET_TIMERSLACK touches no memory.
                let done = unsafe { slack(77).run() }.is_ok();
                // SAFETY: ends the child.
                unsafe { libc::_exit(i32::from(!done)) };
            }
            assert_eq!(reap(pid), 0);
        }
    });
}

/// A handler forks while its thread waits. The child goes on in the middle of the call, and means
/// its own threads, not its parent's: one of those never answers.
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
        // Any filter: without one, a child that is lost would find itself by a proc of its own.
        filter(libc::SYS_setpriority, libc::SECCOMP_RET_KILL_THREAD);
        std::thread::spawn(|| {
            block_all_signals();
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
        let done = unsafe { slack(7).deadline(Duration::from_secs(2)).run() };
        match CHILD.load(Ordering::SeqCst) {
            // SAFETY: ends the child.
            0 => unsafe { libc::_exit(i32::from(done.is_err())) },
            child => assert_eq!(reap(child), 0),
        }
        done.unwrap_err();
    });
}

#[test]
fn zombie_leader() {
    isolated("zombie_leader", WATCHDOG, || {
        // SAFETY: the child of fork makes threads, which glibc allows here.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            sleepers(3);
            std::thread::spawn(|| {
                let leader = std::process::id() as i32;
                while !proc::status(leader).get("State").is_some_and(|s| s.starts_with('Z')) {
                    std::thread::yield_now();
                }
                let mut code = 0;
                for value in 1..200 {
                    // SAFETY: PR_SET_TIMERSLACK touches no memory.
                    match unsafe { slack(value).run() } {
                        Ok(report) if report.exempt().iter().any(|e| e.tid() == leader) => {}
                        other => {
                            println!("{other:?}");
                            code = 1;
                        }
                    }
                }
                support::end(code);
            });
            // SAFETY: ends the leader alone.
            unsafe { libc::syscall(libc::SYS_exit, 0) };
        }
        assert_eq!(reap(pid), 0);
    });
}

/// A filter for this thread that does `action` to the call `nr`, and allows the rest.
fn filter(nr: i64, action: u32) {
    let step = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let program = [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, nr as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, action),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let len = program.len() as u16;
    let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    // SAFETY: PR_SET_NO_NEW_PRIVS touches no memory.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
    let set = libc::SECCOMP_SET_MODE_FILTER;
    // SAFETY: the kernel reads the program.
    assert_eq!(unsafe { libc::syscall(libc::SYS_seccomp, set, 0, &program) }, 0);
}

/// The caller dies in its own call; the rest of the process goes on and can call.
#[test]
fn caller_killed_by_its_filter() {
    isolated("caller_killed_by_its_filter", WATCHDOG, || {
        sleepers(4);
        for _ in 0..3 {
            std::thread::spawn(|| {
                filter(libc::SYS_setpriority, libc::SECCOMP_RET_KILL_THREAD);
                let call = Broadcast::new(libc::SYS_setpriority, [0; 6]);
                // SAFETY: setpriority touches no memory.
                let _ = unsafe { call.run() };
                unreachable!("the filter kills the thread");
            });
        }
        // SAFETY: PR_SET_TIMERSLACK touches no memory.
        unsafe { slack(1234).run() }.unwrap();
        while proc::tids().len() > 6 {
            std::thread::yield_now();
        }
        // SAFETY: PR_SET_TIMERSLACK touches no memory.
        let report = unsafe { slack(1235).run() }.unwrap();
        assert!(report.threads() >= 5);
    });
}

/// The same with the leader, which stays as a zombie and keeps its tid.
#[test]
fn leader_killed_by_its_filter() {
    isolated("leader_killed_by_its_filter", WATCHDOG, || {
        // SAFETY: the child of fork makes threads, which glibc allows here.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            sleepers(2);
            std::thread::spawn(|| {
                let leader = std::process::id() as i32;
                while !proc::status(leader).get("State").is_some_and(|s| s.starts_with('Z')) {
                    std::thread::sleep(Duration::from_millis(1));
                }
                // SAFETY: PR_SET_TIMERSLACK touches no memory.
                let done = unsafe { slack(4321).run() };
                support::end(i32::from(done.is_err()));
            });
            filter(libc::SYS_setpriority, libc::SECCOMP_RET_KILL_THREAD);
            let call = Broadcast::new(libc::SYS_setpriority, [0; 6]);
            // SAFETY: setpriority touches no memory.
            let _ = unsafe { call.run() };
        }
        assert_eq!(reap(pid), 0);
    });
}

#[test]
fn held_thread_killed_by_its_filter() {
    isolated("held_thread_killed_by_its_filter", WATCHDOG, || {
        static READY: AtomicBool = AtomicBool::new(false);
        sleepers(2);
        std::thread::spawn(|| {
            filter(libc::SYS_setpriority, libc::SECCOMP_RET_KILL_THREAD);
            READY.store(true, Ordering::SeqCst);
            loop {
                std::thread::park();
            }
        });
        while !READY.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        let call = Broadcast::new(libc::SYS_setpriority, [0; 6]);
        // SAFETY: setpriority touches no memory.
        let report = unsafe { call.sensitivity(Sensitivity::Ignore).run() }.unwrap();
        assert_eq!(report.divergent(), 1);
        assert_eq!(report.results().iter().filter(|r| r.outcome() == Outcome::Died).count(), 1);
        // SAFETY: PR_SET_TIMERSLACK touches no memory.
        unsafe { slack(99).run() }.unwrap();
    });
}

/// A thread that its filter kills as it falls asleep among the held ones does not make up for one
/// that never comes.
#[test]
fn killed_while_held_beside_a_deaf_thread() {
    isolated("killed_while_held_beside_a_deaf_thread", WATCHDOG, || {
        static READY: AtomicUsize = AtomicUsize::new(0);
        fn pause() -> ! {
            READY.fetch_add(1, Ordering::SeqCst);
            loop {
                // SAFETY: pause touches no memory.
                unsafe { libc::pause() };
            }
        }
        sleepers(2);
        std::thread::spawn(|| {
            block_all_signals();
            pause()
        });
        std::thread::spawn(|| {
            filter(libc::SYS_futex, libc::SECCOMP_RET_KILL_THREAD);
            pause()
        });
        while READY.load(Ordering::SeqCst) < 2 {
            std::thread::yield_now();
        }
        let call = slack(4321).sensitivity(Sensitivity::Ignore).deadline(Duration::from_secs(1));
        // SAFETY: PR_SET_TIMERSLACK touches no memory.
        let error = unsafe { call.run() }.unwrap_err();
        assert!(matches!(&error, Error::Unreachable(threads) if threads.total() == 1), "{error}");
    });
}

/// A filter hands the call itself to a SIGSYS handler, which calls again on the same thread.
#[test]
fn reentry_from_a_handler_is_an_error() {
    isolated("reentry_from_a_handler_is_an_error", WATCHDOG, || {
        static REENTERED: AtomicBool = AtomicBool::new(false);
        extern "C" fn on_sigsys(_: i32) {
            // SAFETY: PR_SET_TIMERSLACK touches no memory.
            if matches!(unsafe { slack(1).run() }, Err(Error::Reentered)) {
                REENTERED.store(true, Ordering::SeqCst);
            }
        }
        // SAFETY: the handler makes raw calls and stores to an atomic.
        unsafe { libc::signal(libc::SIGSYS, on_sigsys as *const () as usize) };
        sleepers(2);
        filter(libc::SYS_setpriority, libc::SECCOMP_RET_TRAP);
        let call = Broadcast::new(libc::SYS_setpriority, [0; 6]);
        // SAFETY: setpriority touches no memory.
        let _ = unsafe { call.sensitivity(Sensitivity::Ignore).run() };
        assert!(REENTERED.load(Ordering::SeqCst));
        // SAFETY: PR_SET_TIMERSLACK touches no memory.
        unsafe { slack(2).run() }.unwrap();
    });
}

#[test]
fn initiators_take_turns() {
    isolated("initiators_take_turns", WATCHDOG, || {
        let callers: Vec<_> = (0..8)
            .map(|_| {
                std::thread::spawn(|| {
                    for value in 1..300 {
                        // SAFETY: PR_SET_TIMERSLACK touches no memory.
                        unsafe { slack(value).run() }.unwrap();
                    }
                })
            })
            .collect();
        callers.into_iter().for_each(|caller| caller.join().unwrap());
    });
}
