//! Every thread that can run user code performs the call, and performs it once (P1).
#![allow(unsafe_code, clippy::multiple_unsafe_ops_per_block)]

mod support;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use support::{LONG, add_filter, all_have, isolated, no_new_privs, proc, set_slack};

const WATCHDOG: Duration = Duration::from_secs(120);

/// Threads asleep in every usual way, and busy ones, in place when this returns.
fn zoo() -> usize {
    static BORN: AtomicUsize = AtomicUsize::new(0);
    static NEVER: AtomicUsize = AtomicUsize::new(0);
    let mut pipe = [0; 2];
    // SAFETY: the kernel writes both descriptors.
    assert_eq!(unsafe { libc::pipe(pipe.as_mut_ptr()) }, 0);
    // SAFETY: makes a descriptor.
    let epoll = unsafe { libc::epoll_create1(0) };
    let kinds: [Box<dyn Fn() + Send>; 6] = [
        Box::new(std::thread::park),
        Box::new(|| std::thread::sleep(Duration::from_secs(1000))),
        Box::new(move || {
            let mut byte = 0u8;
            // SAFETY: the kernel writes one byte at the most.
            unsafe { libc::read(pipe[0], (&raw mut byte).cast(), 1) };
        }),
        Box::new(move || {
            let mut event = libc::epoll_event { events: 0, u64: 0 };
            // SAFETY: the kernel writes one event at the most.
            unsafe { libc::epoll_wait(epoll, &mut event, 1, -1) };
        }),
        Box::new(|| while NEVER.load(Ordering::Relaxed) == 0 {}),
        Box::new(|| {
            // SAFETY: getppid touches no memory.
            while unsafe { libc::getppid() } != 0 {}
        }),
    ];
    let count = kinds.len();
    for kind in kinds {
        std::thread::Builder::new()
            .stack_size(16 << 10)
            .spawn(move || {
                BORN.fetch_add(1, Ordering::SeqCst);
                loop {
                    kind();
                }
            })
            .unwrap();
    }
    while BORN.load(Ordering::SeqCst) < count {
        std::thread::yield_now();
    }
    count
}

#[test]
fn blocked_and_busy_threads() {
    isolated("blocked_and_busy_threads", WATCHDOG, || {
        let count = zoo();
        let report = no_new_privs().unwrap();
        assert!(report.threads() > count);
        all_have("NoNewPrivs", "1");
    });
}

/// seccomp(2) is not idempotent: each call adds a filter.
#[test]
fn exactly_once_beside_births_and_deaths() {
    isolated("exactly_once_beside_births_and_deaths", WATCHDOG, || {
        static STOP: AtomicBool = AtomicBool::new(false);
        zoo();
        let makers: Vec<_> = (0..2)
            .map(|_| {
                std::thread::spawn(|| {
                    while !STOP.load(Ordering::Relaxed) {
                        std::thread::spawn(|| ()).join().unwrap();
                    }
                })
            })
            .collect();
        no_new_privs().unwrap();
        let filters = 40;
        for _ in 0..filters {
            add_filter(LONG).unwrap();
        }
        STOP.store(true, Ordering::Relaxed);
        makers.into_iter().for_each(|maker| maker.join().unwrap());
        all_have("Seccomp_filters", &filters.to_string());
    });
}

#[test]
fn five_thousand_threads() {
    isolated("five_thousand_threads", WATCHDOG, || {
        for _ in 0..5000 {
            let builder = std::thread::Builder::new().stack_size(16 << 10);
            builder.spawn(|| std::thread::sleep(Duration::from_secs(1000))).unwrap();
        }
        let report = no_new_privs().unwrap();
        println!("{} rounds, longest freeze {:?}", report.attempts(), report.max_pause());
        assert!(report.threads() > 5000);
        all_have("NoNewPrivs", "1");
    });
}

/// The kernel's threads of an io_uring are exempt, and the one that works on is warned of.
#[test]
fn io_uring_workers_are_exempt() {
    isolated("io_uring_workers_are_exempt", WATCHDOG, || {
        const IORING_SETUP_SQPOLL: u32 = 2;
        // A user of many groups, who makes the files in /proc long.
        let groups: Vec<u32> = (1_000_000_000..).take(1000).collect();
        // SAFETY: the kernel reads the list. Without the right to it, groups stay as they are.
        unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) };
        let mut parameters = [0u32; 30];
        parameters[2] = IORING_SETUP_SQPOLL;
        parameters[4] = 1_000_000; // idle time, so that it stays
        // SAFETY: the kernel reads and writes 120 bytes.
        let ring = unsafe { libc::syscall(libc::SYS_io_uring_setup, 8, parameters.as_mut_ptr()) };
        if ring < 0 {
            support::skipped(format!("io_uring: {}", std::io::Error::last_os_error()));
            return;
        }
        zoo();
        for value in 1..50 {
            let report = set_slack(value).unwrap();
            assert_eq!(report.sqpoll(), 1, "{report:?}");
        }
        let report = no_new_privs().unwrap();
        let exempt: BTreeSet<i32> = report.skipped().iter().map(|e| e.tid()).collect();
        let seen = proc::field_in_every_thread("NoNewPrivs");
        for (tid, value) in seen {
            assert!(value == "1" || exempt.contains(&tid), "{tid} has {value}");
        }
    });
}
