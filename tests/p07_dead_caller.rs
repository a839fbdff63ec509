//! A filter kills a caller at any point of its call (P7). The other threads are released, or the process dies as the
//! sensitivity says, and the lock is free afterwards.
#![allow(unsafe_code)]

mod support;

use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::{AtomicI32, Ordering::SeqCst};
use std::time::{Duration, Instant};

use libpsx::{Broadcast, ResultCheck, Sensitivity, Transaction};
use support::{
    Counting, counting, filter, forked, forked_status, header, isolated, isolated_as_root,
    prepared, proc, program, set_slack, until,
};

const WATCHDOG: Duration = Duration::from_secs(100);

fn gettid() -> i32 {
    // SAFETY: gettid touches no memory.
    unsafe { libc::gettid() }
}

/// Starts a thread that the filter kills in this call of a transaction of three. Returns its tid when it has ended and
/// all other threads have left.
fn dies_in_call(position: usize, others: Counting) -> i32 {
    static TID: AtomicI32 = AtomicI32::new(0);
    TID.store(0, SeqCst);
    others.are_asleep();
    let before = others.counts();
    let doomed = std::thread::spawn(move || {
        TID.store(gettid(), SeqCst);
        filter(libc::SYS_getpriority, libc::SECCOMP_RET_KILL_THREAD);
        let mut transaction = Transaction::new().sensitivity(Sensitivity::Ignore);
        for index in 0..3 {
            let call = if index == position { libc::SYS_getpriority } else { libc::SYS_getppid };
            // SAFETY: the calls touch no memory.
            transaction = unsafe { transaction.with_call(call, [0; 6], ResultCheck::AnyResult) };
        }
        let _ = transaction.execute();
    });
    // The dead thread never reports its end.
    std::mem::forget(doomed);
    until(|| TID.load(SeqCst) != 0);
    let tid = TID.load(SeqCst);
    until(|| !proc::tids().contains(&tid));
    others.have_counted_since(&before);
    tid
}

fn calls_still_work() {
    let report = set_slack(5).unwrap();
    assert_eq!((report.threads(), report.divergent()), (proc::tids().len(), 0));
}

/// In the first call, before anything has changed.
#[test]
fn in_the_first_call() {
    isolated("in_the_first_call", WATCHDOG, || {
        let others = counting(4, |_| {});
        for _ in 0..5 {
            dies_in_call(0, others);
            others.leave(calls_still_work);
        }
    });
}

/// In a later call, either the process dies and says why, or it continues and later calls work.
#[test]
fn in_a_later_call() {
    for position in [1, 2] {
        let (name, body): (_, fn()) = ("in_a_later_call", || {
            let position = std::env::var("PSX_POSITION").unwrap().parse().unwrap();
            let others = counting(4, |_| {});
            dies_in_call(position, others);
            others.leave(calls_still_work);
        });
        if std::env::var("PSX_CASE").is_err() {
            // SAFETY: no other test of this file reads the environment.
            unsafe { std::env::set_var("PSX_POSITION", position.to_string()) };
        }
        let begun = Instant::now();
        let (status, output) = support::isolated_status(name, WATCHDOG, body);
        println!("call {position}: {status}: {output}");
        if !status.success() && support::killed_by_libpsx(status.into_raw(), begun, &output) {
            assert!(output.contains("libpsx"), "{status}: {output}");
        }
    }
}

/// The caller's filter kills it before the call: for its first kernel call, or after it has gathered the others.
#[test]
fn before_the_call() {
    isolated("before_the_call", WATCHDOG, || {
        for call in [
            libc::SYS_unshare,
            libc::SYS_clock_gettime,
            libc::SYS_rt_sigprocmask,
            libc::SYS_rt_sigaction,
            libc::SYS_openat,
            libc::SYS_getdents64,
            libc::SYS_rt_tgsigqueueinfo,
            support::NEWFSTATAT,
            libc::SYS_fstat,
            libc::SYS_close,
        ] {
            forked(|| {
                prepared(|| {});
                prepared(|| {});
                std::mem::forget(std::thread::spawn(move || {
                    filter(call, libc::SECCOMP_RET_KILL_THREAD);
                    let call = Broadcast::new(libc::SYS_getppid, [0; 6]);
                    // SAFETY: getppid touches no memory.
                    let _ = unsafe { call.execute_with_report() };
                    // SAFETY: the call ends only this thread, without the C library.
                    unsafe { libc::syscall(libc::SYS_exit, 0) };
                }));
                until(|| proc::tids().len() == 3);
                calls_still_work();
            });
        }
    });
}

