//! A program answers its own trapped calls in a handler for SIGSYS (P5). A call is performed in all threads, as glibc's
//! setresuid(3) is. A handler that does not return is a divergence.
#![cfg(not(target_arch = "loongarch64"))]
#![allow(unsafe_code)]

mod support;

use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use libpsx::{Broadcast, CallOutcome, ResultCheck, Sensitivity, Transaction};
use support::emulator::{
    self, TRAPPED, emulate_trapped_calls, leave_by_jump, on_sigsys, trapping,
    without_alternate_stack,
};
use support::{
    MMAP, cpu, filter, forked, forked_status, install, install_everywhere, isolated,
    isolated_status, killed_by_libpsx, prepared, proc, set_slack, slack, slack_here, sleepers,
    until,
};

const WATCHDOG: Duration = Duration::from_secs(120);

/// The kernel calls that a held thread may make.
const OF_A_HELD_THREAD: [libc::c_long; 6] = [
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_futex,
    libc::SYS_rt_sigprocmask,
    libc::SYS_tgkill,
    libc::SYS_prctl,
];

/// The kernel calls that a caller may make.
const OF_A_CALLER: [libc::c_long; 23] = [
    libc::SYS_openat,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_futex,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_tgkill,
    libc::SYS_clock_gettime,
    libc::SYS_fstat,
    support::NEWFSTATAT,
    libc::SYS_statx,
    libc::SYS_fstatfs,
    libc::SYS_close,
    libc::SYS_read,
    libc::SYS_pread64,
    libc::SYS_getdents64,
    libc::SYS_lseek,
    MMAP,
    libc::SYS_munmap,
    libc::SYS_madvise,
    libc::SYS_unshare,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_prctl,
];

fn emulating_threads(calls: &'static [libc::c_long]) {
    prepared(move || {
        without_alternate_stack();
        install(&trapping(calls));
    });
}

fn all_slack(value: usize) {
    for tid in proc::tids() {
        if let Ok(slack) = std::fs::read_to_string(format!("/proc/{tid}/timerslack_ns")) {
            assert_eq!(slack.trim(), value.to_string(), "thread {tid}");
        }
    }
}

/// Removes the calls that a handler cannot make.
fn that_can_be_answered(calls: &[libc::c_long]) -> Vec<libc::c_long> {
    let all = emulator::can_answer();
    let without_arguments = [libc::SYS_gettid, libc::SYS_getpid];
    calls.iter().copied().filter(|call| all || without_arguments.contains(call)).collect()
}

/// What the handler finds is what the interrupted code has passed, or -ENOSYS and the rest of it.
#[test]
fn arguments_of_a_trapped_call() {
    static SEEN: [AtomicUsize; 6] = [const { AtomicUsize::new(0) }; 6];
    extern "C" fn looks(_: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
        // SAFETY: the kernel has written the frame.
        let arguments = cpu::arguments(unsafe { &*context.cast::<libc::ucontext_t>() });
        for (seen, argument) in SEEN.iter().zip(arguments) {
            seen.store(argument, SeqCst);
        }
        emulator::refuse(context);
    }
    isolated("arguments_of_a_trapped_call", WATCHDOG, || {
        on_sigsys(looks);
        install(&trapping(&[libc::SYS_getpgid]));
        // SAFETY: getpgid touches no memory, and is trapped.
        let result = unsafe {
            libc::syscall(libc::SYS_getpgid, 1usize, 2usize, 3usize, 4usize, 5usize, 6usize)
        };
        let error = std::io::Error::last_os_error().raw_os_error();
        assert_eq!((result, error), (-1, Some(libc::EPERM)));
        let lost = (-(libc::ENOSYS as isize)) as usize;
        let first = if cpu::TRAPS_KEEP_ARGUMENTS { 1 } else { lost };
        assert_eq!(SEEN.each_ref().map(|seen| seen.load(SeqCst)), [first, 2, 3, 4, 5, 6]);
    });
}

