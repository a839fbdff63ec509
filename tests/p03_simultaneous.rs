//! Between the first and the last execution no thread runs a user instruction. A process that must die dies before any
//! thread has run in the new state (P3). These tests observe everything from inside the process.
#![allow(unsafe_code)]

mod support;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use libpsx::{Broadcast, ResultCheck, Sensitivity, Transaction};
use support::{
    counting, filter, forked_status, isolated, killed_by_libpsx, prepared, random, seed,
    shared_word, sleepers,
};

const WATCHDOG: Duration = Duration::from_secs(120);

/// The execution domain of a thread. These values have no effect on it.
const FIRST: usize = 0x1000;
const NEW: usize = 0x4321;

fn personality(value: usize) -> Broadcast {
    Broadcast::new(libc::SYS_personality, [value, 0, 0, 0, 0, 0]).deadline(support::LONG)
}

fn own() -> usize {
    // SAFETY: the call only reads the value, and touches no memory.
    (unsafe { libc::syscall(libc::SYS_personality, 0xffff_ffffu64) }) as usize
}

/// Returns the value of another thread of this process, from the kernel.
fn of(file: &File) -> usize {
    let mut bytes = [0; 16];
    let count = file.read_at(&mut bytes, 0).unwrap();
    usize::from_str_radix(std::str::from_utf8(&bytes[..count]).unwrap().trim(), 16).unwrap()
}

fn gettid() -> i32 {
    // SAFETY: gettid touches no memory.
    unsafe { libc::gettid() }
}

/// Each call sets a higher value. A thread reads the value of another thread, of a third one, and its own. No later
/// value may be lower than an earlier one.
#[test]
fn no_thread_sees_a_mixed_state() {
    isolated("no_thread_sees_a_mixed_state", WATCHDOG, || {
        static LOOKS: AtomicUsize = AtomicUsize::new(0);
        static MIXED: AtomicUsize = AtomicUsize::new(0);
        static TIDS: [AtomicUsize; 6] = [const { AtomicUsize::new(0) }; 6];
        let first = seed();
        // SAFETY: personality touches no memory.
        unsafe { personality(FIRST).execute_with_report() }.unwrap();
        sleepers(8);
        support::computing(2);
        for (index, tid) in TIDS.iter().enumerate() {
            let mut state = first + index as u64;
            std::thread::spawn(move || {
                tid.store(gettid() as usize, SeqCst);
                support::until(|| TIDS.iter().all(|tid| tid.load(SeqCst) != 0));
                let files: Vec<File> = TIDS
                    .iter()
                    .map(|tid| {
                        let tid = tid.load(SeqCst);
                        File::open(format!("/proc/self/task/{tid}/personality")).unwrap()
                    })
                    .collect();
                loop {
                    let mut pick = || &files[random(&mut state) as usize % files.len()];
                    let seen = [of(pick()), of(pick()), own(), of(pick())];
                    LOOKS.fetch_add(1, SeqCst);
                    if !seen.is_sorted() {
                        println!("{seen:x?}");
                        MIXED.fetch_add(1, SeqCst);
                    }
                    if index % 2 == 1 {
                        std::thread::sleep(Duration::from_micros(random(&mut state) % 300));
                    }
                }
            });
        }
        support::until(|| LOOKS.load(SeqCst) > 100);
        // On s390x, the call that reads the value hides this one (arch/s390/kernel/syscall.c).
        const PER_LINUX32: usize = 8;
        let shown = |value: &usize| value & 0xff != PER_LINUX32;
        for value in (FIRST..FIRST + 1000).filter(shown) {
            // SAFETY: personality touches no memory.
            unsafe { personality(value).execute_with_report() }.unwrap();
            assert_eq!(own(), value);
        }
        println!("{} looks", LOOKS.load(SeqCst));
        assert_eq!(MIXED.load(SeqCst), 0);
    });
}

