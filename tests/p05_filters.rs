//! Tests seccomp(2) filters that were written without libpsx in mind. They have to allow only a few calls (P5, P10).
#![allow(unsafe_code)]

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use libpsx::{Broadcast, Error, Requirement, ResultCheck, Sensitivity, Transaction};
use support::{
    block_all, filter, filter_futex, forked, header, install, isolated,
    killed_asleep_beside_a_thread_that_blocks_the_signal, no_new_privs, prepared, private, proc,
    program, set_slack, sleepers, traced,
};

const WATCHDOG: Duration = Duration::from_secs(30);

/// Installs a filter that kills the process for all calls but three, in every thread.
fn all_but_three(nr: libc::c_long, set: usize, mode: usize) {
    sleepers(3);
    no_new_privs().unwrap();
    let needed = [libc::SYS_futex, libc::SYS_rt_sigreturn, libc::SYS_rt_sigprocmask];
    let for_this_test = [libc::SYS_exit_group];
    let allowed = [&needed[..], &for_this_test[..]].concat();
    let (allow, kill) = (libc::SECCOMP_RET_ALLOW, libc::SECCOMP_RET_KILL_PROCESS);
    let program = program(&allowed, allow, kill);
    let program = header(&program);
    // SAFETY: the program outlives the call.
    let done = unsafe { libpsx::syscall3(nr, set, mode, &raw const program as usize) };
    // SAFETY: the call ends the process.
    unsafe { libc::syscall(libc::SYS_exit_group, i32::from(done.is_err())) };
}

#[test]
fn filter_of_the_call_forbids_all_but_three() {
    isolated("filter_of_the_call_forbids_all_but_three", WATCHDOG, || {
        all_but_three(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER as usize, 0);
    });
}

/// prctl(2) installs filters too.
#[test]
fn filter_of_prctl_forbids_all_but_three() {
    isolated("filter_of_prctl_forbids_all_but_three", WATCHDOG, || {
        let (set, mode) = (libc::PR_SET_SECCOMP as usize, libc::SECCOMP_MODE_FILTER as usize);
        all_but_three(libc::SYS_prctl, set, mode);
    });
}

/// During a slow call, the held thread checks whether the caller is alive.
#[test]
fn slow_call_beside_a_filtered_thread() {
    isolated("slow_call_beside_a_filtered_thread", WATCHDOG, || {
        // pause(3) is ppoll(2) on CPUs without pause(2).
        #[cfg(any(target_arch = "aarch64", target_arch = "riscv64", target_arch = "loongarch64"))]
        const PAUSE: libc::c_long = libc::SYS_ppoll;
        #[cfg(not(any(
            target_arch = "aarch64",
            target_arch = "riscv64",
            target_arch = "loongarch64"
        )))]
        const PAUSE: libc::c_long = libc::SYS_pause;
        static ALLOWED: [libc::c_long; 8] = [
            libc::SYS_futex,
            libc::SYS_rt_sigreturn,
            libc::SYS_rt_sigprocmask,
            libc::SYS_gettid,
            libc::SYS_tgkill,
            libc::SYS_restart_syscall,
            libc::SYS_nanosleep,
            PAUSE,
        ];
        // This is the only thread beside the caller, because only the first thread to arrive makes the check.
        forked(|| {
            prepared(|| {
                let (allow, kill) = (libc::SECCOMP_RET_ALLOW, libc::SECCOMP_RET_KILL_PROCESS);
                install(&program(&ALLOWED, allow, kill));
            });
            let time = libc::timespec { tv_sec: 0, tv_nsec: 250_000_000 };
            let arguments = [&raw const time as usize, 0, 0, 0, 0, 0];
            let call = Broadcast::new(libc::SYS_nanosleep, arguments);
            // SAFETY: nanosleep reads the time, which outlives the call.
            assert_eq!(unsafe { call.execute_with_report() }.unwrap().threads(), 2);
        });
    });
}

#[test]
fn without_a_clock_it_is_an_error() {
    isolated("without_a_clock_it_is_an_error", WATCHDOG, || {
        sleepers(2);
        let refuse = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
        filter(libc::SYS_clock_gettime, refuse);
        let error = set_slack(5).unwrap_err();
        assert!(
            matches!(error, Error::Environment { requirement: Requirement::Clock, .. }),
            "{error}"
        );
    });
}