#[test]
fn each_call_of_a_held_thread_is_trapped() {
    isolated("each_call_of_a_held_thread_is_trapped", WATCHDOG, || {
        let calls: &'static [libc::c_long] = that_can_be_answered(&OF_A_HELD_THREAD).leak();
        for call in calls {
            forked(|| {
                emulate_trapped_calls();
                prepared(|| {});
                emulating_threads(std::slice::from_ref(call));
                emulating_threads(std::slice::from_ref(call));
                for value in 1..=20 {
                    let report = set_slack(value).unwrap();
                    assert_eq!((report.threads(), report.divergent()), (4, 0), "{call}");
                    all_slack(value);
                }
                println!("{call}: {} calls answered", TRAPPED.load(SeqCst));
            });
        }
        forked(|| {
            emulate_trapped_calls();
            emulating_threads(calls);
            assert_eq!(set_slack(5).unwrap().divergent(), 0);
            all_slack(5);
        });
    });
}

#[test]
fn each_call_of_every_thread_is_trapped() {
    isolated("each_call_of_every_thread_is_trapped", WATCHDOG, || {
        for call in that_can_be_answered(&OF_A_CALLER) {
            let status = forked_status(|| {
                emulate_trapped_calls();
                without_alternate_stack();
                for _ in 0..3 {
                    prepared(without_alternate_stack);
                }
                // A trap is fatal while the C library blocks all signals in a new thread.
                std::thread::sleep(Duration::from_millis(10));
                install_everywhere(&trapping(&[call]));
                for value in 1..=5 {
                    let report = set_slack(value).unwrap();
                    assert_eq!((report.threads(), report.divergent()), (4, 0), "{call}");
                    all_slack(value);
                }
                println!("{call}: {} calls answered", TRAPPED.load(SeqCst));
            });
            assert_eq!(status, 0, "call {call}: {status:#x}");
        }
    });
}

static SELECTOR: AtomicU8 = AtomicU8::new(0);

/// Allows the dispatched call and all calls after it, until the thread turns the dispatch on again.
extern "C" fn dispatched(_: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    SELECTOR.store(0, SeqCst);
    TRAPPED.fetch_add(1, SeqCst);
    // SAFETY: the kernel has written the frame.
    let context = unsafe { &mut *context.cast::<libc::ucontext_t>() };
    // The instruction is executed again, and not dispatched.
    cpu::call_again(context, emulator::number(info));
}

#[test]
fn a_thread_under_user_dispatch() {
    isolated("a_thread_under_user_dispatch", WATCHDOG, || {
        const PR_SET_SYSCALL_USER_DISPATCH: i32 = 59;
        static READY: AtomicUsize = AtomicUsize::new(0);
        on_sigsys(dispatched);
        std::thread::spawn(|| {
            without_alternate_stack();
            let at = SELECTOR.as_ptr();
            // SAFETY: the kernel reads the selector, which is static.
            let done = unsafe { libc::prctl(PR_SET_SYSCALL_USER_DISPATCH, 1, 0, 0, at) };
            READY.store(if done == 0 { 1 } else { 2 }, SeqCst);
            if done == 0 {
                loop {
                    SELECTOR.store(1, SeqCst);
                    std::hint::spin_loop();
                }
            }
        });
        until(|| READY.load(SeqCst) != 0);
        if READY.load(SeqCst) == 2 {
            support::skipped("this kernel has no syscall user dispatch");
            return;
        }
        for value in 1..=50 {
            until(|| SELECTOR.load(SeqCst) == 1);
            let report = set_slack(value).unwrap();
            assert_eq!((report.threads(), report.divergent()), (3, 0));
            all_slack(value);
        }
        assert!(TRAPPED.load(SeqCst) >= 50);
        println!("{} calls dispatched", TRAPPED.load(SeqCst));
    });
}

static LANDED: AtomicUsize = AtomicUsize::new(0);

extern "C" fn land() -> ! {
    // On 32-bit x86 the x87 unit converts it, and raises SIGFPE if the jump has spoiled its state in the signal frame.
    assert_eq!(std::hint::black_box(10_i64) as f64, 10.0);
    LANDED.fetch_add(1, SeqCst);
    loop {
        // SAFETY: pause touches no memory.
        unsafe { libc::pause() };
    }
}

