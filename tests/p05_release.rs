//! The threads leave, one after the other, whatever becomes of the thread that is to wake the next one (P5).
#![allow(unsafe_code)]

mod support;

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use libpsx::{Broadcast, Sensitivity};
use support::{
    computing, counting, filter_futex, forked, isolated, prepared, private, proc, scheduler,
    set_slack, slack, until,
};

const WATCHDOG: Duration = Duration::from_secs(100);

fn gettid() -> i32 {
    // SAFETY: gettid touches no memory.
    unsafe { libc::gettid() }
}

fn all_have_left(counters: &[AtomicUsize], times: usize) {
    until(|| counters.iter().all(|counter| counter.load(SeqCst) >= times));
}

/// Each of them could be the one that is woken first.
fn beside_each_kind(prepare: fn()) {
    for place in [0, 1, 7, 15] {
        let counters = counting(16, move |index| {
            if index == place {
                prepare();
            }
        });
        for _ in 0..5 {
            let before: Vec<usize> = counters.iter().map(|counter| counter.load(SeqCst)).collect();
            set_slack(5).unwrap();
            until(|| counters.iter().zip(&before).all(|(now, &then)| now.load(SeqCst) > then));
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
        for times in 1..=3 {
            set_slack(5).unwrap();
            all_have_left(counters, times);
        }
    });
}

/// A filter kills a thread in the moment in which it wakes others.
#[test]
fn a_thread_that_dies_as_it_leaves() {
    isolated("a_thread_that_dies_as_it_leaves", WATCHDOG, || {
        for doomed in [1, 2, 5, 16] {
            forked(|| {
                let counters = counting(32, |_| {});
                for _ in 0..doomed {
                    prepared(|| {
                        let kill = libc::SECCOMP_RET_KILL_THREAD;
                        filter_futex(private(libc::FUTEX_WAKE), kill);
                    });
                }
                let call = slack(5).sensitivity(Sensitivity::Ignore).deadline(support::LONG);
                // SAFETY: PR_SET_TIMERSLACK touches no memory.
                unsafe { call.execute_with_report() }.unwrap();
                all_have_left(counters, 1);
                // SAFETY: PR_SET_TIMERSLACK touches no memory.
                unsafe { call.execute_with_report() }.unwrap();
                all_have_left(counters, 2);
            });
        }
    });
}

/// A tracer stops threads again and again, in the handler too, and lets each go on after a while.
#[test]
fn a_thread_that_is_traced_as_it_leaves() {
    isolated("a_thread_that_is_traced_as_it_leaves", WATCHDOG, || {
        const PR_SET_PTRACER: i32 = 0x5961_6d61;
        // SAFETY: touches no memory.
        unsafe { libc::prctl(PR_SET_PTRACER, usize::MAX) };
        static TIDS: [AtomicUsize; 32] = [const { AtomicUsize::new(0) }; 32];
        let counters = counting(32, |index| TIDS[index].store(gettid() as usize, SeqCst));
        let stops = support::shared_word();
        // SAFETY: the child makes raw calls.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            // SAFETY: touches no memory.
            unsafe { libc::alarm(60) };
            let traced = [0, 1, 2, 30, 31].map(|index| TIDS[index].load(SeqCst) as i32);
            let ptrace = |request, tid: i32, data: i32| {
                // SAFETY: no memory of ours is named.
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
                        // SAFETY: touches no memory.
                        unsafe { libc::usleep(500) };
                    } else if status >> 16 == 0 {
                        // The signal that is to be delivered is.
                        ptrace(libc::PTRACE_CONT, stopped, libc::WSTOPSIG(status));
                    } else {
                        // SAFETY: touches no memory.
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
            set_slack(times).unwrap();
            all_have_left(counters, times);
        }
        println!("{} stops", stops.load(SeqCst));
        // SAFETY: a child of ours, not waited for yet.
        unsafe { libc::kill(pid, libc::SIGKILL) };
        support::reap(pid);
        set_slack(1).unwrap();
    });
}

/// A tracer stops a held thread in the call itself for a while: the call takes as long, and then all leave.
#[test]
fn a_thread_that_is_traced_in_the_call() {
    isolated("a_thread_that_is_traced_in_the_call", WATCHDOG, || {
        static TIDS: [AtomicUsize; 4] = [const { AtomicUsize::new(0) }; 4];
        let counters = counting(4, |index| TIDS[index].store(gettid() as usize, SeqCst));
        let seized = support::shared_word();
        // SAFETY: the child makes raw calls.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            let tid = TIDS[0].load(SeqCst) as i32;
            // SAFETY: touches no memory.
            unsafe { libc::usleep(300_000) };
            // SAFETY: no memory of ours is named.
            let done = unsafe { libc::ptrace(libc::PTRACE_SEIZE, tid, 0, 0) };
            // SAFETY: no memory of ours is named.
            unsafe { libc::ptrace(libc::PTRACE_INTERRUPT, tid, 0, 0) };
            seized.store(if done == 0 { 1 } else { 2 }, SeqCst);
            // SAFETY: touches no memory. The kernel detaches when this process ends.
            unsafe { libc::usleep(1_500_000) };
            support::end(0);
        }
        let time = libc::timespec { tv_sec: 0, tv_nsec: 600_000_000 };
        let arguments = [&raw const time as usize, 0, 0, 0, 0, 0];
        let call = Broadcast::new(libc::SYS_nanosleep, arguments).sensitivity(Sensitivity::Ignore);
        // SAFETY: nanosleep reads the time, which outlives the call.
        let report = unsafe { call.execute_with_report() }.unwrap();
        println!("seized: {}, {report:?}", seized.load(SeqCst));
        all_have_left(counters, 1);
        support::reap(pid);
        assert_eq!(set_slack(5).unwrap().threads(), proc::tids().len());
    });
}
