//! The threads leave one after the other, whatever happens to the thread that has to wake the next one (P5).
#![allow(unsafe_code)]

mod support;

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use libpsx::{Broadcast, Sensitivity};
use support::{
    computing, counting, filter_futex_at, forked, isolated, prepared, private, proc, scheduler,
    set_slack, slack, until,
};

const WATCHDOG: Duration = Duration::from_secs(100);

fn gettid() -> i32 {
    // SAFETY: gettid touches no memory.
    unsafe { libc::gettid() }
}

/// Any of the threads could be the one that is woken first.
fn beside_each_kind(prepare: fn()) {
    for place in [0, 1, 7, 15] {
        let counters = counting(16, move |index| {
            if index == place {
                prepare();
            }
        });
        for _ in 0..5 {
            counters.leave(|| drop(set_slack(5).unwrap()));
        }
    }
}

#[test]
fn an_idle_thread_beside_computing_threads() {
    isolated("an_idle_thread_beside_computing_threads", WATCHDOG, || {
        computing(4);
        beside_each_kind(|| assert!(scheduler(libc::SCHED_IDLE, 0)));
    });
}

#[test]
fn threads_that_are_all_idle() {
    isolated("threads_that_are_all_idle", WATCHDOG, || {
        computing(2);
        let counters = counting(16, |_| assert!(scheduler(libc::SCHED_IDLE, 0)));
        for _ in 0..3 {
            counters.leave(|| drop(set_slack(5).unwrap()));
        }
    });
}

/// A filter kills so many of the threads when they wake others: `first`, of the threads that would arrive first, and for any
/// wake-up; otherwise, at the moment when they wake others on their way out.
fn beside_doomed_threads(doomed: usize, first: bool) {
    forked(|| {
        let doom = || {
            for _ in 0..doomed {
                prepared(move || {
                    let kill = libc::SECCOMP_RET_KILL_THREAD;
                    filter_futex_at(private(libc::FUTEX_WAKE), kill, !first);
                });
            }
        };
        if first {
            doom();
        }
        let counters = counting(32, |_| {});
        if !first {
            doom();
        }
        let call = slack(5).sensitivity(Sensitivity::Ignore).deadline(support::LONG);
        for _ in 0..2 {
            // SAFETY: PR_SET_TIMERSLACK touches no memory.
            counters.leave(|| drop(unsafe { call.execute_with_report() }.unwrap()));
        }
    });
}

/// One of the four watchdogs at least is left.
#[test]
fn a_thread_that_dies_as_it_leaves() {
    isolated("a_thread_that_dies_as_it_leaves", WATCHDOG, || {
        [1, 2, 3].into_iter().for_each(|doomed| beside_doomed_threads(doomed, false));
    });
}

/// The threads that arrive first are the watchdogs. If all of them died on their way out, the others would sleep on.
#[test]
fn threads_that_may_wake_no_other() {
    isolated("threads_that_may_wake_no_other", WATCHDOG, || {
        for _ in 0..5 {
            beside_doomed_threads(16, true);
        }
    });
}