extern "C" fn jumps(_: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    leave_by_jump(context, land);
}

fn leaves_on(call: libc::c_long) {
    prepared(move || {
        without_alternate_stack();
        filter(call, libc::SECCOMP_RET_TRAP);
    });
}

fn getpriority(sensitivity: Sensitivity) -> Broadcast {
    Broadcast::new(libc::SYS_getpriority, [0; 6])
        .sensitivity(sensitivity)
        .deadline(Duration::from_secs(5))
}

/// The handler jumps out of the call in a held thread.
#[test]
fn a_held_thread_leaves_in_the_call() {
    isolated("a_held_thread_leaves_in_the_call", WATCHDOG, || {
        on_sigsys(jumps);
        prepared(|| {});
        leaves_on(libc::SYS_getpriority);
        // SAFETY: getpriority touches no memory.
        let report = unsafe { getpriority(Sensitivity::Ignore).execute_with_report() }.unwrap();
        assert_eq!((report.threads(), report.divergent()), (4, 1), "{report:?}");
        let left =
            report.results().iter().filter(|result| result.outcome() == CallOutcome::Siglongjmp);
        assert_eq!(left.count(), 1, "{report:?}");
        until(|| LANDED.load(SeqCst) == 1);
        // The thread then is like any other thread.
        assert_eq!(set_slack(5).unwrap().threads(), 4);
        all_slack(5);
    });
}

/// The same with a sensitivity that kills.
#[test]
fn a_held_thread_leaves_and_the_process_dies() {
    isolated("a_held_thread_leaves_and_the_process_dies", WATCHDOG, || {
        let begun = Instant::now();
        let status = forked_status(|| {
            on_sigsys(jumps);
            leaves_on(libc::SYS_getpriority);
            // SAFETY: getpriority touches no memory.
            let _ = unsafe { getpriority(Sensitivity::Error).execute_with_report() };
        });
        killed_by_libpsx(status, begun, "a held thread has left");
    });
}

/// The handler jumps out of a thread before the call, in a kernel call that the thread makes when it is to be held. The
/// call is performed in all threads, or in none.
#[test]
fn a_thread_leaves_before_the_call() {
    isolated("a_thread_leaves_before_the_call", WATCHDOG, || {
        for call in [libc::SYS_gettid, libc::SYS_futex, libc::SYS_rt_sigprocmask] {
            forked(|| {
                on_sigsys(jumps);
                prepared(|| {});
                leaves_on(call);
                let (before, after) = (slack_here(), slack_here() + 1);
                let set = slack(after).sensitivity(Sensitivity::Ignore);
                // SAFETY: PR_SET_TIMERSLACK touches no memory.
                match unsafe { set.deadline(Duration::from_secs(5)).execute_with_report() } {
                    Ok(report) => {
                        println!("{call}: {report:?}");
                        assert_eq!((report.threads(), report.divergent()), (3, 0), "{call}");
                        all_slack(after);
                    }
                    Err(error) => {
                        println!("{call}: {error}");
                        all_slack(before);
                    }
                }
            });
        }
    });
}

/// In which of its calls the handler jumps out of the caller.
#[derive(Clone, Copy)]
enum Jumps {
    InFirst,
    InSecond,
    /// The kernel has performed the call: a signal waits for the caller as it returns.
    AfterFirst,
}

/// The caller leaves. No other thread may run beside it, since it may have performed a call: the process dies and says why.
fn the_caller_leaves(jumps_out: Jumps) {
    on_sigsys(jumps);
    let others = support::counting(3, |_| {});
    std::thread::spawn(move || {
        without_alternate_stack();
        // SAFETY: the call touches no memory.
        let me = unsafe { libc::syscall(libc::SYS_gettid) } as usize;
        let sigsys = [std::process::id() as usize, me, libc::SIGSYS as usize, 0, 0, 0];
        filter(libc::SYS_getpriority, libc::SECCOMP_RET_TRAP);
        let calls = match jumps_out {
            Jumps::InFirst => vec![(libc::SYS_getpriority, [0; 6])],
            Jumps::InSecond => {
                vec![(libc::SYS_getppid, [0; 6]), (libc::SYS_getpriority, [0; 6])]
            }
            Jumps::AfterFirst => vec![(libc::SYS_tgkill, sigsys)],
        };
        let mut transaction = Transaction::new().sensitivity(Sensitivity::Ignore);
        for (number, args) in calls {
            // SAFETY: the calls touch no memory.
            transaction = unsafe { transaction.with_call(number, args, ResultCheck::AnyResult) };
        }
        let _ = transaction.execute();
    });
    until(|| LANDED.load(SeqCst) == 1);
    until(|| others.iter().all(|counter| counter.load(SeqCst) > 0));
    println!("the other threads go on");
}