/// Runs a process with `threads` threads that compute and as many that sleep. Each thread that runs in the new state
/// says so in shared memory. One thread's result differs, and the process is killed.
fn killed_process(ran: &'static AtomicUsize, threads: usize, partial: bool) {
    let begun = Instant::now();
    let status = forked_status(|| {
        let look = || {
            if own() == NEW {
                ran.fetch_add(1, SeqCst);
            }
        };
        for _ in 0..threads {
            std::thread::spawn(move || {
                loop {
                    look();
                }
            });
            std::thread::spawn(move || {
                loop {
                    // SAFETY: pause touches no memory.
                    unsafe { libc::pause() };
                    look();
                }
            });
        }
        if partial {
            let transaction = Transaction::new()
                .on_partial_failure(libpsx::PartialFailureAction::Kill)
                .deadline(support::LONG);
            // SAFETY: personality touches no memory.
            let transaction = unsafe {
                transaction.with_call(
                    libc::SYS_personality,
                    [NEW, 0, 0, 0, 0, 0],
                    ResultCheck::AnyResult,
                )
            };
            let nonsense = [0x7fff_ffff, 0, 0, 0, 0, 0];
            // SAFETY: there is no such option.
            let transaction = unsafe {
                transaction.with_call(libc::SYS_prctl, nonsense, ResultCheck::SameResult)
            };
            let _ = transaction.execute();
        } else {
            prepared(|| {
                filter(libc::SYS_personality, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32);
            });
            // SAFETY: personality touches no memory.
            let _ =
                unsafe { personality(NEW).sensitivity(Sensitivity::Error).execute_with_report() };
        }
        ran.fetch_add(1_000_000, SeqCst);
    });
    killed_by_libpsx(status, begun, format!("{threads} threads"));
}

#[test]
fn no_thread_has_run_in_a_state_that_kills() {
    isolated("no_thread_has_run_in_a_state_that_kills", WATCHDOG, || {
        let ran = shared_word();
        let mut state = seed();
        for run in support::repeated(200, WATCHDOG) {
            let threads = 1 + random(&mut state) as usize % 6;
            killed_process(ran, threads, false);
            assert_eq!(ran.load(SeqCst), 0, "run {run}, {threads} threads");
        }
    });
}

#[test]
fn no_thread_has_run_in_a_partial_state_that_kills() {
    isolated("no_thread_has_run_in_a_partial_state_that_kills", WATCHDOG, || {
        let ran = shared_word();
        let mut state = seed();
        for run in support::repeated(200, WATCHDOG) {
            let threads = 1 + random(&mut state) as usize % 6;
            killed_process(ran, threads, true);
            assert_eq!(ran.load(SeqCst), 0, "run {run}, {threads} threads");
        }
    });
}

/// Two callers loop beside 64 threads. A stop begins while threads of the last one still sleep on their way out. With
/// every call, every thread adds 1 to a counter in the kernel.
fn two_callers<const CALLS: usize>(computing: usize) {
    let others = counting(64 - computing, |_| {});
    support::computing(computing);
    // SAFETY: eventfd touches no memory.
    let counter = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
    assert!(counter >= 0);
    static ONE: u64 = 1;
    let (threads, calls) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let barrier = &std::sync::Barrier::new(3);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let (threads, calls) = (&threads, &calls);
            scope.spawn(move || {
                barrier.wait();
                for _ in support::repeated(CALLS, WATCHDOG) {
                    let args = [counter as usize, &raw const ONE as usize, 8, 0, 0, 0];
                    let write = Broadcast::new(libc::SYS_write, args).deadline(support::LONG);
                    // SAFETY: the kernel reads a static.
                    let report = unsafe { write.execute_with_report() }.unwrap();
                    assert_eq!(report.divergent(), 0);
                    calls.fetch_add(1, SeqCst);
                    threads.fetch_max(report.threads(), SeqCst);
                }
                barrier.wait();
                barrier.wait();
            });
        }
        barrier.wait();
        barrier.wait();
        let mut total = 0u64;
        // SAFETY: the kernel writes eight bytes.
        let read = unsafe { libc::read(counter, (&raw mut total).cast(), 8) };
        assert_eq!(read, 8);
        let all = support::proc::tids().len();
        assert_eq!(threads.load(SeqCst), all);
        assert_eq!(total as usize, calls.load(SeqCst) * all);
        barrier.wait();
    });
    support::until(|| others.iter().all(|counter| counter.load(SeqCst) > 0));
}

#[test]
fn stops_that_follow_each_other() {
    isolated("stops_that_follow_each_other", WATCHDOG, || two_callers::<1500>(0));
}

#[test]
fn stops_that_follow_each_other_beside_computing_threads() {
    let name = "stops_that_follow_each_other_beside_computing_threads";
    isolated(name, WATCHDOG, || two_callers::<300>(16));
}