/// A tracer stops threads again and again, also in the handler, and resumes each after a while.
#[test]
fn a_thread_that_is_traced_as_it_leaves() {
    isolated("a_thread_that_is_traced_as_it_leaves", WATCHDOG, || {
        const PR_SET_PTRACER: i32 = 0x5961_6d61;
        // SAFETY: the call touches no memory.
        unsafe { libc::prctl(PR_SET_PTRACER, usize::MAX) };
        static TIDS: [AtomicUsize; 32] = [const { AtomicUsize::new(0) }; 32];
        let counters = counting(32, |index| TIDS[index].store(gettid() as usize, SeqCst));
        let stops = support::shared_word();
        // The child makes raw calls.
        let pid = support::fork();
        if pid == 0 {
            // SAFETY: the call touches no memory.
            unsafe { libc::alarm(support::watchdog(WATCHDOG).as_secs() as u32) };
            let traced = [0, 1, 2, 30, 31].map(|index| TIDS[index].load(SeqCst) as i32);
            let ptrace = |request, tid: i32, data: i32| {
                // SAFETY: the request uses no memory of this process.
                unsafe { libc::ptrace(request, tid, 0, data) }
            };
            for tid in traced {
                if ptrace(libc::PTRACE_SEIZE, tid, 0) != 0 {
                    stops.store(usize::MAX, SeqCst);
                    support::end(0);
                }
            }
            for tid in traced.into_iter().cycle() {
                ptrace(libc::PTRACE_INTERRUPT, tid, 0);
                for _ in 0..20 {
                    let mut status = 0;
                    let flags = libc::__WALL | libc::WNOHANG;
                    // SAFETY: the kernel writes the status.
                    let stopped = unsafe { libc::waitpid(-1, &mut status, flags) };
                    if stopped <= 0 {
                        // SAFETY: the call touches no memory.
                        unsafe { libc::usleep(500) };
                    } else if status >> 16 == 0 {
                        // The tracer delivers the signal for which the thread stopped.
                        ptrace(libc::PTRACE_CONT, stopped, libc::WSTOPSIG(status));
                    } else {
                        // SAFETY: the call touches no memory.
                        unsafe { libc::usleep(2000) };
                        ptrace(libc::PTRACE_CONT, stopped, 0);
                        stops.fetch_add(1, SeqCst);
                    }
                }
            }
        }
        until(|| stops.load(SeqCst) > 0);
        if stops.load(SeqCst) == usize::MAX {
            support::skipped("ptrace is not allowed");
            return;
        }
        for times in 1..=50 {
            counters.leave(|| drop(set_slack(times).unwrap()));
        }
        println!("{} stops", stops.load(SeqCst));
        // SAFETY: the process is a child that has not been waited for.
        unsafe { libc::kill(pid, libc::SIGKILL) };
        support::reap(pid);
        set_slack(1).unwrap();
    });
}

/// A tracer stops a held thread for a while during the call itself. The call takes that long, and then all threads
/// leave.
#[test]
fn a_thread_that_is_traced_in_the_call() {
    isolated("a_thread_that_is_traced_in_the_call", WATCHDOG, || {
        static TIDS: [AtomicUsize; 4] = [const { AtomicUsize::new(0) }; 4];
        let counters = counting(4, |index| TIDS[index].store(gettid() as usize, SeqCst));
        let seized = support::shared_word();
        // The child makes raw calls.
        let pid = support::fork();
        if pid == 0 {
            let tid = TIDS[0].load(SeqCst) as i32;
            // SAFETY: the call touches no memory.
            unsafe { libc::usleep(300_000) };
            // SAFETY: the request uses no memory of this process.
            let done = unsafe { libc::ptrace(libc::PTRACE_SEIZE, tid, 0, 0) };
            // SAFETY: the request uses no memory of this process.
            unsafe { libc::ptrace(libc::PTRACE_INTERRUPT, tid, 0, 0) };
            seized.store(if done == 0 { 1 } else { 2 }, SeqCst);
            // SAFETY: touches no memory. The kernel detaches when this process ends.
            unsafe { libc::usleep(1_500_000) };
            support::end(0);
        }
        let time = libc::timespec { tv_sec: 0, tv_nsec: 600_000_000 };
        let arguments = [&raw const time as usize, 0, 0, 0, 0, 0];
        let call = Broadcast::new(libc::SYS_nanosleep, arguments).sensitivity(Sensitivity::Ignore);
        counters.leave(|| {
            // SAFETY: nanosleep reads the time, which outlives the call.
            let report = unsafe { call.execute_with_report() }.unwrap();
            println!("seized: {}, {report:?}", seized.load(SeqCst));
        });
        support::reap(pid);
        assert_eq!(set_slack(5).unwrap().threads(), proc::tids().len());
    });
}