fn dies_of_a_jump(name: &str, body: fn()) {
    let begun = Instant::now();
    let (status, output) = isolated_status(name, WATCHDOG, body);
    let says_why = output.contains("a handler of SIGSYS has left a broadcast by a jump, half-way");
    let whole_line = killed_by_libpsx(status.into_raw(), begun, &output);
    assert!(says_why || !whole_line, "{output}");
    assert!(!output.contains("the other threads go on"), "{output}");
}

#[test]
fn the_caller_leaves_in_its_first_call() {
    let body = || the_caller_leaves(Jumps::InFirst);
    dies_of_a_jump("the_caller_leaves_in_its_first_call", body);
}

#[test]
fn the_caller_leaves_in_its_second_call() {
    let body = || the_caller_leaves(Jumps::InSecond);
    dies_of_a_jump("the_caller_leaves_in_its_second_call", body);
}

#[test]
fn the_caller_leaves_after_its_first_call() {
    let body = || the_caller_leaves(Jumps::AfterFirst);
    dies_of_a_jump("the_caller_leaves_after_its_first_call", body);
}

/// The caller leaves, and the signal that finds it cannot be queued. The others stay held until it can be, and the process
/// dies then.
#[test]
fn the_caller_leaves_and_the_queue_is_full() {
    isolated("the_caller_leaves_and_the_queue_is_full", WATCHDOG, || {
        static LEFT: AtomicUsize = AtomicUsize::new(0);
        extern "C" fn tells(_: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
            // SAFETY: the address of a shared word, which is never unmapped.
            unsafe { &*(LEFT.load(SeqCst) as *const AtomicUsize) }.store(1, SeqCst);
            leave_by_jump(context, land);
        }
        let left = support::shared_word();
        let begun = Instant::now();
        LEFT.store(std::ptr::from_ref(left) as usize, SeqCst);
        // SAFETY: all fields of the structure are integers.
        let mut limit: libc::rlimit = unsafe { std::mem::zeroed() };
        // SAFETY: the kernel writes the structure.
        assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_SIGPENDING, &mut limit) }, 0);
        // No other thread exists yet.
        let pid = support::fork();
        if pid == 0 {
            on_sigsys(tells);
            let none: [u64; 2] = [0, limit.rlim_max as u64];
            sleepers(2);
            std::thread::spawn(move || {
                without_alternate_stack();
                // SAFETY: the call touches no memory.
                let me = unsafe { libc::syscall(libc::SYS_gettid) } as usize;
                let pending = libc::RLIMIT_SIGPENDING as usize;
                let lower = [0, pending, none.as_ptr() as usize, 0, 0, 0];
                let sigsys = [std::process::id() as usize, me, libc::SIGSYS as usize, 0, 0, 0];
                let transaction = Transaction::new().sensitivity(Sensitivity::Ignore);
                // SAFETY: the kernel reads the limit, which lives as long as the transaction.
                let transaction = unsafe {
                    transaction.with_call(libc::SYS_prlimit64, lower, ResultCheck::AnyResult)
                };
                // SAFETY: the call touches no memory.
                let transaction = unsafe {
                    transaction.with_call(libc::SYS_tgkill, sigsys, ResultCheck::AnyResult)
                };
                let _ = transaction.execute();
            });
            std::thread::sleep(WATCHDOG);
            support::end(1);
        }
        until(|| left.load(SeqCst) == 1);
        // Time for a first signal, which the queue refuses.
        std::thread::sleep(Duration::from_millis(300));
        // SAFETY: the kernel reads the structure.
        let raised =
            unsafe { libc::prlimit(pid, libc::RLIMIT_SIGPENDING, &limit, std::ptr::null_mut()) };
        assert_eq!(raised, 0);
        let status = support::reap(pid);
        killed_by_libpsx(status, begun, "the caller has left");
    });
}

