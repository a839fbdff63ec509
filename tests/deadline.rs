//! Every call ends, and who could not be stopped is named (P5).
#![allow(unsafe_code)]

mod support;

use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::Duration;

use libpsx::{Broadcast, Error, Obstacle};
use support::{all_have, block_all, isolated, proc, set_mask};

const WATCHDOG: Duration = Duration::from_secs(60);

static TID: AtomicI32 = AtomicI32::new(0);
static OPEN: AtomicBool = AtomicBool::new(false);

fn no_new_privs() -> Broadcast {
    Broadcast::new(libc::SYS_prctl, [libc::PR_SET_NO_NEW_PRIVS as usize, 1, 0, 0, 0, 0])
}

/// A thread that blocks every signal, 33 too, until OPEN.
fn deaf_thread() {
    std::thread::Builder::new()
        .name("deaf".into())
        .spawn(|| {
            block_all();
            // SAFETY: gettid touches no memory.
            TID.store(unsafe { libc::gettid() }, Ordering::SeqCst);
            while !OPEN.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(1));
            }
            set_mask(0);
            loop {
                std::thread::park();
            }
        })
        .unwrap();
    while TID.load(Ordering::SeqCst) == 0 {
        std::thread::yield_now();
    }
}

fn queued_signals() -> i32 {
    let line = proc::status(TID.load(Ordering::SeqCst)).remove("SigQ").unwrap();
    line.split('/').next().unwrap().parse().unwrap()
}

#[test]
fn thread_that_blocks_the_signal_is_named() {
    isolated("thread_that_blocks_the_signal_is_named", WATCHDOG, || {
        // The queue is counted per user: one that nobody else is.
        // SAFETY: the ids are plain numbers.
        let own = unsafe { libpsx::syscall3(libc::SYS_setresuid, 61234, 61234, 61234) }.is_ok();
        if !own {
            println!("SKIPPED: counting the signals of a user of our own needs root");
        }
        deaf_thread();
        let tid = TID.load(Ordering::SeqCst);
        let before = queued_signals();
        for _ in 0..20 {
            let call = no_new_privs().deadline(Duration::from_millis(40));
            // SAFETY: PR_SET_NO_NEW_PRIVS touches no memory.
            let error = unsafe { call.run() }.unwrap_err();
            assert_eq!(error.raw_os_error(), libc::ETIMEDOUT);
            let Error::Unreachable(threads) = &error else { panic!("{error}") };
            let [thread] = threads.threads() else { panic!("{error}") };
            assert_eq!((thread.tid(), thread.name()), (tid, "deaf"), "{error}");
            assert_eq!(thread.obstacle(), Obstacle::SignalBlocked, "{error}");
        }
        let queued = queued_signals();
        assert!(!own || queued <= before + 1, "signals add up: {before}, {queued}");
        all_have("NoNewPrivs", "0");
        OPEN.store(true, Ordering::SeqCst);
        // SAFETY: PR_SET_NO_NEW_PRIVS touches no memory.
        unsafe { no_new_privs().run() }.unwrap();
        all_have("NoNewPrivs", "1");
    });
}

#[test]
fn thread_that_opens_the_signal_in_time() {
    isolated("thread_that_opens_the_signal_in_time", WATCHDOG, || {
        deaf_thread();
        std::thread::spawn(|| {
            std::thread::sleep(Duration::from_secs(2));
            OPEN.store(true, Ordering::SeqCst);
        });
        // SAFETY: PR_SET_NO_NEW_PRIVS touches no memory.
        let report = unsafe { no_new_privs().run() }.unwrap();
        println!("{} rounds, longest freeze {:?}", report.rounds(), report.longest_freeze());
        assert!(report.rounds() > 1);
        all_have("NoNewPrivs", "1");
    });
}

#[test]
fn signal_queue_used_up() {
    // SAFETY: geteuid touches no memory.
    if unsafe { libc::geteuid() } != 0 {
        println!("SKIPPED: root is not bound by RLIMIT_SIGPENDING, and another uid must be taken");
        return;
    }
    isolated("signal_queue_used_up", WATCHDOG, || {
        std::thread::spawn(std::thread::park);
        // SAFETY: the ids are plain numbers.
        unsafe { libpsx::syscall3(libc::SYS_setresuid, 65534, 65534, 65534) }.unwrap();
        let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the kernel reads the structure.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_SIGPENDING, &none) }, 0);
        let call = no_new_privs().deadline(Duration::from_millis(200));
        // SAFETY: PR_SET_NO_NEW_PRIVS touches no memory.
        let error = unsafe { call.run() }.unwrap_err();
        assert!(matches!(error, Error::SignalQueueFull), "{error}");
        all_have("NoNewPrivs", "0");
    });
}