/// The call installs a filter that kills for a kernel call that the caller makes in the judgement. A thread differs.
fn dies_in_the_judgement(call: libc::c_long, sensitivity: Sensitivity) -> i32 {
    forked_status(|| {
        counting(3, |_| {});
        prepared(|| filter(libc::SYS_seccomp, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32));
        support::no_new_privs().unwrap();
        std::mem::forget(std::thread::spawn(move || {
            let kill = program(&[call], libc::SECCOMP_RET_KILL_THREAD, libc::SECCOMP_RET_ALLOW);
            let header = header(&kill);
            let set = libc::SECCOMP_SET_MODE_FILTER as usize;
            let args = [set, 0, &raw const header as usize, 0, 0, 0];
            let seccomp = Broadcast::new(libc::SYS_seccomp, args).sensitivity(sensitivity);
            // SAFETY: the program outlives the call.
            let _ = unsafe { seccomp.execute_with_report() };
            // SAFETY: the call ends only this thread, without the C library.
            unsafe { libc::syscall(libc::SYS_exit, 0) };
        }));
        // This thread has the filter: it was held, performed the call, and is free.
        // SAFETY: prctl touches no memory.
        while unsafe { libc::prctl(libc::PR_GET_SECCOMP) } == 0 {
            // SAFETY: sched_yield touches no memory.
            unsafe { libc::sched_yield() };
        }
        // SAFETY: the call ends the process.
        unsafe { libc::syscall(libc::SYS_exit_group, 0) };
    })
}

const OF_THE_JUDGEMENT: [libc::c_long; 11] = [
    libc::SYS_write,
    libc::SYS_pwritev2,
    libc::SYS_ppoll,
    libc::SYS_fstat,
    libc::SYS_ioctl,
    libc::SYS_fstatfs,
    libc::SYS_timer_create,
    libc::SYS_timer_settime,
    libc::SYS_rt_sigaction,
    libc::SYS_tgkill,
    libc::SYS_rt_sigpending,
];

#[test]
fn in_the_judgement_the_process_dies() {
    isolated("in_the_judgement_the_process_dies", WATCHDOG, || {
        let only = std::env::var("PSX_CALL").ok().and_then(|call| call.parse().ok());
        for call in OF_THE_JUDGEMENT {
            if only.is_some_and(|only: libc::c_long| only != call) {
                continue;
            }
            let status = dies_in_the_judgement(call, Sensitivity::Error);
            println!("{call}: {status:#x}");
            assert_ne!(status & 0x7f, 0, "{call}: the process is still alive: {status:#x}");
        }
    });
}

#[test]
fn caller_dies_in_the_judgement_and_the_threads_are_released() {
    isolated("caller_dies_in_the_judgement_and_the_threads_are_released", WATCHDOG, || {
        for sensitivity in [Sensitivity::Warning, Sensitivity::Ignore] {
            for call in OF_THE_JUDGEMENT {
                let status = dies_in_the_judgement(call, sensitivity);
                assert_eq!(status, 0, "{call}, {sensitivity:?}: {status:#x}");
            }
        }
    });
}

/// A long-lived thread gets the tid of a caller that died in its call.
#[test]
fn a_thread_with_the_dead_callers_tid() {
    isolated_as_root("a_thread_with_the_dead_callers_tid", WATCHDOG, || {
        // SAFETY: unshare touches no memory.
        if unsafe { libc::unshare(libc::CLONE_NEWPID) } != 0 {
            support::skipped(format!(
                "no PID namespace can be made: {}",
                std::io::Error::last_os_error()
            ));
            return;
        }
        forked(|| {
            static DEAD: AtomicI32 = AtomicI32::new(0);
            static HEIR: AtomicI32 = AtomicI32::new(0);
            let others = counting(3, |_| {});
            for _ in 0..3 {
                DEAD.store(0, SeqCst);
                HEIR.store(0, SeqCst);
                std::mem::forget(std::thread::spawn(|| {
                    filter(libc::SYS_getpriority, libc::SECCOMP_RET_KILL_THREAD);
                    DEAD.store(gettid(), SeqCst);
                    let call = Broadcast::new(libc::SYS_getpriority, [0; 6]);
                    // SAFETY: getpriority touches no memory.
                    let _ = unsafe { call.execute_with_report() };
                }));
                until(|| DEAD.load(SeqCst) != 0);
                let dead = DEAD.load(SeqCst);
                until(|| {
                    // SAFETY: signal 0 only tests whether the thread exists.
                    unsafe { libc::syscall(libc::SYS_tgkill, std::process::id(), dead, 0) != 0 }
                });
                while HEIR.load(SeqCst) != dead {
                    let last = (dead - 1).to_string();
                    std::fs::write("/proc/sys/kernel/ns_last_pid", last).unwrap();
                    let heir = std::thread::spawn(move || {
                        HEIR.store(gettid(), SeqCst);
                        if gettid() == dead {
                            set_slack(6).unwrap();
                            HEIR.store(-1, SeqCst);
                            loop {
                                std::thread::park();
                            }
                        }
                    });
                    until(|| HEIR.load(SeqCst) != 0);
                    if HEIR.load(SeqCst) == dead || HEIR.load(SeqCst) == -1 {
                        break;
                    }
                    heir.join().unwrap();
                    HEIR.store(0, SeqCst);
                }
                until(|| HEIR.load(SeqCst) == -1);
                let report = set_slack(7).unwrap();
                assert!(report.threads() > others.len() + 1, "{report:?}");
                assert!(report.results().iter().any(|result| result.tid() == dead), "{report:?}");
            }
        });
    });
}