static CALLS_AGAIN: AtomicBool = AtomicBool::new(false);
static SECOND: AtomicI32 = AtomicI32::new(0);

extern "C" fn land_and_call() -> ! {
    if CALLS_AGAIN.load(SeqCst) {
        SECOND.store(if set_slack(4).is_ok() { 1 } else { 2 }, SeqCst);
    }
    land()
}

/// Leaves the first trapped call, and answers the others.
extern "C" fn jumps_once(_: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    static JUMPED: AtomicBool = AtomicBool::new(false);
    if !JUMPED.swap(true, SeqCst) {
        return leave_by_jump(context, land_and_call);
    }
    emulator::answer(emulator::number(info), context);
}

/// The handler jumps out of the caller before a thread is held. The lock that it leaves behind is free for another thread,
/// and for itself.
#[test]
fn the_caller_leaves_before_it_holds_a_thread() {
    isolated("the_caller_leaves_before_it_holds_a_thread", WATCHDOG, || {
        // The caller that calls again needs answers.
        let variants: &[bool] = if emulator::can_answer() { &[false, true] } else { &[false] };
        for call in [libc::SYS_openat, libc::SYS_rt_sigaction, libc::SYS_rt_tgsigqueueinfo] {
            for &again in variants {
                forked(|| {
                    CALLS_AGAIN.store(again, SeqCst);
                    on_sigsys(jumps_once);
                    prepared(|| {});
                    // Our handler is there: without it, nothing can be asked of the owner of the lock.
                    set_slack(3).unwrap();
                    static GO: AtomicBool = AtomicBool::new(false);
                    std::thread::spawn(move || {
                        without_alternate_stack();
                        install(&trapping(&[call]));
                        GO.store(true, SeqCst);
                        let _ = set_slack(4);
                    });
                    until(|| GO.load(SeqCst) && LANDED.load(SeqCst) == 1);
                    assert_eq!(set_slack(5).unwrap().threads(), 3, "{call}");
                    all_slack(5);
                    assert_eq!(SECOND.load(SeqCst), i32::from(again), "{call}");
                });
            }
        }
    });
}

/// An asynchronous SIGSYS runs its handler in a held thread. The thread is held again afterwards.
#[test]
fn asynchronous_sigsys() {
    isolated("asynchronous_sigsys", WATCHDOG, || {
        static RUNS: AtomicUsize = AtomicUsize::new(0);
        static OVER: AtomicBool = AtomicBool::new(false);
        extern "C" fn counts(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
            RUNS.fetch_add(1, SeqCst);
        }
        on_sigsys(counts);
        without_alternate_stack();
        for _ in 0..4 {
            prepared(without_alternate_stack);
        }
        let sender = std::thread::spawn(|| {
            let parent = std::process::id() as i32;
            // The child makes raw calls until it is killed.
            let pid = support::fork();
            if pid == 0 {
                for _ in 0..500_000 {
                    // SAFETY: the call touches no memory.
                    unsafe { libc::kill(parent, libc::SIGSYS) };
                    // SAFETY: the call touches no memory.
                    unsafe { libc::usleep(20) };
                }
                support::end(0);
            }
            until(|| OVER.load(SeqCst));
            // SAFETY: the process is a child that has not been waited for.
            unsafe { libc::kill(pid, libc::SIGKILL) };
            support::reap(pid);
        });
        for value in 1..=1000 {
            assert_eq!(set_slack(value).unwrap().divergent(), 0);
        }
        OVER.store(true, SeqCst);
        sender.join().unwrap();
        println!("the handler ran {} times", RUNS.load(SeqCst));
        set_slack(5).unwrap();
        all_slack(5);
    });
}

