//! Every call ends, and the error names the threads that could not be stopped (P5).
#![allow(unsafe_code)]

mod support;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::thread::Thread;
use std::time::Duration;

use libpsx::{Broadcast, Error, UnreachableReason};
use support::{all_have, block_all, isolated, prepared, proc, reap, set_mask};

const WATCHDOG: Duration = Duration::from_secs(60);

static TID: AtomicI32 = AtomicI32::new(0);
static BLOCK: AtomicBool = AtomicBool::new(true);
static OPEN: AtomicBool = AtomicBool::new(false);
static DEAF: OnceLock<Thread> = OnceLock::new();

fn no_new_privs() -> Broadcast {
    Broadcast::new(libc::SYS_prctl, [libc::PR_SET_NO_NEW_PRIVS as usize, 1, 0, 0, 0, 0])
}

/// A thread that blocks every signal, also 33, from BLOCK to OPEN, and sleeps.
fn start_thread_that_blocks_the_signal() {
    spawn_thread_that_blocks_the_signal();
    wait_until_the_signal_is_blocked();
}

fn spawn_thread_that_blocks_the_signal() {
    let builder = std::thread::Builder::new().name("blocker".into());
    let run = || {
        while !BLOCK.load(Ordering::SeqCst) {
            std::thread::park();
        }
        block_all();
        // SAFETY: gettid touches no memory.
        TID.store(unsafe { libc::gettid() }, Ordering::SeqCst);
        while !OPEN.load(Ordering::SeqCst) {
            std::thread::park();
        }
        set_mask(0);
        loop {
            std::thread::park();
        }
    };
    DEAF.set(builder.spawn(run).unwrap().thread().clone()).unwrap();
}

fn tell(what: &AtomicBool) {
    what.store(true, Ordering::SeqCst);
    DEAF.get().unwrap().unpark();
}

fn wait_until_the_signal_is_blocked() {
    let asleep = |tid| proc::status(tid).get("State").is_some_and(|state| state.starts_with('S'));
    while TID.load(Ordering::SeqCst) == 0 || !asleep(TID.load(Ordering::SeqCst)) {
        std::thread::yield_now();
    }
}

/// Checks that the error names exactly the one thread that could not be stopped.
fn assert_blocking_thread_is_named(error: &Error) {
    let Error::Unreachable(threads) = error else { panic!("{error}") };
    let [thread] = threads.threads() else { panic!("{error}") };
    assert_eq!((thread.tid(), thread.name()), (TID.load(Ordering::SeqCst), "blocker"), "{error}");
    assert_eq!(thread.reason(), UnreachableReason::SignalBlocked, "{error}");
}

/// An earlier result of 1 is not taken for EPERM, as if the thread could not be signalled.
#[test]
fn an_earlier_result_is_no_obstacle() {
    isolated("an_earlier_result_is_no_obstacle", WATCHDOG, || {
        BLOCK.store(false, Ordering::SeqCst);
        spawn_thread_that_blocks_the_signal();
        let dumpable =
            Broadcast::new(libc::SYS_prctl, [libc::PR_GET_DUMPABLE as usize, 0, 0, 0, 0, 0]);
        // SAFETY: PR_GET_DUMPABLE touches no memory.
        assert_eq!(unsafe { dumpable.execute() }.unwrap(), 1);
        tell(&BLOCK);
        wait_until_the_signal_is_blocked();
        let call = no_new_privs().deadline(Duration::from_millis(40));
        // SAFETY: PR_SET_NO_NEW_PRIVS touches no memory.
        assert_blocking_thread_is_named(&unsafe { call.execute_with_report() }.unwrap_err());
    });
}

/// Forks a child that computes all the time. It ends after a while, whatever the result of the test is.
fn busy_process() -> i32 {
    // The child makes one raw call.
    let pid = support::fork();
    if pid == 0 {
        // SAFETY: the call touches no memory.
        unsafe { libc::alarm(support::watchdog(WATCHDOG).as_secs() as u32) };
        loop {
            std::hint::spin_loop();
        }
    }
    pid
}

/// Threads that do not answer only because the machine is busy.
#[test]
fn thread_that_only_waits_for_a_cpu_is_not_named() {
    isolated("thread_that_only_waits_for_a_cpu_is_not_named", WATCHDOG, || {
        let cpus = std::thread::available_parallelism().unwrap().get();
        let busy: Vec<i32> = (0..2 * cpus).map(|_| busy_process()).collect();
        for _ in 0..20 {
            prepared(|| {
                // Every user may set it.
                assert!(support::scheduler(libc::SCHED_IDLE, 0));
            });
        }
        start_thread_that_blocks_the_signal();
        for _ in 0..5 {
            let call = no_new_privs().deadline(Duration::from_millis(100));
            // SAFETY: PR_SET_NO_NEW_PRIVS touches no memory.
            assert_blocking_thread_is_named(&unsafe { call.execute_with_report() }.unwrap_err());
        }
        for pid in busy {
            // SAFETY: the process is a child that has not been waited for.
            unsafe { libc::kill(pid, libc::SIGKILL) };
            reap(pid);
        }
    });
}