/// A handler that emulates the call in a held thread makes a call itself.
#[test]
fn reentry_in_a_held_thread_is_an_error() {
    isolated("reentry_in_a_held_thread_is_an_error", WATCHDOG, || {
        static REENTERED: AtomicBool = AtomicBool::new(false);
        fn call(nr: libc::c_long) -> Result<libpsx::Report, Error> {
            let call = Broadcast::new(nr, [0; 6]).sensitivity(Sensitivity::Ignore);
            // SAFETY: getppid and getpriority touch no memory.
            unsafe { call.deadline(Duration::MAX).execute_with_report() }
        }
        extern "C" fn on_sigsys(_: i32) {
            let reentered = matches!(call(libc::SYS_getppid), Err(Error::Reentered));
            REENTERED.store(reentered, Ordering::SeqCst);
        }
        // SAFETY: the handler makes raw calls and stores to an atomic.
        unsafe { libc::signal(libc::SIGSYS, on_sigsys as *const () as usize) };
        prepared(|| {
            // Two handlers and their frames need more space than the alternate stack of std has.
            let none = libc::stack_t {
                ss_sp: std::ptr::null_mut(),
                ss_flags: libc::SS_DISABLE,
                ss_size: 0,
            };
            // SAFETY: the kernel reads the structure.
            unsafe { libc::sigaltstack(&none, std::ptr::null_mut()) };
            filter(libc::SYS_getpriority, libc::SECCOMP_RET_TRAP);
        });
        call(libc::SYS_getpriority).unwrap();
        assert!(REENTERED.load(Ordering::SeqCst));
    });
}

/// If a filter refuses the question how many threads sleep on a futex, libpsx asks for each thread.
#[test]
fn dead_threads_are_found_without_requeue() {
    isolated("dead_threads_are_found_without_requeue", WATCHDOG, || {
        sleepers(3);
        let refuse = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
        filter_futex(private(libc::FUTEX_REQUEUE), refuse);
        assert!(set_slack(4321).unwrap().threads() > 3);
        killed_asleep_beside_a_thread_that_blocks_the_signal();
    });
}

/// A filter answers in the kernel's place that there is no such thread. Nothing concludes from that that the caller is dead:
/// a watchdog asks after 50 ms.
#[test]
fn a_filter_that_says_that_no_thread_exists() {
    isolated("a_filter_that_says_that_no_thread_exists", WATCHDOG, || {
        let no_such_thread = libc::SECCOMP_RET_ERRNO | libc::ESRCH as u32;
        let filters: [fn(u32); 2] = [
            |action| filter(libc::SYS_tgkill, action),
            |action| filter_futex(private(libc::FUTEX_TRYLOCK_PI), action),
        ];
        for install in filters {
            forked(|| {
                prepared(move || install(no_such_thread));
                let time = libc::timespec { tv_sec: 0, tv_nsec: 250_000_000 };
                let arguments = [&raw const time as usize, 0, 0, 0, 0, 0];
                // SAFETY: the kernel reads the time.
                unsafe { Broadcast::new(libc::SYS_nanosleep, arguments).execute() }.unwrap();
            });
        }
    });
}

/// The kernel gives the filter to all threads, and the caller comes back from the call only later. Until then the held
/// threads have a filter, and make no call that it may forbid.
#[test]
fn a_caller_that_is_slow_to_return_from_its_filter() {
    isolated("a_caller_that_is_slow_to_return_from_its_filter", WATCHDOG, || {
        let child = || {
            // A watchdog asks after the caller in another way if the program has a handler for SIGSYS.
            extern "C" fn handles(_: i32) {}
            // SAFETY: the handler is a function of this type.
            unsafe { libc::signal(libc::SIGSYS, handles as *const () as usize) };
            sleepers(6);
            let forbidden = [libc::SYS_tgkill, libc::SYS_rt_tgsigqueueinfo];
            let (kill, allow) = (libc::SECCOMP_RET_KILL_THREAD, libc::SECCOMP_RET_ALLOW);
            let filter = program(&forbidden, kill, allow);
            let filter = header(&filter);
            let (set, tsync) = (libc::SECCOMP_SET_MODE_FILTER, libc::SECCOMP_FILTER_FLAG_TSYNC);
            let install = [set as usize, tsync as usize, &raw const filter as usize, 0, 0, 0];
            let no_new_privs = [libc::PR_SET_NO_NEW_PRIVS as usize, 1, 0, 0, 0, 0];
            let (calls, same) = (Transaction::new(), ResultCheck::SameResult);
            // SAFETY: PR_SET_NO_NEW_PRIVS touches no memory.
            let calls = unsafe { calls.with_call(libc::SYS_prctl, no_new_privs, same) };
            // SAFETY: the filter outlives the calls.
            let transaction = unsafe { calls.with_call(libc::SYS_seccomp, install, same) };
            assert_eq!(transaction.execute_with_report().unwrap().divergent(), 0);
            // A thread that was killed is gone, or is going.
            std::thread::sleep(Duration::from_millis(100));
            i32::from(proc::tids().len() != 7)
        };
        let slow = |call, ended| {
            if call == libc::SYS_seccomp && ended {
                std::thread::sleep(Duration::from_millis(300));
            }
        };
        let Some(status) = traced(child, slow) else { return };
        assert_eq!(status, 0);
    });
}