fn write(fd: i32, bytes: &[u8]) {
    // SAFETY: the kernel reads the slice.
    let written = unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) };
    assert_eq!(written, bytes.len() as isize);
}

fn pipe() -> [i32; 2] {
    let mut ends = [0; 2];
    // SAFETY: the kernel writes two descriptors.
    assert_eq!(unsafe { libc::pipe(ends.as_mut_ptr()) }, 0);
    ends
}

/// A handler of SIGSYS forks out of a held thread, which waits in this call. The thread goes on in the child, where its
/// entry in the table of threads and the words of the stop are zero. The table has a mapping of its own for so many
/// threads. `bytes` are in the pipe that each thread reads a byte of, the caller first.
fn fork_out_of_a_held_thread(waits_in: libc::c_long, bytes: &[u8]) {
    static CHILD: AtomicI32 = AtomicI32::new(0);
    static FORKED: AtomicI32 = AtomicI32::new(-1);
    static BYTE: AtomicU8 = AtomicU8::new(0);
    static READY: AtomicBool = AtomicBool::new(false);
    extern "C" fn forks(_: i32) {
        let pid = cpu::fork_by_clone();
        if pid != 0 {
            CHILD.store(pid, SeqCst);
            write(FORKED.load(SeqCst), &[0]);
        }
    }
    // SAFETY: the handler makes raw calls. The interrupted call is restarted.
    unsafe { libc::signal(libc::SIGSYS, forks as *const () as usize) };
    let (parent, pipe, forked) = (std::process::id() as i32, pipe(), pipe());
    FORKED.store(forked[1], SeqCst);
    // The helper makes raw calls, reads files, and ends.
    let helper = support::fork();
    if helper == 0 {
        let of = |tid: i32, file| {
            std::fs::read_to_string(format!("/proc/{parent}/task/{tid}/{file}")).unwrap_or_default()
        };
        let target = || {
            let call = format!("{waits_in} ");
            let mut tids = proc::tids_of(&parent.to_string()).into_iter();
            tids.find(|&tid| of(tid, "comm") == "target\n" && of(tid, "syscall").starts_with(&call))
        };
        until(|| target().is_some());
        // SAFETY: tgkill touches no memory.
        unsafe { libc::syscall(libc::SYS_tgkill, parent, target().unwrap(), libc::SIGSYS) };
        let mut byte = 0u8;
        // SAFETY: the kernel writes a byte.
        assert_eq!(unsafe { libc::read(forked[0], (&raw mut byte).cast(), 1) }, 1);
        write(pipe[1], &[7; 1000]);
        support::end(0);
    }
    // The helper may read which call a thread is in, where Yama restricts that.
    // SAFETY: PR_SET_PTRACER touches no memory.
    unsafe { libc::prctl(libc::PR_SET_PTRACER, helper) };
    // The first four threads that are held wait with a time limit.
    sleepers(300);
    prepared(|| {});
    let body = move || {
        without_alternate_stack();
        READY.store(true, SeqCst);
        while std::process::id() as i32 == parent {
            std::thread::sleep(Duration::from_millis(1));
        }
        support::end(7);
    };
    std::thread::Builder::new().name("target".into()).spawn(body).unwrap();
    until(|| READY.load(SeqCst));
    write(pipe[1], bytes);
    let at = BYTE.as_ptr() as usize;
    let call = Broadcast::new(libc::SYS_read, [pipe[0] as usize, at, 1, 0, 0, 0]);
    // SAFETY: the kernel writes a byte of a static.
    let report = unsafe { call.deadline(WATCHDOG).execute_with_report() }.unwrap();
    assert_eq!((report.threads(), report.divergent()), (proc::tids().len(), 0));
    assert_eq!(support::reap(helper), 0);
    assert_eq!(support::reap(CHILD.load(SeqCst)), 7 << 8);
}

#[test]
fn a_held_thread_is_forked_in_its_call() {
    isolated("a_held_thread_is_forked_in_its_call", WATCHDOG, || {
        fork_out_of_a_held_thread(libc::SYS_read, &[7]);
    });
}