fn queued_signals() -> i32 {
    let line = proc::status(TID.load(Ordering::SeqCst)).remove("SigQ").unwrap();
    line.split('/').next().unwrap().parse().unwrap()
}

#[test]
fn thread_that_blocks_the_signal_is_named() {
    isolated("thread_that_blocks_the_signal_is_named", WATCHDOG, || {
        // The kernel counts the queue per user, so the test takes a user id that no other process has.
        // SAFETY: the ids are numbers.
        let own = unsafe { libpsx::syscall3(libc::SYS_setresuid, 61234, 61234, 61234) }.is_ok();
        if !own {
            support::skipped("counting the signals of a separate user needs root");
        }
        start_thread_that_blocks_the_signal();
        let before = queued_signals();
        for _ in 0..20 {
            let call = no_new_privs().deadline(Duration::from_millis(40));
            // SAFETY: PR_SET_NO_NEW_PRIVS touches no memory.
            let error = unsafe { call.execute_with_report() }.unwrap_err();
            assert_eq!(error.raw_os_error(), libc::ETIMEDOUT);
            assert_blocking_thread_is_named(&error);
        }
        let queued = queued_signals();
        assert!(!own || queued <= before + 1, "signals accumulate: {before}, {queued}");
        all_have("NoNewPrivs", "0");
        tell(&OPEN);
        // SAFETY: PR_SET_NO_NEW_PRIVS touches no memory.
        unsafe { no_new_privs().execute_with_report() }.unwrap();
        all_have("NoNewPrivs", "1");
    });
}

#[test]
fn thread_that_opens_the_signal_in_time() {
    isolated("thread_that_opens_the_signal_in_time", WATCHDOG, || {
        start_thread_that_blocks_the_signal();
        std::thread::spawn(|| {
            std::thread::sleep(Duration::from_secs(2));
            tell(&OPEN);
        });
        // SAFETY: PR_SET_NO_NEW_PRIVS touches no memory.
        let report = unsafe { no_new_privs().execute_with_report() }.unwrap();
        println!("{} rounds, longest freeze {:?}", report.attempts(), report.max_pause());
        assert!(report.attempts() > 1);
        all_have("NoNewPrivs", "1");
    });
}

#[test]
fn signal_queue_used_up() {
    // SAFETY: geteuid touches no memory.
    if unsafe { libc::geteuid() } != 0 {
        support::skipped(
            "RLIMIT_SIGPENDING does not bind root, and only root can take another uid",
        );
        return;
    }
    isolated("signal_queue_used_up", WATCHDOG, || {
        std::thread::spawn(std::thread::park);
        // SAFETY: the ids are numbers.
        unsafe { libpsx::syscall3(libc::SYS_setresuid, 65534, 65534, 65534) }.unwrap();
        let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the kernel reads the structure.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_SIGPENDING, &none) }, 0);
        let call = no_new_privs().deadline(Duration::from_millis(200));
        // SAFETY: PR_SET_NO_NEW_PRIVS touches no memory.
        let error = unsafe { call.execute_with_report() }.unwrap_err();
        assert!(matches!(error, Error::SignalQueueFull), "{error}");
        all_have("NoNewPrivs", "0");
    });
}

/// The output of `main() -> Result<(), Error>`: it shows the names of the thread and of the error, and no list of
/// bytes.
#[test]
fn debug_of_an_error_shows_names() {
    isolated("debug_of_an_error_shows_names", WATCHDOG, || {
        prepared(|| {
            let name = c"worker-\xe9\"1";
            // SAFETY: the argument is a string.
            unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
            block_all();
        });
        // SAFETY: the call touches no memory.
        let error =
            unsafe { no_new_privs().deadline(Duration::from_millis(200)).execute_with_report() }
                .unwrap_err();
        let text = format!("{error:?}");
        assert!(text.contains("name: \"worker-\\xe9\\\"1\""), "{text}");
        assert!(text.contains("reason: SignalBlocked"), "{text}");
        let error = std::io::Error::from(error);
        assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
        let inside = error.get_ref().unwrap().downcast_ref::<Error>().unwrap();
        assert!(matches!(inside, Error::Unreachable(_)));

        let refused = libpsx::process::cap_ambient_lower(libpsx::process::Capability::KILL);
        let text = format!("{refused:?}");
        assert_eq!(text, "prctl(0x2f, 0x3, 0x5, 0x0, 0x0, 0x0)");
    });
}