/// Signals cannot be blocked on the caller's thread. A handler that interrupts it makes a call of its own, which ends, and so
/// does the one that was interrupted, though the other thread is late.
#[test]
fn a_handler_makes_a_call_where_signals_cannot_be_blocked() {
    let name = "a_handler_makes_a_call_where_signals_cannot_be_blocked";
    isolated(name, WATCHDOG * 4, || {
        static CALLED: AtomicBool = AtomicBool::new(false);
        fn ends() {
            let call = support::slack(5).deadline(Duration::from_millis(1500));
            // SAFETY: PR_SET_TIMERSLACK touches no memory.
            let _ = unsafe { call.execute() };
        }
        extern "C" fn alarm(_: i32) {
            if !CALLED.swap(true, Ordering::SeqCst) {
                ends();
            }
        }
        for micros in [2_000, 10_000, 30_000, 50_000] {
            forked(|| {
                std::thread::spawn(|| {
                    support::block_all();
                    while !CALLED.load(Ordering::SeqCst) {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    std::thread::sleep(Duration::from_millis(100));
                    // SAFETY: the thread ends, and its stack stays.
                    unsafe { libc::syscall(libc::SYS_exit, 0) };
                });
                std::thread::sleep(Duration::from_millis(50));
                // The errno is 0: the call seems to succeed.
                filter(libc::SYS_rt_sigprocmask, libc::SECCOMP_RET_ERRNO);
                // SAFETY: the handler makes one call of this library.
                unsafe { libc::signal(libc::SIGALRM, alarm as *const () as usize) };
                // SAFETY: all fields of the structure are integers.
                let mut timer: libc::itimerval = unsafe { std::mem::zeroed() };
                timer.it_value.tv_usec = micros;
                // SAFETY: the kernel reads the structure.
                let set =
                    unsafe { libc::setitimer(libc::ITIMER_REAL, &timer, std::ptr::null_mut()) };
                assert_eq!(set, 0);
                ends();
            });
        }
    });
}

/// Another thread answers the notifications of prctl(2) that the caller's filter sends. It is held in the call, so that the
/// caller may ask no question there.
#[test]
fn a_held_thread_answers_for_the_caller() {
    isolated("a_held_thread_answers_for_the_caller", WATCHDOG, || {
        const RECEIVE: u64 = 0xc050_2100;
        const SEND: u64 = 0xc018_2101;
        const NEW_LISTENER: usize = 1 << 3;
        let (give, take) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let listener: i32 = take.recv().unwrap();
            loop {
                let mut notification = [0u64; 10];
                // SAFETY: struct seccomp_notif has 80 bytes.
                if unsafe { libc::ioctl(listener, RECEIVE as _, notification.as_mut_ptr()) } != 0 {
                    continue;
                }
                // SECCOMP_USER_NOTIF_FLAG_CONTINUE in the flags, which follow the error.
                let mut answer = [0u8; 24];
                answer[..8].copy_from_slice(&notification[0].to_ne_bytes());
                answer[20..].copy_from_slice(&1u32.to_ne_bytes());
                // SAFETY: struct seccomp_notif_resp has 24 bytes.
                unsafe { libc::ioctl(listener, SEND as _, answer.as_mut_ptr()) };
            }
        });
        no_new_privs().unwrap();
        let program =
            program(&[libc::SYS_prctl], libc::SECCOMP_RET_USER_NOTIF, libc::SECCOMP_RET_ALLOW);
        let program = header(&program);
        let install = libc::SECCOMP_SET_MODE_FILTER as usize;
        // SAFETY: the kernel reads the program, which lives.
        let listener = unsafe {
            libc::syscall(libc::SYS_seccomp, install, NEW_LISTENER, &raw const program as usize)
        };
        assert!(listener >= 0, "{}", std::io::Error::last_os_error());
        give.send(listener as i32).unwrap();
        // SAFETY: the call touches no memory.
        let report = unsafe { Broadcast::new(libc::SYS_getpriority, [0; 6]).execute_with_report() };
        assert_eq!(report.unwrap().threads(), proc::tids().len());
    });
}

/// A filter says that a call has succeeded, and the kernel has not made it. The question for other threads is not believed.
#[test]
fn a_filter_that_answers_success() {
    isolated("a_filter_that_answers_success", WATCHDOG, || {
        forked(|| {
            sleepers(3);
            filter(libc::SYS_unshare, libc::SECCOMP_RET_ERRNO);
            assert_eq!(set_slack(1234).unwrap().threads(), 4);
        });
        for (call, requirement) in [
            (libc::SYS_rt_sigaction, Requirement::SignalHandler),
            (libc::SYS_clock_gettime, Requirement::Clock),
        ] {
            forked(|| {
                prepared(block_all);
                filter(call, libc::SECCOMP_RET_ERRNO);
                match set_slack(1234) {
                    Err(Error::Environment { requirement: found, .. }) => {
                        assert_eq!(found, requirement);
                    }
                    other => panic!("{call}: {other:?}"),
                }
            });
        }
    });
}