/// In the first stop of a process its words begin with zero, and so they are in the child.
#[test]
fn a_held_thread_is_forked_before_its_call() {
    isolated("a_held_thread_is_forked_before_its_call", WATCHDOG, || {
        fork_out_of_a_held_thread(libc::SYS_futex, &[]);
    });
}

/// A thread installs the handler when the caller has asked for one already, is held then, and leaves in its call.
#[test]
fn a_handler_that_comes_during_the_gather() {
    isolated("a_handler_that_comes_during_the_gather", WATCHDOG, || {
        for _ in 0..20 {
            forked(|| {
                static READY: AtomicBool = AtomicBool::new(false);
                prepared(|| {});
                std::thread::spawn(|| {
                    without_alternate_stack();
                    filter(libc::SYS_getpriority, libc::SECCOMP_RET_TRAP);
                    let signal_33 = 1 << (33 - 1);
                    support::set_mask(signal_33);
                    READY.store(true, SeqCst);
                    // SAFETY: gettid touches no memory.
                    let me = unsafe { libc::gettid() };
                    let pending = || proc::status(me).remove("SigPnd").unwrap();
                    while u64::from_str_radix(&pending(), 16).unwrap() & signal_33 == 0 {}
                    on_sigsys(jumps);
                    support::set_mask(0);
                    land()
                });
                until(|| READY.load(SeqCst));
                // SAFETY: getpriority touches no memory.
                let done = unsafe { getpriority(Sensitivity::Ignore).execute_with_report() };
                let report = done.unwrap();
                assert_eq!((report.threads(), report.divergent()), (3, 1), "{report:?}");
            });
        }
    });
}

/// The first call of a transaction installs the handler, which leaves the second one.
#[test]
fn a_handler_that_the_calls_install() {
    isolated("a_handler_that_the_calls_install", WATCHDOG, || {
        // The action in the kernel's form.
        let mut action = [0usize; 8];
        on_sigsys(jumps);
        let (none, at) = (std::ptr::null::<usize>(), action.as_mut_ptr());
        // SAFETY: the kernel writes its structure, which has less than eight words.
        let read = unsafe { libc::syscall(libc::SYS_rt_sigaction, libc::SIGSYS, none, at, 8) };
        assert_eq!(read, 0);
        // SAFETY: SIG_DFL runs no code.
        unsafe { libc::signal(libc::SIGSYS, libc::SIG_DFL) };
        prepared(|| {});
        leaves_on(libc::SYS_getpriority);
        let install = [libc::SIGSYS as usize, action.as_ptr() as usize, 0, 8, 0, 0];
        let any = ResultCheck::AnyResult;
        let transaction = Transaction::new().sensitivity(Sensitivity::Ignore);
        // SAFETY: the kernel reads the action, which outlives the transaction. The handler may run anywhere.
        let transaction = unsafe { transaction.with_call(libc::SYS_rt_sigaction, install, any) };
        // SAFETY: getpriority touches no memory.
        let transaction = unsafe { transaction.with_call(libc::SYS_getpriority, [0; 6], any) };
        let report = transaction.execute_with_report().unwrap();
        assert_eq!((report.threads(), report.divergent()), (4, 1), "{report:?}");
    });
}

