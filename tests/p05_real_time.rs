//! Threads with a real-time priority never leave their CPU (P5). A call beside them ends, and so does a call that gives
//! threads such a priority. They compute for a limited time, so that a failing test does not occupy the machine.
#![allow(unsafe_code)]

mod support;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use libpsx::Broadcast;
use support::{isolated_as_root, on_cpu, own_cpus, scheduler, set_slack, until, watchdog};

const WATCHDOG: Duration = Duration::from_secs(100);
const LIMIT: Duration = Duration::from_secs(40);

/// Like [`isolated_as_root`], for one test of this file at a time: they occupy the same CPU.
fn alone_as_root(name: &str, body: fn()) {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    isolated_as_root(name, WATCHDOG, body);
}

static READY: AtomicUsize = AtomicUsize::new(0);
static REFUSED: AtomicBool = AtomicBool::new(false);
static OVER: AtomicBool = AtomicBool::new(false);
static TOO_LATE: AtomicBool = AtomicBool::new(false);

/// Starts threads that compute on one CPU. Each prepares itself first, and they are told together to begin.
///
/// All memory is read and locked before, as a real-time program does (sched(7)). Otherwise the caller of a test would
/// sleep in a page fault on its way from the call to its checks, and with SCHED_FIFO a computing thread would keep the CPU.
fn computing(count: usize, cpu: usize, prepare: fn() -> bool) -> bool {
    static GO: AtomicBool = AtomicBool::new(false);
    // SAFETY: the call changes no memory.
    if unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE) } != 0 {
        let why = std::io::Error::last_os_error();
        support::skipped(format_args!("memory may not be locked: {why}"));
        return false;
    }
    let limit = watchdog(LIMIT);
    for _ in 0..count {
        std::thread::spawn(move || {
            on_cpu(cpu);
            REFUSED.fetch_or(!prepare(), SeqCst);
            READY.fetch_add(1, SeqCst);
            until(|| GO.load(SeqCst));
            let begin = Instant::now();
            while !OVER.load(SeqCst) {
                if begin.elapsed() > limit {
                    TOO_LATE.store(true, SeqCst);
                    return;
                }
                std::hint::spin_loop();
            }
        });
    }
    until(|| READY.load(SeqCst) == count);
    GO.store(true, SeqCst);
    if REFUSED.load(SeqCst) {
        support::skipped("SCHED_FIFO is not allowed");
        OVER.store(true, SeqCst);
    }
    !REFUSED.load(SeqCst)
}

fn ended_before_them() {
    let too_late = TOO_LATE.load(SeqCst);
    OVER.store(true, SeqCst);
    assert!(!too_late, "the call ended only when the threads had stopped computing");
}

fn last_cpu() -> usize {
    own_cpus().pop().unwrap()
}

/// Two threads of one priority are on the caller's CPU, and the caller has no real-time priority.
#[test]
fn two_of_one_priority_on_the_callers_cpu() {
    alone_as_root("two_of_one_priority_on_the_callers_cpu", || {
        let cpu = last_cpu();
        on_cpu(cpu);
        if computing(2, cpu, || scheduler(libc::SCHED_FIFO, 10)) {
            for value in 1..=3 {
                assert!(set_slack(value).unwrap().threads() >= 3);
            }
            ended_before_them();
        }
    });
}

#[test]
fn four_of_two_priorities_on_the_callers_cpu() {
    alone_as_root("four_of_two_priorities_on_the_callers_cpu", || {
        let cpu = last_cpu();
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        on_cpu(cpu);
        let prepare = || scheduler(libc::SCHED_FIFO, 10 + NUMBER.fetch_add(1, SeqCst) as i32 % 2);
        if computing(4, cpu, prepare) {
            for value in 1..=2 {
                assert!(set_slack(value).unwrap().threads() >= 5);
            }
            ended_before_them();
        }
    });
}

fn broadcast_of_a_policy(policy: i32, threads: usize) {
    let cpu = last_cpu();
    on_cpu(cpu);
    if computing(threads, cpu, || true) {
        // The kernel's `struct sched_param` is one number.
        let priority = 10;
        let at = &raw const priority as usize;
        let args = [0, policy as usize, at, 0, 0, 0];
        let call = Broadcast::new(libc::SYS_sched_setscheduler, args);
        // SAFETY: the kernel reads the priority, which outlives the call.
        let report = unsafe { call.execute_with_report() }.unwrap();
        let tids = support::proc::tids();
        for tid in &tids {
            // musl's function of this name is always ENOSYS.
            // SAFETY: the call touches no memory.
            let present = unsafe { libc::syscall(libc::SYS_sched_getscheduler, *tid) };
            assert_eq!(present, libc::c_long::from(policy), "{report:?}");
        }
        ended_before_them();
    }
}

#[test]
fn a_broadcast_of_fifo_beside_computing_threads() {
    alone_as_root("a_broadcast_of_fifo_beside_computing_threads", || {
        broadcast_of_a_policy(libc::SCHED_FIFO, 2);
    });
}

#[test]
fn a_broadcast_of_fifo_beside_one_computing_thread() {
    alone_as_root("a_broadcast_of_fifo_beside_one_computing_thread", || {
        broadcast_of_a_policy(libc::SCHED_FIFO, 1);
    });
}

#[test]
fn a_broadcast_of_round_robin_beside_computing_threads() {
    alone_as_root("a_broadcast_of_round_robin_beside_computing_threads", || {
        broadcast_of_a_policy(libc::SCHED_RR, 4);
    });
}

/// Starts one SCHED_DEADLINE thread for each CPU. It has 9/10 of the CPU and is throttled for the rest of each period.
/// While it is throttled, it cannot take a signal.
#[test]
fn deadline_threads_that_are_throttled() {
    /// `struct sched_attr`, 48 bytes (sched_setattr(2)).
    #[repr(C)]
    struct Attributes {
        size: u32,
        policy: u32,
        flags: u64,
        nice: i32,
        priority: u32,
        runtime: u64,
        deadline: u64,
        period: u64,
    }
    fn prepare() -> bool {
        const SCHED_DEADLINE: u32 = 6;
        let (size, period) = (size_of::<Attributes>() as u32, 20_000_000);
        let (policy, runtime) = (SCHED_DEADLINE, period / 10 * 9);
        let (flags, nice, priority, deadline) = (0, 0, 0, period);
        let attributes =
            Attributes { size, policy, flags, nice, priority, runtime, deadline, period };
        // The kernel gives this policy only to threads that may run on every CPU.
        let all = [u64::MAX; 16];
        let size = size_of_val(&all);
        // SAFETY: the kernel reads the mask.
        unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, size, all.as_ptr()) };
        // SAFETY: the kernel reads the structure.
        unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) == 0 }
    }
    alone_as_root("deadline_threads_that_are_throttled", || {
        let threads = std::thread::available_parallelism().unwrap().get();
        if computing(threads, last_cpu(), prepare) {
            for value in 1..=20 {
                assert!(set_slack(value).unwrap().threads() > threads);
            }
            ended_before_them();
        }
    });
}
