//! Simple cases of the main promises: all threads change, or none.
#![allow(unsafe_code)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use libpsx::{Broadcast, Error, RefusalReason, ResultCheck, Sensitivity};
use support::{isolated, isolated_status, killed_by_libpsx, proc, repeated};

const WATCHDOG: Duration = Duration::from_secs(30);

fn sleepers(count: usize) {
    let gate = Arc::new(std::sync::Barrier::new(count + 1));
    for _ in 0..count {
        let gate = gate.clone();
        std::thread::spawn(move || {
            gate.wait();
            loop {
                std::thread::park();
            }
        });
    }
    gate.wait();
}

#[test]
fn every_thread_has_no_new_privs() {
    isolated("every_thread_has_no_new_privs", WATCHDOG, || {
        sleepers(20);
        // SAFETY: PR_SET_NO_NEW_PRIVS touches no memory.
        let report = unsafe {
            Broadcast::new(libc::SYS_prctl, [libc::PR_SET_NO_NEW_PRIVS as usize, 1, 0, 0, 0, 0])
                .execute_with_report()
        }
        .unwrap();
        let seen = proc::field_in_every_thread("NoNewPrivs");
        assert_eq!(seen.len(), report.threads());
        assert!(seen.values().all(|value| value == "1"), "{seen:?}");
    });
}

#[test]
fn failing_call_changes_no_thread() {
    isolated("failing_call_changes_no_thread", WATCHDOG, || {
        sleepers(20);
        // SAFETY: prctl with an option that does not exist touches no memory.
        let error = unsafe { libpsx::syscall3(libc::SYS_prctl, 0x7fff_ffff, 1, 0) }.unwrap_err();
        assert!(
            matches!(error, Error::Call(errno) if errno.raw_os_error() == libc::EINVAL),
            "{error}"
        );
        assert!(error.to_string().contains("nothing changed"));
    });
}

#[test]
fn churn_is_covered() {
    isolated("churn_is_covered", WATCHDOG, || {
        sleepers(4);
        let stop = Arc::new(AtomicBool::new(false));
        let makers: Vec<_> = (0..2)
            .map(|_| {
                let stop = stop.clone();
                std::thread::spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        let old = std::thread::spawn(|| {
                            // SAFETY: PR_GET_TIMERSLACK touches no memory.
                            unsafe { libc::prctl(libc::PR_GET_TIMERSLACK) }
                        });
                        old.join().unwrap();
                    }
                })
            })
            .collect();
        for value in repeated(2000, WATCHDOG) {
            // SAFETY: PR_SET_TIMERSLACK touches no memory.
            unsafe {
                libpsx::syscall3(libc::SYS_prctl, libc::PR_SET_TIMERSLACK as usize, 1000 + value, 0)
            }
            .unwrap();
            let new = std::thread::spawn(|| {
                // SAFETY: PR_GET_TIMERSLACK touches no memory.
                unsafe { libc::prctl(libc::PR_GET_TIMERSLACK) }
            });
            assert_eq!(new.join().unwrap(), 1000 + value as i32);
        }
        stop.store(true, Ordering::Relaxed);
        makers.into_iter().for_each(|maker| maker.join().unwrap());
    });
}

#[test]
fn refused_calls_change_nothing() {
    isolated("refused_calls_change_nothing", WATCHDOG, || {
        sleepers(2);
        // The kernel reads the lower half of the number; on x86-64 it knows an x32 number besides; on s390x it reads 16 bits.
        let numbers = [
            libc::SYS_clone,
            #[cfg(target_pointer_width = "64")]
            (libc::SYS_clone | 1 << 32),
            #[cfg(target_arch = "x86_64")]
            (libc::SYS_clone | 0x4000_0000),
            #[cfg(target_arch = "s390x")]
            (libc::SYS_clone | 1 << 16),
        ];
        for nr in numbers {
            // SAFETY: refused before it is made.
            let error = unsafe { libpsx::syscall3(nr, 0, 0, 0) }.unwrap_err();
            assert!(matches!(error, Error::Refused(RefusalReason::CreatesTask)), "{error}");
        }
        #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
        {
            // SAFETY: getpid touches no memory; the kernel reads the lower half of the number.
            let pid = unsafe { libpsx::syscall3(libc::SYS_getpid | 1 << 32, 0, 0, 0) };
            match pid {
                // Before Linux 5.13, x86-64 knows no such number.
                Err(error) => assert_eq!(error.raw_os_error(), libc::ENOSYS),
                Ok(pid) => assert_eq!(pid as u32, std::process::id()),
            }
        }
    });
}

/// Makes a call whose result differs in every thread: gettid.
fn diverge(sensitivity: Sensitivity) -> usize {
    sleepers(3);
    let call = Broadcast::new(libc::SYS_gettid, [0; 6]).sensitivity(sensitivity);
    // SAFETY: gettid touches no memory.
    unsafe { call.execute_with_report() }.unwrap().divergent()
}

#[test]
fn divergence_ignored() {
    isolated("divergence_ignored", WATCHDOG, || {
        assert!(diverge(Sensitivity::Ignore) >= 3);
        let call = Broadcast::new(libc::SYS_gettid, [0; 6]).result_check(ResultCheck::AnySuccess);
        // SAFETY: gettid touches no memory.
        assert_eq!(unsafe { call.execute_with_report() }.unwrap().divergent(), 0);
    });
}

#[test]
fn divergence_warns() {
    let (status, output) = isolated_status("divergence_warns", WATCHDOG, || {
        assert!(diverge(Sensitivity::Warning) >= 3);
    });
    assert!(status.success(), "{status}");
    assert!(output.contains("libpsx: gettid(0x0"), "{output}");
}

#[test]
fn divergence_kills() {
    use std::os::unix::process::ExitStatusExt;
    let begun = Instant::now();
    let (status, output) = isolated_status("divergence_kills", WATCHDOG, || {
        diverge(Sensitivity::Error);
    });
    if killed_by_libpsx(status.into_raw(), begun, &output) {
        assert!(output.contains("process killed"), "{output}");
    }
}