/// The queue has room for one signal at a time. A thread that has got its signal gets no second one: with these the queue
/// would be full as long as the call takes.
#[test]
fn each_thread_gets_one_signal_while_the_queue_is_full() {
    const PLACES: usize = 8;
    const SIGNAL: i32 = 40;
    support::isolated_as_root(
        "each_thread_gets_one_signal_while_the_queue_is_full",
        WATCHDOG,
        || {
            // The queue belongs to a user.
            let user = 1_000_000 + std::process::id();
            let become_user = || {
                let places = PLACES as libc::rlim_t;
                let limit = libc::rlimit { rlim_cur: places, rlim_max: places };
                // SAFETY: the kernel reads the structure.
                assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_SIGPENDING, &limit) }, 0);
                // SAFETY: setresuid touches no memory of this program.
                unsafe { libc::setresuid(user, user, user) == 0 }
            };
            // Root of a user namespace may lack the user, and root of a container the right to see what its threads do.
            let became = support::shared_word();
            let probe = support::fork();
            if probe == 0 {
                became.store(if become_user() { 1 } else { 2 }, SeqCst);
                land()
            }
            until(|| became.load(SeqCst) != 0);
            let seen = std::fs::read(format!("/proc/{probe}/syscall")).is_ok();
            // SAFETY: the process was started here.
            unsafe { libc::kill(probe, libc::SIGKILL) };
            support::reap(probe);
            if became.load(SeqCst) != 1 || !seen {
                support::skipped("no other user, or its calls cannot be seen");
                return;
            }
            let bytes = pipe();
            let caller = support::fork();
            if caller == 0 {
                assert!(become_user());
                on_sigsys(jumps);
                sleepers(2);
                static BYTE: AtomicU8 = AtomicU8::new(0);
                let args = [bytes[0] as usize, BYTE.as_ptr() as usize, 1, 0, 0, 0];
                // SAFETY: the kernel writes a byte of a static.
                let done = unsafe { Broadcast::new(libc::SYS_read, args).execute() };
                support::end(i32::from(done.is_err()));
            }
            let read = format!("{} ", libc::SYS_read);
            let readers = || {
                let tids = proc::tids_of(&caller.to_string()).into_iter();
                let file = |tid| format!("/proc/{caller}/task/{tid}/syscall");
                let call = |tid| std::fs::read_to_string(file(tid)).unwrap_or_default();
                tids.filter(|&tid| call(tid).starts_with(&read)).count()
            };
            until(|| readers() == 1);
            // Another process fills the queue, and takes a signal out of it for each byte that it gets.
            let (orders, progress) = (pipe(), support::shared_word());
            let other = support::fork();
            if other == 0 {
                assert!(become_user());
                support::set_mask(1 << (SIGNAL - 1));
                // SAFETY: all-zero is a valid value of the union.
                let value: libc::sigval = unsafe { std::mem::zeroed() };
                // SAFETY: sigqueue touches no memory.
                while unsafe { libc::sigqueue(std::process::id() as i32, SIGNAL, value) } == 0 {}
                progress.store(1, SeqCst);
                let mut byte = 0u8;
                // SAFETY: the kernel writes a byte.
                while unsafe { libc::read(orders[0], (&raw mut byte).cast(), 1) } == 1 {
                    // SAFETY: the mask is a structure of integers, which sigaddset changes.
                    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
                    // SAFETY: it changes the structure.
                    unsafe { libc::sigaddset(&mut set, SIGNAL) };
                    let null = std::ptr::null_mut();
                    // SAFETY: the kernel reads the mask.
                    assert_eq!(unsafe { libc::sigwaitinfo(&set, null) }, SIGNAL);
                    progress.fetch_add(1, SeqCst);
                }
                support::end(0);
            }
            until(|| progress.load(SeqCst) == 1);
            write(bytes[1], &[1]);
            until(|| readers() == 2);
            let queued = || {
                let status = std::fs::read_to_string(format!("/proc/{caller}/status")).unwrap();
                let used = status.lines().find_map(|line| line.strip_prefix("SigQ:")).unwrap();
                used.split_once('/').unwrap().0.trim().parse::<usize>().unwrap()
            };
            // The two readers need one place each.
            for place in 1..=4 {
                write(orders[1], &[1]);
                until(|| progress.load(SeqCst) == 1 + place);
                let wanted = PLACES + 2 - usize::max(place, 2);
                until(|| queued() == wanted);
            }
            // Time for more signals.
            std::thread::sleep(Duration::from_millis(300));
            assert_eq!(queued(), PLACES - 2);
            write(bytes[1], &[1, 1]);
            assert_eq!(support::reap(caller), 0);
            // SAFETY: the descriptor belongs to this process.
            unsafe { libc::close(orders[1]) };
            // SAFETY: the other process was started here, and holds the pipe itself.
            unsafe { libc::kill(other, libc::SIGKILL) };
            support::reap(other);
        },
    );
}
