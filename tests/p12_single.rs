//! In a process of one thread, a call costs the call itself and the check for other threads (P12).
#![allow(unsafe_code)]

mod support;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use support::{filter, forked_status, isolated, proc, repeated, set_slack, slack_here, traced};

const WATCHDOG: Duration = Duration::from_secs(30);

/// A call that nothing else makes here. It marks the begin and the end of what is counted.
const MARK: libc::c_long = libc::SYS_getpgid;

fn mark() {
    // SAFETY: getpgid touches no memory.
    unsafe { libc::syscall(MARK, 0) };
}

/// Returns the numbers of the calls that a child makes between two marks, and its exit status. A child of fork has one
/// thread. Returns `None` if the child may not be traced.
fn calls_of_a_child(body: fn() -> i32) -> Option<(Vec<libc::c_long>, i32)> {
    let (mut calls, mut marks) = (Vec::new(), 0);
    let status = traced(body, |call, ended| match call {
        _ if ended => {}
        MARK => marks += 1,
        call if marks == 1 => calls.push(call),
        _ => {}
    })?;
    assert!(libc::WIFEXITED(status), "{status:#x}");
    assert_eq!(marks, 2);
    Some((calls, libc::WEXITSTATUS(status)))
}

/// Returns whether a handler for signal 33 is installed.
fn handler_installed() -> bool {
    let caught = proc::status(std::process::id() as i32).remove("SigCgt").unwrap();
    u64::from_str_radix(&caught, 16).unwrap() & 1 << (33 - 1) != 0
}

/// Removes the handler of a C library that created a thread before this process was forked.
fn no_handler() {
    let default = [0usize; 8];
    let (old, size) = (std::ptr::null_mut::<usize>(), 8usize);
    // SAFETY: the kernel reads the action, which is SIG_DFL.
    unsafe { libc::syscall(libc::SYS_rt_sigaction, 33, default.as_ptr(), old, size) };
    assert!(!handler_installed());
}

/// The question, whether the kernel has answered it, and the call, with signals blocked from the question to the call.
fn five_calls(calls: &[libc::c_long]) {
    let mask = libc::SYS_rt_sigprocmask;
    let ask = libc::SYS_unshare;
    assert_eq!(calls, [mask, ask, ask, libc::SYS_prctl, mask]);
}

#[test]
fn one_thread_makes_five_calls() {
    isolated("one_thread_makes_five_calls", WATCHDOG, || {
        let child = || {
            no_handler();
            mark();
            let report = set_slack(1234).unwrap();
            mark();
            assert!(!handler_installed());
            assert_eq!(slack_here(), 1234);
            i32::from(report.threads() != 1)
        };
        let Some((calls, status)) = calls_of_a_child(child) else { return };
        assert_eq!(status, 0);
        five_calls(&calls);
    });
}

#[test]
fn plain_function_and_failing_call_make_five_calls() {
    isolated("plain_function_and_failing_call_make_five_calls", WATCHDOG, || {
        let child = || {
            no_handler();
            mark();
            // SAFETY: there is no such option.
            let failed = unsafe { libpsx::syscall3(libc::SYS_prctl, 0x7fff_ffff, 0, 0) };
            mark();
            assert_eq!(failed.unwrap_err().raw_os_error(), libc::EINVAL);
            i32::from(handler_installed())
        };
        let Some((calls, status)) = calls_of_a_child(child) else { return };
        assert_eq!(status, 0);
        five_calls(&calls);
    });
}

/// A process has made calls with several threads, and forks. The child has one thread, and must not depend on what its
/// parent was doing.
#[test]
fn child_of_a_process_with_threads_makes_five_calls() {
    isolated("child_of_a_process_with_threads_makes_five_calls", WATCHDOG, || {
        std::thread::spawn(|| {
            for value in 1.. {
                set_slack(value).unwrap();
            }
        });
        for _ in 0..30 {
            let child = || {
                mark();
                let done = set_slack(77).is_ok();
                mark();
                i32::from(!done)
            };
            let Some((calls, status)) = calls_of_a_child(child) else { return };
            assert_eq!(status, 0);
            five_calls(&calls);
        }
    });
}

/// Some filters (a container's) refuse unshare. The library then counts the threads, and does nothing else.
#[test]
fn one_thread_without_unshare_counts_threads() {
    isolated("one_thread_without_unshare_counts_threads", WATCHDOG, || {
        let child = || {
            no_handler();
            filter(libc::SYS_unshare, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32);
            mark();
            let report = set_slack(1234).unwrap();
            mark();
            i32::from(report.threads() != 1 || handler_installed())
        };
        let Some((calls, status)) = calls_of_a_child(child) else { return };
        println!("{calls:?}");
        assert_eq!(status, 0);
        let locks = [libc::SYS_futex, libc::SYS_rt_sigaction];
        assert!(!calls.iter().any(|call| locks.contains(call)), "{calls:?}");
    });
}

static MADE: AtomicBool = AtomicBool::new(false);
static DONE: AtomicBool = AtomicBool::new(false);
static SLACK: AtomicUsize = AtomicUsize::new(0);

extern "C" fn makes_a_thread(_: i32) {
    std::thread::spawn(|| {
        while !DONE.load(SeqCst) {
            std::hint::spin_loop();
        }
        SLACK.store(slack_here(), SeqCst);
    });
    MADE.store(true, SeqCst);
}

/// A signal handler makes the second thread, at any time around the question whether there is one (P1).
#[test]
fn a_thread_that_a_handler_makes() {
    isolated("a_thread_that_a_handler_makes", WATCHDOG, || {
        let (mut random, mut tries) = (support::seed(), 0);
        for _ in repeated(1000, WATCHDOG / 3) {
            let micros = 500 + (support::random(&mut random) % 100) as libc::suseconds_t;
            let status = forked_status(|| {
                // SAFETY: the handler is a function of this type.
                unsafe { libc::signal(libc::SIGALRM, makes_a_thread as *const () as usize) };
                let zero = libc::timeval { tv_sec: 0, tv_usec: 0 };
                let first = libc::timeval { tv_sec: 0, tv_usec: micros };
                let timer = libc::itimerval { it_interval: zero, it_value: first };
                let null = std::ptr::null_mut();
                // SAFETY: the kernel reads the structure.
                unsafe { libc::setitimer(libc::ITIMER_REAL, &timer, null) };
                let mut value = 100_000;
                loop {
                    value += 1;
                    let set = libc::PR_SET_TIMERSLACK as usize;
                    // SAFETY: PR_SET_TIMERSLACK touches no memory.
                    let done = unsafe { libpsx::syscall3(libc::SYS_prctl, set, value, 0) };
                    // No memory is allocated here: the handler does that.
                    assert!(done.is_ok());
                    if MADE.load(SeqCst) {
                        break;
                    }
                }
                DONE.store(true, SeqCst);
                support::until(|| SLACK.load(SeqCst) != 0);
                assert_eq!(SLACK.load(SeqCst), value);
            });
            assert_eq!(status, 0);
            tries += 1;
        }
        println!("{tries} processes");
    });
}
